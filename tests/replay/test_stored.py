from __future__ import annotations

import numpy as np
import torch

from ffd_continual.replay.exemplars import ExemplarTable
from ffd_continual.replay.memory import Budget, ExemplarMemory
from ffd_continual.replay.stored import choose_stored, stored_rows


def _memory() -> ExemplarMemory:
    memory = ExemplarMemory(Budget(items=8))
    for number, name in enumerate(("swap", "warp")):
        rows = np.arange(10) + 100 * number
        offered = ExemplarTable.of(rows, name, np.arange(10) % 2, group=[f"p{r % 5}" for r in rows])
        memory.update(offered, np.random.default_rng(number))
    return memory


def test_chosen_exemplars_keep_all_but_their_number_and_others_leave_no_name() -> None:
    memory = _memory()
    state = memory.state_dict()
    person = str(memory.table.group[0])
    kept = np.flatnonzero(memory.table.group != person)
    assert 0 < len(kept) < 8
    tensors, names = choose_stored((state["tensors"], state["json"]), kept, np.arange(len(kept)) + 7)
    assert person not in names["group"]
    assert stored_rows((tensors, names)).tolist() == list(range(7, 7 + len(kept)))
    again = ExemplarMemory(Budget(items=8))
    again.load_state_dict({"tensors": tensors, "json": names})
    for column in ("forgery", "label", "group", "key", "stamp", "score"):
        assert (getattr(again.table, column) == getattr(memory.table, column)[kept]).all(), column
    assert again.forgeries == ["swap", "warp"]  # a cell that lost all of its faces stays known
    assert person in state["json"]["group"]  # the state that was given is left as it was


def test_a_memory_behind_a_prefix_is_found_and_other_states_pass_through() -> None:
    state = _memory().state_dict()
    tensors = {f"memory.{k}": v for k, v in state["tensors"].items()} | {"initial.w": torch.ones(3)}
    values = {"memory": state["json"], "trained": ["w"]}
    rows = stored_rows((tensors, values))
    assert rows.tolist() == state["tensors"]["row"].tolist()
    made, names = choose_stored((tensors, values), np.array([2, 0]), np.array([5, 6]))
    assert made["memory.row"].tolist() == [5, 6]
    assert made["memory.key"].tolist() == state["tensors"]["key"][[2, 0]].tolist()
    assert made["initial.w"].sum() == 3
    assert names["trained"] == ["w"]
    assert stored_rows(({"delta.000": torch.zeros(2)}, {})).size == 0
    assert choose_stored(({}, {"a": 1}), np.array([0]), np.array([0])) == ({}, {"a": 1})
