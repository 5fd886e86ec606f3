"""`ffd serve`: a page on this machine that judges what is dropped on it and shows a lineage's history."""

from __future__ import annotations

import argparse
import contextlib
import errno
import importlib.util
import ipaddress
import socket
import sys
from pathlib import Path

import cv2
import torch

from ffd_continual.scenarios.errors import FFDError
from ffd_continual.serving.detector import Choice, InUse
from ffd_continual.serving.upload import in_words, read_bytes_limit, temporary_folder_writable
from ffd_continual.terminal import wrapped

NEEDED = ("fastapi", "uvicorn")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments, added to its (sub-)parser."""
    parser.add_argument("detector", type=Path, metavar="LINEAGE|RUN", help="a lineage, or a finished run's folder")
    parser.add_argument("--port", type=int, default=8321, help="default 8321; 0: any free one")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    parser.add_argument("--yes-expose", action="store_true", help="allow a --host that others can reach")
    parser.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME", help="a name it is reached by, too"
    )
    parser.add_argument("--max-upload", default="50MB", metavar="SIZE", help="of one picture or video (default 50MB)")
    parser.add_argument("--no-neighbours", action="store_true", help="do not show the nearest stored faces")
    parser.add_argument("--fpr", type=float, help="false alarms allowed, as in ffd predict (default 0.05)")
    parser.add_argument("--band", type=float, help="misses allowed among faces called real (default 0.05; 0: none)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), help="default: the run's")
    parser.add_argument("--threads", type=int, help="of torch; default: the run's")


def check_packages() -> None:
    """Raises FFDError with the command that installs what is missing."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise FFDError(f"the page needs {' and '.join(missing)}: pip install 'ffd-continual[serve]'.")


def is_loopback(address: str) -> bool:
    """Whether an IP address can only be reached from this machine."""
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def listen(host: str, port: int, exposed: bool) -> socket.socket:
    """A socket that listens there. Raises FFDError for a host that is unknown or reachable unasked, or a taken port."""
    if not 0 <= port <= 65535:
        raise FFDError(f"--port {port}: choose 0 to 65535, best above 1023.")
    try:
        family, kind, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, UnicodeError) as error:
        raise FFDError(f"--host {host!r} is not known here ({error}). Leave it out, or give an IP address.") from error
    if not is_loopback(str(place[0])) and not exposed:
        raise FFDError(
            f"--host {host} can be reached by other machines, and the page asks nobody for a password. Leave --host "
            "out to serve this machine only, reach it by `ssh -L 8321:127.0.0.1:8321`, or add --yes-expose."
        )
    made = socket.socket(family, kind)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(place)
        made.listen(128)
    except OSError as error:
        made.close()
        if error.errno == errno.EADDRINUSE:
            text = f"port {port} of {host} is in use, perhaps by another `ffd serve`. Choose another: --port {port + 1}"
        elif error.errno == errno.EACCES:
            text = f"port {port} is kept for the system. Choose one above 1023, such as --port 8321"
        else:
            text = f"cannot listen on {host}, port {port} ({error.strerror or error}). Is it an address of this machine"
        raise FFDError(text + ("?" if text.endswith("machine") else ".")) from error
    return made


def address(host: str, port: int) -> str:
    """What to type into a browser."""
    shown = f"[{host}]" if ":" in host else host
    return "http" + f"://{shown}:{port}/"


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C."""
    check_packages()
    limit = read_bytes_limit(args.max_upload)
    temporary_folder_writable()
    with listen(args.host, args.port, args.yes_expose) as made:
        use = InUse(args.detector, Choice(args.fpr, args.band, args.device), not args.no_neighbours)
        torch.set_num_threads(args.threads or use.current().detector.config.train.threads)
        cv2.setNumThreads(1)
        return _serve(args, use, made, limit)


def _serve(args: argparse.Namespace, use: InUse, made: socket.socket, limit: int) -> int:
    import uvicorn

    from ffd_continual.serving.app import Limits, create_app
    from ffd_continual.serving.guard import LOCAL, Hosts
    from ffd_continual.serving.patience import settings

    host, port = made.getsockname()[:2]
    local = is_loopback(host)
    names = LOCAL | {name.lower() for name in args.allow_host} | {args.host.lower()}
    if not local:
        names |= {socket.gethostname().lower()}
        warning = (
            "WARNING: other machines can reach this page. Whoever can sees the faces that the lineage keeps and may "
            "send files, without a password and unencrypted."
        )
        print(wrapped(warning), file=sys.stderr)
    app = create_app(use, Limits(upload=limit), Hosts(frozenset(names), addresses=not local))
    text = f"{use.current().detector.version} of {args.detector} at {address(host, port)}\n"
    print(text + wrapped(f"Files up to {in_words(limit)} are judged and not kept. Ctrl-C ends it."), flush=True)
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn hands the signal on once it has stopped
        uvicorn.Server(settings(app)).run(sockets=[made])
    print("\nstopped.", file=sys.stderr)
    return 0
