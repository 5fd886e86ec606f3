"""Frozen features of the faces that every version is measured on, computed once for all additions.

Where a learner's first layers never change, what they say of a test face never changes either; an addition then
computes it for its own new faces only, and reads the rest. A feature is a pure function of the prepared picture: it is
computed in batches of one fixed size, filled up with black ones, so that the faces that happen to stand beside a face
do not move its last bits, and a store that was deleted (`ffd forget` does) is made again as it was. Entries are named
by the pictures' bytes, folders by the frozen layers, so nothing stale can be read. Axes: U faces, F features.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from ffd_continual.scenarios.array_store import KEY, ArrayStore
from ffd_continual.scenarios.kept import Kept
from ffd_continual.scenarios.table import FaceTable
from ffd_continual.scenarios.views import to_planes

BATCH = 64
FOLDER = "judged"
Features = npt.NDArray[np.float16]
Frozen = Callable[[torch.Tensor], torch.Tensor]


def shared(table: FaceTable) -> FaceTable:
    """The table in which rows whose labels, prepared pictures and masks are the same share one: real faces that came
    with several forgeries are then judged once."""
    found: dict[bytes, int] = {}
    lead = np.arange(len(table.pictures))
    labels = np.zeros(len(lead), np.int64)
    labels[table.slot] = table.rows["label"]
    for slot, one in enumerate(keys_of(table)):
        mask = np.ascontiguousarray(table.masks[slot]).tobytes() if len(table.masks) else b""
        told = bytes([int(labels[slot]), bool(table.mask_known[slot])])
        lead[slot] = found.setdefault(one + hashlib.sha256(mask).digest() + told, slot)
    return replace(table, slot=lead[table.slot])


def keys_of(table: FaceTable) -> list[bytes]:
    """A digest of each prepared picture."""
    return [hashlib.sha256(np.ascontiguousarray(picture).tobytes()).digest()[:KEY] for picture in table.pictures]


def compute(table: FaceTable, slots: npt.NDArray[np.int64], frozen: Frozen) -> Features:
    """(n, F) of the pictures at these slots, in batches of exactly BATCH."""
    size, parts = table.size, []
    black = np.zeros((size, size, 3), np.uint8)
    for start in tqdm(range(0, len(slots), BATCH), desc="features of new test faces", unit=f"x{BATCH}", leave=False):
        chunk = [np.asarray(table.pictures[slot]) for slot in slots[start : start + BATCH]]
        planes = to_planes(chunk + [black] * (BATCH - len(chunk)))
        parts.append(frozen(torch.from_numpy(planes)).half().cpu().numpy()[: len(chunk)])
    return np.concatenate(parts)


def judged_features(table: FaceTable, frozen: Frozen, key: str, cache: Path) -> Kept:
    """The table's faces as kept features without views, from the store in `cache` where they are known, else computed
    and added to it. `key` names the frozen layers and how they are run."""
    folder = cache / FOLDER / hashlib.sha256(f"{key}|{table.size}|{BATCH}".encode()).hexdigest()[:16]
    keys, store = keys_of(table), ArrayStore(folder)
    first = {one: slot for slot, one in reversed(list(enumerate(keys)))}
    new = np.array(sorted(slot for one, slot in first.items() if one not in store), np.int64)
    if len(new):
        store.add([keys[slot] for slot in new], {"features": compute(table, new, frozen)})
    plain = store.rows("features", keys)
    none = np.zeros(0, np.float16)
    nowhere = np.full(len(keys), -1, np.int64)
    return Kept(1, nowhere, nowhere, plain, none, np.zeros(0, np.uint8), none, np.zeros(0, np.uint8))


def clear(cache: Path) -> None:
    """Remove what a lineage's cache holds besides the store."""
    for entry in cache.iterdir() if cache.is_dir() else ():
        if entry.name == FOLDER:
            continue
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink(missing_ok=True)
