"""A candidate judged on everything earlier: validation, test and unseen faces of all experiences, and its own.

What never changes of it is not made again: prepared faces (scenarios/prepared.py), what frozen layers (judged.py) and
closed modules (closed.py) say of them. What is left is asked of the new module and the common path.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from ffd_continual.config import RunConfig
from ffd_continual.lineage.candidate import Plan
from ffd_continual.lineage.closed import ClosedModules
from ffd_continual.lineage.judged import FOLDER as JUDGED
from ffd_continual.lineage.judged import judged_features, shared
from ffd_continual.lineage.lineage import Lineage
from ffd_continual.lineage.rows import brought, capped, scenario_of, some
from ffd_continual.run import Clock, load_state, measure, score_once, valid_rows
from ffd_continual.runs.assemble import Parts, assemble_parts
from ffd_continual.runs.detector import Detector, calibrated, judge
from ffd_continual.runs.facts import NAME as FACTS
from ffd_continual.runs.facts import read_facts
from ffd_continual.runs.folder import RunFolder, write_table
from ffd_continual.scenarios.manifest import Manifest
from ffd_continual.terminal import say

if TYPE_CHECKING:
    from ffd_continual.strategies.training.template import FaceStrategy

FRAMED = 64


def _said_nothing(rows: pd.DataFrame) -> None:
    say(f"{len(rows)} unreadable pictures were left out")


def candidate_parts(
    lineage: Lineage, plan: Plan, rows: pd.DataFrame, config: RunConfig, store: Path | None = None
) -> Parts:
    """The parts of a run over rows laid out already; store: as of `prepare_table`."""
    scenario = scenario_of(rows, plan.experiences, plan.unseen, config)
    manifest = Manifest(rows, lineage.path, str(lineage.path), np.arange(1, len(rows) + 1))
    return assemble_parts(config, manifest, scenario, lineage.path / ".cache", _said_nothing, store)


def measuring_parts(lineage: Lineage, plan: Plan, folder: RunFolder, config: RunConfig, clock: Clock) -> Parts:
    """Validation, test and unseen faces of all experiences; some kept faces, which tell framing and mean trace."""
    began = time.monotonic()
    rows = brought(lineage, plan.parent, ("valid", "test", "unseen", "kept"), plan.unseen)
    at = rows["stream"] == "kept"
    rows, kept = rows[~at], some(rows[at].reset_index(drop=True), FRAMED).assign(stream="train")
    new = lineage.absolute(pd.read_parquet(folder.path / "faces.parquet"))
    new = new[new["stream"].isin(("valid", "test"))]
    rows = capped(pd.concat([rows, new, kept], ignore_index=True), plan.rules.measure_faces)
    keeps = config.train.kept_views > 0
    config = replace(config, train=replace(config.train, kept_views=0))  # views are for training
    parts = candidate_parts(lineage, plan, rows.reset_index(drop=True), config, lineage.path / ".cache" / JUDGED)
    parts = replace(parts, sources=replace(parts.sources, table=shared(parts.sources.table)))
    if keeps:
        parts = _with_features(parts, config, lineage.path / ".cache")
    clock.measure += time.monotonic() - began
    return parts


def _with_features(parts: Parts, config: RunConfig, cache: Path) -> Parts:
    """Frozen features in place of pictures, where the learner has any."""
    learner = parts.learner

    @torch.no_grad()
    def frozen(images: torch.Tensor) -> torch.Tensor:
        made = learner.frozen(images.to(parts.device))
        assert made is not None
        return made

    learner.eval()
    kept = judged_features(parts.sources.table, frozen, f"{learner.frozen_key()}|{config.train.threads}", cache)
    learner.train()
    return replace(parts, sources=replace(parts.sources, kept=kept))


def judge_candidate(
    lineage: Lineage,
    plan: Plan,
    folder: RunFolder,
    config: RunConfig,
    parts: Parts,
    clock: Clock,
    closed: ClosedModules,
) -> None:
    """Predictions of the new test stream before learning, and of every stream after it, unless they are there."""
    agent = parts.agent(config.train)
    name = plan.experiences[-1]
    before = pd.read_parquet(folder.predictions(plan.last - 1))
    if name not in set(before["on"]):
        began = time.monotonic()
        load_state(parts, folder.after(plan.last - 1))
        with closed.answering(parts.learner):
            made = _before_learning(lineage, agent, parts, before, plan)
        write_table(folder.predictions(plan.last - 1), pd.concat([before, made], ignore_index=True)[before.columns])
        clock.measure += time.monotonic() - began
    if not folder.predictions(plan.last).exists():
        load_state(parts, folder.after(plan.last))
        with closed.answering(parts.learner):
            measure(agent, parts, folder, config, plan.last, clock)
    closed.save()
    table = pd.read_parquet(folder.predictions(plan.last))
    root = Path(parts.manifest.root).resolve()
    table["path"] = [Path(p).relative_to(root).as_posix() if Path(p).is_absolute() else p for p in table["path"]]
    write_table(folder.predictions(plan.last), table)


def _before_learning(
    lineage: Lineage, agent: FaceStrategy, parts: Parts, before: pd.DataFrame, plan: Plan
) -> pd.DataFrame:
    """What the version in use says of the new test stream: it belongs to the matrix, one row above."""
    name, parent = plan.experiences[-1], lineage.folder(plan.parent)
    if (parent / FACTS).is_file():  # it judges as calibrated then, on the validation faces that there were
        facts = read_facts(parent, plan.last - 1)
        detector = Detector(parts.learner, parts.keeper.decide, facts.calibration, facts.threshold)
    else:
        valid = score_once(agent, parts, valid_rows(parts, plan.last - 1))
        detector = calibrated(parts.learner, parts.keeper.decide, valid)
    rows = parts.scenario.index("test", name)
    scores = judge(detector, agent.faces(rows))
    described = parts.sources.table.rows.iloc[rows].reset_index(drop=True)
    root = Path(parts.manifest.root).resolve()
    scores["row"] = described["manifest_row"].to_numpy()
    scores["on"], scores["stream"], scores["after"] = name, "test", plan.last - 1
    for column in before.columns:
        if column in described and column not in scores:
            scores[column] = described[column]
    scores["path"] = [Path(p).relative_to(root).as_posix() for p in described["path"]]
    if len(before):
        scores["threshold"] = before["threshold"].iloc[0]
    return scores.reindex(columns=before.columns)
