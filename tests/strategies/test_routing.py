"""The router against a slow Mahalanobis distance."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from ffd_continual.strategies.learners.routing import Router, routed


def _faces(seed: int, centre: float, count: int = 40) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    return torch.randn(count, 3, generator=generator) * torch.tensor([1.0, 2.0, 0.5]) + centre + labels[:, None], labels


@pytest.fixture
def learnt() -> tuple[Router, list[tuple[Tensor, Tensor]]]:
    router, sets = Router(3), [_faces(0, 0.0), _faces(1, 6.0)]
    for kind, (features, labels) in enumerate(sets):
        router.grow()
        router.learn(kind, features, labels)
    return router, sets


def _slow_distances(face: np.ndarray, sets: list[tuple[Tensor, Tensor]], shrink: float = 0.1) -> list[float]:
    """Squared distance to the nearer of a type's two class means over R, under the pooled within-class covariance."""
    scatter, count = np.zeros((3, 3)), 0
    means: list[list[np.ndarray]] = []
    for features, labels in sets:
        means.append([])
        for label in (0, 1):
            part = features[labels == label].double().numpy()
            mean = sum(part) / len(part)
            means[-1].append(mean)
            for row in part:
                scatter += np.outer(row - mean, row - mean)
                count += 1
    covariance = scatter / count
    for i in range(3):
        for j in range(3):
            if i != j:
                covariance[i, j] *= 1 - shrink
    return [min(float((face - m) @ np.linalg.solve(covariance, face - m)) for m in pair) / 3 for pair in means]


def test_distances_weights_and_novelty_against_loops(learnt: tuple[Router, list[tuple[Tensor, Tensor]]]) -> None:
    router, sets = learnt
    faces = torch.randn(5, 3, generator=torch.Generator().manual_seed(9)) * 4 + 2
    log_weights, novelty = router(faces, 4.0)
    weights = log_weights.exp()
    for at, face in enumerate(faces.double().numpy()):
        wanted = _slow_distances(face, sets)
        assert router.distances(faces)[at].tolist() == pytest.approx(wanted, rel=1e-4)
        unit = 4.0 * max(1.0, float(novelty[at]))
        likes = [math.exp(-0.5 * 3 * d / unit) for d in wanted]
        assert weights[at].tolist() == pytest.approx([v / sum(likes) for v in likes], rel=1e-3, abs=1e-6)
        assert float(novelty[at]) == pytest.approx(min(wanted) / float(router.usual[int(np.argmin(wanted))]), rel=1e-4)
    assert torch.allclose(weights.sum(1), torch.ones(5))


def test_a_type_draws_its_own_faces(learnt: tuple[Router, list[tuple[Tensor, Tensor]]]) -> None:
    router, sets = learnt
    for kind, (features, _) in enumerate(sets):
        weights, novelty = router(features, 1.0)
        assert float((weights.argmax(1) == kind).float().mean()) > 0.95
        assert float(novelty.median()) < 1.0
    assert float(router(torch.full((1, 3), 60.0), 1.0)[1]) > 10


def test_novelty_is_one_at_the_border_of_the_ordinary() -> None:
    router = Router(3)
    router.grow()
    features, labels = _faces(0, 0.0, 201)
    router.learn(0, features, labels)
    novelty = router(features, 1.0)[1].sort().values
    # the border is the 95 % quantile of a type's own faces: with 201 of them, the 191st
    assert float(novelty[190]) == pytest.approx(1.0, rel=1e-5)


def test_differences_count_in_units_of_novelty() -> None:
    squared = torch.tensor([[2.0, 6.0], [20.0, 60.0], [0.2, 0.6]])
    log_weights = routed(squared, 2.0, torch.tensor([1.0, 10.0, 0.1]))
    gaps = (log_weights[:, 0] - log_weights[:, 1]).tolist()
    # the second face is ten times as far from all: no surer. One nearer than usual is not made surer either.
    assert gaps == pytest.approx([1.0, 1.0, 0.1])
    assert log_weights.exp().sum(1).tolist() == pytest.approx([1.0, 1.0, 1.0])


def test_types_that_are_not_learnt_get_no_weight() -> None:
    router = Router(3)
    assert router(torch.zeros(4, 3), 1.0)[0].shape == (4, 0)
    router.grow()
    log_weights, novelty = router(torch.zeros(4, 3), 1.0)
    assert log_weights.exp().tolist() == [[1.0]] * 4
    assert novelty.tolist() == [0.0] * 4
    router.learn(0, *_faces(0, 0.0))
    router.grow()
    log_weights, novelty = router(torch.randn(4, 3), 1.0)
    assert log_weights.exp().tolist() == [[1.0, 0.0]] * 4
    assert bool(torch.isfinite(novelty).all())


def test_a_type_with_one_class_only_is_judged_by_that_class() -> None:
    router = Router(3)
    router.grow()
    features, _ = _faces(0, 0.0)
    router.learn(0, features, torch.ones(40, dtype=torch.int64))
    assert bool(torch.isfinite(router(features, 1.0)[1]).all())


def test_growth_survives_loading(learnt: tuple[Router, list[tuple[Tensor, Tensor]]]) -> None:
    router, _ = learnt
    fresh = Router(3)
    fresh.load_state_dict(router.state_dict())
    faces = torch.randn(5, 3)
    for mine, theirs in zip(fresh(faces, 2.0), router(faces, 2.0), strict=True):
        assert torch.equal(mine, theirs)
    assert fresh.means.shape == (2, 2, 3)


def test_the_closed_router_answers_alike(learnt: tuple[Router, list[tuple[Tensor, Tensor]]]) -> None:
    router, _ = learnt
    faces = torch.randn(7, 3)
    for grown in (False, True):  # also with a type that has not been learnt, which gets no weight
        if grown:
            router.grow()
        mine, theirs = router.closed()(faces, 2.0), router(faces, 2.0)
        assert torch.allclose(mine[0].exp(), theirs[0].exp(), atol=1e-6)
        assert torch.allclose(mine[1], theirs[1], atol=1e-5)
    empty = Router(3)
    empty.grow()
    assert torch.equal(empty.closed()(faces, 2.0)[0], empty(faces, 2.0)[0])
    assert empty.closed()(faces, 2.0)[1].tolist() == [0.0] * 7
