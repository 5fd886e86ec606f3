"""The exemplar memory as an Avalanche storage policy, so that stock plugins (`ReplayPlugin`, ...) can replay from it.

The memory decides which rows to keep; this adaptor turns them into the `AvalancheDataset` subset that plugins read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from avalanche.benchmarks.utils import AvalancheDataset
from avalanche.training.storage_policy import ExemplarsBuffer
from numpy.typing import NDArray

from ffd_continual.replay.exemplars import ExemplarTable
from ffd_continual.replay.memory import Budget, ExemplarMemory
from ffd_continual.scenarios.errors import FFDError

Describe = Callable[[Any, Any, int], ExemplarTable]
"""(strategy, experience, first unused row) -> one candidate a sample of `experience.dataset`, in its order."""


def describe_targets(strategy: Any, experience: Any, first_row: int) -> ExemplarTable:
    """Candidates from `dataset.targets` alone (0 real, 1 forged): the forgery is named after the experience's number,
    rows are counted on from `first_row`. Enough for policies that need no features."""
    targets = [int(target) for target in experience.dataset.targets]
    return ExemplarTable.of(
        np.arange(first_row, first_row + len(targets)), f"experience {experience.current_experience}", targets
    )


class ExemplarStorage(ExemplarsBuffer):  # type: ignore[misc]  # Avalanche ships no types
    """`ExemplarsBuffer` over an `ExemplarMemory` with an item budget; the n-th update draws from (seed, n).

    Hand it over as `ReplayPlugin(mem_size=memory.budget.items, storage_policy=ExemplarStorage(memory, ...))`.
    A resumed run loads the state, then calls `attach` for every past experience, as data are not part of the state.
    """

    def __init__(self, memory: ExemplarMemory, describe: Describe = describe_targets, seed: int = 0) -> None:
        if memory.budget.items is None:
            raise FFDError("Avalanche counts a replay memory in items; give this memory Budget(items=...), not nbytes")
        super().__init__(memory.budget.items)
        self.memory = memory
        self.describe = describe
        self.seed = seed
        self._next_row = 0
        self._sources: list[tuple[Any, dict[int, int]]] = []  # a data set, and its index of each row still stored

    @property
    def buffer(self) -> Any:
        """The stored exemplars as an `AvalancheDataset`, data set by data set in order of arrival; empty at first.

        FFDError when stored rows have no data set, as after a resume without `attach`.
        """
        wanted = set(self.memory.table.row.tolist())
        parts = []
        for dataset, index in self._sources:
            chosen = [index[row] for row in sorted(wanted & index.keys())]
            wanted -= index.keys()
            if chosen:
                parts.append(dataset.subset(chosen))
        if wanted:
            raise FFDError(
                f"{len(wanted)} stored exemplars (row {min(wanted)} and others) belong to data that this storage has "
                "not seen; call attach(dataset, rows) for every past experience after loading a state"
            )
        if not parts:
            return AvalancheDataset([])
        joined = parts[0]
        for part in parts[1:]:
            joined = joined.concat(part)
        return joined

    def attach(self, dataset: Any, rows: NDArray[np.int64]) -> None:
        """Say where rows lie: `rows[i]` is the manifest row of `dataset[i]`. Later data win over earlier ones."""
        if len(dataset) != len(rows):
            raise FFDError(f"the description gives {len(rows)} rows for a data set of {len(dataset)} samples")
        here = {row: index for index, row in enumerate(rows.tolist())}
        self._sources = [(old, {r: i for r, i in known.items() if r not in here}) for old, known in self._sources]
        self._sources.append((dataset, here))
        self._next_row = max(self._next_row, int(rows.max(initial=-1)) + 1)
        self._forget()

    def post_adapt(self, agent_state: Any, exp: Any) -> None:
        """Offer an experience's samples to the memory."""
        candidates = self.describe(agent_state, exp, self._next_row)
        if len(candidates) != len(exp.dataset):
            raise FFDError(f"the description gives {len(candidates)} rows for a data set of {len(exp.dataset)} samples")
        self.memory.update(candidates, np.random.default_rng([self.seed, self.memory.updates]))
        self.attach(exp.dataset, candidates.row)

    def update(self, strategy: Any, **kwargs: Any) -> None:
        """What 0.6's `ReplayPlugin` still calls; the inherited one does the same with a deprecation warning."""
        self.post_adapt(strategy, strategy.experience)

    def resize(self, strategy: Any, new_size: int) -> None:
        """Change the number of items."""
        self.max_size = new_size
        self.memory.resize(Budget(items=new_size))
        self._forget()

    def state_dict(self) -> dict[str, Any]:
        """The memory's state and the row counter; see `ExemplarMemory.state_dict`."""
        state = self.memory.state_dict()
        return {"tensors": state["tensors"], "json": {**state["json"], "next_row": self._next_row}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`; `attach` the data of past experiences after."""
        self.memory.load_state_dict(state)
        self._next_row = int(state["json"]["next_row"])
        if self.memory.budget.items is None:
            raise FFDError("the saved memory has a byte budget; Avalanche counts a replay memory in items")
        self.max_size = self.memory.budget.items

    def _forget(self) -> None:
        # A data set none of whose faces is stored any more is let go. Rows attached ahead of a load are kept: those of
        # a memory that is empty because nothing was loaded yet must not be lost.
        if len(self.memory) == 0 and self.memory.updates == 0:
            return
        stored = set(self.memory.table.row.tolist())
        kept = [(dataset, {row: i for row, i in index.items() if row in stored}) for dataset, index in self._sources]
        self._sources = [(dataset, index) for dataset, index in kept if index]
