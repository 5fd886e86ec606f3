"""Another frame of the same video: of the same forgery, through the same view, with its own pair and mask."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from ffd_continual.scenarios.batch import Batch
from ffd_continual.scenarios.dataset import Request, Sources, make_sources, plain_batch, train_batch
from ffd_continual.scenarios.manifest import read_manifest
from ffd_continual.scenarios.streams import ScenarioConfig, build_scenario
from ffd_continual.scenarios.table import prepare_table
from ffd_continual.scenarios.views import ViewConfig

STILL = ViewConfig(flip=0, shift=0, zoom=0, rotate=0, colour=0, blur=0, jpeg=0, noise=0)
FRAMES = 3


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of one colour each, so that a batch tells which file it shows: red = video, green = frame (1..),
    blue 200 for a forged one. Video 1 of every split is a lone picture without a name."""
    folder = tmp_path_factory.mktemp("videos")
    rows = []
    for number, split in enumerate(("train", "train", "train", "valid", "test")):
        for frame in range(FRAMES):
            for forgery in ("real", "swap"):
                name = f"{forgery}-{number}-{frame}.png"
                blue = 200 if forgery == "swap" else 0
                picture = np.full((32, 32, 3), (blue, 40 * (frame + 1), 20 * (number + 1)), np.uint8)  # BGR
                cv2.imwrite(str(folder / name), picture)
                row = {"path": name, "label": int(blue > 0), "forgery": forgery, "split": split}
                row |= {"identity": f"p{number}", "dataset": "own"}
                if number == 1:
                    row |= {"video": "", "frame": ""}
                else:
                    row |= {"video": f"{forgery}{number}", "frame": frame}
                if blue:
                    mask = np.zeros((32, 32), np.uint8)
                    mask[: 8 * (frame + 1)] = 255
                    cv2.imwrite(str(folder / f"mask-{name}"), mask)
                    row |= {"mask": f"mask-{name}"}
                    if frame != 2:  # the last frame's pristine picture is not known
                        row |= {"pair": f"real-{number}-{frame}.png"}
                rows.append(row)
    pd.DataFrame(rows).fillna("").to_csv(folder / "manifest.csv", index=False)
    return folder / "manifest.csv"


def make(manifest: Path, *needs: str, views: ViewConfig = STILL) -> Sources:
    scenario = build_scenario(read_manifest(manifest), ScenarioConfig(data=str(manifest), size=32))
    table = prepare_table(scenario.rows, scenario.names, 32, 0, {}, need_mask=True, need_pair="pair" in needs)
    return make_sources(table, scenario, views, frozenset(needs), frozenset(), seed=0)


def batch_of(sources: Sources, step: int = 0) -> Batch:
    rows = tuple(int(r) for r in np.flatnonzero((sources.table.rows["stream"] == "train").to_numpy()))
    return train_batch(sources, Request(rows, 0, step))


def colours(pictures: object) -> list[tuple[int, int, int]]:
    return [tuple(round(float(v) * 255) for v in face[:, 0, 0]) for face in pictures]  # type: ignore[attr-defined,misc]


def test_the_other_frame_is_of_the_same_video_and_forgery_with_its_own_pair_and_mask(manifest: Path) -> None:
    sources = make(manifest, "other", "pair", "mask")
    shown: set[tuple[int, int]] = set()
    for step in range(6):
        batch = batch_of(sources, step)
        here, there, pairs = colours(batch.image), colours(batch.other), colours(batch.other_pair)
        for i, (own, other, pair) in enumerate(zip(here, there, pairs, strict=True)):
            frame = other[1] // 40
            assert (other[0], other[2]) == (own[0], own[2])  # the same video, real or forged as the face itself
            assert bool(batch.other_known[i]) == (other != own)
            shown.add((own[1] // 40, frame))
            forged = own[2] == 200
            assert bool(batch.other_mask_known[i])
            rows_marked = int((batch.other_mask[i, 0, :, 0] > 0.5).sum())
            assert rows_marked == (8 * frame if forged else 0)
            assert bool(batch.other_pair_known[i]) == (forged and frame != 3)
            if batch.other_pair_known[i]:
                assert pair == (own[0], other[1], 0)  # the pristine picture of that frame, not of this one
            if own[0] == 40:
                assert other == own  # a picture of no video has no other frame
    assert {(a, b) for a in (1, 2, 3) for b in (1, 2, 3)} <= shown


def test_the_other_frame_passes_the_same_view(manifest: Path) -> None:
    """A still frame of one colour differs after a view only by colour and noise: the mask tells the geometry."""
    views = ViewConfig(flip=0, shift=0.2, zoom=0, rotate=30, colour=0, blur=0, jpeg=0, noise=0)
    batch = batch_of(make(manifest, "other", "pair", "mask", views=views))
    alone = [i for i in range(len(batch.target)) if batch.target[i] == 1 and not batch.other_known[i]]
    assert alone
    for i in alone:  # the face itself again: masks and pictures must coincide exactly
        assert bool((batch.other_mask[i] == batch.mask[i]).all())
        assert bool((batch.other[i] == batch.image[i]).all())
    assert any(bool((batch.mask[i] != batch.mask[alone[0]]).any()) for i in alone[1:])


def test_fields_that_nothing_asks_for_are_empty(manifest: Path) -> None:
    for needs, full in (
        (("other",), {"other"}),
        (("other", "mask"), {"other", "other_mask"}),
        (("pair", "mask"), set()),
    ):
        batch = batch_of(make(manifest, *needs))
        for name in ("other", "other_pair", "other_mask"):
            assert (getattr(batch, name).shape[1] > 0) == (name in full), (needs, name)
    plain = plain_batch(make(manifest, "other", "pair", "mask"), [0, 1])
    assert plain.other_pair.shape == (2, 0)
    assert plain.other_mask.shape == (2, 0)
    assert plain.take(plain.target == 0).other_pair_known.shape == (1,)
