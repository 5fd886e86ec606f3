"""From rows to whole batches, for the step loader and for measuring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from ffd_continual.scenarios.batch import OPTIONAL_NEEDS, Batch
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.forging.selfblend import self_blend
from ffd_continual.scenarios.kept import Kept
from ffd_continual.scenarios.streams import Scenario
from ffd_continual.scenarios.table import FaceTable
from ffd_continual.scenarios.views import ViewConfig, draw_view, keyed_generator, to_planes

Rows = npt.NDArray[np.int64]


class Request(NamedTuple):
    """A training batch to make: its rows, and the key that all its randomness hangs on."""

    rows: tuple[int, ...]
    experience: int
    step: int


@dataclass(frozen=True)
class Sources:
    """What every face of a run is made from; shared by all loaders and workers, never written."""

    table: FaceTable
    views: ViewConfig
    needs: frozenset[str]
    seed: int
    forgery: Rows
    experience: Rows  # (N,) index of the experience, -1 in unseen streams
    video: Rows
    siblings: dict[int, Rows]  # video -> its rows of one label; only when "other" is needed
    kept: Kept | None = None  # features in place of pictures


def make_sources(
    table: FaceTable,
    scenario: Scenario,
    views: ViewConfig,
    needs: frozenset[str],
    wants: frozenset[str],
    seed: int,
) -> Sources:
    """Check what the learner needs against what the rows can give, before any training; wants are met where possible.

    Raises FFDError naming the column that is missing and what to do.
    """
    unknown = (needs | wants) - OPTIONAL_NEEDS
    if unknown:
        raise FFDError(f"the learner needs {sorted(unknown)}, which no batch holds. Known: {sorted(OPTIONAL_NEEDS)}.")
    given = _given(table)
    for need in sorted(needs - given):
        raise FFDError(
            f"the learner needs {_COLUMNS[need]}, and no training face has it. Fill it (`ffd forge` does; "
            "docs/manifest.md), or choose another learner or switch that part off (`ffd list learners`)."
        )
    needs = needs | (wants & given)
    video = table.ids("person")
    order = {name: i for i, name in enumerate(scenario.experiences)}
    experience = np.array([order.get(e, -1) for e in table.rows["experience"]], np.int64)
    experience[(table.rows["stream"] == "unseen").to_numpy()] = -1
    siblings: dict[int, Rows] = {}
    if "other" in needs:
        # A picture of no video has no other frame; video names count within their data set.
        clip = table.rows["video"].where(table.rows["video"] != "", table.rows["path"])
        keys = table.rows.assign(clip=clip).groupby(["experience", "stream", "dataset", "clip", "forgery"]).indices
        for rows in keys.values():
            for row in rows:
                siblings[int(row)] = np.asarray(rows, np.int64)
    return Sources(table, views, needs, seed, table.ids("forgery"), experience, video, siblings)


_COLUMNS = {
    "mask": "the manifest's column mask of forged faces",
    "pair": "the manifest's column pair of forged faces",
    "pseudo": "the manifest's column landmarks of real faces (68 points), to make self-blended faces",
    "other": "several frames of a video (the manifest's columns video and frame)",
}


def _given(table: FaceTable) -> frozenset[str]:
    """The optional batch fields that the training rows can fill for at least one face."""
    train = (table.rows["stream"] == "train").to_numpy()
    label = table.rows["label"].to_numpy()
    real, forged = table.slot[train & (label == 0)], table.slot[train & (label == 1)]
    frames = (
        table.rows[train & (table.rows["video"] != "").to_numpy()].groupby(["video", "forgery", "experience"]).size()
    )
    found = {
        "view2": True,
        "mask": bool(table.mask_known[forged].any()) and len(table.masks) > 0,
        "pair": bool(table.pair_known[forged].any()) and len(table.pairs) > 0,
        "pseudo": bool(np.isfinite(table.landmarks[real]).all((1, 2)).any()),
        "other": bool((frames > 1).any()),
    }
    return frozenset(name for name, there in found.items() if there)


def plain_batch(sources: Sources, rows: Sequence[int], pictures: bool = True) -> Batch:
    """Faces without any view, as evaluation and prediction see them; kept features unless `pictures`."""
    table = sources.table
    index = np.asarray(rows, np.int64)
    slots = table.slot[index]
    kept = sources.kept if not pictures else None
    images = to_planes([table.pictures[i] for i in slots]) if kept is None else np.zeros((len(index), 0), np.float32)
    none = np.zeros((len(index), 0), np.float32)
    unknown = np.zeros(len(index), bool)
    masks, mask_known = none, unknown
    if len(table.masks):
        masks, mask_known = to_planes([table.masks[i] for i in slots]), table.mask_known[slots]
    frozen = none if kept is None else kept.plain[slots].astype(np.float32)
    return _batch(
        sources, index, images, masks, mask_known, none, unknown, none, none, none, unknown, none, unknown,
        none, unknown, none, unknown,
        frozen, none, none,
    )  # fmt: skip


def _kept_batch(sources: Sources, kept: Kept, request: Request) -> Batch:
    """One training batch of stored features: which of a face's views is drawn from the request's key."""
    table, needs = sources.table, sources.needs
    index = np.asarray(request.rows, np.int64)
    slots, count = table.slot[index], len(index)
    rng = keyed_generator(sources.seed, request.experience, request.step)
    view, more, blend = (rng.integers(kept.views, size=count) for _ in range(3))
    second = (view + 1 + more % max(1, kept.views - 1)) % kept.views
    place, real = kept.place[slots], kept.real_place[slots]
    none, unknown = np.zeros((count, 0), np.float32), np.zeros(count, bool)

    def shares(cells: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        return cells[:, None].astype(np.float32) / np.float32(255)

    blended = "pseudo" in needs and len(kept.blended) > 0
    masked = "mask" in needs
    return _batch(
        sources, index, none, shares(kept.masks[place, view]) if masked else none,
        table.mask_known[slots] if masked else unknown, none, unknown, none, none,
        shares(kept.blended_masks[real, blend]) if blended else none, (real >= 0) if blended else unknown,
        none, unknown, none, unknown, none, unknown,
        kept.viewed[place, view].astype(np.float32),
        kept.viewed[place, second].astype(np.float32) if "view2" in needs else none,
        kept.blended[real, blend].astype(np.float32) if blended else none,
    )  # fmt: skip


def train_batch(sources: Sources, request: Request) -> Batch:
    """One training batch: a pure function of the sources' seed and the request."""
    if sources.kept is not None:
        return _kept_batch(sources, sources.kept, request)
    table, needs, side = sources.table, sources.needs, sources.table.size
    index = np.asarray(request.rows, np.int64)
    count = len(index)
    images, masks, pairs, seconds, pseudos, pseudo_masks = ([] for _ in range(6))
    others, other_pairs, other_masks = ([] for _ in range(3))
    pseudo_known, other_known = np.zeros(count, bool), np.zeros(count, bool)
    other_pair_known, other_mask_known = np.zeros(count, bool), np.zeros(count, bool)
    empty = np.zeros((side, side), np.uint8)
    for slot, row in enumerate(index):
        rng = keyed_generator(sources.seed, request.experience, request.step, slot)
        at = table.slot[row]
        picture = np.asarray(table.pictures[at])
        view = draw_view(sources.views, side, rng)
        images.append(view.apply(picture))
        if "mask" in needs:
            masks.append(view.geometry(np.asarray(table.masks[at])))
        if "pair" in needs:
            pairs.append(view.apply(np.asarray(table.pairs[at] if table.pair_known[at] else picture)))
        if "view2" in needs:
            seconds.append(draw_view(sources.views, side, rng).apply(picture))
        if "other" in needs:
            family = sources.siblings[int(row)]
            sibling = int(family[rng.integers(len(family))])
            beside = table.slot[sibling]
            frame = np.asarray(table.pictures[beside])
            other_known[slot] = sibling != row
            others.append(view.apply(frame))
            if "pair" in needs:
                other_pair_known[slot] = table.pair_known[beside]
                other_pairs.append(view.apply(np.asarray(table.pairs[beside] if table.pair_known[beside] else frame)))
            if "mask" in needs:
                other_mask_known[slot] = table.mask_known[beside]
                other_masks.append(view.geometry(np.asarray(table.masks[beside])))
        if "pseudo" in needs:
            landmarks = table.landmarks[at]
            usable = sources.forgery[row] == 0 and bool(np.isfinite(landmarks).all())
            made, where = self_blend(picture, landmarks, rng) if usable else (picture, empty)
            pseudo_known[slot] = usable
            pseudo_view = draw_view(sources.views, side, rng)
            pseudos.append(pseudo_view.apply(made))
            pseudo_masks.append(pseudo_view.geometry(where))
    none = np.zeros((count, 0), np.float32)

    def planes(made: list[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        return to_planes(made) if made else none

    mask_known = table.mask_known[table.slot[index]] if "mask" in needs else np.zeros(count, bool)
    pair_known = table.pair_known[table.slot[index]] if "pair" in needs else np.zeros(count, bool)
    return _batch(
        sources, index, to_planes(images), planes(masks), mask_known, planes(pairs), pair_known, planes(seconds),
        planes(pseudos), planes(pseudo_masks), pseudo_known, planes(others), other_known,
        planes(other_pairs), other_pair_known, planes(other_masks), other_mask_known,
        none, none, none,
    )  # fmt: skip


def _batch(sources: Sources, index: Rows, image: Any, *optional: Any) -> Batch:
    forgery = torch.from_numpy(sources.forgery[index])
    fields = [torch.from_numpy(image), (forgery > 0).long(), forgery, torch.from_numpy(sources.experience[index])]
    fields += [torch.from_numpy(np.asarray(field)) for field in optional]
    fields += [torch.from_numpy(sources.video[index]), torch.from_numpy(index)]
    fields.append(torch.zeros(len(index), dtype=torch.int64))
    return Batch._make(fields)


class BatchDataset(Dataset[Batch]):
    """Whole batches by request, for a DataLoader with `batch_size=None`: any number of workers, the same bytes."""

    def __init__(self, sources: Sources):
        self.sources = sources

    def __getitem__(self, request: Request) -> Batch:
        return train_batch(self.sources, request)
