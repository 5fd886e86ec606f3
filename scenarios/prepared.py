"""What a prepared face depends on, as keys: a whole table is read again by its key, or single faces by theirs.

A table that shares most of its faces with an earlier one (a lineage measures each version on all earlier test faces)
reads its new ones and takes the others from a store. Axes: n rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ffd_continual.scenarios.array_store import KEY, ArrayStore
from ffd_continual.scenarios.capture import CaptureProfile
from ffd_continual.scenarios.shard_paths import file_stamp

CACHE_VERSION = 5
_KEYED = ("path", "mask", "pair", "profile", "label", "manifest_row", "landmarks")
Arrays = dict[str, npt.NDArray[Any]]
Read = tuple[Arrays, dict[int, str]]  # arrays of rows, and why row i could not be read


def _stamp(path: str) -> str:
    if not path:
        return ""
    try:
        size, changed = file_stamp(path)
    except OSError:
        return "missing"
    return f"{size},{changed}"


def table_key(rows: pd.DataFrame, size: int, seed: int, profiles: dict[str, CaptureProfile], needs: str) -> str:
    """Names the content: rows, files (size and time of change), cameras and size; 16 hex digits."""
    digest = hashlib.sha256(f"{CACHE_VERSION}|{size}|{seed}|{needs}".encode())
    digest.update(repr(sorted((k, repr(v)) for k, v in profiles.items())).encode())
    # All that a prepared face depends on: also its number, which its camera draw hangs on, its label and landmarks.
    for cells in zip(*(rows[name] for name in _KEYED), strict=True):
        digest.update(f"{cells}|{[_stamp(str(path)) for path in cells[:3]]}\n".encode())
    return digest.hexdigest()[:16]


def face_keys(rows: pd.DataFrame, how: str) -> list[bytes]:
    """A key for each row, like the table's; a face's number counts only where a camera draws by it."""
    columns = [rows[name].tolist() for name in _KEYED]
    stamps = {path: _stamp(str(path)) for path in {cell for column in columns[:3] for cell in column}}
    found = []
    for cells in zip(*columns, strict=True):
        path, mask, pair, profile, label, number, landmarks = cells
        drawn = (profile, number) if profile else ()
        text = f"{CACHE_VERSION}|{how}|{(path, mask, pair, drawn, label, landmarks)}|{[stamps[c] for c in cells[:3]]}"
        found.append(hashlib.sha256(text.encode()).digest()[:KEY])
    return found


def read_new(
    rows: pd.DataFrame, how: str, folder: Path, read: Callable[[pd.DataFrame], Read]
) -> tuple[Arrays, dict[int, str], npt.NDArray[np.int64]]:
    """`read` of the rows that the store in `folder` does not hold, which are added to it; the others are taken there.
    Rows that are the same face through and through share an entry of the arrays: the third answer tells each row's.

    how: names what `read` does. Where a row cannot be read nothing is added, and nothing shared.
    """
    store = ArrayStore(folder / f"faces-{hashlib.sha256(how.encode()).hexdigest()[:16]}")
    every = face_keys(rows, how)
    first = {key: row for row, key in reversed(list(enumerate(every)))}
    keys = sorted(first, key=first.__getitem__)
    new = [first[key] for key in keys if key not in store]
    arrays, bad = read(rows.iloc[new])
    if bad or not keys:
        return *read(rows), np.arange(len(rows))
    missing = {name: values for name, values in arrays.items() if name in ("masks", "pairs") and values.ndim == 1}
    held = {name: values for name, values in arrays.items() if name not in missing}
    if "masks" in held:  # 0 or 255
        held["masks"] = np.packbits(arrays["masks"] > 0, axis=-1)
    store.add([every[row] for row in new], held)
    found = {name: store.rows(name, keys) if name in held else values for name, values in arrays.items()}
    if "masks" in held:
        size = found["pictures"].shape[1]
        found["masks"] = np.unpackbits(found["masks"], axis=-1, count=size) * np.uint8(255)
    entry = {key: at for at, key in enumerate(keys)}
    return found, {}, np.array([entry[key] for key in every], np.int64)
