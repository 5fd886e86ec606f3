"""How long a connection may keep the server waiting: for a request's head, for its body, for its answer to be read.

uvicorn waits for ever for the second half of a head, and a client that trickles a byte now and then looks alive for as
long as it likes. Here each wait ends a fixed time after it began, whatever came meanwhile; and where all connections
are taken, the one that has kept silent longest makes room.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

CONNECTIONS = 256  # open at a time; more are answered with 503
CROWD = 192  # from here on silent ones make room
IDLE = 20.0  # seconds that a connection without a request stays open
HEAD, BODY, LEFT = "head", "body", "left"  # what is waited for; LEFT: the rest of a body that was answered already


@dataclass(frozen=True)
class Patience:
    """Seconds from the beginning of each wait to its end."""

    head: float = 20.0  # from the connection, or the last answer, to the end of a request's head
    body: float = 150.0  # more than an upload may take, which is answered in words
    left: float = 10.0  # in which a client that still sends may read why it was refused
    answer: float = 60.0  # in which nothing of an answer is taken

    def of(self, waiting: str) -> float:
        """Seconds for a wait."""
        return {HEAD: self.head, BODY: self.body, LEFT: self.left}[waiting]


class PatientProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 with the ends of its waits."""

    patience = Patience()
    _wait: tuple[str, Any] | None = None  # what for, in which request
    _timer: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None
    since = 0.0  # when the wait began, on the loop's clock

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The wait for the first head begins; where it is crowded, somebody who waits longer has to go."""
        super().connection_made(transport)
        self._watch()
        open_ones = [one for one in self.connections if isinstance(one, PatientProtocol) and not one._closing()]
        if len(open_ones) > CROWD:
            silent = [one for one in open_ones if one._wait is not None and one._wait[0] == HEAD]
            min(silent, key=lambda one: one.since).transport.close()  # at least this one is

    def data_received(self, data: bytes) -> None:
        """Something came, which alone prolongs nothing."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """An answer was written."""
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """No wait is left."""
        super().connection_lost(exc)
        self._set(None)
        self._read()

    def pause_writing(self) -> None:
        """The client does not read."""
        super().pause_writing()
        self._unread = self.loop.call_later(self.patience.answer, self.transport.abort)

    def resume_writing(self) -> None:
        """It reads again."""
        super().resume_writing()
        self._read()

    def _closing(self) -> bool:
        return self.transport.is_closing()

    def _read(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _waiting(self) -> tuple[str, Any] | None:
        answered = self.cycle is None or self.cycle.response_complete
        if self.conn.their_state is h11.SEND_BODY:
            return (LEFT if answered else BODY), self.cycle
        return (HEAD, self.cycle) if answered and self.conn.their_state is h11.IDLE else None

    def _watch(self) -> None:
        waiting = None if self._closing() else self._waiting()
        if waiting != self._wait:
            self._set(waiting)

    def _set(self, waiting: tuple[str, Any] | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._wait, self._timer, self.since = waiting, None, self.loop.time()
        if waiting is not None:
            self._timer = self.loop.call_later(self.patience.of(waiting[0]), self._end)

    def _end(self) -> None:
        """The wait is over: half a head is answered in words, all else just closed."""
        if self._wait is not None and self._wait[0] == HEAD and self.conn.trailing_data[0]:
            text = f"the head of a request did not come whole within {self.patience.head:g} seconds."
            told = json.dumps({"error": text, "status": 408}).encode()
            kind = (("content-type", "application/json"), ("content-length", str(len(told))), ("connection", "close"))
            start = h11.Response(status_code=408, headers=list(kind), reason="Request Timeout")
            for event in (start, h11.Data(data=told), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event))
        self.transport.close()


def settings(app: FastAPI, patience: Patience | None = None) -> uvicorn.Config:
    """How the page is served: no more than HTTP/1.1, nothing logged of a request, every wait with an end."""
    own = type("OwnProtocol", (PatientProtocol,), {"patience": patience or Patience()})
    return uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        lifespan="on",
        loop="asyncio",
        http=own,
        ws="none",
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=2,
        timeout_keep_alive=int(IDLE),
        server_header=False,
        proxy_headers=False,
    )
