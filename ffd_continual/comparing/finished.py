"""Finished runs side by side: which belong to one method, whether they were tested on the same faces, their figures.

A method's figure is the mean over its seeds, with Student's t interval over the seeds (n - 1 degrees of freedom): how
far a new training would fall from it. A single seed cannot say that; it carries its run's own bootstrap interval over
persons or videos instead: how far other test faces would. Differences are in `paired`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import yaml

from ffd_continual.comparing.curves import Curves, curves_of
from ffd_continual.measuring.intervals import over_seeds, summarise_with_ci
from ffd_continual.measuring.matrix import TRACES
from ffd_continual.measuring.video_level import VideoRule
from ffd_continual.runs.folder import RunFolder
from ffd_continual.scenarios.errors import FFDError

VIDEO_METRICS = ("auc", "acc")
METRICS = (*VIDEO_METRICS, *TRACES)
SHOWN = ("aa", "diagonal", "forgetting_signed", "forgetting_max", "bwt", "fwt", "unseen")
COSTS = ("train_seconds", "step_ms", "stored_bytes", "learner_bytes", "parameters", "judge_ms_per_face")
NEEDED = ("summary.json", "predictions.parquet", "matrix.parquet")  # of a finished run, beside its config.yaml
CELL = re.compile(r"(.+)-s(\d+)")
OVER_SEEDS, OVER_TEST, NO_INTERVAL = "t over seeds", "bootstrap over", "none"
RESAMPLES = 1000


@dataclass(frozen=True)
class FinishedRun:
    """A run folder as it stands on disk; config is YAML's mapping, so that no learner has to be loaded."""

    path: Path
    method: str
    seed: int
    config: dict[str, Any]
    summary: dict[str, Any]
    costs: dict[str, Any]

    @property
    def order(self) -> list[str]:
        """Forgeries in the order of learning."""
        return list(self.summary["order"])

    @property
    def last(self) -> int:
        """The last experience."""
        return int(self.summary["after"])


class Estimate(NamedTuple):
    """A mean over seeds with its 95 % interval; NaN where it does not exist."""

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True)
class Method:
    """What a table's row holds; figures: (metric, figure) -> estimate; costs: mean over the seeds, NaN if unknown."""

    name: str
    runs: list[FinishedRun]
    figures: dict[tuple[str, str], Estimate]
    costs: dict[str, float]
    interval: str
    curves: Curves
    videos: dict[tuple[str, str], Estimate] = field(default_factory=dict)  # figures at video level; {}: no videos
    video_words: str = ""  # what a video's score is
    video_curves: Curves = field(default_factory=Curves)

    @property
    def seeds(self) -> list[int]:
        """Seeds in rising order."""
        return [run.seed for run in self.runs]


