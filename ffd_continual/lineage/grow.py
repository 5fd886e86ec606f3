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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ffd_continual.config import RunConfig
from ffd_continual.finish import finish_run
from ffd_continual.lineage.candidate import Plan, read_plan
from ffd_continual.lineage.closed import ClosedModules
from ffd_continual.lineage.drops import MEAN, Drop, drops, fallen
from ffd_continual.lineage.judged import FOLDER as JUDGED
from ffd_continual.lineage.judged import clear
from ffd_continual.lineage.judging import candidate_parts, judge_candidate, measuring_parts
from ffd_continual.lineage.lineage import FORMAT, PATHS, Lineage
from ffd_continual.lineage.rows import (
    brought,
    copied,
    kept_of,
    strategy_state,
    with_strategy,
)
from ffd_continual.lineage.store import ANYWAY, PROMOTED, REFUSED, next_number, now, seal
from ffd_continual.lineage.versions import real_sources
from ffd_continual.replay.stored import choose_stored, stored_rows
from ffd_continual.run import Clock, learn, load_state
from ffd_continual.runs.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from ffd_continual.runs.folder import RunFolder, write_table, write_text
from ffd_continual.runs.saving import SafePoints
from ffd_continual.runs.scalars import ScalarLog
from ffd_continual.runs.torch_state import compute_alike
from ffd_continual.scenarios.errors import FFDError, is_full
from ffd_continual.stopping import Stopping

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
    compute_alike(config.train.threads)
    clock = Clock(folder.path / "clock.json")
    clock.load(None)
    if not folder.after(plan.last).is_dir():
        spent = time.process_time()
        _train(lineage, plan, folder, config, clock)
        write_text(folder.path / "train_cpu", f"{time.process_time() - spent:.3f}\n")
    spent = time.process_time()
    parts = measuring_parts(lineage, plan, folder, config, clock)
    closed = ClosedModules(lineage.path / ".cache" / JUDGED / f"closed-{config.train.threads}-{parts.device}.npz")
    judge_candidate(lineage, plan, folder, config, parts, clock, closed)
    measure_cpu = time.process_time() - spent
    _describe_stored(lineage, plan, folder)
    before, after = (pd.read_parquet(folder.predictions(i)) for i in (plan.last - 1, plan.last))
    sources = real_sources(lineage, plan.experiences) | ({plan.forgery} if plan.kind == "real" else set())
    found = drops(before, after, plan.experiences[:-1], config.evaluation.bootstrap, config.seed, apart=sources)
    rules = plan.rules
    over = fallen(found, rules.tolerance, rules.mean_tolerance, rules.strict)
    verdict = PROMOTED if not over else ANYWAY if rules.anyway else REFUSED
    load_state(parts, folder.after(plan.last))
    said = io.StringIO()
    with redirect_stdout(said):
        finish_run(folder, config, parts, clock.train, clock.measure, diagnose=False, sources=sources)
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


def training_rows(lineage: Lineage, folder: RunFolder) -> pd.DataFrame:
    """What a candidate learns from, in the order that its memory counts rows: exemplars, then new faces."""
    stored = lineage.absolute(pd.read_parquet(folder.path / "stored.parquet"))
    new = lineage.absolute(pd.read_parquet(folder.path / "faces.parquet"))
    return pd.concat([stored, new[new["stream"] == "train"]], ignore_index=True)


def _train(lineage: Lineage, plan: Plan, folder: RunFolder, config: RunConfig, clock: Clock) -> None:
    began = time.monotonic()
    parts = candidate_parts(lineage, plan, training_rows(lineage, folder), config)
    stopping = Stopping()
    inner = SafePoints(folder.safe_points, config.checkpoint, config.train.threads, True, clock.trained, stopping)
    found = inner.find(plan.last)
    begun = int(found[1].meta["position"][1]) if found else 0
    clock.load(float(found[1].meta["seconds"]) if found else 0.0)
    clock.train += time.monotonic() - began
    start = plan.last * config.train.steps + begun
    scalars = ScalarLog(folder.scalars, folder.path / "events", plan.experiences, start)
    agent = parts.agent(config.train, [scalars, inner])
    load_state(parts, folder.after(plan.last - 1))
    try:
        learn(agent, parts, folder, plan.last, begun, clock, stopping)
    finally:
        scalars.close()


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
