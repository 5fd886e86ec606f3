from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from scipy.stats import chisquare

from ffd_continual.replay.exemplars import FORGED, REAL, ExemplarTable
from ffd_continual.replay.memory import Budget, ExemplarMemory, share
from ffd_continual.replay.selection import HardAndCentre, Herding, SelectionPolicy, SparseUniform
from ffd_continual.scenarios.errors import FFDError


def faces(
    forgery: str,
    first: int,
    reals: int = 30,
    forged: int = 30,
    *,
    dim: int = 0,
    size: int = 100,
    people: int = 1,
    seed: int = 0,
) -> ExemplarTable:
    count = reals + forged
    rng = np.random.default_rng([seed, first])
    return ExemplarTable.of(
        range(first, first + count),
        forgery,
        [REAL] * reals + [FORGED] * forged,
        group=[f"person {i % people}" for i in range(count)],
        score=rng.random(count),
        size=size,
        feature=rng.standard_normal((count, dim)) if dim else None,
    )


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_twenty_items_for_eight_forgeries_stay_balanced() -> None:
    memory = ExemplarMemory(Budget(items=20))
    for index in range(8):
        memory.update(faces(f"forgery {index}", 100 * index), generator(index))
        counts = memory.counts()
        assert len(memory) == 20
        for label in (REAL, FORGED):
            of_label = [counts[f"forgery {seen}", label] for seen in range(index + 1)]
            assert sum(of_label) == 10
            assert max(of_label) - min(of_label) <= 1


@pytest.mark.parametrize("forgeries", [1, 2, 5, 8, 13])
@pytest.mark.parametrize("n", [0, 1, 7, 8, 13, 20, 50, 333])
def test_share_is_even_and_grows_by_one_item(forgeries: int, n: int) -> None:
    room = np.full((forgeries, 2), 1000)
    quota = share(n, room)
    assert quota.sum() == n
    assert abs(int(quota[:, 0].sum() - quota[:, 1].sum())) <= 1
    for label in (REAL, FORGED):
        assert quota[:, label].max() - quota[:, label].min() <= 1
    if n >= forgeries:
        assert quota.sum(axis=1).min() >= 1
    step = share(n + 1, room) - quota
    assert step.min() == 0
    assert step.sum() == 1


def test_share_gives_what_a_small_cell_cannot_take_to_the_others() -> None:
    room = np.array([[2, 50], [50, 1], [0, 50]])
    quota = share(30, room)
    assert (quota <= room).all()
    assert quota.tolist() == [[2, 7], [13, 1], [0, 7]]
    assert share(1000, room).tolist() == room.tolist()


def test_reservoir_keeps_every_candidate_equally_often() -> None:
    candidates, kept, runs = 24, 8, 400
    seen = np.zeros(candidates)
    for run in range(runs):
        memory, rng = ExemplarMemory(Budget(items=kept)), generator(run)
        # The same cell arrives in three unequal parts: what came first must fare as what came last.
        for start, stop in ((0, 10), (10, 11), (11, 24)):
            memory.update(ExemplarTable.of(range(start, stop), "swap", [FORGED] * (stop - start)), rng)
        seen[memory.table.row] += 1
    assert seen.sum() == runs * kept
    assert chisquare(seen).pvalue > 1e-3
    # The test has the power to see a bias: moving 8 % of the draws from the last part to the first is caught.
    biased = seen.copy()
    biased[:11] += 0.08 * seen.sum() / 11
    biased[11:] -= 0.08 * seen.sum() / 13
    assert chisquare(biased).pvalue < 1e-3


def test_offering_a_face_again_does_not_raise_its_chance() -> None:
    runs, again = 500, 0
    for run in range(runs):
        memory, rng = ExemplarMemory(Budget(items=1)), generator(run)
        memory.update(ExemplarTable.of([0, 1], "swap", [FORGED, FORGED]), rng)
        before = memory.table.row.tolist()
        memory.update(ExemplarTable.of(before, "swap", [FORGED], score=[0.25]), rng)
        assert memory.table.row.tolist() == before
        assert memory.table.score.tolist() == [0.25]
        assert memory.table.stamp.tolist() == [1]
        memory.update(ExemplarTable.of([2, 3], "swap", [FORGED, FORGED]), rng)
        again += memory.table.row.tolist() == before
    assert again / runs == pytest.approx(0.5, abs=0.09)


