"""Who works on a cell: a claim is a small file in a folder that all processes see, and it needs no server and no lock.

The claim in force on a name is the one with the highest number, `<name>.<number>`, and it is made by a hard link, which
fails where that number exists already (on network file systems too). The claim of a dead process is not taken away
but outnumbered, so of two that find it dead only one gets the next number. Whoever gets a claim must look again whether
the work is still to be done: it may have been finished between the look and the claim.

A process of this machine is alive if its number and its starting time are those of a running one. Of another machine
(or container) only its heartbeat is known: a claim that was not renewed for `SILENT` seconds counts as dead.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

BEAT = 10.0  # seconds between two heartbeats
SILENT = 300.0  # seconds; far above BEAT, since network file systems show times late and machines stall


@dataclass(frozen=True)
class Owner:
    """Who holds a claim."""

    host: str
    place: str  # machine, its boot and its process numbers' name space: where `pid` means something
    pid: int
    started: str  # the process's starting time in clock ticks since boot: process numbers are used again

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class Claim:
    """A claim that this process holds; renewed by a thread until it is released."""

    def __init__(self, path: Path):
        self.path = path
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        while not self._released.wait(BEAT):
            try:
                os.utime(self.path)
            except OSError:  # a network file system that is away for a while; the next beat may reach it
                continue

    def release(self) -> None:
        """Give it back; others may take it at once."""
        self._released.set()
        self._thread.join()
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Claim:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()


def myself() -> Owner:
    """This process."""
    return Owner(socket.gethostname(), _place(), os.getpid(), _started(os.getpid()) or "")


def take(folder: Path, name: str) -> Claim | Owner:
    """The claim on a name, or who holds it. Raises OSError where the folder's file system knows no hard links."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{name}.{uuid.uuid4().hex}.part"
    part.write_text(json.dumps(asdict(myself())), encoding="utf-8")
    try:
        now = part.stat().st_mtime  # by the clock of the file system that also stamps the heartbeats
        number, owner = _newest(folder, name)
        if owner is not None and _alive(owner, folder / f"{name}.{number}", now):
            return owner
        path = folder / f"{name}.{number + 1}"
        try:
            os.link(part, path)
        except FileExistsError:
            return _read(path) or Owner("unknown", "", 0, "")
        return Claim(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def held(folder: Path, name: str) -> Iterator[None]:
    """Wait for the claim on a name and hold it for the block."""
    while not isinstance(claim := take(folder, name), Claim):
        time.sleep(0.05)
    with claim:
        yield


def forget(folder: Path, name: str) -> None:
    """Remove what dead processes left on a name. Only for work that is done: it frees numbers that were given out."""
    for number in _numbers(folder, name):
        (folder / f"{name}.{number}").unlink(missing_ok=True)


def owner_of(folder: Path, name: str) -> Owner | None:
    """Who holds the claim in force on a name, alive or not; None where there is none."""
    return _newest(folder, name)[1]


def _numbers(folder: Path, name: str) -> list[int]:
    found = (path.name.rpartition(".") for path in folder.glob("*"))
    return sorted(int(number) for base, _, number in found if base == name and number.isdecimal())


def _newest(folder: Path, name: str) -> tuple[int, Owner | None]:
    numbers = _numbers(folder, name)
    return (numbers[-1], _read(folder / f"{name}.{numbers[-1]}")) if numbers else (0, None)


def _read(path: Path) -> Owner | None:
    """None where it was released, or a crash of the machine left it empty."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Owner(str(values["host"]), str(values["place"]), int(values["pid"]), str(values["started"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _alive(owner: Owner, path: Path, now: float) -> bool:
    if owner.place == _place():
        return owner.pid > 0 and _started(owner.pid) == owner.started
    try:
        return now - path.stat().st_mtime < SILENT
    except FileNotFoundError:
        return False


def _place() -> str:
    """Host name, boot and process name space, as far as this system tells them."""
    parts = [socket.gethostname()]
    try:
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    except OSError:
        pass
    return "/".join(parts)


def _started(pid: int) -> str | None:
    """Starting time of a running process, "" on systems that do not tell; None where it is gone, or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    except FileNotFoundError:
        if Path("/proc/self").exists():
            return None
    except OSError:  # the process ended while it was read
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        return ""
    return ""
