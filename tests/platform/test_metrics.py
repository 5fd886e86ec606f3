"""Every measure against a slow loop or scikit-learn; every interval against what resampling means."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from sklearn import metrics as reference

from ffd_continual.measuring import metrics as m
from ffd_continual.measuring import traces
from ffd_continual.measuring.calibration import Calibration, fit_platt, fit_temperature
from ffd_continual.scenarios.errors import FFDError


def sample(seed: int, n: int = 200, ties: bool = True) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    scores = rng.normal(labels * 0.8, 1.0)
    return labels, np.round(scores, 1) if ties else scores


def slow_auc(labels: np.ndarray, scores: np.ndarray) -> float:
    won = [1.0 if f > r else 0.5 if f == r else 0.0 for f in scores[labels == 1] for r in scores[labels == 0]]
    return sum(won) / len(won)


@pytest.mark.parametrize("seed", range(4))
def test_auc_is_mann_whitney_with_ties(seed: int) -> None:
    labels, scores = sample(seed)
    assert m.auc(labels, scores) == pytest.approx(slow_auc(labels, scores), abs=1e-12)
    assert m.auc(labels, np.zeros_like(scores)) == 0.5
    assert m.auc(labels, -scores) == pytest.approx(1 - m.auc(labels, scores))
    assert m.auc(labels, np.exp(scores)) == pytest.approx(m.auc(labels, scores))


@pytest.mark.parametrize("seed", range(4))
def test_ap_equals_sklearn(seed: int) -> None:
    labels, scores = sample(seed)
    assert m.ap(labels, scores) == pytest.approx(reference.average_precision_score(labels, scores), abs=1e-12)


@pytest.mark.parametrize("limit", [0.01, 0.1, 0.5])
def test_tpr_at_fpr_equals_the_best_threshold(limit: float) -> None:
    labels, scores = sample(5)
    best = 0.0
    for cut in np.append(np.unique(scores), np.inf):
        if (scores[labels == 0] >= cut).mean() <= limit:
            best = max(best, float((scores[labels == 1] >= cut).mean()))
    assert m.tpr_at_fpr(labels, scores, limit) == pytest.approx(best)
    assert 0 < best < 1


def test_eer_lies_on_the_roc_where_errors_are_equal() -> None:
    labels, scores = sample(6, 3000, ties=False)
    fpr, tpr, _ = reference.roc_curve(labels, scores, drop_intermediate=False)
    assert m.eer(labels, scores) == pytest.approx(float(np.interp(0, fpr - (1 - tpr), fpr)), abs=1e-9)
    assert m.eer([0, 0, 1, 1], [0.0, 0.1, 0.9, 1.0]) == 0.0
    assert m.eer([0, 0, 1, 1], [0.9, 1.0, 0.0, 0.1]) == 1.0
    assert m.eer([0, 1], [0.3, 0.3]) == 0.5


def test_ece_equals_a_loop_over_bins() -> None:
    rng = np.random.default_rng(0)
    p = np.append(rng.random(500), [0.0, 1.0])
    labels = (rng.random(502) < p**2).astype(int)
    expected = 0.0
    for k in range(15):
        inside = (p >= k / 15) & ((p < (k + 1) / 15) | (k == 14))
        if inside.any():
            expected += inside.mean() * abs(p[inside].mean() - labels[inside].mean())
    assert m.ece(labels, p) == pytest.approx(expected, abs=1e-12)
    with pytest.raises(FFDError, match="calibrate"):
        m.ece([0, 1], [0.2, 1.4])


def test_accuracy_and_its_threshold() -> None:
    labels, scores = sample(7)
    assert m.acc(labels, scores, 0.4) == pytest.approx(((scores >= 0.4) == labels).mean())
    cut = m.threshold_for_accuracy(labels, scores, balanced=False)
    tried = [m.acc(labels, scores, t) for t in np.linspace(-4, 5, 500)]
    assert m.acc(labels, scores, cut) >= max(tried) - 1e-12
    # One real to four forged: plain accuracy would let false alarms rise, the balanced rule must not.
    many = np.repeat(np.arange(len(labels)), np.where(labels == 1, 4, 1))
    fair = m.threshold_for_accuracy(labels[many], scores[many])
    assert fair == pytest.approx(m.threshold_for_accuracy(labels, scores))
    assert fair > m.threshold_for_accuracy(labels[many], scores[many], balanced=False)
    with pytest.raises(FFDError, match="real and forged"):
        m.threshold_for_accuracy([1, 1], [0.1, 0.2])


@pytest.mark.parametrize("name", sorted(m.METRICS))
def test_weights_equal_repeated_rows(name: str) -> None:
    metric, column = m.METRICS[name]
    labels, scores = sample(8, 60)
    values = 1 / (1 + np.exp(-scores)) if column == "p" else scores
    counts = np.random.default_rng(1).integers(0, 4, (5, 60)).astype(float)
    batched = metric(labels.astype(bool), values, counts)
    for row, value in zip(counts, batched, strict=True):
        again = np.repeat(np.arange(60), row.astype(int))
        assert value == pytest.approx(m.measure_once(metric, labels[again], values[again]), abs=1e-12)


@pytest.mark.parametrize("name", ["auc", "eer", "ap", "tpr10", "tpr1"])
def test_one_class_is_nan(name: str) -> None:
    assert math.isnan(m.measure_once(m.METRICS[name][0], [1, 1, 1], [0.1, 0.2, 0.3]))
    assert math.isnan(m.measure_once(m.METRICS[name][0], [0, 0, 0], [0.1, 0.2, 0.3]))


def test_broken_input_is_named() -> None:
    with pytest.raises(FFDError, match="1 of 3 scores"):
        m.auc([0, 1, 1], [0.1, float("nan"), 0.3])
    with pytest.raises(FFDError, match="same length"):
        m.auc([0, 1], [0.1])
    with pytest.raises(FFDError, match="labels must be"):
        m.auc([0, 2], [0.1, 0.2])


def slow_bootstrap(labels: np.ndarray, scores: np.ndarray, groups: np.ndarray, counts: np.ndarray) -> list[float]:
    names = np.unique(groups)
    values = []
    for row in counts:
        rows = np.concatenate(
            [np.flatnonzero(groups == g) for g, c in zip(names, row, strict=True) for _ in range(int(c))]
        )
        values.append(slow_auc(labels[rows], scores[rows]))
    return values


def test_bootstrap_equals_a_loop_over_persons() -> None:
    labels, scores = sample(9, 120)
    groups = np.array([f"person{i % 12}" for i in range(120)])
    counts = m.draw_counts(12, 40, np.random.default_rng(3))
    slow = slow_bootstrap(labels, scores, groups, counts)
    found = m.cluster_bootstrap(labels, scores, groups, m.batched_auc, samples=40, seed=3)
    assert found[:3] == pytest.approx((slow_auc(labels, scores), *np.percentile(slow, [2.5, 97.5])), abs=1e-12)
    assert found.skipped == 0


def test_bootstrap_draws_persons_not_frames() -> None:
    """Copying every frame 20 times is no new evidence: the interval must not shrink."""
    labels, scores = sample(10, 80)
    groups = np.arange(80)
    once = m.cluster_bootstrap(labels, scores, groups, m.batched_auc, seed=1)
    many = np.tile(labels, 20), np.tile(scores, 20)
    twenty = m.cluster_bootstrap(*many, np.tile(groups, 20), m.batched_auc, seed=1)
    frames = m.cluster_bootstrap(*many, np.arange(1600), m.batched_auc, seed=1)
    assert twenty[:3] == pytest.approx(once[:3])
    assert frames.high - frames.low < 0.5 * (once.high - once.low)


@pytest.mark.parametrize("persons", [1, 5, 40])
def test_wins_between_groups_give_the_same_auc(persons: int) -> None:
    labels, scores = sample(12, 300)
    rng = np.random.default_rng(0)
    group_of = rng.integers(0, persons, 300)
    counts = m.draw_counts(persons + 1, 30, rng)  # the last person has no face in this stream
    found = m.grouped_auc(labels.astype(bool), scores, group_of, counts)
    assert found == pytest.approx(
        m.batched_auc(labels.astype(bool), scores, counts[:, group_of]), abs=1e-12, nan_ok=True
    )


@pytest.mark.parametrize(("persons", "samples"), [(5, 400), (60, 400), (300, 7)])
def test_resampling_by_groups_gives_the_same_bits(persons: int, samples: int) -> None:
    """Whichever way is faster is taken, so neither may differ in its last digit."""
    labels, scores = (values[:300] for values in sample(13, 300))
    rng = np.random.default_rng(2)
    group_of, counts = rng.integers(0, persons, 300), m.draw_counts(persons + 40, samples, rng)
    for metric in (m.batched_auc, m.batched_acc):
        found = m.resample(metric, labels.astype(bool), scores, group_of, counts)
        np.testing.assert_array_equal(found, metric(labels.astype(bool), scores, counts[:, group_of]))
    assert m.resample(m.batched_acc, labels.astype(bool), scores, group_of, counts[:0]).shape == (0,)


def test_one_class_resamples_are_skipped_and_reported() -> None:
    found = m.cluster_bootstrap([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9], ["a", "a", "b", "b"], m.batched_auc, samples=400)
    assert found[:3] == (1.0, 1.0, 1.0)
    assert 140 < found.skipped < 260  # both persons are drawn in half of all resamples
    alone = m.cluster_bootstrap([0, 1], [0.1, 0.2], ["a", "a"], m.batched_auc)
    assert alone.value == 1.0
    assert math.isnan(alone.low)


def test_interval_covers_the_truth() -> None:
    """AUC of two normals one unit apart is Phi(1 / sqrt 2) = .7602; 95 % intervals must hold it about so often."""
    covered = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        person = np.repeat(np.arange(60), 2)
        labels = np.tile([0, 1], 60)
        found = m.cluster_bootstrap(labels, rng.normal(labels, 1.0), person, m.batched_auc, samples=200, seed=seed)
        covered += found.low <= 0.7602 <= found.high
    assert 86 <= covered <= 100


def test_bootstrap_is_fast() -> None:
    labels, scores = sample(11, 1000, ties=False)
    start = time.perf_counter()
    m.cluster_bootstrap(labels, scores, np.arange(1000) // 10, m.batched_auc, samples=1000)
    assert time.perf_counter() - start < 3.0  # a loop over scikit-learn takes longer; 0.1 s on an idle core


def test_masks() -> None:
    mask = np.zeros((8, 8), np.uint8)
    mask[2:6, 2:6] = 255
    trace = np.zeros((8, 8))
    trace[2:6, 4:8] = 1.0
    assert traces.mask_iou(trace, mask) == pytest.approx(8 / 24)
    assert traces.mask_iou(mask / 255, mask) == 1.0
    assert math.isnan(traces.mask_iou(trace, np.zeros((8, 8))))
    assert traces.pixel_auc(mask / 255, mask) == 1.0
    assert traces.pixel_auc(np.ones((8, 8)), mask) == 0.5
    assert math.isnan(traces.pixel_auc(trace, np.zeros((8, 8))))
    with pytest.raises(FFDError, match="resize"):
        traces.mask_iou(trace, np.zeros((4, 4)))


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
def test_platt_recovers_the_true_curve(unit: float) -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(0, 2, 40000)
    labels = rng.random(40000) < Calibration(1.5, -0.7).apply(z)
    found = fit_platt(labels, z * unit, balanced=False)
    assert (found.scale * unit, found.offset) == pytest.approx((1.5, -0.7), abs=0.06)
    assert m.ece(labels, found.apply(z * unit)) < 0.015 < m.ece(labels, Calibration().apply(z))


def test_calibration_limits() -> None:
    rng = np.random.default_rng(1)
    z = rng.normal(0, 2, 40000)
    labels = rng.random(40000) < Calibration(0.5).apply(z)
    assert fit_temperature(labels, z).scale == pytest.approx(0.5, abs=0.03)
    apart = fit_platt([0, 0, 1, 1], [-1.0, -2.0, 1.0, 2.0])
    assert math.isfinite(apart.scale)
    assert apart.apply([-2.0, 2.0]) == pytest.approx([0.25, 0.75], abs=0.05)  # Platt's targets for two of each
    backwards = fit_platt([1, 1, 0, 0], [-1.0, -2.0, 1.0, 2.0])
    assert backwards.scale > 0
    assert backwards.apply([-2.0, 2.0]) == pytest.approx([0.5, 0.5], abs=0.01)
    with pytest.raises(FFDError, match="validation"):
        fit_platt([1, 1], [0.0, 1.0])


@pytest.mark.parametrize("ties", [False, True])
def test_pixels_sorted_as_whole_numbers_give_the_same_bits(ties: bool) -> None:
    rng = np.random.default_rng(4)
    for _ in range(20):
        values = rng.random((24, 24)).astype(np.float32)
        values = np.round(values, 1) if ties else values
        values[0, :3] = 0.0, -0.0, 1.0
        mask = rng.random((24, 24)) < rng.random()
        wanted = m.auc(mask.ravel(), values.ravel())
        assert traces.pixel_auc(values, mask) == wanted
        assert traces.pixel_auc(values.astype(np.float64), mask) == wanted
        assert traces.pixel_auc(values - 3, mask) == m.auc(mask.ravel(), (values - 3).ravel()), "logits are below 0"
        assert traces.pixel_aucs(values.astype(np.float64), np.stack([mask, ~mask])) == [
            wanted, m.auc(~mask.ravel(), values.ravel()),
        ]  # fmt: skip
    assert math.isnan(traces.pixel_auc(values, np.ones((24, 24))))
    with pytest.raises(FFDError, match="NaN or infinite"):
        traces.pixel_auc(np.full((2, 2), np.nan, np.float32), np.eye(2))
