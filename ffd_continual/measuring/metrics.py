"""Measures of a detector, in plain numpy, and their confidence intervals by resampling whole persons or videos.

Axis legend: n = faces (or videos), b = resamples, k = distinct scores, g = groups (persons or videos).
Every batched measure takes labels (n,) with True = forged, scores (n,) where higher means "more forged", and weights
(b, n): how often each face was drawn in each resample. One sort serves all resamples, so 1000 resamples of 1000 faces
take about 30 ms. Where a measure does not exist (one class only) it is NaN, never a substitute.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ffd_continual.scenarios.errors import FFDError

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
BatchedMetric = Callable[[Bools, Floats, Floats], Floats]

ECE_BINS = 15
# A chunk of resamples holds at most this many weights (float64: 32 MB), so memory does not grow with the resamples.
CHUNK_WEIGHTS = 4_000_000


def as_labels_and_scores(labels: ArrayLike, scores: ArrayLike) -> tuple[Bools, Floats]:
    """Labels (n,) as booleans and scores (n,) as float64; FFDError on other labels, other lengths, NaN or infinity."""
    raw, values = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if raw.shape != values.shape or raw.ndim != 1:
        raise FFDError(f"labels {raw.shape} and scores {values.shape} must be two lists of the same length")
    if not np.isin(raw, (0, 1)).all():
        raise FFDError("labels must be 0 (real) or 1 (forged); " + f"found {np.unique(raw)[:5].tolist()}")
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).sum())
        raise FFDError(
            f"{bad} of {len(values)} scores are NaN or infinite: the training diverged or the table is broken"
        )
    return raw.astype(bool), values


def _steps(labels: Bools, scores: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Forged and real weight at or above each distinct score, highest first: two arrays (b, k + 1) that start at 0."""
    order = np.argsort(-scores, kind="stable")
    ranked, forged, drawn = scores[order], labels[order], weights[:, order]
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # equal scores are one step, not several
    hits = np.cumsum(drawn * forged, axis=1)[:, last]
    alarms = np.cumsum(drawn * ~forged, axis=1)[:, last]
    start = np.zeros((len(weights), 1))
    return np.hstack([start, hits]), np.hstack([start, alarms])


