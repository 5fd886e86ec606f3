"""Kept features: what a step reads from disk is what the frozen layers say of that view of that face."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch

from ffd_continual.scenarios.dataset import Request, plain_batch, train_batch
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.forging.selfblend import self_blend
from ffd_continual.scenarios.kept import GRID, keep_features
from ffd_continual.scenarios.views import ViewConfig, draw_view, keyed_generator, to_planes


@pytest.fixture(scope="module")
def parts(workshop: Any) -> Any:
    return workshop.parts("iin", "iin", kept_views=3)[1]


def _frozen(parts: Any, picture: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return np.asarray(parts.learner.eval().frozen(torch.from_numpy(to_planes([picture])))[0])


def test_views_masks_and_blends_are_those_of_their_key(parts: Any) -> None:
    table, kept = parts.sources.table, parts.sources.kept
    slot = int(np.flatnonzero((kept.place >= 0) & (kept.real_place < 0))[0])
    view = draw_view(ViewConfig(), table.size, keyed_generator(909, slot, 2))
    close: dict[str, Any] = {"rtol": 2e-3, "atol": 2e-3}  # half precision on disk
    expected = _frozen(parts, view.apply(np.asarray(table.pictures[slot])))
    np.testing.assert_allclose(kept.viewed[kept.place[slot], 2].astype(np.float32), expected, **close)
    mask = cv2.resize(view.geometry(np.asarray(table.masks[slot])), (GRID, GRID), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(kept.masks[kept.place[slot], 2], mask)
    assert mask.any()
    real = int(np.flatnonzero(kept.real_place >= 0)[0])
    rng = keyed_generator(910, real, 1)
    made, where = self_blend(np.asarray(table.pictures[real]), np.asarray(table.landmarks[real]), rng)
    view = draw_view(ViewConfig(), table.size, rng)
    np.testing.assert_allclose(
        kept.blended[kept.real_place[real], 1].astype(np.float32), _frozen(parts, view.apply(made)), **close
    )
    coarse = cv2.resize(view.geometry(where), (GRID, GRID), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(kept.blended_masks[kept.real_place[real], 1], coarse)


def test_a_batch_is_a_pure_function_of_its_request_and_shows_two_views(parts: Any) -> None:
    sources, kept = parts.sources, parts.sources.kept
    rows = tuple(int(r) for r in parts.scenario.index("train", "alpha")[:10])
    one, two = (train_batch(sources, Request(rows, 1, 5)) for _ in range(2))
    for mine, theirs in zip(one, two, strict=True):
        assert torch.equal(mine, theirs)
    other = train_batch(sources, Request(rows, 1, 6))
    assert not torch.equal(one.frozen, other.frozen)
    for place, row in enumerate(rows):
        known = kept.viewed[kept.place[sources.table.slot[row]]].astype(np.float32)
        first = [v for v in range(3) if np.array_equal(known[v], one.frozen[place].numpy())]
        second = [v for v in range(3) if np.array_equal(known[v], one.frozen2[place].numpy())]
        assert first
        assert second
        assert first != second
    assert one.image.shape == (10, 0)


def test_judging_kept_features_agrees_with_judging_pictures(parts: Any) -> None:
    rows = parts.scenario.index("test", "alpha").tolist()
    learner = parts.learner.eval()
    with torch.no_grad():
        kept = learner.look(plain_batch(parts.sources, rows, pictures=False))
        pictures = learner.look(plain_batch(parts.sources, rows))
    assert torch.allclose(kept.z, pictures.z, atol=1e-2)


def test_other_frozen_layers_have_other_files(parts: Any, tmp_path: Any) -> None:
    table = parts.sources.table
    for key in ("a", "b", "a"):
        keep_features(table, ViewConfig(), 1, lambda images: images.flatten(1)[:, :5], key, tmp_path)
    assert len(list(tmp_path.glob("kept-*"))) == 2


def test_a_learner_without_frozen_layers_says_so(workshop: Any) -> None:
    bare = {"backbone": "test_efficientnet", "weights": "none", "frozen_stages": 0}
    with pytest.raises(FFDError, match="kept_views"):
        workshop.parts("plain", "naive", learn={"trunk": bare}, kept_views=2)
