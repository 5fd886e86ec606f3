from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

from ffd_continual.replay.exemplars import ExemplarTable
from ffd_continual.replay.selection import (
    HardAndCentre,
    Herding,
    Reservoir,
    SelectionPolicy,
    SparseUniform,
    entropy,
    group_cap,
    hard_and_centre,
    herding,
    in_order,
    reservoir,
    sparse_uniform,
)


def features(count: int = 40, dim: int = 5, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)


def test_herding_equals_the_greedy_search() -> None:
    points = features(15, 3)
    unit = [point / np.linalg.norm(point) for point in points.astype(float)]
    mean = sum(unit) / len(unit)
    chosen: list[int] = []
    for _ in range(8):
        best, best_gap = None, math.inf
        for candidate in range(len(unit)):
            if candidate in chosen:
                continue
            gap = float(np.linalg.norm(mean - sum(unit[i] for i in [*chosen, candidate]) / (len(chosen) + 1)))
            if gap < best_gap - 1e-12:
                best, best_gap = candidate, gap
        assert best is not None
        chosen.append(best)
    assert herding(points, 8).tolist() == chosen


def test_hard_and_centre_takes_half_of_each() -> None:
    points, scores = features(30, 4), np.random.default_rng(1).random(30).astype(np.float32)
    chosen = hard_and_centre(points, scores, 10).tolist()
    near = sorted(range(30), key=lambda i: np.linalg.norm(points[i] - points.mean(axis=0)))
    hard = sorted(range(30), key=lambda i: abs(scores[i] - 0.5))
    expected: list[int] = []
    for turn in range(10):
        order = hard if turn % 2 else near
        expected.append(next(i for i in order if i not in expected))
    assert chosen == expected


def test_entropy_is_greatest_at_one_half() -> None:
    assert entropy(np.array([0.5])).tolist() == pytest.approx([math.log(2)])
    assert entropy(np.array([0.0, 1.0])).tolist() == pytest.approx([0, 0], abs=1e-9)
    assert entropy(np.array([0.9])).tolist() == pytest.approx([-0.9 * math.log(0.9) - 0.1 * math.log(0.1)])


def test_sparse_uniform_is_even_over_the_distance_where_herding_is_not() -> None:
    rng = np.random.default_rng(2)
    radius = np.concatenate([rng.uniform(0, 0.3, 450), rng.uniform(0.3, 1.0, 50)])
    angle = rng.uniform(0, 2 * np.pi, 500)
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).astype(np.float32)
    distance = np.linalg.norm(points - points.mean(axis=0), axis=1)
    chosen = np.sort(distance[sparse_uniform(points, 8)])
    grid = np.linspace(distance.min(), distance.max(), 8)
    assert np.abs(chosen - grid).max() < 0.05
    # The first part of the answer, which a shrinking memory keeps, still reaches both ends and the middle.
    first = distance[sparse_uniform(points, 8)[:3]]
    assert first[0] == distance.min()
    assert first[1] == distance.max()
    assert abs(first[2] - (distance.min() + distance.max()) / 2) < 0.15


def test_reservoir_takes_the_greatest_keys() -> None:
    keys = np.array([0.2, 0.9, 0.1, 0.5])
    assert reservoir(keys, 2).tolist() == [1, 3]


POLICIES: list[SelectionPolicy] = [Reservoir(), Herding(), HardAndCentre(), SparseUniform()]


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: type(policy).__name__)
@pytest.mark.parametrize("n", [0, 1, 7, 40, 100])
@pytest.mark.parametrize("grouped", [False, True])
def test_every_policy_gives_n_distinct_faces_within_the_cap(policy: SelectionPolicy, n: int, grouped: bool) -> None:
    rng = np.random.default_rng(3)
    groups = rng.choice(["a", "b", "c", "d"], 40, p=[0.7, 0.1, 0.1, 0.1]) if grouped else np.full(40, "")
    table = ExemplarTable.of(range(40), "swap", [1] * 40, group=groups, score=rng.random(40), feature=features())
    object.__setattr__(table, "key", rng.random(40))
    cap = group_cap(groups, n)
    chosen = policy(table, n, cap).tolist()
    assert len(chosen) == len(set(chosen)) == min(n, 40)
    assert max(Counter(groups[chosen]).values(), default=0) <= cap
    assert policy(table.take([]), n, None).tolist() == []


def test_group_cap_is_the_smallest_that_suffices() -> None:
    groups = np.array(["a"] * 10 + ["b"] * 2 + ["c"])
    for n in range(14):
        fits = [cap for cap in range(20) if sum(min(size, cap) for size in (10, 2, 1)) >= n]
        assert group_cap(groups, n) == min(fits)
    assert group_cap(groups, 99) == 10


def test_in_order_skips_full_groups() -> None:
    groups = np.array(["a", "a", "a", "b"])
    assert in_order([2, 1, 0, 3], 2, groups, cap=1).tolist() == [2, 3]
    assert in_order([2, 1, 0, 3], 3, groups, cap=None).tolist() == [2, 1, 0]


def test_equal_faces_do_not_break_a_policy() -> None:
    same = np.ones((6, 3), dtype=np.float32)
    assert herding(same, 3).tolist() == [0, 1, 2]
    assert len(set(sparse_uniform(same, 4).tolist())) == 4
    assert hard_and_centre(same, np.full(6, 0.5, dtype=np.float32), 3).tolist() == [0, 1, 2]