def _rates(labels: Bools, scores: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """The ROC's corners: true and false positive rates, (b, k + 1); NaN rows where a class was not drawn."""
    hits, alarms = _steps(labels, scores, weights)
    with np.errstate(invalid="ignore"):
        return hits / hits[:, -1:], alarms / alarms[:, -1:]


def batched_auc(labels: Bools, scores: Floats, weights: Floats) -> Floats:
    """Area under the ROC curve (b,) = P(forged > real) + P(equal) / 2, the Mann-Whitney statistic, exact with ties."""
    hits, alarms = _steps(labels, scores, weights)
    area = (np.diff(alarms, axis=1) * (hits[:, 1:] + hits[:, :-1])).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(area / (2.0 * hits[:, -1] * alarms[:, -1]))


def batched_acc(labels: Bools, margins: Floats, weights: Floats) -> Floats:
    """Share decided rightly (b,); margins = score - threshold, 0 and above says forged. NaN where nothing was drawn."""
    right = ((margins >= 0.0) == labels).astype(np.float64)
    with np.errstate(invalid="ignore"):
        return np.asarray((weights @ right) / weights.sum(axis=1))


def batched_eer(labels: Bools, scores: Floats, weights: Floats) -> Floats:
    """Equal error rate (b,): where misses equal false alarms on the ROC's straight segments."""
    found, alarms = _rates(labels, scores, weights)
    gap = alarms - (1.0 - found)  # rises from -1 to +1
    crossing = np.maximum(np.argmax(gap >= 0.0, axis=1), 1)
    rows = np.arange(len(weights))
    before, after = gap[rows, crossing - 1], gap[rows, crossing]
    with np.errstate(invalid="ignore", divide="ignore"):
        part = -before / (after - before)
    return np.asarray(alarms[rows, crossing - 1] + part * (alarms[rows, crossing] - alarms[rows, crossing - 1]))


def batched_ap(labels: Bools, scores: Floats, weights: Floats) -> Floats:
    """Average precision (b,) = sum of (R_k - R_{k-1}) P_k over distinct scores, without interpolation."""
    hits, alarms = _steps(labels, scores, weights)
    drawn = hits[:, 1:] + alarms[:, 1:]
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(drawn > 0, hits[:, 1:] / np.where(drawn > 0, drawn, 1.0), 0.0)
        value = (np.diff(hits, axis=1) * precision).sum(axis=1) / hits[:, -1]
    return np.where(alarms[:, -1] > 0, value, np.nan)


def batched_tpr_at_fpr(limit: float) -> BatchedMetric:
    """Forged faces found (b,) at the lowest threshold whose false alarm rate is at most `limit`.

    Reachable by a threshold that exists, so never above what linear interpolation of the ROC would promise.
    """

    def measure(labels: Bools, scores: Floats, weights: Floats) -> Floats:
        found, alarms = _rates(labels, scores, weights)
        step = np.maximum((alarms <= limit + 1e-12).sum(axis=1) - 1, 0)
        value = found[np.arange(len(weights)), step]
        return np.where(np.isnan(alarms[:, -1]), np.nan, value)

    return measure


def batched_ece(labels: Bools, probabilities: Floats, weights: Floats) -> Floats:
    """Expected calibration error (b,), Guo et al., ICML 2017, eq. 3, for P(forged): 15 equal bins of [0, 1]."""
    if ((probabilities < 0) | (probabilities > 1)).any():
        raise FFDError("the calibration error needs probabilities between 0 and 1: calibrate the scores first")
    bins = np.minimum((probabilities * ECE_BINS).astype(np.int64), ECE_BINS - 1)
    gap = np.zeros((len(labels), ECE_BINS))
    gap[np.arange(len(labels)), bins] = probabilities - labels
    with np.errstate(invalid="ignore"):
        return np.asarray(np.abs(weights @ gap).sum(axis=1) / weights.sum(axis=1))


# name -> (measure, the column of scores it reads): "z" raw scores, "margin" = z - threshold, "p" = calibrated.
METRICS: Mapping[str, tuple[BatchedMetric, str]] = MappingProxyType(
    {
        "auc": (batched_auc, "z"),
        "acc": (batched_acc, "margin"),
        "eer": (batched_eer, "z"),
        "ap": (batched_ap, "z"),
        "tpr10": (batched_tpr_at_fpr(0.10), "z"),
        "tpr1": (batched_tpr_at_fpr(0.01), "z"),
        "ece": (batched_ece, "p"),
    }
)


def measure_once(metric: BatchedMetric, labels: ArrayLike, scores: ArrayLike) -> float:
    """A batched measure of the sample itself, every face once."""
    forged, values = as_labels_and_scores(labels, scores)
    return float(metric(forged, values, np.ones((1, len(values))))[0]) if len(values) else float("nan")


def auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """See `batched_auc`."""
    return measure_once(batched_auc, labels, scores)


def acc(labels: ArrayLike, scores: ArrayLike, threshold: float = 0.0) -> float:
    """Accuracy of "forged if score >= threshold"."""
    return measure_once(batched_acc, labels, np.asarray(scores, dtype=np.float64) - threshold)


def eer(labels: ArrayLike, scores: ArrayLike) -> float:
    """See `batched_eer`."""
    return measure_once(batched_eer, labels, scores)


def ap(labels: ArrayLike, scores: ArrayLike) -> float:
    """See `batched_ap`."""
    return measure_once(batched_ap, labels, scores)


def tpr_at_fpr(labels: ArrayLike, scores: ArrayLike, limit: float = 0.10) -> float:
    """See `batched_tpr_at_fpr`."""
    return measure_once(batched_tpr_at_fpr(limit), labels, scores)


def ece(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """See `batched_ece`."""
    return measure_once(batched_ece, labels, probabilities)


def threshold_for_accuracy(labels: ArrayLike, scores: ArrayLike, balanced: bool = True) -> float:
    """The threshold with the best accuracy on *validation* scores; among equals the middle one.

    balanced: both classes weigh the same. Wanted for a union of validation parts, where several forgeries share the
    real faces and plain accuracy would buy forged faces with false alarms. FFDError where one class is missing.
    """
    forged, values = as_labels_and_scores(labels, scores)
    if forged.all() or not forged.any():
        raise FFDError("a threshold needs real and forged validation faces; one of the two is missing")
    weights = np.ones((1, len(values)))
    if balanced:
        weights = np.where(forged, 0.5 / forged.mean(), 0.5 / (~forged).mean())[None]
    hits, alarms = _steps(forged, values, weights)
    right = hits[0] + alarms[0, -1] - alarms[0]
    levels = np.unique(values)[::-1]
    cuts = np.concatenate([[levels[0] + 1.0], (levels[1:] + levels[:-1]) / 2.0, [levels[-1] - 1.0]])
    best = np.flatnonzero(right >= right.max() - 1e-9)
    return float(cuts[best[len(best) // 2]])


class Interval(NamedTuple):
    """A measured value with its 95 % percentile interval; skipped = resamples where it did not exist (one class)."""

    value: float
    low: float
    high: float
    skipped: int


def draw_counts(groups: int, samples: int, rng: np.random.Generator) -> Floats:
    """How often each group is drawn, (b, g): `groups` draws with replacement a resample."""
    return np.asarray(rng.multinomial(groups, np.full(groups, 1.0 / groups), size=samples), dtype=np.float64)


def grouped_auc(labels: Bools, scores: Floats, group_of: NDArray[np.int64], counts: Floats) -> Floats:
    """`batched_auc` of all resamples (b,) by the wins between groups: AUC = c' W c / (c' P)(c' N), exact with ties.

    W[g, h] = forged faces of group g that score above real ones of group h, ties as one half. The cost no longer grows
    with faces x resamples, so it pays where a group holds many faces.
    """
    groups = counts.shape[1]
    wins = np.zeros((groups, groups))
    forged, owner = scores[labels], group_of[labels]
    real, real_owner = scores[~labels], group_of[~labels]
    order = np.lexsort((real, real_owner))
    ends = np.searchsorted(real_owner[order], np.arange(groups + 1))
    for h in range(groups):
        below = real[order[ends[h] : ends[h + 1]]]
        if len(below):
            beaten = np.searchsorted(below, forged, "left") + np.searchsorted(below, forged, "right")
            wins[:, h] = np.bincount(owner, weights=beaten, minlength=groups) / 2.0
    pairs = (counts @ np.bincount(owner, minlength=groups)) * (counts @ np.bincount(real_owner, minlength=groups))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(((counts @ wins) * counts).sum(axis=1) / pairs)


def grouped_acc(labels: Bools, margins: Floats, group_of: NDArray[np.int64], counts: Floats) -> Floats:
    """`batched_acc` of all resamples (b,) by the right decisions of each group."""
    right, size = ((margins >= 0.0) == labels).astype(np.float64), counts.shape[1]
    with np.errstate(invalid="ignore"):
        return np.asarray((counts @ np.bincount(group_of, right, size)) / (counts @ np.bincount(group_of, None, size)))


def resample(
    metric: BatchedMetric, labels: Bools, scores: Floats, group_of: NDArray[np.int64], counts: Floats
) -> Floats:
    """A measure's value in every resample (b,); group_of (n,) indexes the columns of counts (b, g).

    AUC and accuracy by groups are the same to the last bit: their sums are whole numbers, or halves.
    """
    if metric is batched_acc and len(counts):
        return grouped_acc(labels, scores, group_of, counts)
    if metric is batched_auc and len(counts):
        there, own = np.unique(group_of, return_inverse=True)
        size, samples = len(there), len(counts)
        if 300 * size + samples * size * size / 200 < samples * len(labels):  # what is faster, as timed
            return grouped_auc(labels, scores, own.astype(np.int64), counts[:, there])
    chunk = max(1, CHUNK_WEIGHTS // max(1, len(labels)))
    parts = [metric(labels, scores, counts[i : i + chunk][:, group_of]) for i in range(0, len(counts), chunk)]
    return np.concatenate(parts) if parts else np.zeros(0)


def percentile_interval(value: float, draws: Floats) -> Interval:
    """The 2.5 % and 97.5 % points of the resampled values that exist."""
    known = draws[np.isfinite(draws)]
    if len(known) == 0:
        return Interval(value, float("nan"), float("nan"), len(draws))
    low, high = np.percentile(known, [2.5, 97.5])
    return Interval(value, float(low), float(high), len(draws) - len(known))


def cluster_bootstrap(
    labels: ArrayLike, scores: ArrayLike, groups: ArrayLike, metric: BatchedMetric, samples: int = 1000, seed: int = 0
) -> Interval:
    """95 % interval by drawing whole persons or videos with replacement (Efron and Tibshirani, 1993, ch. 8 and 13).

    Frames of one person are no independent evidence; drawing frames would give intervals several times too narrow.
    Fewer than two groups: low and high are NaN.
    """
    forged, values = as_labels_and_scores(labels, scores)
    names, group_of = np.unique(np.asarray(groups), return_inverse=True)
    value = measure_once(metric, forged, values)
    if len(names) < 2:
        return Interval(value, float("nan"), float("nan"), samples)
    counts = draw_counts(len(names), samples, np.random.default_rng(seed))
    return percentile_interval(value, resample(metric, forged, values, group_of.astype(np.int64), counts))
