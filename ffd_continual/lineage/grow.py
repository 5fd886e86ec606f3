"""From candidate to version: learn, measure on everything earlier, judge, seal. Resuming skips every stage done.

Learning reads the new faces and the stored exemplars; measuring reads the test, unseen and validation faces of all
experiences. The two are timed apart: the first does not grow with the number of forgeries known, the second does.
"""

from __future__ import annotations

import io
import json
import shutil
import time
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch

from ffd_continual.config import RunConfig
from ffd_continual.finish import finish_run
from ffd_continual.lineage.candidate import Plan, read_plan
from ffd_continual.lineage.closed import ClosedModules
from ffd_continual.lineage.drops import MEAN, Drop, drops, fallen
from ffd_continual.lineage.judged import FOLDER as JUDGED
from ffd_continual.lineage.judged import clear, judged_features, shared
from ffd_continual.lineage.lineage import FORMAT, PATHS, Lineage
from ffd_continual.lineage.rows import (
    brought,
    capped,
    copied,
    kept_of,
    scenario_of,
    some,
    strategy_state,
    with_strategy,
)
from ffd_continual.lineage.store import ANYWAY, PROMOTED, REFUSED, next_number, now, seal
from ffd_continual.replay.stored import choose_stored, stored_rows
from ffd_continual.run import Clock, learn, load_state, measure, valid_rows
from ffd_continual.runs.assemble import Parts, assemble_parts
from ffd_continual.runs.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from ffd_continual.runs.detector import Detector, calibrated, judge
from ffd_continual.runs.facts import NAME as FACTS
from ffd_continual.runs.facts import read_facts
from ffd_continual.runs.folder import RunFolder, write_table, write_text
from ffd_continual.runs.saving import SafePoints
from ffd_continual.runs.scalars import ScalarLog
from ffd_continual.scenarios.errors import FFDError, is_full
from ffd_continual.scenarios.manifest import Manifest
from ffd_continual.stopping import Stopping
from ffd_continual.strategies.template import FaceStrategy
from ffd_continual.terminal import say

FRAMED = 64
_COUNTS_IN, _EXEMPLARS = "rows_count_in", "exemplars.parquet"


@dataclass(frozen=True)
class Outcome:
    """A sealed version: its number, what its forgeries lost, and which of them forbade promotion."""

    number: int
    verdict: str
    found: list[Drop]
    over: list[Drop]
    report: Path


def grow(lineage: Lineage) -> Outcome:
    """Bring the candidate under way to its end. The caller holds the lock. FFDError and Ctrl-C leave it resumable."""
    try:
        return _grow(lineage, read_plan(lineage))
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"`ffd add {lineage.path} --resume` goes on from there.") from None
    except OSError as error:
        if not is_full(error):
            raise
        text = f"the disk is full. Nothing saved is lost: make room, then `ffd add {lineage.path} --resume`."
        raise FFDError(text) from error


def _grow(lineage: Lineage, plan: Plan) -> Outcome:
    folder = RunFolder(lineage.candidate)
    config = folder.read_config()
    torch.set_num_threads(config.train.threads)
    cv2.setNumThreads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    clock = Clock(folder.path / "clock.json")
    clock.load(None)
    if not folder.after(plan.last).is_dir():
        spent = time.process_time()
        _train(lineage, plan, folder, config, clock)
        write_text(folder.path / "train_cpu", f"{time.process_time() - spent:.3f}\n")
    spent = time.process_time()
    parts = _measuring_parts(lineage, plan, folder, config, clock)
    closed = ClosedModules(lineage.path / ".cache" / JUDGED / f"closed-{config.train.threads}-{parts.device}.npz")
    _measure(lineage, plan, folder, config, parts, clock, closed)
    measure_cpu = time.process_time() - spent
    _describe_stored(lineage, plan, folder)
    before, after = (pd.read_parquet(folder.predictions(i)) for i in (plan.last - 1, plan.last))
    found = drops(before, after, plan.experiences[:-1], config.evaluation.bootstrap, config.seed)
    rules = plan.rules
    over = fallen(found, rules.tolerance, rules.mean_tolerance, rules.strict)
    verdict = PROMOTED if not over else ANYWAY if rules.anyway else REFUSED
    load_state(parts, folder.after(plan.last))
    said = io.StringIO()
    with redirect_stdout(said):
        finish_run(folder, config, parts, clock.train, clock.measure, diagnose=False)
    print(said.getvalue().rpartition("\nreport: ")[0])  # the report moves with its folder
    number = next_number(lineage)
    about = _about(plan, folder, number, verdict, found, clock)
    about["seconds"]["measure_cpu"] = measure_cpu
    write_text(folder.path / "version.json", json.dumps(about, indent=1))
    shutil.rmtree(folder.after(plan.last - 1), ignore_errors=True)  # the parent's; it has its own
    (folder.path / "stored.parquet").unlink(missing_ok=True)
    seal(lineage, folder.path, number)
    clear(lineage.path / ".cache")
    return Outcome(number, verdict, found, over, lineage.folder(number) / "report" / "report.html")


def _said_nothing(rows: pd.DataFrame) -> None:
    say(f"{len(rows)} unreadable pictures were left out")


def _parts(lineage: Lineage, plan: Plan, rows: pd.DataFrame, config: RunConfig, store: Path | None = None) -> Parts:
    scenario = scenario_of(rows, plan.experiences, plan.unseen, config)
    manifest = Manifest(rows, lineage.path, str(lineage.path), np.arange(1, len(rows) + 1))
    return assemble_parts(config, manifest, scenario, lineage.path / ".cache", _said_nothing, store)


