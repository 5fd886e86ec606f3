"""Differences between methods on the same test faces, with a cluster bootstrap over persons or videos.

Every resample draws whole persons (or videos) once and measures every run on that draw; a method's figure is then the
mean over its seeds, and the difference of two methods is taken draw by draw. What a hard draw does to both cancels, so
the interval is narrower than that of either. It holds the test faces' luck, not the training's: that is the t interval
over seeds. Axes: b = resamples, g = persons or videos.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from ffd_continual.comparing.finished import RESAMPLES, FinishedRun, Method, self_made_by_any
from ffd_continual.measuring.cells import cells_of
from ffd_continual.measuring.matrix import figures, resampling_groups
from ffd_continual.measuring.metrics import Floats, batched_auc, draw_counts, percentile_interval, resample
from ffd_continual.measuring.video_level import LEVELS, VideoRule
from ffd_continual.scenarios.errors import FFDError

FIGURES = ("aa", "unseen")
FACE = ("stream", "on", "label", "path", "row", "identity", "video")


class Difference(NamedTuple):
    """Method minus baseline with its 95 % interval; seeds = how many trainings of each were averaged."""

    value: float
    low: float
    high: float
    seeds: int

    @property
    def apart(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0.0 or self.high < 0.0


Differences = dict[tuple[str, str], Difference]  # (method, figure) -> of its AUC from the baseline's


class Compared(NamedTuple):
    """Differences from `baseline`; drawn: `groups` persons, videos or faces, `unit` says which."""

    baseline: str
    differences: Differences
    unit: str
    groups: int
    videos: Differences  # at video level; empty where the methods have no figures there


def last_predictions(run: FinishedRun) -> pd.DataFrame:
    """The final model's predictions on test and unseen faces, sorted by face: the same for all runs of a scenario."""
    path = run.path / "predictions.parquet"
    table = pd.read_parquet(path, filters=[("after", "==", run.last)])
    table = table[table["stream"].isin(("test", "unseen"))]
    known = [name for name in FACE if name in table.columns]
    if not {"path", "row"} & set(known):
        raise FFDError(f"{path} names no face: it has neither a column path nor row.")
    return table.sort_values(known, kind="stable").reset_index(drop=True)


def _faces(table: pd.DataFrame) -> pd.DataFrame:
    known = [name for name in FACE if name in table.columns]
    if "path" in known and table["path"].fillna("").ne("").all():
        known.remove("row") if "row" in known else None  # the place in a manifest may change, the picture does not
    return table[known].fillna("").astype(str).sort_values(known, kind="stable").reset_index(drop=True)


def _profiles(run: FinishedRun) -> dict[str, str]:
    scenario = run.config.get("scenario") or {}
    return dict(scenario.get("profiles") or {})


def check_same_faces(runs: Sequence[FinishedRun]) -> None:
    """FFDError that names the runs whose test faces, or the cameras these are passed through, are not the first's."""
    first, wanted, other = runs[0], _faces(last_predictions(runs[0])), []
    for run in runs[1:]:
        faces = _faces(last_predictions(run))
        if not faces.equals(wanted):
            streams = set(faces["on"]) ^ set(wanted["on"])
            why = f"only one has {', '.join(sorted(streams))}" if streams else f"{len(faces)} faces, not {len(wanted)}"
            other.append(f"{run.path} ({'other faces' if len(faces) == len(wanted) and not streams else why})")
        elif _profiles(run) != _profiles(first):
            other.append(f"{run.path} (other scenario.profiles)")
    if other:
        raise FFDError(
            f"not tested on the faces of {first.path}: {'; '.join(other)}. "
            "Figures of different test faces cannot be compared: give runs of one scenario."
        )


def _drawn(
    run: FinishedRun, self_made: Sequence[str], counts: Floats, levels: Sequence[str]
) -> dict[tuple[str, str], Floats]:
    """(level, figure) -> in the sample itself (first) and in every resample, (1 + b,)."""
    table = last_predictions(run)
    _, groups, _ = resampling_groups(table)
    every = np.vstack([np.ones((1, counts.shape[1])), counts])
    drawn: dict[tuple[str, str], Floats] = {}
    for level in levels:
        rule = VideoRule.told_by(run.summary["videos"]) if level == "video" else VideoRule()
        cells: dict[str, dict[tuple[int, str], Floats]] = {"test": {}, "unseen": {}}
        for cell in cells_of(table, level, rule=rule):
            draws = resample(batched_auc, cell.labels, cell.columns["z"], groups[cell.rows], every)
            cells[cell.stream][(cell.after, cell.on)] = draws
        found = figures(cells["test"], cells["unseen"], run.order, run.last, self_made)
        drawn |= {(level, name): found[name] for name in FIGURES}
    return drawn


def compare(methods: Sequence[Method], baseline: str = "", samples: int = RESAMPLES, seed: int = 0) -> Compared:
    """Every other method against `baseline` (default: the first), AUC, AA and unseen; at video level, too, where all
    methods have figures of videos. One draw serves both levels.

    Averaged are the seeds that both have; where they share none, all seeds of each. Raises FFDError on an unknown
    baseline; `check_same_faces` must have passed.
    """
    names = [method.name for method in methods]
    base = baseline or names[0]
    if base not in names:
        raise FFDError(f"--baseline {base}: no such method here. Known: {', '.join(names)}.")
    runs = [run for method in methods for run in method.runs]
    unit, _, count = resampling_groups(last_predictions(runs[0]))
    counts = draw_counts(count, samples, np.random.default_rng(seed)) if count > 1 else np.zeros((0, count))
    self_made = self_made_by_any(runs)
    levels = LEVELS if all(method.videos for method in methods) else LEVELS[:1]
    drawn = {run.path: _drawn(run, self_made, counts, levels) for run in runs}
    one = next(method for method in methods if method.name == base)
    differences: dict[str, Differences] = {level: {} for level in LEVELS}
    for method in methods:
        if method is one:
            continue
        common = set(method.seeds) & set(one.seeds)
        mine, theirs = ([r for r in m.runs if not common or r.seed in common] for m in (method, one))
        for level, figure in ((level, figure) for level in levels for figure in FIGURES):
            both = [np.mean([drawn[run.path][level, figure] for run in part], axis=0) for part in (mine, theirs)]
            gap = both[0] - both[1]
            value, low, high, _ = percentile_interval(float(gap[0]), gap[1:])
            differences[level][method.name, figure] = Difference(value, low, high, min(len(mine), len(theirs)))
    return Compared(base, differences["frame"], unit, count, differences["video"])
