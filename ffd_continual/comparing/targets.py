"""What this project claims, as a table, and whether a rerun bears it out.

results/targets.csv has one row a figure: `claim` in words, the `config` (as `ffd run` takes it; a protocol's miniature
is "protocols/NAME --studio"), `overrides` (key=value, separated by ";"), `seeds` (separated by spaces), `metric` (its
place in summary.json, "auc.aa"), the measured `value` (mean over the seeds) with its 95 % interval `low` to `high`
(over the seeds; of one seed over test persons), the day it was `measured` and the `machine`. A claim holds where the
rerun's mean lies in that interval: on the machine of the row it is the same number, elsewhere sums differ in their last
bits and training carries that on.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ffd_continual.config import RunConfig, apply_sets, config_from
from ffd_continual.protocols import base_values
from ffd_continual.run import resume, start
from ffd_continual.runs.folder import RunFolder
from ffd_continual.scenarios.errors import FFDError

DEFAULT = Path("results/targets.csv")
STUDIO = " --studio"


@dataclass(frozen=True)
class Target:
    """One row: a figure that was measured, and how."""

    claim: str
    config: str
    overrides: tuple[str, ...]
    seeds: tuple[int, ...]
    metric: str
    value: float
    low: float
    high: float
    measured: str
    machine: str

    def run_config(self, seed: int) -> RunConfig:
        """The resolved configuration of one of its runs."""
        name = self.config.removesuffix(STUDIO)
        values = {"name": Path(name).stem, **base_values(name, studio=name != self.config)}
        return config_from(apply_sets(values, [*self.overrides, f"seed={seed}"]))

    def folder(self, seed: int) -> str:
        """The name of a run's folder: rows that differ in their metric alone share it."""
        mark = hashlib.sha256(";".join(self.overrides).encode()).hexdigest()[:6] if self.overrides else "plain"
        return f"{re.sub(r'[^0-9A-Za-z]+', '-', self.config)}-{mark}-s{seed}"


@dataclass(frozen=True)
class Checked:
    """A target beside what its rerun gave."""

    target: Target
    value: float

    @property
    def holds(self) -> bool:
        """Whether the rerun lies in the claim's interval."""
        return self.target.low <= self.value <= self.target.high


def _row(cells: dict[str, str], where: str) -> Target:
    try:
        value, low, high = (float(cells[name]) for name in ("value", "low", "high"))
        seeds = tuple(int(seed) for seed in cells["seeds"].split())
        datetime.date.fromisoformat(cells["measured"])
    except ValueError as error:
        raise FFDError(f"{where}: {error}. Numbers, seeds separated by spaces and a day as 2026-11-22.") from error
    overrides = tuple(part.strip() for part in cells["overrides"].split(";") if part.strip())
    empty = [name for name in ("claim", "config", "metric", "machine") if not cells[name].strip()]
    if empty or not seeds:
        raise FFDError(f"{where}: {', '.join(empty) or 'seeds'} is empty; a claim says how it was measured.")
    if not low <= value <= high:
        raise FFDError(f"{where}: {value} does not lie in [{low}, {high}].")
    claim, config, metric, measured, machine = (
        cells[name].strip() for name in ("claim", "config", "metric", "measured", "machine")
    )
    return Target(claim, config, overrides, seeds, metric, value, low, high, measured, machine)


def read_targets(path: Path = DEFAULT) -> list[Target]:
    """All rows, checked. Raises FFDError that names the line."""
    if not path.is_file():
        raise FFDError(f"{path} does not exist: name a table of claims by --file; this project's is {DEFAULT}.")
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    known = [field.name for field in fields(Target)]
    if list(table.columns) != known:
        raise FFDError(f"{path} must have the columns {', '.join(known)}, not {', '.join(table.columns)}.")
    targets = [_row(dict(row), f"{path}, line {at + 2}") for at, row in table.iterrows()]
    names = [(target.claim, target.metric) for target in targets]
    for claim, metric in names:
        if names.count((claim, metric)) > 1:
            raise FFDError(f"{path}: {claim!r} stands there twice with {metric}; a claim has one value.")
    return targets


def figure_of(summary: dict[str, Any], metric: str) -> float:
    """What stands in a summary under "a.b". Raises FFDError where nothing or no number does."""
    at: Any = summary
    for key in metric.split("."):
        at = at.get(key) if isinstance(at, dict) else None
    if isinstance(at, bool) or not isinstance(at, int | float):
        raise FFDError(f"a run's summary holds no number {metric!r}; it looks like auc.aa or acc.forgetting_signed.")
    return float(at)


def check_target(target: Target, out: Path) -> Checked:
    """Run what the target names, one folder a seed under `out`; finished ones are read, stopped ones go on. Raises
    FFDError where a run there has other settings."""
    found = []
    for seed in target.seeds:
        folder, config = RunFolder(out / target.folder(seed)), target.run_config(seed)
        summary = folder.path / "summary.json"
        if folder.config.exists() and folder.read_config() != config:
            raise FFDError(f"{folder.path} was run with other settings than the claim names now: choose another --out.")
        if not summary.exists():
            resume(folder.path) if folder.config.exists() else start(config, folder.path)
        found.append(figure_of(json.loads(summary.read_text(encoding="utf-8")), target.metric))
    return Checked(target, float(np.mean(found)))


def chosen_targets(targets: Sequence[Target], claims: Sequence[str]) -> list[Target]:
    """Targets whose claim holds one of the given words; all where none is given. FFDError where a word finds none."""
    for words in claims:
        if not any(words in target.claim for target in targets):
            raise FFDError(
                f"no claim holds {words!r}. There are: {'; '.join(dict.fromkeys(t.claim for t in targets))}."
            )
    return [target for target in targets if not claims or any(words in target.claim for words in claims)]