def _mapping(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        read = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        raise FFDError(f"{path} is damaged ({error}); run or report it again.") from error
    if not isinstance(read, dict):
        raise FFDError(f"{path} is damaged: it holds no mapping. Run or report it again.")
    return read


def run_folders(paths: Sequence[Path]) -> list[Path]:
    """Every run folder among `paths`; a folder of runs stands for those in it, in the order of its rows.csv.

    Raises FFDError where a path is neither.
    """
    found: list[Path] = []
    for path in paths:
        if RunFolder(path).config.is_file():
            found.append(path)
            continue
        cells = sorted(config.parent for config in path.glob("*/config.yaml"))
        if not cells:
            raise FFDError(f"{path} is neither a run nor a folder of runs: there is no config.yaml in it or below it.")
        order = list(pd.read_csv(path / "rows.csv")["method"].astype(str)) if (path / "rows.csv").is_file() else []

        def place(cell: Path, order: Sequence[str] = tuple(dict.fromkeys(order))) -> tuple[int, str, int, str]:
            match = CELL.fullmatch(cell.name)
            method, seed = (match[1], int(match[2])) if match else (cell.name, 0)
            return order.index(method) if method in order else len(order), method, seed, cell.name

        found.extend(sorted(cells, key=place))
    return list({path.resolve(): path for path in found}.values())


def read_runs(paths: Sequence[Path]) -> tuple[list[FinishedRun], list[str]]:
    """The finished runs with their methods' names, and a line for each that is left out.

    A cell `<method>-s<seed>` of a sweep bears its folder's method, another run its configuration's name; where that
    name would join runs whose settings differ by more than the seed, or one seed twice, the folders tell them apart.
    FFDError where nothing is finished or a file is damaged.
    """
    runs, left_out = [], []
    for path in run_folders(paths):
        missing = [name for name in NEEDED if not (path / name).is_file()]
        if missing:
            left_out.append(f"{path} is not finished (no {', '.join(missing)}); `ffd resume` goes on with it")
            continue
        config = _mapping(RunFolder(path).config)
        seed, match = int(config.get("seed", 0)), CELL.fullmatch(path.resolve().name)
        method = match[1] if match and int(match[2]) == seed else str(config.get("name", path.resolve().name))
        costs = _mapping(path / "costs.json") if (path / "costs.json").is_file() else {}
        summary = _mapping(path / "summary.json")
        absent = [key for key in ("order", "after", "auc") if key not in summary]
        if absent:
            raise FFDError(f"{path / 'summary.json'} has no {', '.join(absent)}; run `ffd resume {path}`.")
        runs.append(FinishedRun(path, method, seed, config, summary, costs))
    if not runs:
        raise FFDError("no finished run to compare. " + ". ".join(left_out) + ".")
    return _told_apart(runs), left_out


def _told_apart(runs: Sequence[FinishedRun]) -> list[FinishedRun]:
    """Runs whose name joins what is not one method take that of a sweep and method, else of their folder."""
    parted = list(runs)
    namings: list[Callable[[FinishedRun], str]] = [
        lambda r: f"{_place(r).parent.name}/{r.method}",
        lambda r: _place(r).name,
        lambda r: str(r.path),
    ]
    for naming in namings:
        mixed = _mixed(parted)
        both = zip(parted, runs, strict=True)
        parted = [replace(now, method=naming(first)) if now.method in mixed else now for now, first in both]
    return parted


def _place(run: FinishedRun) -> Path:
    return run.path.resolve()


def _mixed(runs: Sequence[FinishedRun]) -> set[str]:
    groups: dict[str, list[FinishedRun]] = {}
    for run in runs:
        groups.setdefault(run.method, []).append(run)
    return {m for m, part in groups.items() if len({r.seed for r in part}) < len(part) or _settings_differ(part)}


def _settings_differ(runs: Sequence[FinishedRun]) -> bool:
    # How a run is measured makes no other method.
    kept = [{k: v for k, v in run.config.items() if k not in ("seed", "name", "evaluation")} for run in runs]
    return any(config != kept[0] for config in kept)


def estimate(values: Sequence[float | None], own: Sequence[float | None] | None = None) -> Estimate:
    """The mean over seeds (n,) with mean -+ t(0.975, n - 1) s / sqrt(n); of one seed its run's own interval `own`.

    A figure that one seed lacks is NaN: a mean over the others would be another figure.
    """
    if not values or any(v is None or not math.isfinite(v) for v in values):
        return Estimate()
    mean, half = over_seeds([float(v) for v in values if v is not None])
    if len(values) > 1:
        return Estimate(mean, mean - half, mean + half)
    low, high = own if own else (None, None)
    return Estimate(mean, math.nan if low is None else low, math.nan if high is None else high)


def _costs(run: FinishedRun) -> dict[str, float]:
    seconds = float(run.summary.get("seconds", {}).get("train", math.nan))
    steps = float(run.config.get("train", {}).get("steps", math.nan)) * len(run.order)
    known = {
        "train_seconds": seconds,
        "step_ms": 1000.0 * seconds / steps if steps > 0 else math.nan,
        "stored_bytes": run.summary.get("bytes", {}).get("stored", math.nan),
    }
    return {key: float(known.get(key, run.costs.get(key, math.nan))) for key in COSTS}


def self_made_by_any(runs: Sequence[FinishedRun]) -> list[str]:
    """Forgeries that some run's learner makes itself: they count in no run's means, so that all average the same."""
    return sorted({name for run in runs for name in run.summary.get("self_made", [])})


def _summary(run: FinishedRun, self_made: Sequence[str]) -> dict[str, Any]:
    """The run's own summary, or one without the forgeries that another run's learner makes itself."""
    if set(self_made) & {*run.order, *run.summary.get("unseen_streams", [])} <= set(run.summary.get("self_made", [])):
        return run.summary
    predictions = pd.read_parquet(run.path / "predictions.parquet")
    return summarise_with_ci(predictions, run.order, self_made, samples=RESAMPLES, seed=run.seed)


def _videos(run: FinishedRun, self_made: Sequence[str]) -> dict[str, Any]:
    """The summary at video level; {} where the run's faces are no frames of videos, or it was measured before that."""
    stored: dict[str, Any] = run.summary.get("videos") or {}
    if not stored or sorted(stored.get("self_made", [])) == sorted(self_made):
        return stored
    predictions = pd.read_parquet(run.path / "predictions.parquet")
    rule = VideoRule.told_by(stored)
    return summarise_with_ci(predictions, run.order, self_made, "video", samples=RESAMPLES, seed=run.seed, rule=rule)


def _estimates(summaries: Sequence[dict[str, Any]], metrics: Sequence[str]) -> dict[tuple[str, str], Estimate]:
    return {
        (metric, figure): estimate(
            [summary.get(metric, {}).get(figure) for summary in summaries],
            summaries[0].get(metric, {}).get("ci", {}).get(figure),
        )
        for metric in metrics
        for figure in SHOWN
    }


def _method(name: str, runs: Sequence[FinishedRun], self_made: Sequence[str]) -> Method:
    mine = sorted(runs, key=lambda run: run.seed)
    summaries = [_summary(run, self_made) for run in mine]
    figures = _estimates(summaries, METRICS)
    videos = [_videos(run, self_made) for run in mine]
    rules = {video["rule"]["words"] for video in videos if video}
    interval, boot = OVER_SEEDS, summaries[0].get("bootstrap", {})
    if len(mine) == 1:
        interval = f"{OVER_TEST} {boot['unit']}" if boot.get("samples") else NO_INTERVAL
    costs = [_costs(run) for run in mine]
    folders, order = [run.path for run in mine], mine[0].order
    shown = len(rules) == 1 and all(videos)
    return Method(
        name,
        mine,
        figures,
        {key: float(np.mean([cost[key] for cost in costs])) for key in COSTS},
        interval,
        curves_of(folders, summaries, order),
        _estimates(videos, VIDEO_METRICS) if shown else {},
        rules.pop() if len(rules) == 1 else "",
        curves_of(folders, videos, order, "video") if shown else Curves(),
    )


def methods_of(runs: Sequence[FinishedRun]) -> list[Method]:
    """The runs' methods in the order given, each with all its seeds."""
    self_made = self_made_by_any(runs)
    names = dict.fromkeys(run.method for run in runs)
    found = [_method(name, [run for run in runs if run.method == name], self_made) for name in names]
    alike = len({method.video_words for method in found}) < 2  # else other rules, or not all of videos: not comparable
    return found if alike else [replace(method, videos={}, video_words="") for method in found]
