"""What every request of the page passes: whose it is, and what a browser may do with the answer.

A page on the internet may point a name of its own at 127.0.0.1 and so read what listens there (DNS rebinding). The
Host header then holds that name: on the loopback interface only the loopback's own names are answered. Requests that
another page makes a browser send carry that page's Origin: they are refused, and no CORS header is ever sent.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src blob:; "
    "connect-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
#: A report is one file with its styles inside and no script; it may stand in this page's frame and do nothing else.
REPORT_POLICY = (
    "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'"
)
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\[\]:/@\s]+)(?::\d{1,5})?")


def refusal(status: int, text: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """The form of every error: {"error": text, "status": status}."""
    return JSONResponse({"error": text, "status": status}, status, headers)


def host_name(header: str) -> str:
    """The name in a Host header, lower case, without port and brackets; "" where it is none."""
    found = _HOST.fullmatch(header)
    return found.group(1).strip("[]").lower().rstrip(".") if found else ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class Hosts:
    """Names that this server answers to; `addresses`: and to any IP address, which no name can be rebound from."""

    names: frozenset[str] = LOCAL
    addresses: bool = False

    def knows(self, header: str) -> bool:
        """Whether a Host header names this server."""
        name = host_name(header)
        return name in self.names or (self.addresses and _is_address(name))


class Guard:
    """ASGI middleware: refuses strangers, and adds the headers that keep an answer where it belongs."""

    def __init__(self, app: ASGIApp, hosts: Hosts):
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        wrong = self._wrong(Headers(scope=scope), scope["method"])
        if wrong is not None:
            await wrong(scope, receive, _with_headers(send))
            return
        await self.app(scope, receive, _with_headers(send))

    def _wrong(self, headers: Headers, method: str) -> JSONResponse | None:
        host = headers.get("host", "")
        if not self.hosts.knows(host):
            return refusal(
                421,
                "this server does not answer to that name. Open it by the address that `ffd serve` printed; for "
                "another name start it with --allow-host NAME.",
            )
        origin = headers.get("origin")
        foreign = origin is not None and origin.partition("://")[2].lower() != host.lower()
        if method not in ("GET", "HEAD") and (foreign or headers.get("sec-fetch-site") in ("cross-site", "same-site")):
            return refusal(403, "another page may not send requests here.")
        return None


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.setdefault("Content-Security-Policy", POLICY)
            headers.setdefault("Cache-Control", "no-store")
            headers["X-Content-Type-Options"] = "nosniff"
            headers["Referrer-Policy"] = "no-referrer"
            headers["Cross-Origin-Resource-Policy"] = "same-origin"
            headers["Cross-Origin-Opener-Policy"] = "same-origin"
        await send(message)

    return sending
