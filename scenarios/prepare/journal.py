"""What is finished: OUT/prepare.jsonl, one line an item, appended once its crops lie on the disk.

The first line holds the settings, which must stay the same. A kill can leave half a line at the end: it is cut off and
its item made again, over the same file names. Lines come in the order of completion; the manifest is put together in
the order of the listing. Of several lines for one item the last counts.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ffd_continual.scenarios.errors import FFDError, is_full
from ffd_continual.scenarios.prepare.masks import Record
from ffd_continual.scenarios.prepare.settings import PrepareConfig

NAME = "prepare.jsonl"
VERSION = 1  # raised when the same settings would give other crops


class Journal:
    """Holds where each item's line lies, not the lines."""

    def __init__(self, out: Path, dataset: str, config: PrepareConfig) -> None:
        self.path = out / NAME
        self._places: dict[str, tuple[str, int, int]] = {}  # item: (key, offset, bytes)
        self.shards: dict[str, str] = {}  # finished shard: what it holds
        settings = {"version": VERSION, "dataset": dataset, **asdict(config)}
        try:
            out.mkdir(parents=True, exist_ok=True)
            if not self.path.exists() or self.path.stat().st_size == 0:
                if any(name != NAME for name in os.listdir(out)):
                    raise FFDError(f"{out} is not empty and holds no unfinished work: choose another folder for --out.")
                self.path.write_text(json.dumps(settings) + "\n", "utf-8")
            self._file = self.path.open("r+b", buffering=0)
            try:
                self._lock(out)
                self._read(settings, out)
            except FFDError:
                self._file.close()
                raise
            self._file.truncate(self._end)
            self._file.seek(self._end)
        except OSError as error:
            raise FFDError(f"cannot write into {out}: {error.strerror}. Choose another folder for --out.") from error

    def _lock(self, out: Path) -> None:
        """Two processes in one folder would both do everything; the system drops the lock with its holder."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FFDError(
                f"another `ffd prepare` is at work in {out}: wait for it, or choose another folder."
            ) from error

    def _read(self, settings: dict[str, Any], out: Path) -> None:
        self._end = 0
        with self.path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                try:
                    entry = json.loads(line)
                except ValueError:
                    entry = {}
                if self._end == 0:
                    changed = sorted(key for key in {*settings, *entry} if entry.get(key) != settings.get(key))
                    if changed:
                        raise FFDError(
                            f"{out} was begun with another {', '.join(changed)}: repeat that, or choose another folder."
                        )
                elif "shard" in entry:
                    self.shards[str(entry["shard"])] = str(entry["holds"])
                elif "video" in entry and "key" in entry:
                    self._places[str(entry["video"])] = (str(entry["key"]), self._end, len(line))
                self._end += len(line)
        if self._end == 0:  # killed within the very first line
            data = (json.dumps(settings) + "\n").encode()
            self.path.write_bytes(data)
            self._end = len(data)

    def __contains__(self, video: str) -> bool:
        return video in self._places

    def __len__(self) -> int:
        return len(self._places)

    def videos(self) -> list[str]:
        """Names of all items that have a record."""
        return list(self._places)

    def key(self, video: str) -> str:
        """What the item's record was made from, "" without a record."""
        return self._places[video][0] if video in self._places else ""

    def place(self, video: str) -> tuple[str, int, int] | None:
        """(file, offset, bytes) of an item's line, from which any process can `read_line` it."""
        return (str(self.path), *self._places[video][1:]) if video in self._places else None

    def record(self, video: str) -> Record:
        """An item's record. KeyError where there is none."""
        _, offset, size = self._places[video]
        return read_line((str(self.path), offset, size))

    def digest(self, video: str) -> str:
        """Names the content of an item's line, "" without one."""
        if video not in self._places:
            return ""
        _, offset, size = self._places[video]
        with self.path.open("rb") as file:
            file.seek(offset)
            return hashlib.sha256(file.read(size)).hexdigest()[:16]

    def add(self, record: Record, key: str) -> None:
        """Append a finished item's line."""
        offset, size = self._append({**record, "key": key})
        self._places[str(record["video"])] = (key, offset, size)

    def add_shard(self, name: str, holds: str) -> None:
        """Append a finished shard's line."""
        self._append({"shard": name, "holds": holds})
        self.shards[name] = holds

    def _append(self, entry: dict[str, Any]) -> tuple[int, int]:
        data = (json.dumps(entry, separators=(",", ":"), allow_nan=False) + "\n").encode()
        try:
            left = memoryview(data)
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            # What a full disk took of the line must not stand before the next one.
            self._file.truncate(self._end)
            self._file.seek(self._end)
            if is_full(error):
                text = f"the disk is full: cannot write {self.path}. Make room; the same command goes on."
                raise FFDError(text) from error
            raise
        offset, self._end = self._end, self._end + len(data)
        return offset, len(data)

    def close(self) -> None:
        """Close the file, on the disk."""
        os.fsync(self._file.fileno())
        self._file.close()


def read_line(place: tuple[str, int, int]) -> Record:
    """The record at (file, offset, bytes)."""
    path, offset, size = place
    with open(path, "rb") as file:
        file.seek(offset)
        record: Record = json.loads(file.read(size))
    return record
