"""What a prediction is asked about: pictures, videos, folders of them, lists on stdin; walked, never gathered."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.pictures import PICTURE_SUFFIXES

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp"})
LONGEST = 32_000  # pixels of a picture's longer side: OpenCV can address no more


def too_long(height: int, width: int) -> str | None:
    """Why a picture of so many pixels is not judged, told before one is decoded; None where it is."""
    return f"{width} x {height} pixels are too long and narrow" if max(height, width) > LONGEST else None


@dataclass(frozen=True)
class Input:
    """A file to judge; `name` is its path as it is written, in characters that every format can hold."""

    path: Path
    video: bool

    @property
    def name(self) -> str:
        """The path; bytes that are no UTF-8 become \\xNN."""
        return str(self.path).encode("utf-8", "backslashreplace").decode("utf-8")


def as_input(path: Path) -> Input:
    """A file by its suffix; what is no video is read as a picture, whatever it is called."""
    return Input(path, path.suffix.lower() in VIDEO_SUFFIXES)


def walk_folder(root: Path) -> Iterator[Input]:
    """Pictures and videos below a folder in the order of their names; hidden ones and others are passed over.

    Links to folders are followed, each folder once. Raises FFDError for a folder that cannot be looked into.
    """
    seen: set[str] = set()

    def stop(error: OSError) -> None:
        raise FFDError(f"cannot look into the folder {error.filename}: {error.strerror or error}.") from error

    for folder, below, files in os.walk(root, followlinks=True, onerror=stop):
        true = os.path.realpath(folder)
        below[:] = [] if true in seen else sorted(name for name in below if not name.startswith("."))
        if true in seen:
            continue
        seen.add(true)
        for name in sorted(files):
            suffix = os.path.splitext(name)[1].lower()
            if not name.startswith(".") and suffix in PICTURE_SUFFIXES | VIDEO_SUFFIXES:
                yield as_input(Path(folder, name))


def walk_inputs(paths: Sequence[str], stdin: TextIO | None = None) -> Iterator[Input]:
    """Every file that the words of a command line name, in order; "-" is a list on stdin, one path a line.

    A file that is not there is given all the same: reading it tells what is wrong. The same file twice in a row counts
    once.
    """
    last: Path | None = None
    for found in _each(paths, sys.stdin if stdin is None else stdin):
        if found.path != last:
            yield found
        last = found.path


def _each(paths: Sequence[str], stdin: TextIO) -> Iterator[Input]:
    for word in paths:
        lines = (line.rstrip("\r\n") for line in stdin) if word == "-" else (word,)
        for line in lines:
            path = Path(line)
            if line.strip() and path.is_dir():
                yield from walk_folder(path)
            elif line.strip():
                yield as_input(path)
