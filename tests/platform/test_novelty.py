"""Novelty scores, groups and their measures against counts by hand, and where scenes hide what is new."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ffd_continual.detecting.described import Described, distinct
from ffd_continual.detecting.grouping import WAYS, group_faces, measure_grouping
from ffd_continual.detecting.novelty import (
    Novelty,
    fit_whitening,
    mahalanobis_score,
    measure_flagging,
    neighbour_score,
    softmax_score,
)
from ffd_continual.scenarios.errors import FFDError


def described(features: np.ndarray, novelty: float = 1.0) -> Described:
    count = len(features)
    half, none = np.full(count, 0.5), np.zeros((count, 0))
    return Described(half, np.ones((count, 1)), np.full(count, novelty), features, features, none, features)


def test_softmax_novelty_is_one_minus_the_largest_class() -> None:
    faces = Described(
        np.array([0.9, 0.2, 0.5]), np.array([[0.5, 0.5], [1.0, 0.0], [1.0, 0.0]]), np.zeros(3), *[np.zeros((3, 2))] * 4
    )
    assert softmax_score(faces) == pytest.approx([1 - 0.45, 1 - 0.8, 1 - 0.5])


def test_mahalanobis_against_the_formula() -> None:
    rng = np.random.default_rng(0)
    stretch = np.array([1.0, 5.0, 0.2])
    classes = ["real"] * 400 + ["a"] * 400
    means = np.repeat([[0, 0, 0], [3.0, 0, 0]], 400, axis=0)
    stored = rng.normal(0, 1, (800, 3)) * stretch + means
    white = fit_whitening(stored, classes)
    queries = rng.normal(0, 3, (20, 3))
    inner = np.concatenate([stored[:400] - stored[:400].mean(0), stored[400:] - stored[400:].mean(0)])
    covariance = inner.T @ inner / 798
    covariance = 0.9 * covariance + 0.1 * np.diag(np.diag(covariance))
    inverse = np.linalg.inv(covariance)
    wanted = [
        min((q - c) @ inverse @ (q - c) / 3 for c in (stored[:400].mean(0), stored[400:].mean(0))) for q in queries
    ]
    assert mahalanobis_score(white, queries) == pytest.approx(wanted)
    # One direction tells the two classes apart, the first one; a scene that varies along the second hardly shows in it.
    kin = white.kin(np.array([[3.0, 0, 0], [0, 0, 0], [0, 5.0, 0]]))
    assert kin.shape == (3, 1)
    assert abs(kin[0, 0] - kin[1, 0]) > 10 * abs(kin[2, 0] - kin[1, 0])


def test_the_k_th_neighbour() -> None:
    stored = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    assert neighbour_score(stored, np.array([[2.0, 0.0]]), 1) == pytest.approx([0.0])
    assert neighbour_score(stored, np.array([[2.0, 0.0]]), 2) == pytest.approx([1.0])
    assert neighbour_score(stored, np.array([[2.0, 0.0]]), 9) == pytest.approx([2.0])


def test_flagging_by_hand() -> None:
    known, novel = np.arange(100) / 100, np.arange(20) / 20 + 0.5
    found = measure_flagging(known, novel, 0.955)
    assert found.fpr95 == pytest.approx((known >= 0.55).mean())
    assert found.false == pytest.approx(0.04)
    assert found.flagged == pytest.approx((novel > 0.955).mean())
    wins = np.mean([(n > k) + (n == k) / 2 for n in novel for k in known])
    assert found.auroc == pytest.approx(wins)


@pytest.mark.parametrize("way", WAYS)
def test_groups_that_are_there_are_found(way: str) -> None:
    rng = np.random.default_rng(1)
    centres = np.eye(6)[:3] * 8
    faces = np.concatenate(
        [centre + rng.normal(0, 0.3, (count, 6)) for centre, count in zip(centres, (30, 20, 10), strict=True)]
    )
    labels = group_faces(faces, way, 5)
    truth = ["a"] * 30 + ["b"] * 20 + ["c"] * 10
    found = measure_grouping(labels, truth)
    assert (found.groups, found.purity) == (3, 1.0)
    assert found.grouped > 0.7
    assert found.chance == 0.5
    assert pd.Series(labels[labels >= 0]).value_counts().sort_index().is_monotonic_decreasing
    assert (group_faces(faces[:3], way, 5) == -1).all()


def test_purity_by_hand_and_bad_input() -> None:
    found = measure_grouping(np.array([0, 0, 0, 1, 1, -1]), ["a", "a", "b", "b", "b", "a"])
    assert [found.groups, found.grouped, found.purity, found.chance] == [2, pytest.approx(5 / 6), 0.8, 0.5]
    empty = measure_grouping(np.array([-1, -1]), ["a", "b"])
    assert np.isnan(empty.purity)
    with pytest.raises(FFDError, match="Known: agglomerative"):
        group_faces(np.zeros((9, 2)), "kmeans")
    with pytest.raises(FFDError, match="2 faces or more"):
        group_faces(np.zeros((9, 2)), "hdbscan", 1)
    novelty = Novelty(described(np.random.default_rng(0).normal(0, 1, (20, 3))), ["real"] * 10 + ["a"] * 10)
    with pytest.raises(FFDError, match="no novelty score is called 'x'"):
        novelty.score("x", described(np.zeros((1, 3))))


def _world(kinds: list[str], each: int, seed: int) -> tuple[Described, list[str]]:
    """Faces whose scene fills the common features, where traces are faint; a known forgery's trace is plain in its own
    module and in residuals, a new one's in a direction of residuals alone."""
    rng, names = np.random.default_rng(seed), ["real", "a", "b", "c"]
    made = [kind for kind in kinds for _ in range(each)]
    scene, count = rng.normal(0, 10, (len(made), 40)), len(made)
    trace = np.zeros((count, 5))
    for row, kind in enumerate(made):
        trace[row, {"real": 0, "a": 1, "b": 2, "c": 3, "new": 4}[kind]] = 3.0
    common = np.concatenate([scene, trace / 3 + rng.normal(0, 1, trace.shape)], axis=1)
    special = np.concatenate([scene[:, :3], trace[:, 1:4] + rng.normal(0, 0.6, (count, 3))], axis=1)
    heard = 2 * trace[:, 1:4] - 3 + rng.normal(0, 1, (count, 3))
    residual = trace + rng.normal(0, 0.8, trace.shape)
    weights = np.full((count, len(names) - 1), 1 / 3)
    return Described(np.full(count, 0.9), weights, np.full(count, np.nan), common, special, heard, residual), made


