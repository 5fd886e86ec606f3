"""How a finished run's detector stands perturbed test faces: scores of every condition, and the figures read off them.

A condition is (perturbation, severity); severity 0 is the clean face, judged once. One draw of persons (or videos)
serves all conditions and streams, so what a perturbation costs is a paired difference: its interval does not hold the
luck of the faces, which both sides share. Axes: n faces, b resamples.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from ffd_continual.measuring.cells import MEASURED, cells_of
from ffd_continual.measuring.matrix import read_figures, resampling_groups
from ffd_continual.measuring.metrics import Floats, draw_counts, percentile_interval, resample
from ffd_continual.measuring.video_level import LEVELS, VideoRule, has_videos, names_in
from ffd_continual.retesting.reopen import Reopened, some_people
from ffd_continual.scenarios.perturb import Perturbation, RobustnessConfig, chosen

FOLDER, TABLE = "robustness", "robustness.parquet"  # in a run
CLEAN = "clean"
LEARNT, NEVER = "mean, learnt", "mean, never learnt"  # `on` of the means over the streams test and unseen
METRICS = ("auc", "acc")
LOST = "auc lost"  # AUC of the clean faces minus that of the perturbed ones
COLUMNS = ("perturbation", "severity", "setting", "stream", "on", "level", "metric", "value", "low", "high")
Draws = dict[tuple[str, str, str], Floats]  # (stream, on, metric) -> value in the sample itself, then in b resamples


def conditions(config: RobustnessConfig) -> Iterator[tuple[Perturbation | None, int, float]]:
    """(perturbation, severity, setting); first (None, 0, nan), the clean faces."""
    yield None, 0, float("nan")
    for perturbation, settings in chosen(config):
        for severity, setting in enumerate(settings, start=1):
            yield perturbation, severity, setting


def judge_conditions(run: Reopened, config: RobustnessConfig, cache: Path, title: str = "") -> pd.DataFrame:
    """z of every test row in every condition, one row each: columns of `Reopened.streams`, perturbation, severity,
    setting and z. A condition whose scores lie in `cache` is not judged again. title: of the progress bar."""
    streams = some_people(run.streams(), config.people, run.config.scenario.seed)
    rows, seed = streams["at"].to_numpy(np.int64), run.config.scenario.seed
    parts = []
    bar = tqdm(list(conditions(config)), desc=title or "robustness", unit="condition", leave=False)
    for perturbation, severity, setting in bar:
        name = CLEAN if perturbation is None else perturbation.name
        bar.set_postfix_str(name if perturbation is None else f"{name} {setting:g}")

        def change(face: Any, row: int, made: Perturbation | None = perturbation, at: float = setting) -> Any:
            return face if made is None else made.apply(face, at, seed, row)

        file = name if perturbation is None else f"{name}-{severity}"
        z = run.kept_scores(cache, file, f"{name}|{setting!r}|{seed}", rows, change)
        parts.append(streams.assign(perturbation=name, severity=severity, setting=setting, z=z))
    return pd.concat(parts, ignore_index=True)


def _draws(table: pd.DataFrame, level: str, rule: VideoRule, counts: Floats, self_made: Collection[str]) -> Draws:
    _, groups, _ = resampling_groups(table)
    found: Draws = {}
    for cell in cells_of(table, level, rule=rule):
        for metric in METRICS:
            measure, column = MEASURED[metric]
            values = cell.columns[column]
            found[cell.stream, cell.on, metric] = resample(measure, cell.labels, values, groups[cell.rows], counts)
    for metric in METRICS:
        for stream, name in (("test", LEARNT), ("unseen", NEVER)):
            own = [v for (at, on, m), v in found.items() if at == stream and m == metric and on not in self_made]
            if own:
                found[stream, name, metric] = np.mean(np.stack(own), axis=0)
    return found


def robustness_table(
    scores: pd.DataFrame,
    self_made: Collection[str] = (),
    samples: int = 1000,
    seed: int = 0,
    rule: VideoRule | None = None,
) -> pd.DataFrame:
    """The figures of one run: columns `COLUMNS`; `on` is a stream or one of the two means.

    scores: of `judge_conditions`. metric: auc, acc (at the run's own threshold) and "auc lost", clean minus perturbed,
    all with 95 % intervals over persons or videos; levels frame and, where faces are frames of videos, video.
    """
    clean = scores[scores["severity"] == 0].reset_index(drop=True)
    count = resampling_groups(clean)[2]
    drawn = draw_counts(count, samples, np.random.default_rng(seed)) if count > 1 else np.zeros((0, count))
    counts = np.vstack([np.ones((1, count)), drawn])
    rows: list[tuple[Any, ...]] = []
    for level in LEVELS if has_videos(clean) else LEVELS[:1]:
        base: Draws = {}
        for (name, severity, setting), part in scores.groupby(
            ["perturbation", "severity", "setting"], sort=False, dropna=False
        ):
            found = _draws(part.reset_index(drop=True), level, rule or VideoRule(), counts, self_made)
            base = found if severity == 0 else base
            lost = {(s, on, LOST): base[s, on, m] - v for (s, on, m), v in found.items() if m == "auc" and severity > 0}
            for (stream, on, metric), draws in {**found, **lost}.items():
                value, low, high, _ = percentile_interval(float(draws[0]), draws[1:])
                rows.append((name, severity, setting, stream, on, level, metric, value, low, high))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def measure_robustness(
    run: Reopened, config: RobustnessConfig, cache: Path, self_made: Collection[str], samples: int, label: str
) -> pd.DataFrame:
    """`robustness_table` of a run, with columns run (= label), unit and groups that were drawn, and faces; where it has
    the level video, videos (how many) and rule (what their score is, in words)."""
    scores = judge_conditions(run, config, cache, label)
    rule = run.config.evaluation.video_rule
    table = robustness_table(scores, self_made, samples, run.config.seed, rule)
    clean = scores[scores["severity"] == 0]
    unit, _, count = resampling_groups(clean)
    table = table.assign(run=label, unit=unit, groups=count, faces=int(clean["slot"].nunique()))
    if levels_in({label: table}) == LEVELS[:1]:
        return table
    videos = names_in(clean, "video")
    return table.assign(videos=len(np.unique(videos[videos != ""])), rule=rule.words)


def read_robustness(run: Path) -> dict[str, pd.DataFrame]:
    """The tables in a run's folder by label, as `ffd robust` left them; {} where it never ran. FFDError if damaged."""
    table = read_figures(run / FOLDER / TABLE, (*COLUMNS, "run", "unit", "groups"), f"ffd robust {run}")
    if table is None:
        return {}
    return {str(label): part.reset_index(drop=True) for label, part in table.groupby("run", sort=False)}


def curve(table: pd.DataFrame, perturbation: str, on: str, metric: str = "auc", level: str = "frame") -> pd.DataFrame:
    """severity, setting, value, low, high of one line, from the clean faces on."""
    part = table[(table["on"] == on) & (table["metric"] == metric) & (table["level"] == level)]
    part = part[part["perturbation"].isin((CLEAN, perturbation))]
    return part.sort_values("severity")[["severity", "setting", "value", "low", "high"]].reset_index(drop=True)


def levels_in(tables: Mapping[str, pd.DataFrame]) -> tuple[str, ...]:
    """The levels at which the runs can be shown side by side: "video" where all have it, by one rule."""
    rules = {word for table in tables.values() for word in (table["rule"].unique() if "rule" in table else ())}
    videos = all((table["level"] == "video").any() for table in tables.values()) and len(rules) < 2
    return LEVELS if videos else LEVELS[:1]


def kinds(table: pd.DataFrame) -> list[str]:
    """The perturbations of a table, in its order."""
    return [str(name) for name in dict.fromkeys(table["perturbation"]) if name != CLEAN]


def streams_of(table: pd.DataFrame) -> list[tuple[str, str]]:
    """(stream, on) of every forgery, without the means."""
    known = dict.fromkeys(zip(table["stream"], table["on"], strict=True))
    return [(str(s), str(on)) for s, on in known if on not in (LEARNT, NEVER)]


def terminal(tables: dict[str, pd.DataFrame], names: Sequence[str] = ()) -> str:
    """AUC at every severity in at most 80 columns, a block a run, level and mean. names: of perturbations, all if
    empty."""
    lines, levels = [], levels_in(tables)
    for label, table in tables.items():
        for level, on in ((level, on) for level in levels for on in (LEARNT, NEVER)):
            shown = [n for n in kinds(table) if not names or n in names]
            curves = {name: curve(table, name, on, level=level) for name in shown}
            if not any(len(c) for c in curves.values()):
                continue
            short = label if len(label) <= 40 else label[:39] + "~"
            lines += ["", f"{short}: AUC, {on}" + (f", {level}s" if len(levels) > 1 else "")]
            lines.append(f"{'':12s}{'clean':>7s}" + "".join(f"{i:>7d}" for i in range(1, 6)) + "   lost at 5")
            for name, points in curves.items():
                lost = curve(table, name, on, LOST, level).tail(1)
                cells = "".join(f"{v:7.3f}" for v in points["value"])
                told = "".join(f"{r.value:8.3f} [{r.low:.3f}, {r.high:.3f}]" for r in lost.itertuples())
                lines.append(f"{name:12s}{cells}{told}")
    return "\n".join(lines[1:])
