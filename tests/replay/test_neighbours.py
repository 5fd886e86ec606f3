from __future__ import annotations

import faiss
import pytest
import torch
from torch import Tensor

from ffd_continual.replay import neighbours
from ffd_continual.replay.neighbours import (
    ExactNeighbours,
    FaissNeighbours,
    Kind,
    Metric,
    build_neighbours,
    exact_search,
    measure_recall,
)
from ffd_continual.replay.queues import FeatureQueue


def data(count: int, dim: int = 6, seed: int = 0) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def brute_force(query: Tensor, vectors: Tensor, k: int, metric: Metric) -> list[tuple[float, int]]:
    scored = []
    for index, vector in enumerate(vectors.double()):
        query64 = query.double()
        if metric is Metric.COSINE:
            similarity = float(query64 @ vector / (query64.norm() * vector.norm()))
        else:
            similarity = -float(((query64 - vector) ** 2).sum())
        scored.append((-similarity, index))
    return [(-negative, index) for negative, index in sorted(scored)[:k]]


@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize("kind", [Kind.EXACT, Kind.FLAT])
@pytest.mark.parametrize("queries", [1, 64, 70])
def test_exact_kinds_equal_brute_force(metric: Metric, kind: Kind, queries: int) -> None:
    vectors, asked = data(120), data(queries, seed=1)
    similarity, index = build_neighbours(vectors, metric, kind).search(asked, 5)
    for row in range(queries):
        expected = brute_force(asked[row], vectors, 5, metric)
        assert index[row].tolist() == [found for _, found in expected]
        assert similarity[row].tolist() == pytest.approx([value for value, _ in expected], abs=1e-4)


def test_l2_stays_exact_far_from_the_origin() -> None:
    vectors, asked = data(50) + 300.0, data(8, seed=1) + 300.0
    similarity, _ = exact_search(asked, vectors, 3, Metric.L2)
    for row in range(8):
        expected = [value for value, _ in brute_force(asked[row], vectors, 3, Metric.L2)]
        assert similarity[row].tolist() == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("kind", [Kind.EXACT, Kind.FLAT])
@pytest.mark.parametrize("metric", list(Metric))
def test_an_answer_does_not_depend_on_the_company_of_a_query(kind: Kind, metric: Metric) -> None:
    index = build_neighbours(data(3000, 33), metric, kind)
    asked = data(130, 33, seed=2)
    together = index.search(asked, 4)
    for start, stop in ((0, 1), (64, 128), (100, 130)):
        apart = index.search(asked[start:stop], 4)
        assert torch.equal(apart[0], together[0][start:stop])
        assert torch.equal(apart[1], together[1][start:stop])


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("metric", list(Metric))
def test_fewer_vectors_than_asked_for(kind: Kind, metric: Metric) -> None:
    similarity, index = build_neighbours(data(3), metric, kind).search(data(2, seed=1), 5)
    assert sorted(index[0, :3].tolist()) == [0, 1, 2]
    assert index[:, 3:].tolist() == [[-1, -1], [-1, -1]]
    assert torch.isneginf(similarity[:, 3:]).all()
    assert (similarity[:, :2] >= similarity[:, 1:3]).all()


@pytest.mark.parametrize("metric", list(Metric))
def test_lists_not_probed_leave_the_answer_short(metric: Metric) -> None:
    vectors = data(400)
    similarity, index = FaissNeighbours(vectors, metric, Kind.IVF, effort=1).search(data(3, seed=1), 400)
    missing = index < 0
    assert missing.any(dim=1).all()
    assert not missing[:, 0].any()
    assert torch.equal(missing, torch.isneginf(similarity))


@pytest.mark.parametrize("kind", list(Kind))
def test_no_vectors_and_no_queries(kind: Kind) -> None:
    empty = build_neighbours(torch.zeros(0, 4), kind=kind)
    similarity, index = empty.search(torch.ones(2, 4), 3)
    assert (index == -1).all()
    assert torch.isneginf(similarity).all()
    assert build_neighbours(data(5), kind=kind).search(torch.zeros(0, 6), 2)[1].shape == (0, 2)


def test_a_queue_is_searched_live() -> None:
    queue = FeatureQueue(4, 2)
    index = ExactNeighbours(queue)
    assert index.search(torch.ones(1, 2), 1)[1].item() == -1
    queue.enqueue(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    assert index.search(torch.tensor([[0.1, 1.0]]), 1)[1].item() == 1
    queue.enqueue(torch.tensor([[0.1, 1.0]]))
    similarity, slot = index.search(torch.tensor([[0.1, 1.0]]), 2)
    assert slot.tolist() == [[2, 1]]
    assert similarity[0, 0].item() == pytest.approx(1.0, abs=1e-6)
    assert len(index) == 3


@pytest.mark.parametrize("kind", [Kind.IVF, Kind.HNSW])
@pytest.mark.parametrize("metric", list(Metric))
def test_recall_of_the_approximate_kinds(kind: Kind, metric: Metric) -> None:
    generator = torch.Generator().manual_seed(3)
    centres = torch.randn(30, 24, generator=generator)
    which = torch.randint(30, (2100,), generator=generator)
    points = centres[which] + 0.4 * torch.randn(2100, 24, generator=generator)
    vectors, asked = points[:2000], points[2000:]
    index = FaissNeighbours(vectors, metric, kind)
    assert measure_recall(index, vectors, asked, 10, metric) > 0.95
    crippled = FaissNeighbours(vectors, metric, kind, effort=1)
    assert measure_recall(crippled, vectors, asked, 10, metric) < measure_recall(index, vectors, asked, 10, metric)


@pytest.mark.parametrize("kind", [Kind.IVF, Kind.HNSW])
def test_rebuilding_from_the_same_vectors_gives_the_same_answers(kind: Kind) -> None:
    vectors, asked = data(3000, 8), data(50, 8, seed=4)
    threads = faiss.omp_get_max_threads()
    first = FaissNeighbours(vectors, kind=kind, seed=5).search(asked, 6)
    second = FaissNeighbours(vectors.clone(), kind=kind, seed=5).search(asked, 6)
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert faiss.omp_get_max_threads() == threads


def test_kind_is_chosen_by_size(monkeypatch: pytest.MonkeyPatch) -> None:
    assert neighbours.FLAT_BELOW == 100_000
    monkeypatch.setattr(neighbours, "FLAT_BELOW", 12_000)
    assert isinstance(build_neighbours(data(9_999, 2)), ExactNeighbours)
    flat = build_neighbours(data(10_000, 2))
    assert isinstance(flat, FaissNeighbours)
    assert flat.kind is Kind.FLAT
    large = build_neighbours(data(12_000, 1))
    assert isinstance(large, FaissNeighbours)
    assert large.kind is Kind.IVF


def test_wrong_queries_are_refused() -> None:
    index = build_neighbours(data(5))
    with pytest.raises(ValueError, match="queries must be"):
        index.search(torch.zeros(2, 5), 1)
    with pytest.raises(ValueError, match="k and the query batch"):
        index.search(torch.zeros(2, 6), 0)
    with pytest.raises(ValueError, match="ExactNeighbours"):
        FaissNeighbours(data(5), kind=Kind.EXACT)
