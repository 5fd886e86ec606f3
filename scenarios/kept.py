"""Kept features: what frozen layers make of a few fixed views of every face, computed once and read by every run.

Where a learner's first layers never change, a step's pictures need not pass them again: V views a training face are
drawn once (a pure function of the face and the view's number), their features are stored, and a step chooses among
them. A step then takes milliseconds. The features are invalid as soon as faces, views or frozen layers change, so the
file's name is a hash of all three. Axes: U faces, T training faces, R real ones, V views, F features, G mask cells.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from ffd_continual.scenarios.forging.selfblend import self_blend
from ffd_continual.scenarios.table import FaceTable
from ffd_continual.scenarios.views import ViewConfig, draw_view, keyed_generator, to_planes

GRID = 12
_VIEW, _BLEND = 909, 910
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Kept:
    """Stored features, float16; `place` and `real_place` lead from a table's slot to its row, or are -1."""

    views: int
    place: npt.NDArray[np.int64]  # (U,) -> 0..T-1
    real_place: npt.NDArray[np.int64]  # (U,) -> 0..R-1
    plain: Array  # (U, F) the face as it is
    viewed: Array  # (T, V, F)
    masks: Array  # (T, V, G, G) bytes: share of forged pixels
    blended: Array  # (R, V, F) self-blended, or (0,)
    blended_masks: Array  # (R, V, G, G)


def _places(slots: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    place = np.full(count, -1, np.int64)
    place[slots] = np.arange(len(slots))
    return place


def _coarse(mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.asarray(cv2.resize(mask, (GRID, GRID), interpolation=cv2.INTER_AREA), np.uint8)


class _Maker:
    """Makes one (slot, view) at a time: picture and coarse mask."""

    def __init__(self, table: FaceTable, views: ViewConfig):
        self.table, self.views = table, views

    def plain(self, slot: int, _: int) -> tuple[Array, Array]:
        return np.asarray(self.table.pictures[slot]), np.zeros((GRID, GRID), np.uint8)

    def viewed(self, slot: int, number: int) -> tuple[Array, Array]:
        view = draw_view(self.views, self.table.size, keyed_generator(_VIEW, slot, number))
        mask = self.table.masks[slot] if len(self.table.masks) else np.zeros((self.table.size,) * 2, np.uint8)
        return view.apply(np.asarray(self.table.pictures[slot])), _coarse(view.geometry(np.asarray(mask)))

    def blended(self, slot: int, number: int) -> tuple[Array, Array]:
        rng = keyed_generator(_BLEND, slot, number)
        made, where = self_blend(np.asarray(self.table.pictures[slot]), np.asarray(self.table.landmarks[slot]), rng)
        view = draw_view(self.views, self.table.size, rng)
        return view.apply(made), _coarse(view.geometry(where))


def _features(
    make: Callable[[int, int], tuple[Array, Array]],
    slots: npt.NDArray[np.int64],
    views: int,
    frozen: Callable[[Tensor], Tensor],
    title: str,
) -> tuple[Array, Array]:
    jobs = [(int(slot), number) for slot in slots for number in range(views)]
    parts, masks = [], []
    for start in tqdm(range(0, len(jobs), 64), desc=title, unit="x64", leave=False):
        made = [make(*job) for job in jobs[start : start + 64]]
        parts.append(frozen(torch.from_numpy(to_planes([picture for picture, _ in made]))).half().cpu().numpy())
        masks += [mask for _, mask in made]
    features = np.concatenate(parts).reshape(len(slots), views, -1)
    return features, np.stack(masks).reshape(len(slots), views, GRID, GRID)


def keep_features(
    table: FaceTable,
    views: ViewConfig,
    count: int,
    frozen: Callable[[Tensor], Tensor],
    frozen_key: str,
    cache: Path,
) -> Kept:
    """Compute or read the kept features of a table. `frozen_key` names the frozen layers and their weights."""
    train = (table.rows["stream"] == "train").to_numpy()
    real = (table.rows["label"] == 0).to_numpy()
    slots = np.unique(table.slot[train])
    usable = np.asarray(np.isfinite(np.asarray(table.landmarks)).all((1, 2)))
    reals = np.unique(table.slot[train & real & usable[table.slot]])
    digest = hashlib.sha256(f"{views}|{count}|{frozen_key}|{table.size}".encode())
    digest.update(slots.tobytes() + reals.tobytes())
    for start in range(0, len(table.pictures), 4096):
        digest.update(np.ascontiguousarray(table.pictures[start : start + 4096]).tobytes())
        digest.update(np.ascontiguousarray(table.masks[start : start + 4096]).tobytes())  # they are kept, coarsely
    folder = cache / f"kept-{digest.hexdigest()[:16]}"
    if not (folder / "done.json").is_file():
        maker = _Maker(table, views)
        every = np.arange(len(table.pictures))
        plain, _ = _features(maker.plain, every, 1, frozen, "features of faces")
        viewed, masks = _features(maker.viewed, slots, count, frozen, "features of views")
        empty = (np.zeros((0,), np.float16), np.zeros((0,), np.uint8))
        made = _features(maker.blended, reals, count, frozen, "features of blends") if len(reals) else empty
        arrays = {"plain": plain[:, 0], "viewed": viewed, "masks": masks, "blended": made[0], "blended_masks": made[1]}
        part = folder.with_name(f"{folder.name}.{os.getpid()}.part")
        try:
            part.mkdir(parents=True, exist_ok=True)
            for name, values in arrays.items():
                np.save(part / f"{name}.npy", values)
            (part / "done.json").write_text(json.dumps({"faces": len(every), "views": count}))
        except OSError:
            shutil.rmtree(part, ignore_errors=True)
            raise
        try:
            part.rename(folder)
        except OSError:  # another run was first, with the same bytes
            shutil.rmtree(part, ignore_errors=True)
    names = ("plain", "viewed", "masks", "blended", "blended_masks")
    stored = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in names}
    return Kept(count, _places(slots, len(table.pictures)), _places(reals, len(table.pictures)), **stored)