def test_identities_share_a_cell() -> None:
    memory = ExemplarMemory(Budget(items=12))
    crowd = faces("swap", 0, reals=100, forged=100, people=1)
    groups = np.array(["busy"] * 95 + [f"rare {i}" for i in range(5)] + ["busy"] * 95 + [f"rare {i}" for i in range(5)])
    memory.update(ExemplarTable.of(crowd.row, crowd.forgery, crowd.label, group=groups), generator())
    for label in (REAL, FORGED):
        mine = memory.table.group[memory.table.label == label]
        assert sorted(mine.tolist()) == ["busy", *[f"rare {i}" for i in range(5)]]
    unbalanced = ExemplarMemory(Budget(items=12), balance_groups=False)
    unbalanced.update(ExemplarTable.of(crowd.row, crowd.forgery, crowd.label, group=groups), generator())
    assert (unbalanced.table.group == "busy").sum() > 8


def test_byte_budget_counts_pictures_features_and_logits() -> None:
    rng = generator()
    sizes = rng.integers(50, 500, 80)
    table = ExemplarTable.of(
        range(80), "swap", [0, 1] * 40, size=sizes, logit=rng.random(80), feature=rng.random((80, 16))
    )
    for nbytes in range(500, 15_000, 1500):
        memory = ExemplarMemory(Budget(nbytes=nbytes), store_features=True)
        memory.update(table, generator())
        assert memory.bytes() == sum(int(sizes[row]) + 16 * 4 + 4 for row in memory.table.row) <= nbytes
        counts = memory.counts()
        assert abs(counts["swap", REAL] - counts["swap", FORGED]) <= 1
        one_more = ExemplarMemory(Budget(items=len(memory) + 1), store_features=True)
        one_more.update(table, generator())
        assert set(one_more.table.row) > set(memory.table.row)
        assert one_more.bytes() > nbytes, "one more exemplar would have fitted"
    memory = ExemplarMemory(Budget(nbytes=5000), store_features=True)
    memory.update(table, generator())
    lean = ExemplarMemory(Budget(nbytes=5000), store_features=False, store_logits=False)
    lean.update(table, generator())
    assert lean.bytes() == int(sizes[lean.table.row].sum()) <= 5000
    assert len(lean) > len(memory)


@pytest.mark.parametrize("budget", [Budget(items=0), Budget(nbytes=0), Budget(nbytes=99)])
def test_no_budget_keeps_nothing(budget: Budget) -> None:
    memory = ExemplarMemory(budget)
    memory.update(faces("swap", 0), generator())
    assert len(memory) == memory.bytes() == 0
    assert memory.counts() == {("swap", REAL): 0, ("swap", FORGED): 0}
    assert memory.draw(4, generator()).tolist() == []
    memory.load_state_dict(memory.state_dict())
    assert memory.forgeries == ["swap"]


@pytest.mark.parametrize("policy", [Herding(), HardAndCentre(), SparseUniform()])
@pytest.mark.parametrize("store_features", [False, True])
def test_resize_drops_the_least_worthy_and_nothing_else(policy: SelectionPolicy, store_features: bool) -> None:
    memory = ExemplarMemory(Budget(items=16), policy, store_features=store_features)
    for index in range(2):
        memory.update(faces(f"forgery {index}", 100 * index, dim=6), generator(index))
    before = {cell: memory.table.row[where].tolist() for cell, where in memory._where().items()}
    memory.resize(Budget(items=6))
    for cell, where in memory._where().items():
        after = memory.table.row[where].tolist()
        assert after == before[cell][: len(after)]
    assert len(memory) == 6
    memory.resize(Budget(items=16))
    assert len(memory) == 6


