"""Which faces each step sees: a pure function of (seed, experience, step) and of the memory.

Half of the current faces are real, half forged; within each half the experiences of the pool take turns, and each
walks through its own permutation, a new one a lap. So no draw needs the draws before it, and a resumed run skips
to its step without reading a picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ffd_continual.scenarios.dataset import Request, Sources
from ffd_continual.scenarios.views import keyed_generator
from ffd_continual.strategies.strategy import Rows, Strategy

_ORDER, _MEMORY = 101, 202  # tells the two uses of a key apart


class _Walk:
    """Endless walk over some rows, addressable by position."""

    def __init__(self, rows: Rows, *key: int):
        self.rows, self.key = rows, key
        self._lap = lru_cache(maxsize=2)(self._permutation)

    def _permutation(self, lap: int) -> npt.NDArray[np.int64]:
        return keyed_generator(_ORDER, *self.key, lap).permutation(self.rows)

    def at(self, position: int) -> int:
        lap, place = divmod(position, len(self.rows))
        return int(self._lap(lap)[place])


class StepPlan:
    """Iterates over the requests of steps start .. steps-1 of one experience."""

    def __init__(self, strategy: Strategy, sources: Sources, experience: int, batch: int, start: int, steps: int):
        self.strategy, self.experience, self.batch = strategy, experience, batch
        self.start, self.steps, self.seed = start, steps, sources.seed
        rows = strategy.pool(experience)
        label, origin = sources.forgery[rows] > 0, sources.experience[rows]
        self.walks: list[list[_Walk]] = []
        for side in (False, True):
            groups = [rows[(label == side) & (origin == o)] for o in np.unique(origin)]
            self.walks.append([_Walk(g, self.seed, experience, int(side), i) for i, g in enumerate(groups) if len(g)])

    def __len__(self) -> int:
        return self.steps - self.start

    def rows(self, step: int) -> tuple[int, ...]:
        """The rows of one step: current real, current forged, replayed."""
        replayed = self.strategy.replayed(self.batch)
        current = self.batch - replayed
        chosen: list[int] = []
        for walks, count in zip(self.walks, (current - current // 2, current // 2), strict=True):
            for i in range(step * count, (step + 1) * count):
                turn, walk = divmod(i, len(walks))
                chosen.append(walks[walk].at(turn))
        if replayed:
            rng = keyed_generator(_MEMORY, self.seed, self.experience, step)
            chosen.extend(int(row) for row in self.strategy.draw(replayed, rng))
        return tuple(chosen)

    def __iter__(self) -> Iterator[Request]:
        for step in range(self.start, self.steps):
            yield Request(self.rows(step), self.experience, step)
