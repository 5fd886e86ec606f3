"""Which faces a step sees: pure, balanced, of constant number, the same for any number of workers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from torch.utils.data import DataLoader

from ffd_continual.scenarios.dataset import BatchDataset, train_batch
from ffd_continual.strategies.training.plan import StepPlan


def _filled(workshop: Any, strategy: str = "replay", **keep: Any) -> Any:
    """Parts whose memory holds faces of the first experience."""
    return workshop.train("plain", strategy, keep=keep, experiences=1).parts


def _plan(parts: Any, experience: int, batch: int = 12, start: int = 0, steps: int = 20) -> StepPlan:
    return StepPlan(parts.keeper, parts.sources, experience, batch, start, steps)


def test_random_access_equals_iteration_and_skipping(workshop: Any) -> None:
    parts = _filled(workshop)
    listed = [(r.rows, r.experience, r.step) for r in _plan(parts, 1)]
    assert [step for _, _, step in listed] == list(range(20))
    assert len(_plan(parts, 1)) == 20
    fresh = _plan(parts, 1)
    for step in (13, 2, 19, 0):
        assert fresh.rows(step) == listed[step][0]
    late = _plan(parts, 1, start=15)
    assert len(late) == 5
    assert [(r.rows, r.experience, r.step) for r in late] == listed[15:]
    assert len({rows for rows, _, _ in listed}) == 20


@pytest.mark.parametrize("batch", [4, 7, 12, 33])
def test_half_of_the_current_faces_are_real(workshop: Any, batch: int) -> None:
    _, parts = workshop.parts("plain", "naive")
    train = set(parts.scenario.index("train", "beta").tolist())
    for request in _plan(parts, 1, batch, steps=5):
        forged = (parts.sources.forgery[list(request.rows)] > 0).tolist()
        assert len(request.rows) == batch
        assert sum(forged) == batch // 2
        assert set(request.rows) <= train


def test_each_lap_shows_every_face_once(workshop: Any) -> None:
    _, parts = workshop.parts("plain", "naive")
    rows = parts.scenario.index("train", "alpha")
    forged = [int(r) for r in rows if parts.sources.forgery[r] > 0]
    seen = [r for request in _plan(parts, 0, 8, steps=9) for r in request.rows if parts.sources.forgery[r] > 0]
    for lap in range(3):
        assert sorted(seen[lap * len(forged) : (lap + 1) * len(forged)]) == forged
    assert seen[: len(forged)] != seen[len(forged) : 2 * len(forged)]


def test_memory_takes_its_share_and_the_batch_keeps_its_size(workshop: Any) -> None:
    parts = _filled(workshop, share=0.25)
    remembered = set(parts.keeper.remembered().tolist())
    assert 0 < len(remembered) <= 8
    for request in _plan(parts, 1, 12, steps=6):
        old = [r for r in request.rows if r in remembered]
        assert len(request.rows) == 12
        assert len(old) == 3
        assert request.rows[9:] == tuple(old)
        current = parts.sources.forgery[list(request.rows[:9])] > 0
        assert int(current.sum()) == 4
    greedy = _filled(workshop, share=1.0)
    assert greedy.keeper.replayed(12) == 10
    assert all(len(r.rows) == 12 for r in _plan(greedy, 1, 12, steps=3))


def test_replayed_faces_are_balanced(workshop: Any) -> None:
    parts = _filled(workshop, share=0.5)
    counts = np.zeros(2)
    for request in _plan(parts, 1, 16, steps=10):
        for row in request.rows[8:]:
            counts[int(parts.sources.forgery[row] > 0)] += 1
    assert counts.tolist() == [40, 40]


def test_pools_of_the_upper_bounds(workshop: Any) -> None:
    _, joint = workshop.parts("plain", "joint")
    _, cumulative = workshop.parts("plain", "cumulative")

    def experiences(parts: Any, at: int) -> set[int]:
        rows = [row for request in _plan(parts, at, 12, steps=4) for row in request.rows]
        return set(parts.sources.experience[rows].tolist())

    assert [experiences(joint, i) for i in range(3)] == [{0, 1, 2}] * 3
    assert [experiences(cumulative, i) for i in range(3)] == [{0}, {0, 1}, {0, 1, 2}]
    stored = [parts.keeper.stored_bytes() for parts in (joint, cumulative)]
    assert stored[1] > 0


def test_seeds_and_experiences_have_orders_of_their_own(workshop: Any) -> None:
    _, one = workshop.parts("plain", "joint")
    _, two = workshop.parts("plain", "joint", seed=1)
    assert _plan(one, 0).rows(0) != _plan(two, 0).rows(0)
    assert _plan(one, 0).rows(0) != _plan(one, 1).rows(0)


def test_a_batch_is_a_pure_function_of_its_request(workshop: Any) -> None:
    _, parts = workshop.parts("iin", "naive")
    request = list(_plan(parts, 0, 8, steps=3))[2]
    train_batch(parts.sources, list(_plan(parts, 0, 8, steps=3))[0])
    one, two = train_batch(parts.sources, request), train_batch(parts.sources, request)
    assert all(a.numpy().tobytes() == b.numpy().tobytes() for a, b in zip(one, two, strict=True))
    other = train_batch(parts.sources, request._replace(step=9))
    assert one.row.tolist() == other.row.tolist()
    assert one.image.numpy().tobytes() != other.image.numpy().tobytes()
    assert one.task.tolist() == [0] * 8
    assert one.target.tolist() == [int(parts.sources.forgery[r] > 0) for r in request.rows]


def test_worker_processes_make_the_same_bytes(workshop: Any) -> None:
    _, parts = workshop.parts("iin", "naive")

    def made(workers: int) -> list[list[bytes]]:
        loader = DataLoader(
            BatchDataset(parts.sources),
            sampler=_plan(parts, 0, 8, steps=3),
            batch_size=None,
            num_workers=workers,
            multiprocessing_context="fork" if workers else None,  # has imported everything: no seconds for each
        )
        return [[field.numpy().tobytes() for field in batch] for batch in loader]

    alone, two = made(0), made(2)
    assert len(alone) == 3
    assert alone == two
