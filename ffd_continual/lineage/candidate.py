"""A candidate: a run folder seeded with its parent's last checkpoint and predictions, and the faces of one more step.

The training faces of earlier experiences are not part of it: it holds its parent's stored exemplars and the new faces.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
import pandas as pd

from ffd_continual.config import RunConfig, apply_sets, config_from, to_mapping
from ffd_continual.lineage.lineage import Lineage
from ffd_continual.lineage.rows import capped_stored, copied, inside, strategy_state, with_strategy
from ffd_continual.measuring.matrix import UNTRAINED
from ffd_continual.replay.stored import choose_stored
from ffd_continual.runs.checkpoint import load_checkpoint, save_checkpoint, sync
from ffd_continual.runs.folder import RunFolder, describe_environment, write_table, write_text
from ffd_continual.scenarios.errors import FFDError

SETTABLE = ("train.", "evaluation.", "checkpoint.")


@dataclass(frozen=True)
class Rules:
    """When a candidate is promoted, and how it is measured."""

    tolerance: float = 0.02  # largest drop in AUC of one forgery
    mean_tolerance: float = 0.02  # and of the mean over all earlier ones
    strict: bool = False  # the intervals' upper ends have to stay within, too
    anyway: bool = False  # promote whatever was measured
    measure_faces: int = 0  # at most so many faces of each test and unseen stream; 0: all


@dataclass(frozen=True)
class Plan:
    """What a candidate is: written before anything is learnt, and never changed."""

    kind: str  # "add", "real" or "correct"
    forgery: str  # name of the new experience
    parent: int
    experiences: tuple[str, ...]  # with the new one last
    unseen: tuple[str, ...]
    next_row: int
    kept: int
    rules: Rules
    notes: tuple[str, ...] = ()

    @property
    def last(self) -> int:
        """Number of the new experience."""
        return len(self.experiences) - 1


def read_plan(lineage: Lineage) -> Plan:
    """The plan of the candidate under way. Raises FFDError where it is damaged."""
    path = lineage.candidate / "plan.json"
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        rules = Rules(**values.pop("rules"))
        for name in ("experiences", "unseen", "notes"):
            values[name] = tuple(values[name])
        return Plan(**values, rules=rules)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FFDError(f"{path} is damaged ({error}). `ffd add {lineage.path} --abandon` drops it.") from error


def candidate_config(lineage: Lineage, parent: int, plan: Plan, steps: int | None, sets: Sequence[str]) -> RunConfig:
    """The parent's configuration with one more experience. FFDError on a setting that only a new run can have."""
    config = RunFolder(lineage.run(parent)).read_config()
    wrong = [item for item in sets if not item.startswith(SETTABLE)]
    if wrong:
        raise FFDError(
            f"--set {wrong[0]}: an addition can change {', '.join(p + '*' for p in SETTABLE)}; the rest is the "
            "lineage's."
        )
    config = config_from(apply_sets(to_mapping(config), sets)) if sets else config
    scenario = replace(config.scenario, order=plan.experiences, unseen=plan.unseen, permuted=-1)
    train = replace(config.train, steps=steps) if steps is not None else config.train
    if train.steps < 1:
        raise FFDError(f"--steps must be at least 1, not {train.steps}.")
    evaluation = replace(config.evaluation, controls=False)  # they read every picture again
    return replace(config, scenario=scenario, train=train, evaluation=evaluation, name=lineage.path.resolve().name)


def check_exemplars(lineage: Lineage, parent: int) -> pd.DataFrame:
    """The parent's exemplars, in the order of its memory. FFDError that lists those whose pictures are gone."""
    rows = lineage.table(parent, "exemplars.parquet")
    gone = [path for path in rows["path"] if not os.path.isfile(path)]
    if gone:
        raise FFDError(
            f"{len(gone)} of {len(rows)} exemplars of version {parent} are missing, such as {gone[0]}. Put them back "
            f"from a copy of {lineage.faces}, or give --without-missing to go on with the others."
        )
    return rows


def _seed_predictions(lineage: Lineage, plan: Plan, folder: RunFolder) -> None:
    """The parent's predictions, without streams that are unseen no more. Files that stay as they are become links:
    whoever rewrites one (`ffd forget`) puts a new file in its place, so no version can change another's."""
    parent = RunFolder(lineage.run(plan.parent))
    ended = set(lineage.about(plan.parent)["unseen"]) - set(plan.unseen)
    for after in range(UNTRAINED, plan.last):
        source, target = parent.predictions(after), folder.predictions(after)
        if ended:
            table = pd.read_parquet(source)
            write_table(target, table[(table["stream"] != "unseen") | ~table["on"].isin(ended)])
            continue
        target.parent.mkdir(exist_ok=True)
        try:
            os.link(source, target)
        except OSError:  # a file system without links
            shutil.copyfile(source, target)


def prepare(
    lineage: Lineage,
    plan: Plan,
    rows: pd.DataFrame,
    steps: int | None = None,
    sets: Sequence[str] = (),
    without_missing: bool = False,
) -> None:
    """Make LINEAGE/candidate of a plan and its new rows (streams train, valid, test), whole or not at all."""
    config = candidate_config(lineage, plan.parent, plan, steps, sets)
    exemplars = lineage.table(plan.parent, "exemplars.parquet")
    there = np.array([os.path.isfile(path) for path in exemplars["path"]], bool)
    if not without_missing:
        check_exemplars(lineage, plan.parent)
    part = RunFolder(lineage.candidate.with_name("candidate.part"))
    shutil.rmtree(part.path, ignore_errors=True)
    part.path.mkdir()
    judged = capped_stored(rows, plan.rules.measure_faces)
    held = copied(lineage, judged[judged["stream"] != "train"], "copying faces")
    train = inside(lineage, judged[judged["stream"] == "train"])
    write_table(part.path / "faces.parquet", pd.concat([train, held], ignore_index=True))
    source = RunFolder(lineage.run(plan.parent)).after(plan.last - 1)
    checkpoint = load_checkpoint(source)
    kept = np.flatnonzero(there)
    state = choose_stored(strategy_state(checkpoint), kept, np.arange(len(kept)))
    save_checkpoint(part.after(plan.last - 1), with_strategy(checkpoint, state))
    relative = pd.read_parquet(lineage.folder(plan.parent) / "exemplars.parquet")
    write_table(part.path / "stored.parquet", relative.iloc[kept].reset_index(drop=True))
    _seed_predictions(lineage, plan, part)
    part.write_config(config)
    write_text(part.path / "environment.json", json.dumps(describe_environment(config), indent=1))
    values = {f.name: getattr(plan, f.name) for f in fields(plan)} | {"rules": asdict(plan.rules)}
    write_text(part.path / "plan.json", json.dumps(values, indent=1))
    part.path.rename(lineage.candidate)
    sync(lineage.path)
