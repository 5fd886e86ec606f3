"""Writing to a lineage: the lock, the log, pictures by content, and how a candidate becomes a version.

Every write is whole or not there. A version exists from the moment its folder has its number; what follows (naming it
promoted, the log) is made up for by the next writer if a kill came between.
"""

from __future__ import annotations

import fcntl
import getpass
import hashlib
import json
import os
import re
import shutil
import socket
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from ffd_continual.lineage.lineage import PATHS, Lineage, open_lineage, write_promoted
from ffd_continual.runs.checkpoint import sync
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.pictures import write_bytes

PROMOTED, ANYWAY, REFUSED = "promoted", "promoted anyway", "refused"


def now() -> str:
    """UTC, to the second, ISO 8601."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def who() -> str:
    """user@machine: all that the log tells of a person who writes."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"


@contextmanager
def writing(path: Path) -> Iterator[Lineage]:
    """The lineage, locked for this process. Raises FFDError that names the other writer; ends what a kill left undone.

    The lock is the operating system's: it goes with the process, so no stale one is left behind.
    """
    lineage = open_lineage(path)
    with (lineage.path / "lock").open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise FFDError(f"{path} is being written by {holder}. Wait until it ends, or stop it.") from error
        file.seek(0)
        file.truncate()
        command = " ".join(["ffd", *sys.argv[1:]])[:200]
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {now()} ({command})")
        file.flush()
        try:
            _make_up(lineage)
            yield lineage
        finally:
            file.seek(0)
            file.truncate()


def append_log(lineage: Lineage, event: str, version: int | None = None, **more: Any) -> None:
    """One line {time, who, event, version, ...}, on disk when this returns."""
    entry = {"time": now(), "who": who(), "event": event, "version": version, **more}
    torn = lineage.log.is_file() and not lineage.log.read_bytes().endswith(b"\n") and lineage.log.stat().st_size > 0
    with lineage.log.open("a", encoding="utf-8") as file:
        file.write(("\n" if torn else "") + json.dumps(entry, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_log(lineage: Lineage) -> list[dict[str, Any]]:
    """All entries; a line that a kill cut short is left out."""
    if not lineage.log.is_file():
        return []
    found = []
    for line in lineage.log.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            found.append(entry)
    return found


def subject_of(lineage: Lineage, name: str) -> str:
    """What the log calls a person or picture that was forgotten: a salted hash, so that it names nobody."""
    secret = str(lineage.settings().get("salt", ""))
    return hashlib.sha256(f"{secret}|{name}".encode()).hexdigest()[:16]


def forgotten(lineage: Lineage, names: Iterable[str]) -> set[str]:
    """Those of the names (of persons, hashes of pictures) that were forgotten."""
    subjects = {entry.get("subject") for entry in read_log(lineage) if entry.get("event") == "forget"}
    return {name for name in names if name and subject_of(lineage, name) in subjects} if subjects else set()


def _make_up(lineage: Lineage) -> None:
    """A version without a line in the log was sealed by a process that was killed right then."""
    logged = {entry.get("version") for entry in read_log(lineage)}
    for number in lineage.versions():
        if number not in logged:
            _announce(lineage, number, made_up=True)


def _announce(lineage: Lineage, number: int, **more: Any) -> None:
    about = lineage.about(number)
    if about["verdict"] in (PROMOTED, ANYWAY):
        write_promoted(lineage, number)
    words = {key: about[key] for key in ("forgery", "parent", "verdict", "worst_drop") if about.get(key) is not None}
    append_log(lineage, about["kind"], number, **words, **more)


def next_number(lineage: Lineage) -> int:
    """Numbers are never used twice."""
    return max(lineage.versions(), default=0) + 1


def seal(lineage: Lineage, candidate: Path, number: int) -> None:
    """The finished candidate becomes version `number`, is named promoted if its verdict says so, and is logged."""
    target = lineage.folder(number)
    target.parent.mkdir(parents=True, exist_ok=True)
    candidate.rename(target)
    sync(target.parent)
    _announce(lineage, number)


def digest_of(path: Path) -> str:
    """SHA-256 of a file, 64 hex digits. Raises FFDError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise FFDError(f"cannot read {path}: {error.strerror or error}.") from error


def keep_picture(lineage: Lineage, path: str) -> str:
    """Copy a picture into the lineage, once; its place there, relative to the lineage. Bytes are those of the file."""
    source = Path(path)
    if source.is_absolute() and source.is_relative_to(lineage.faces.resolve()):
        return source.relative_to(lineage.path.resolve()).as_posix()
    digest = digest_of(source)
    suffix = source.suffix.lower() if re.fullmatch(r"\.[a-zA-Z]{3,4}", source.suffix) else ""
    place = lineage.faces / digest[:2] / f"{digest}{suffix}"
    if not place.is_file():
        place.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(place, source.read_bytes())
    return place.relative_to(lineage.path).as_posix()


def drop_candidate(lineage: Lineage) -> bool:
    """Remove the version under way; False where there is none. Pictures that only it used go with `sweep_faces`."""
    there = lineage.candidate.is_dir()
    shutil.rmtree(lineage.candidate, ignore_errors=True)
    shutil.rmtree(lineage.candidate.with_name("candidate.part"), ignore_errors=True)
    return there


def sweep_faces(lineage: Lineage) -> int:
    """Remove pictures that no version names; how many."""

    used: set[str] = set()
    for number in lineage.versions():
        for name in ("faces.parquet", "exemplars.parquet"):
            rows = pd.read_parquet(lineage.folder(number) / name, columns=list(PATHS))
            used |= {str(cell) for column in PATHS for cell in rows[column]}
    removed = 0
    for path in lineage.faces.glob("*/*"):
        if path.relative_to(lineage.path).as_posix() not in used:
            path.unlink()
            removed += 1
    return removed
