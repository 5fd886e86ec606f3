"""Rows of arrays by key, on disk: what was made of a face once is read again by every table that shows the face.

A store is a folder of parts; a part is only ever added, whole, and holds the keys and one file an array. Whoever
computes something pure of its key may keep it here; a store may be deleted at any time. Axes: n keys, P parts.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt

KEY = 16  # bytes of a key
Array = npt.NDArray[Any]


class ArrayStore:
    """Arrays of rows under keys of KEY bytes; all rows of one name have one shape and type."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._parts: list[dict[str, Array]] = []
        self._place: dict[bytes, tuple[int, int]] = {}  # key -> part, row
        for part in sorted(folder.glob("part-*")):
            arrays = {path.stem: np.load(path, mmap_mode="r") for path in part.glob("*.npy")}
            self._join(np.asarray(arrays.pop("keys")), arrays)

    def __contains__(self, key: bytes) -> bool:
        return key in self._place

    def _join(self, keys: Array, arrays: dict[str, Array]) -> None:
        self._place |= {key.tobytes(): (len(self._parts), row) for row, key in enumerate(keys)}
        self._parts.append(arrays)

    def add(self, keys: Sequence[bytes], arrays: Mapping[str, Array]) -> None:
        """Keep a row of every array for each key. Raises OSError where the disk refuses; then nothing was added."""
        if not keys:
            return
        packed = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, KEY)
        part = self.folder / f"{uuid4().hex[:12]}.part"
        part.mkdir(parents=True, exist_ok=True)
        try:
            for name, values in {"keys": packed, **arrays}.items():
                np.save(part / f"{name}.npy", values)
            part.rename(self.folder / f"part-{len(self._place):09d}-{part.stem}")
        except OSError:
            shutil.rmtree(part, ignore_errors=True)
            raise
        self._join(packed, dict(arrays))

    def rows(self, name: str, keys: Sequence[bytes], out: Array | None = None) -> Array:
        """The rows of these keys, all of which are known: (n, ...), written into `out` where it is given."""
        places = np.array([self._place[key] for key in keys], np.int64).reshape(-1, 2)
        first = self._parts[0][name]
        made = np.empty((len(keys), *first.shape[1:]), first.dtype) if out is None else out
        for part in np.unique(places[:, 0]):
            at = np.flatnonzero(places[:, 0] == part)
            made[at] = self._parts[int(part)][name][places[at, 1]]
        return made
