"""Where frames come from: what the readers of videos, folders, archives and pictures have in common.

Positions count what a source holds from 0; a frame's `number` is its name in the data (a video's position, the last
number in a picture's file name). Nothing here follows a name out of the data set's root.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.pictures import Picture

Positions = npt.NDArray[np.int64]
Seconds = npt.NDArray[np.float64]
_DIGITS = re.compile(r"(\d+)\D*$")
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,79}")
MAX_FRAMES = 1000
MAX_REMARKS = 100


class ItemError(FFDError):
    """One item that cannot be used; the rest goes on."""


@dataclass
class Remarks:
    """(path relative to the root, cause) of what was left out of an item that is used all the same."""

    listed: list[tuple[str, str]] = field(default_factory=list)
    more: int = 0

    def add(self, path: str, cause: str) -> None:
        """Note one cause; of an archive with a million bad members the first `MAX_REMARKS` are named."""
        if len(self.listed) < MAX_REMARKS:
            self.listed.append((path, cause))
        else:
            self.more += 1

    def all(self, path: str) -> list[tuple[str, str]]:
        """What was noted, and how much was not."""
        return self.listed + ([(path, f"{self.more} more were left out of it")] if self.more else [])


class Source(Protocol):
    """Frames in order. `times` are seconds from the first frame, None where there is no clock."""

    count: int
    numbers: Positions
    times: Seconds | None

    def frames(self, wanted: Sequence[int]) -> Iterator[tuple[int, Picture]]:
        """(position, uint8 RGB (H, W, 3)) of the wanted ascending positions that can be read, one at a time."""
        ...


def spread(count: int, number: int) -> list[int]:
    """`number` positions out of 0..count-1, evenly over the whole: the middles of as many equal parts.

    All of them where there are no more. The middles leave out the very first and last frame, which are often black.
    """
    if not 1 <= number <= MAX_FRAMES:
        raise FFDError(f"--frames {number} is out of range: choose 1 to {MAX_FRAMES} frames of each video.")
    if count <= number:
        return list(range(max(count, 0)))
    return [(2 * at + 1) * count // (2 * number) for at in range(number)]


def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sorts "frame2" before "frame10"; the name itself decides among equals."""
    parts = re.split(r"([0-9]+)", name)
    return (*((1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts), (0, 0, name))


def numbers_of(names: Sequence[str]) -> Positions:
    """The last number in each file name; positions where one has none, too large a one, or two are equal."""
    found = [_DIGITS.search(os.path.splitext(os.path.basename(name))[0]) for name in names]
    numbers = [int(match.group(1)) if match and len(match.group(1)) < 16 else -1 for match in found]
    if len(set(numbers)) < len(numbers) or min(numbers, default=0) < 0:
        return np.arange(len(names), dtype=np.int64)
    return np.asarray(numbers, np.int64)


def inside(root: Path, name: str) -> Path:
    """The path of `name` below `root`. Raises ItemError for one that leaves it: absolute, "..", or over a link."""
    if not name or "\0" in name:
        raise ItemError("refused: it has no usable name")
    if os.path.isabs(name) or ".." in name.replace("\\", "/").split("/"):
        raise ItemError("refused: its name leads out of the data set's folder")
    path, true = root / name, os.path.realpath(root)
    try:
        end = os.path.realpath(path)
    except OSError as error:
        raise ItemError(f"cannot be looked at: {error.strerror or error}") from error
    if end != true and not end.startswith(true.rstrip("/") + "/"):
        raise ItemError(f"refused: a link out of the data set's folder, to {end}")
    return path


def slug(name: str) -> str:
    """A name as a relative path that is safe anywhere: letters, digits, "_" and "-".

    A part that had to change carries a hash of the whole name, so two names never share a place.
    """
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:10]
    parts = []
    for part in name.split("/"):
        safe = re.sub(r"[^A-Za-z0-9_-]", "_", part)[:60].lstrip("-_")
        parts.append(part if _PLAIN.fullmatch(part) else f"{safe or 'x'}-{digest}")
    if len(parts) > 8:
        parts = [*parts[:7], f"x-{digest}"]
    return "/".join(parts)
