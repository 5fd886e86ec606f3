"""What a run ends with: predictions, matrix, summary, costs, controls, report; and the words on the terminal."""

from __future__ import annotations

import json
import textwrap
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ffd_continual.config import RunConfig
from ffd_continual.measuring.intervals import print_matrix, run_figures
from ffd_continual.measuring.trace_prior import trace_prior
from ffd_continual.reporting.alarm_page import write_alarms
from ffd_continual.reporting.extras import source_sentence
from ffd_continual.reporting.report import write_report
from ffd_continual.reporting.robust_page import write_robustness
from ffd_continual.retesting.false_alarms import FOLDER as BENIGN
from ffd_continual.retesting.false_alarms import measure_alarms
from ffd_continual.retesting.reopen import reopened
from ffd_continual.retesting.robustness import FOLDER, measure_robustness
from ffd_continual.runs.assemble import Parts
from ffd_continual.runs.embedding import measure_embedding
from ffd_continual.runs.folder import RunFolder, write_table, write_text
from ffd_continual.runs.modules import measure_modules
from ffd_continual.runs.scalars import read_scalars
from ffd_continual.runs.source_probe import source_probe
from ffd_continual.scenarios.benign import edits_named
from ffd_continual.scenarios.controls import border_probe, shallow_baselines
from ffd_continual.scenarios.dataset import plain_batch
from ffd_continual.scenarios.errors import FFDError


def finish_run(
    folder: RunFolder,
    config: RunConfig,
    parts: Parts,
    train_seconds: float,
    eval_seconds: float,
    diagnose: bool = True,
    sources: Collection[str] = (),
) -> Path:
    """Write everything that follows from the predictions, print the figures, and return the report's path.

    diagnose: also what costs the square of what is known and has no place in an addition to a lineage: every module
    asked about every face, the report's charts as PNG files (`ffd report` draws them). sources: experiences that
    brought real faces only; they are in no mean.
    """
    order = parts.scenario.experiences
    predictions = pd.concat([folder.read_predictions(i) for i in range(-1, len(order))], ignore_index=True)
    write_table(folder.path / "predictions.parquet", predictions)
    samples = config.evaluation.bootstrap
    self_made = sorted({f for f in (*order, *parts.scenario.unseen) if f in _self_made(parts)} | set(sources))
    figures = run_figures(predictions, order, self_made, samples, config.seed, config.evaluation.video_rule)
    write_table(folder.path / "matrix.parquet", figures.matrix)
    summary = {**figures.summary, **({"videos": figures.videos} if figures.videos else {})}
    costs = measure_costs(parts, repeats=3 if diagnose else 1)
    summary |= {"sources": sorted(sources)} if sources else {}
    summary |= {
        "seconds": {"train": train_seconds, "measure": eval_seconds},
        "bytes": {"stored": parts.keeper.stored_bytes(), "learner": costs["learner_bytes"]},
    }
    prior = trace_prior(parts.sources.table, parts.scenario)
    if prior:
        summary["trace_prior"] = prior
    if diagnose:
        places, summary["embedding"] = measure_embedding(parts, config.train.eval_batch)
        write_table(folder.path / "embedding.parquet", places)
    modules = measure_modules(folder, config, parts) if diagnose else {}
    if modules:
        summary["modules"] = modules
    summary["labels"] = config.scenario.labels
    rows = parts.sources.table.rows
    summary["datasets"] = sorted({str(name) for name in rows["dataset"]} - {""})
    found = _controls(folder, parts, config.train.threads) if config.evaluation.controls else {}
    if "source_probe" in found:
        summary["source_probe"] = found["source_probe"]
    write_text(folder.path / "summary.json", json.dumps(summary, indent=1))
    write_table(folder.path / "scalars.parquet", read_scalars(folder.scalars))
    write_text(folder.path / "costs.json", json.dumps(costs, indent=1))
    if config.evaluation.robustness.perturb:
        path, asked = folder.path / FOLDER, config.evaluation.robustness
        perturbed = measure_robustness(
            reopened(folder, config, parts), asked, path / "scores", self_made, samples, config.name
        )
        write_robustness(path, {config.name: perturbed}, f"Robustness of {config.name}")
    if config.evaluation.benign:
        path = folder.path / BENIGN
        alarms, notes = measure_alarms(reopened(folder, config, parts), edits_named(()), (), path / "scores", samples)
        write_alarms(path, alarms, f"False alarms of {config.name}", (), notes)
    report = write_report(folder.path, figures=figures, pictures=diagnose)
    print(print_matrix(figures.matrix, order, summary, self_made=self_made))
    if "source_probe" in found:
        print("\n" + textwrap.fill(source_sentence(found["source_probe"]), 80))
    print(f"\nreport: {report}")
    return report


def _self_made(parts: Parts) -> frozenset[str]:
    """Families that the learner synthesises itself while training."""
    return frozenset({"selfblend"}) if "pseudo" in parts.learner.needs else frozenset()


def measure_costs(parts: Parts, repeats: int) -> dict[str, Any]:
    """Parameters, bytes and the time of judging one batch: the median of `repeats` after one, on this run's threads."""
    learner = parts.learner
    state = learner.state_dict().values()
    images = plain_batch(parts.sources, [0] * 8).image.to(parts.device)
    learner.eval()
    times = []
    with torch.no_grad():
        for _ in range(1 + repeats):
            began = time.perf_counter()
            learner(images)
            times.append(time.perf_counter() - began)
    return {
        **learner.costs(),
        "learner_bytes": float(sum(t.numel() * t.element_size() for t in state)),
        "kept_bytes": float(parts.keeper.stored_bytes()),
        "judge_ms_per_face": float(np.median(times[1:])) * 1000 / len(images),
    }


def _controls(folder: RunFolder, parts: Parts, threads: int) -> dict[str, Any]:
    """Those of controls.json, or measured and written there."""
    path = folder.path / "controls.json"
    if not path.exists():
        write_text(path, json.dumps(measure_controls(parts, threads), indent=1))
    try:
        read: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FFDError(f"{path} is damaged ({error}); delete it and resume.") from error
    return read


def measure_controls(parts: Parts, threads: int = 1) -> dict[str, Any]:
    """Border probe and shallow baselines on the manifest's own pictures, each forgery against the real faces; where the
    faces of the scenario come from, and what that says (source_probe.py)."""
    shallow = shallow_baselines(parts.manifest, threads=threads)
    nested: dict[str, dict[str, float]] = {}
    for row in shallow.itertuples():
        nested.setdefault(row.forgery, {})[f"{row.feature}, {row.region}"] = float(row.auc)
    border = border_probe(parts.manifest, threads=threads)
    return {"border_probe": border, "shallow": nested, "source_probe": source_probe(parts)}