def training_rows(lineage: Lineage, folder: RunFolder) -> pd.DataFrame:
    """What a candidate learns from, in the order that its memory counts rows: exemplars, then new faces."""
    stored = lineage.absolute(pd.read_parquet(folder.path / "stored.parquet"))
    new = lineage.absolute(pd.read_parquet(folder.path / "faces.parquet"))
    return pd.concat([stored, new[new["stream"] == "train"]], ignore_index=True)


def _train(lineage: Lineage, plan: Plan, folder: RunFolder, config: RunConfig, clock: Clock) -> None:
    began = time.monotonic()
    parts = _parts(lineage, plan, training_rows(lineage, folder), config)
    stopping = Stopping()
    inner = SafePoints(folder.safe_points, config.checkpoint, config.train.threads, True, clock.trained, stopping)
    found = inner.find(plan.last)
    begun = int(found[1].meta["position"][1]) if found else 0
    clock.load(float(found[1].meta["seconds"]) if found else 0.0)
    clock.train += time.monotonic() - began
    start = plan.last * config.train.steps + begun
    scalars = ScalarLog(folder.scalars, folder.path / "events", plan.experiences, start)
    agent = FaceStrategy(parts.learner, parts.keeper, parts.sources, config.train, parts.device, [scalars, inner])
    load_state(parts, folder.after(plan.last - 1))
    try:
        learn(agent, parts, folder, plan.last, begun, clock, stopping)
    finally:
        scalars.close()


def _measuring_parts(lineage: Lineage, plan: Plan, folder: RunFolder, config: RunConfig, clock: Clock) -> Parts:
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
    parts = _parts(lineage, plan, rows.reset_index(drop=True), config, lineage.path / ".cache" / JUDGED)
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


def _measure(
    lineage: Lineage,
    plan: Plan,
    folder: RunFolder,
    config: RunConfig,
    parts: Parts,
    clock: Clock,
    closed: ClosedModules,
) -> None:
    agent = FaceStrategy(parts.learner, parts.keeper, parts.sources, config.train, parts.device)
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
        detector = calibrated(parts.learner, parts.keeper.decide, agent.faces(valid_rows(parts, plan.last - 1)))
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


def _describe_stored(lineage: Lineage, plan: Plan, folder: RunFolder) -> None:
    """exemplars.parquet, its pictures copied; the checkpoint's rows count in it; kept faces join faces.parquet."""
    path = folder.after(plan.last)
    checkpoint = load_checkpoint(path)
    if checkpoint.meta.get(_COUNTS_IN) == _EXEMPLARS:
        return
    rows = training_rows(lineage, folder)
    state = strategy_state(checkpoint)
    stored = stored_rows(state)
    faces = pd.read_parquet(folder.path / "faces.parquet")
    if not (faces["stream"] == "kept").any():
        new = rows.iloc[len(pd.read_parquet(folder.path / "stored.parquet")) :]
        known = brought(lineage, plan.parent, ("kept",), columns=("manifest_row", "stream"))["manifest_row"]
        keeps = kept_of(new[~new["manifest_row"].isin(known)].reset_index(drop=True), plan.kept)
        keeps = copied(lineage, keeps, "copying kept faces")
        write_table(folder.path / "faces.parquet", pd.concat([faces, keeps], ignore_index=True))
    exemplars = copied(lineage, rows.iloc[stored].reset_index(drop=True), "copying exemplars")
    write_table(folder.path / _EXEMPLARS, exemplars)
    every = np.arange(len(stored))  # last, and marked: a kill before it leaves the rows as they were
    made = with_strategy(checkpoint, choose_stored(state, every, every))
    save_checkpoint(path, Checkpoint(made.tensors, {**made.meta, _COUNTS_IN: _EXEMPLARS}))


def _cpu(folder: RunFolder) -> float | None:
    """Seconds of the processor that learning took in the process that ended it; other processes prolong them little."""
    path = folder.path / "train_cpu"
    return float(path.read_text(encoding="utf-8")) if path.is_file() else None


def _about(plan: Plan, folder: RunFolder, number: int, verdict: str, found: list[Drop], clock: Clock) -> dict[str, Any]:
    summary = json.loads((folder.path / "summary.json").read_text(encoding="utf-8"))
    rows = pd.read_parquet(folder.path / "faces.parquet", columns=["stream", *PATHS])
    worst = max((one.drop for one in found if one.name != MEAN), default=None)
    rules = plan.rules
    return {
        "format": FORMAT, "number": number, "parent": plan.parent, "kind": plan.kind, "forgery": plan.forgery,
        "date": now(), "experiences": list(plan.experiences), "unseen": list(plan.unseen), "verdict": verdict,
        "drops": [one.as_json() for one in found], "worst_drop": worst,
        "tolerance": rules.tolerance, "mean_tolerance": rules.mean_tolerance, "strict": rules.strict,
        "measure_faces": rules.measure_faces, "notes": list(plan.notes),
        "faces": {s: int((rows["stream"] == s).sum()) for s in ("train", "valid", "test", "unseen")},
        "seconds": {"train": clock.train, "measure": clock.measure, "train_cpu": _cpu(folder)},
        "aa": summary["auc"].get("aa"),
        "ci": summary["auc"].get("ci", {}).get("aa"), "unseen_auc": summary["auc"].get("unseen"),
        "next_row": plan.next_row, "learner_bytes": summary["bytes"]["learner"],
        "stored_bytes": summary["bytes"]["stored"],
    }  # fmt: skip
