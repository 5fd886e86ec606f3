"""Which faces of one cell (one forgery, one label) become exemplars: four policies, each a pure function.

Every function takes M candidates and returns the positions of at most n of them, most worth keeping first, so that a
memory that shrinks later cuts the tail without needing the features again. `groups` (M,) and `cap` spread the choice
over identities or videos: no group gives more than `cap` of the n (`group_cap` finds the smallest that suffices).
Ties go to the earlier candidate. Axes: M candidates, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from ffd_continual.replay.exemplars import ExemplarTable

Positions = NDArray[np.int64]


def group_cap(groups: NDArray[Any], n: int) -> int:
    """Smallest cap such that n (or all M) can be taken with no more than `cap` from any group."""
    sizes = np.unique(groups, return_counts=True)[1]
    n = min(n, len(groups))
    cap = 0
    while np.minimum(sizes, cap).sum() < n:
        cap += 1
    return cap


class _Quota:
    """Counts what each group has given."""

    def __init__(self, groups: NDArray[Any] | None, count: int, cap: int | None) -> None:
        self.cap = count if cap is None else cap
        self.ids = np.zeros(count, dtype=np.int64)
        if groups is not None:
            self.ids = np.unique(groups, return_inverse=True)[1].reshape(-1)
        self.taken = np.zeros(int(self.ids.max(initial=0)) + 1, dtype=np.int64)
        self.open = np.full(count, self.cap > 0)

    def take(self, position: int) -> None:
        group = self.ids[position]
        self.taken[group] += 1
        self.open[position] = False
        if self.taken[group] >= self.cap:
            self.open[self.ids == group] = False


def in_order(
    order: Sequence[int] | NDArray[Any], n: int, groups: NDArray[Any] | None = None, cap: int | None = None
) -> Positions:
    """The first n of `order` (a permutation of 0..M-1) that the groups' cap allows."""
    quota = _Quota(groups, len(order), cap)
    chosen: list[int] = []
    for position in np.asarray(order).tolist():
        if len(chosen) == n:
            break
        if quota.open[position]:
            quota.take(position)
            chosen.append(position)
    return np.array(chosen, dtype=np.int64)


def reservoir(
    keys: NDArray[np.float64], n: int, groups: NDArray[Any] | None = None, cap: int | None = None
) -> Positions:
    """The n greatest of random keys (M,): uniform sampling from a stream (A-Res, Efraimidis and Spirakis, 2006, with
    equal weights), provided each candidate keeps the key that it drew when first seen."""
    return in_order(np.argsort(-keys, kind="stable"), n, groups, cap)


def herding(
    features: NDArray[np.float32], n: int, groups: NDArray[Any] | None = None, cap: int | None = None
) -> Positions:
    """iCaRL's herding (Rebuffi et al., CVPR 2017, Alg. 4) on features (M, D) made unit vectors: each next face is the
    one that brings the mean of the chosen ones nearest to the mean of all. O(n M D)."""
    unit = _unit(features)
    mean = unit.mean(axis=0) if len(unit) else np.zeros(unit.shape[1])
    # |mean - (total + u)/(i+1)|^2 has the same order over u as -2 u.((i+1) mean - total) + |u|^2.
    lengths = np.square(unit).sum(axis=1)
    quota = _Quota(groups, len(unit), cap)
    total = np.zeros(unit.shape[1])
    chosen: list[int] = []
    while len(chosen) < n and quota.open.any():
        cost = lengths - 2.0 * (unit @ ((len(chosen) + 1) * mean - total))
        position = int(np.where(quota.open, cost, np.inf).argmin())
        quota.take(position)
        total += unit[position]
        chosen.append(position)
    return np.array(chosen, dtype=np.int64)


def hard_and_centre(
    features: NDArray[np.float32],
    scores: NDArray[np.float32],
    n: int,
    groups: NDArray[Any] | None = None,
    cap: int | None = None,
) -> Positions:
    """DFIL's memory (ACM MM 2023): half the faces nearest their class mean in feature space (M, D), half those whose
    forged probability (M,) has the highest entropy. Taken in turn, centre first, a face counting once."""
    distance = np.linalg.norm(features - features.mean(axis=0), axis=1) if len(features) else np.zeros(0)
    turns = [np.argsort(distance, kind="stable"), np.argsort(-entropy(scores), kind="stable")]
    quota = _Quota(groups, len(features), cap)
    heads = [0, 0]
    chosen: list[int] = []
    while len(chosen) < n and quota.open.any():
        turn = len(chosen) % 2
        # Some position is open, and every open position lies at or after each head: the loop below ends.
        while not quota.open[turns[turn][heads[turn]]]:
            heads[turn] += 1
        position = int(turns[turn][heads[turn]])
        quota.take(position)
        chosen.append(position)
    return np.array(chosen, dtype=np.int64)


