"""What a grid file holds, and the cells that follow from it.

A grid is YAML: `base` (a configuration or protocols/NAME, of which `studio: true` takes the miniature), `seeds`,
`methods` (name -> list of key=value changes), and `learners` and `strategies` (the same), whose product adds a method
`<learner>+<strategy>` each. `seeds_of` gives any of these seeds of their own.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ffd_continual.config import RunConfig, apply_sets, config_from
from ffd_continual.protocols import base_values
from ffd_continual.scenarios.errors import FFDError


@dataclass(frozen=True)
class Grid:
    """What a grid file holds."""

    base: str
    studio: bool = False  # of a protocol: its miniature on rendered faces
    methods: dict[str, tuple[str, ...]] = field(default_factory=dict)
    learners: dict[str, tuple[str, ...]] = field(default_factory=dict)
    strategies: dict[str, tuple[str, ...]] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0, 1, 2)
    seeds_of: dict[str, tuple[int, ...]] = field(default_factory=dict)
    set: tuple[str, ...] = field(default=())  # changes to the base, for all methods

    def cells(self) -> dict[str, tuple[str, ...]]:
        """All methods with their changes: those listed, then learner by learner the product."""
        product = {
            f"{learner}+{strategy}": (*sets, *more)
            for learner, sets in self.learners.items()
            for strategy, more in self.strategies.items()
        }
        return {**self.methods, **product}

    def seeds_for(self, method: str) -> tuple[int, ...]:
        """A method's seeds: its own, else its strategy's, else its learner's, else the grid's."""
        learner, _, strategy = method.partition("+")
        for name in (method, strategy, learner):
            if name in self.seeds_of:
                return self.seeds_of[name]
        return self.seeds


@dataclass(frozen=True)
class Cell:
    """One method with one seed: its configuration as a mapping, which crosses to other processes, and its folder."""

    method: str
    seed: int
    values: dict[str, Any]
    folder: Path
    threads: int

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def done(self) -> bool:
        """Whether it has been run to its end."""
        return finished(self.folder)

    def config(self) -> RunConfig:
        """The configuration, resolved."""
        return config_from(self.values)


def finished(folder: Path) -> bool:
    """Whether a run has been run to its end: its report is written last, after what rows are made of."""
    return all((folder / name).exists() for name in ("summary.json", "costs.json", "report/report.html"))


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def make_cells(
    grid: Grid, methods: Sequence[str], seeds: Sequence[int], sets: Sequence[str], out: Path
) -> tuple[list[Cell], bool]:
    """The cells, all seeds' first one first; and whether the grid says train.threads for all of them.

    Every configuration is checked here, before the first cell runs. `seeds`: instead of the grid's own.
    """
    changes, base = grid.cells(), base_values(grid.base, grid.studio)
    seeds_of = {method: list(seeds) or list(grid.seeds_for(method)) for method in methods}
    cells, said = [], True
    for seed in sorted({seed for chosen in seeds_of.values() for seed in chosen}):
        for method in (m for m in methods if seed in seeds_of[m]):
            all_sets = [*grid.set, *changes[method], *sets, f"seed={seed}"]
            values = apply_sets({"name": method, **base}, all_sets)
            try:
                threads = config_from(values).train.threads
            except FFDError as error:
                raise FFDError(f"method {method} of the grid: {error}") from error
            said = said and "threads" in (values.get("train") or {})
            cells.append(Cell(method, seed, values, (out / f"{method}-s{seed}").resolve(), threads))
    return cells, said


def share_threads(cells: Sequence[Cell], jobs: int) -> list[Cell]:
    """The cells with at most cores // `jobs` threads each, at least 1, but never more than configured.

    Never more, so that the number of jobs changes threads, and with them the last bits of sums, only where it must.
    """
    share = max(1, cores() // jobs)
    shared = []
    for cell in cells:
        threads = min(cell.threads, share)
        values = apply_sets(cell.values, [f"train.threads={threads}"])
        shared.append(Cell(cell.method, cell.seed, values, cell.folder, threads))
    return shared