def test_kinship_finds_what_the_scene_hides_from_mahalanobis() -> None:
    stored, classes = _world(["real", "a", "b", "c"], 80, 0)
    usual, _ = _world(["a", "b", "c"], 50, 1)
    known, _ = _world(["a", "b", "c"], 100, 2)
    new, _ = _world(["new"], 100, 3)
    real, _ = _world(["real"], 100, 4)
    novelty = Novelty(stored, classes, usual)
    assert novelty.ways()[0] == "softmax"  # this learner has no novelty of its own
    found = {}
    for way in novelty.ways():
        cut = float(np.quantile(novelty.score(way, usual), 0.95))
        found[way] = measure_flagging(novelty.score(way, known), novelty.score(way, new), cut)
    assert found["kinship"].auroc > 0.95
    assert found["kinship"].flagged > 0.8
    assert found["kinship"].false < 0.12
    assert found["mahalanobis-common"].auroc < 0.65
    assert found["softmax"].auroc == pytest.approx(0.5)
    apart = [
        measure_flagging(novelty.score(w, real), novelty.score(w, new), 0).auroc for w in ("kinship", "kinship-mixed")
    ]
    assert apart[1] > apart[0] + 0.05  # real faces are novel, too, unless they count as known
    spread = novelty.evidence(usual, mixed=False)
    assert novelty.score("kinship", usual) == pytest.approx(((spread - spread.mean(0)) / spread.std(0)).mean(1))
    families = novelty.families(new)
    assert families.shape == (100, 6)


def test_a_closed_module_is_gone_from_all_that_modules_say() -> None:
    faces, _ = _world(["a", "b"], 3, 0)
    less = faces.closed(1)
    assert np.array_equal(less.heard, faces.heard[:, [0, 2]])
    assert np.array_equal(less.special, faces.special[:, [0, 1, 4, 5]])
    assert np.array_equal(less.common, faces.common)
    none = Novelty(described(np.random.default_rng(0).normal(0, 1, (20, 3))), ["real"] * 10 + ["a"] * 10)
    assert "max-logit" not in none.ways()
    assert none.evidence(none.stored, mixed=False).shape == (20, 2)
    assert np.isfinite(none.score("kinship", none.stored)).all()


def test_a_picture_counts_once_for_a_forgery() -> None:
    one, other = np.zeros((4, 4, 3), np.uint8), np.ones((4, 4, 3), np.uint8)
    rows = pd.DataFrame({"label": [0, 0, 1, 1, 0], "forgery": ["", "", "a", "b", ""]})
    kept, faces = distinct(rows, [one, one, one, one, other])
    assert kept.index.tolist() == [0, 2, 3, 4]
    assert [int(face[0, 0, 0]) for face in faces] == [0, 0, 0, 1]


def test_one_new_forgery_alone_is_one_group() -> None:
    rng = np.random.default_rng(0)
    faces = rng.normal(0, 0.4, (60, 8)) + np.eye(8)[0] * 3  # the origin is what is known
    assert set(group_faces(faces)) == {0}