def sparse_uniform(
    features: NDArray[np.float32], n: int, groups: NDArray[Any] | None = None, cap: int | None = None
) -> Positions:
    """SUR-LID's sparse uniform replay (CVPR 2025; reading: stability under augmentation is not part of it): faces
    spread evenly over the distance from the centroid of features (M, D), from the nearest face to the farthest.

    n targets divide the range of distances evenly; the ends first, then always the target farthest from those served
    (so that any first part of the answer is spread too); each takes the free face nearest to it. n = 1 takes the
    middle of the range."""
    count = len(features)
    n = min(n, count)
    if n == 0:
        return np.zeros(0, dtype=np.int64)
    distance = np.linalg.norm(features - features.mean(axis=0), axis=1)
    low, high = float(distance.min()), float(distance.max())
    targets = np.linspace(low, high, n) if n > 1 else np.array([(low + high) / 2])
    quota = _Quota(groups, count, cap)
    chosen: list[int] = []
    for step in _spread(n):
        if not quota.open.any():
            break
        gap = np.where(quota.open, np.abs(distance - targets[step]), np.inf)
        position = int(gap.argmin())
        quota.take(position)
        chosen.append(position)
    return np.array(chosen, dtype=np.int64)


def _spread(n: int) -> list[int]:
    """0..n-1 farthest first: 0, n-1, then the middle of the widest gap, and so on."""
    order = [0]
    gap = np.arange(n)
    while len(order) < n:
        order.append(int(gap.argmax()))
        gap = np.minimum(gap, np.abs(np.arange(n) - order[-1]))
    return order


def entropy(scores: NDArray[Any]) -> NDArray[np.float64]:
    """Binary entropy in nats of probabilities (M,)."""
    p = np.clip(scores.astype(np.float64), 1e-12, 1.0 - 1e-12)
    return np.asarray(-p * np.log(p) - (1.0 - p) * np.log1p(-p), dtype=np.float64)


def _unit(features: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = features.astype(np.float64)
    return np.asarray(wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12), dtype=np.float64)


class SelectionPolicy(Protocol):
    """Chooses exemplars of one cell. `needs_features` says whether candidates must bring features."""

    needs_features: ClassVar[bool]

    def __call__(self, cell: ExemplarTable, n: int, cap: int | None) -> Positions:
        """Positions in `cell` of at most n exemplars, most worth keeping first; no randomness beyond `cell.key`."""
        ...


@dataclass(frozen=True)
class Reservoir:
    """`reservoir` on the table's keys."""

    needs_features: ClassVar[bool] = False

    def __call__(self, cell: ExemplarTable, n: int, cap: int | None) -> Positions:
        """Positions, greatest key first."""
        return reservoir(cell.key, n, cell.group, cap)


@dataclass(frozen=True)
class Herding:
    """`herding` on the table's features."""

    needs_features: ClassVar[bool] = True

    def __call__(self, cell: ExemplarTable, n: int, cap: int | None) -> Positions:
        """Positions in herding order."""
        return herding(cell.feature, n, cell.group, cap)


@dataclass(frozen=True)
class HardAndCentre:
    """`hard_and_centre` on the table's features and scores."""

    needs_features: ClassVar[bool] = True

    def __call__(self, cell: ExemplarTable, n: int, cap: int | None) -> Positions:
        """Positions, centre and hard in turn."""
        return hard_and_centre(cell.feature, cell.score, n, cell.group, cap)


@dataclass(frozen=True)
class SparseUniform:
    """`sparse_uniform` on the table's features."""

    needs_features: ClassVar[bool] = True

    def __call__(self, cell: ExemplarTable, n: int, cap: int | None) -> Positions:
        """Positions, ends of the range first."""
        return sparse_uniform(cell.feature, n, cell.group, cap)
