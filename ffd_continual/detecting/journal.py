"""Records of a prediction on disk: JSON Lines as they come, CSV and Parquet at the end; a stopped one goes on.

Records of one input stand together, inputs in the order in which they were asked for. So a file that was cut off tells
by itself where to go on: behind the last input that another one follows. CSV and Parquet are gathered beside their
place, in OUT.part.jsonl, and written whole when everything is judged.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from ffd_continual.scenarios.errors import FFDError, is_full

Record = dict[str, Any]
TYPES = {
    "path": pa.string(), "kind": pa.string(), "frame": pa.int64(), "face": pa.int64(), "box": pa.string(),
    "score": pa.float64(), "z": pa.float64(), "decision": pa.string(), "attribution": pa.string(),
    "weights": pa.string(), "novelty": pa.float64(), "frames": pa.int64(), "neighbours": pa.string(),
    "overlay": pa.string(), "note": pa.string(), "error": pa.string(), "version": pa.string(), "fpr": pa.float64(),
    "band": pa.float64(),
}  # fmt: skip
COLUMNS = tuple(TYPES)
SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".parquet")
SETTINGS = ("version", "fpr", "band")  # what all records of a file share
CHUNK = 5000


def _flat(record: Record) -> list[Any]:
    """A record's cells in the order of COLUMNS; lists and mappings as JSON text."""
    return [json.dumps(v) if isinstance(v := record.get(name), list | dict) else v for name in COLUMNS]


def read_lines(path: Path) -> Iterator[tuple[int, Record]]:
    """(byte at which it starts, record) of every whole line. Raises FFDError on a line that is no record."""
    start = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                record = json.loads(line)
                if not isinstance(record, dict) or not isinstance(record.get("path"), str):
                    raise ValueError("no record")
            except ValueError as error:
                raise FFDError(
                    f"{path}, line {number}, is no record of a prediction ({error}). Give another --out, or "
                    "--overwrite to write it anew."
                ) from error
            yield start, record
            start += len(line)


class Journal:
    """Where records go: `write` them, then `close`. Without a path, to a stream."""

    def __init__(self, path: Path | None, settings: Record, overwrite: bool = False, stream: TextIO | None = None):
        """settings: the values of SETTINGS, which a file that is gone on with must share. Raises FFDError otherwise, on
        a finished CSV or Parquet, and on a suffix that is not known."""
        self.path, self.stream = path, sys.stdout if stream is None else stream
        self.lines: Path | None = None
        self.whole = 0  # bytes that stay of a file that was begun
        self.file: io.BufferedWriter | None = None
        self.written = False
        if path is None:
            return
        if path.suffix.lower() not in SUFFIXES:
            raise FFDError(f"--out {path}: the suffix tells the format; known are {', '.join(SUFFIXES)}.")
        gathered = path.suffix.lower() in (".csv", ".parquet")
        self.lines = path.with_name(path.name + ".part.jsonl") if gathered else path
        if gathered and path.exists() and not overwrite:
            raise FFDError(f"{path} is there already. Give another --out, or --overwrite to write it anew.")
        if overwrite:
            self.lines.unlink(missing_ok=True)
        elif self.lines.is_file():
            self.whole = self._begun(settings)
        self.lines.parent.mkdir(parents=True, exist_ok=True)
        self.file = self.lines.open("ab")

    def _begun(self, settings: Record) -> int:
        """Bytes up to the last input's first record: whether that input is whole cannot be known."""
        assert self.lines is not None
        last, at = None, 0
        for start, record in read_lines(self.lines):
            if start == 0:
                for name in SETTINGS:
                    if record.get(name) != settings.get(name):
                        raise FFDError(
                            f"{self.lines} was begun with {name} {record.get(name)}, now it is {settings.get(name)}. "
                            "Give another --out, or --overwrite to write it anew."
                        )
            if record["path"] != last:
                last, at = record["path"], start
        return at

    def done(self) -> Iterator[str]:
        """Names of the inputs that are judged already, in order."""
        if self.lines is None or self.whole == 0:
            return
        last = None
        for start, record in read_lines(self.lines):
            if start >= self.whole:
                return
            if record["path"] != last:
                last = record["path"]
                yield last

    def write(self, records: Iterable[Record]) -> None:
        """Append records, each with all of COLUMNS, and hand them to the system. FFDError on a full disk."""
        if self.file is not None and not self.written:
            self.file.truncate(self.whole)  # not before: a wrong list of inputs must not cost a record
        self.written = True
        for record in records:
            line = json.dumps({name: record.get(name) for name in COLUMNS}) + "\n"
            if self.file is None:
                self.stream.write(line)
            else:
                self.file.write(line.encode())
        try:
            (self.stream if self.file is None else self.file).flush()
        except OSError as error:
            if not is_full(error):
                raise
            raise FFDError(
                f"the disk is full: cannot write {self.lines}. Make room; the same command goes on."
            ) from error

    def close(self, finished: bool) -> None:
        """End; a finished CSV or Parquet gets its name."""
        if self.file is not None:
            try:
                self.file.close()
            except OSError:
                if finished:  # else what could not be written was told, with the file's name
                    raise
        if finished and self.path is not None and self.lines is not None and self.lines != self.path:
            part = self.path.with_name(self.path.name + ".part")
            (self._parquet if self.path.suffix.lower() == ".parquet" else self._csv)(part)
            part.replace(self.path)
            self.lines.unlink()

    def _records(self) -> Iterator[Record]:
        assert self.lines is not None
        return (record for _, record in read_lines(self.lines))

    def _csv(self, part: Path) -> None:
        with part.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows(_flat(record) for record in self._records())

    def _parquet(self, part: Path) -> None:
        schema = pa.schema(list(TYPES.items()))
        records = self._records()
        with pq.ParquetWriter(part, schema) as writer:
            while chunk := [_flat(record) for record in islice(records, CHUNK)]:
                columns = [
                    pa.array(cells, TYPES[n]) for n, cells in zip(COLUMNS, zip(*chunk, strict=True), strict=True)
                ]
                writer.write_table(pa.table(columns, schema=schema))