def test_draws_are_balanced_and_depend_on_the_generator_only() -> None:
    memory = ExemplarMemory(Budget(items=40))
    memory.update(faces("swap", 0, reals=2, forged=30), generator(0))
    memory.update(faces("warp", 100), generator(1))
    where = memory.positions(16, generator(5))
    cells = list(zip(memory.table.forgery[where], memory.table.label[where], strict=True))
    assert all(cells.count((name, label)) == 4 for name in ("swap", "warp") for label in (REAL, FORGED))
    swaps = memory.table.row[where][[cell == ("swap", REAL) for cell in cells]]
    assert sorted(swaps.tolist()) == [0, 0, 1, 1], "a cell of two gives each face twice, none four times"
    assert memory.draw(16, generator(5)).tolist() == memory.table.row[where].tolist()
    assert memory.draw(16, generator(6)).tolist() != memory.table.row[where].tolist()


def test_small_draws_reach_every_cell_and_exemplar_equally() -> None:
    memory = ExemplarMemory(Budget(items=24))
    for index in range(3):
        memory.update(faces(f"forgery {index}", 100 * index), generator(index))
    seen = np.zeros(24)
    rng = generator(9)
    for _ in range(2000):
        np.add.at(seen, memory.positions(4, rng), 1)
    assert chisquare(seen).pvalue > 1e-3


@pytest.mark.parametrize("policy", [None, HardAndCentre(), SparseUniform()])
def test_a_restored_memory_goes_on_identically(policy: SelectionPolicy | None) -> None:
    def fresh() -> ExemplarMemory:
        return ExemplarMemory(Budget(items=10), policy, store_features=True)

    first, second = fresh(), fresh()
    first.update(faces("swap", 0, dim=4, people=7), generator(0))
    first.resize(Budget(items=9))
    state = first.state_dict()
    second.load_state_dict({"tensors": state["tensors"], "json": json.loads(json.dumps(state["json"]))})
    for memory in (first, second):
        memory.update(faces("warp", 100, dim=4, people=7), generator(1))
        memory.update(faces("swap", 500, dim=4, people=7), generator(2))
    assert len(first) == 9
    for name, column in vars(first.table).items():
        np.testing.assert_array_equal(column, getattr(second.table, name), err_msg=name)
    assert first.draw(8, generator(3)).tolist() == second.draw(8, generator(3)).tolist()
    assert second.updates == 3


def test_errors_say_what_to_do() -> None:
    with pytest.raises(FFDError, match="candidates have none"):
        ExemplarMemory(Budget(items=4), Herding()).update(faces("swap", 0), generator())
    memory = ExemplarMemory(Budget(items=4), Herding())
    memory.update(faces("swap", 0, dim=3), generator())
    with pytest.raises(FFDError, match="set store_features"):
        memory.update(faces("swap", 100, dim=3), generator())
    with pytest.raises(FFDError, match="filled by Herding, not by Reservoir"):
        ExemplarMemory(Budget(items=4)).load_state_dict(memory.state_dict())
    wrongs: tuple[dict[str, int], ...] = ({}, {"items": 3, "nbytes": 3}, {"items": -1})
    for wrong in wrongs:
        with pytest.raises(FFDError, match="either items or nbytes"):
            Budget(**wrong)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"row": [1, 1], "label": [0, 1]}, "offered twice"),
        ({"row": [1, 2], "label": [0, 2]}, "labels must be 0"),
        ({"row": [1, 2], "label": [0]}, "'label' has shape"),
        ({"row": [1, 2], "label": [0, 1], "score": 3.0}, "probabilities"),
        ({"row": [1, 2], "label": [0, 1], "size": -1}, "bytes"),
        ({"row": [1, 2], "label": [0, 1], "feature": np.zeros((3, 2))}, "features must be"),
    ],
)
def test_wrong_candidates_are_refused(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(FFDError, match=message):
        ExemplarTable.of(columns.pop("row"), "swap", columns.pop("label"), **columns)
