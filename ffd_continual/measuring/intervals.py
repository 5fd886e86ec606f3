"""Figures of a run with 95 % intervals from its predictions, and the table that a terminal shows."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import t as student

from ffd_continual.measuring.matrix import (
    TRACES,
    UNTRAINED,
    Measured,
    figures,
    measured_from_predictions,
    number,
    summarise,
    summarised,
)
from ffd_continual.measuring.metrics import percentile_interval
from ffd_continual.measuring.video_level import LEVELS, MEAN, VideoRule, has_videos

LINES = {
    "aa": "average (AA)",
    "diagonal": "when just learnt",
    "forgetting_signed": "forgetting, signed",
    "forgetting_max": "forgetting, max",
    "unseen": "unseen",
}


FEW = 20  # persons or videos below which a 95 % interval of a simulated AUC held the truth in 87 (5) to 92 % (10) only
TRACE_LINES = {"iou": "trace IoU at 0.5", "pixel_auc": "trace pixel AUC"}


def over_seeds(values: Sequence[float]) -> tuple[float, float]:
    """The mean of one figure of n >= 1 seeds, and t(0.975, n - 1) s / sqrt(n): NaN of a single seed."""
    known = np.array(values, dtype=np.float64)
    if len(known) == 1:
        return float(known[0]), math.nan
    return float(known.mean()), float(student.ppf(0.975, len(known) - 1) * known.std(ddof=1) / math.sqrt(len(known)))


def summarise_with_ci(
    predictions: pd.DataFrame,
    order: Sequence[str],
    self_made: Collection[str] = (),
    level: str = "frame",
    metrics: Sequence[str] = (),
    samples: int = 1000,
    seed: int = 0,
    rule: VideoRule = MEAN,
    measured: Measured | None = None,
) -> dict[str, Any]:
    """`summarise`, and for each metric "ci": {figure: [low, high]}; "bootstrap": unit, groups, samples, skipped.

    One draw of persons (or videos) serves every cell of the matrix, so that differences such as forgetting are paired:
    their interval does not hold the spread that both terms share. A resample in which a needed cell has one class only
    is skipped for that figure, and the most skipped of any figure is reported. Predictions as in `matrix`; `measured`:
    what was made of them with the same samples, seed and rule, at this level and with these metrics among others.
    """
    if measured is None:
        wanted = tuple(metrics) or ("auc", "acc", *TRACES)
        measured = measured_from_predictions(predictions, samples, seed, "z", (level,), wanted, rule)
    metrics = metrics or summarised(measured.matrix, level)
    result = summarise(measured.matrix, order, self_made, level, metrics)
    last = int(result["after"])
    skipped, apart = 0, {*self_made, *result.get("unmeasured", ())}
    for metric in metrics:
        test, unseen = (measured.draws.get((level, metric, stream), {}) for stream in ("test", "unseen"))
        intervals: dict[str, list[float | None]] = {}
        lacking = result[metric].get("maskless", ())
        for figure, draws in figures(test, unseen, order, last, {*apart, *lacking}).items():
            value = result[metric].get(figure)
            if value is None or not len(draws):
                continue
            found = percentile_interval(value, draws)
            intervals[figure] = [number(found.low), number(found.high)]
            skipped = max(skipped, found.skipped)
        result[metric]["ci"] = intervals
    if level == "video":
        result["rule"] = {"video": rule.way, "video_share": rule.share, "words": rule.words}
    result["bootstrap"] = {
        "unit": measured.unit, "groups": measured.groups, "samples": measured.samples, "skipped": skipped, "seed": seed,
    }  # fmt: skip
    return result


class RunFigures(NamedTuple):
    """What the predictions of a run tell: its matrix and summaries; `videos` is empty where a video is one frame."""

    matrix: pd.DataFrame
    summary: dict[str, Any]
    videos: dict[str, Any]


def run_figures(
    predictions: pd.DataFrame,
    order: Sequence[str],
    self_made: Collection[str],
    samples: int,
    seed: int,
    rule: VideoRule,
) -> RunFigures:
    """Matrix and summaries from one pass over the predictions, and one draw for all."""
    # Pictures, and videos of one frame, have one level: the other would repeat every figure.
    levels = LEVELS if has_videos(predictions) else LEVELS[:1]
    measured = measured_from_predictions(predictions, samples, seed, levels=levels, rule=rule)
    found = [
        summarise_with_ci(predictions, order, self_made, level, (), samples, seed, rule, measured) for level in levels
    ]
    return RunFigures(measured.matrix, found[0], found[1] if len(found) > 1 else {})


def _shortened(names: Sequence[str], width: int) -> list[str]:
    short = [n if len(n) <= width else n[: width - 1] + "~" for n in names]
    return [s if short.count(s) == 1 else f"{s[: width - 3]}~{i}" for i, s in enumerate(short)]


def _cell(value: float, learnt: bool) -> str:
    if not np.isfinite(value):
        return "-"
    return f"{value:.3f} " if learnt else f"({value:.3f})"


def _table(summary: dict[str, Any], metrics: Sequence[str]) -> list[str]:
    lines = []
    for figure, words in LINES.items():
        texts = []
        for metric in metrics:
            value = summary[metric].get(figure)
            low, high = summary[metric].get("ci", {}).get(figure, (None, None))
            text = "-" if value is None else f"{value:.3f}"
            texts.append(text + (f" [{low:.3f}, {high:.3f}]" if low is not None and high is not None else ""))
        lines.append((f"{words:20s}" + "".join(f"{t:24s}" for t in texts)).rstrip())
    return lines


def _figure_lines(summary: dict[str, Any]) -> list[str]:
    metrics = [m for m in summary if isinstance(summary[m], dict) and "aa_curve" in summary[m]][:2]
    videos = summary.get("videos") or {}
    lines = [f"{'frames' if videos else '':20s}" + "".join(f"{m.upper():24s}" for m in metrics).rstrip()]
    lines += _table(summary, metrics)
    if videos:
        heading = f"videos: {videos['rule']['words']}"
        lines += ["", heading, *_table(videos, [m for m in metrics if m in videos]), ""]
    for trace, words in TRACE_LINES.items():
        shown = [
            f"{where} {value:.3f}"
            for where, key in (("learnt", "aa"), ("unseen", "unseen"))
            if (value := summary.get(trace, {}).get(key)) is not None
        ]
        if shown:
            lacking = summary[trace].get("maskless", ())
            rest = textwrap.wrap(f"without masks: {', '.join(lacking)}", 60) if lacking else []
            lines += [f"{words:20s}" + ", ".join(shown), *(" " * 20 + line for line in rest)]
    boot = summary.get("bootstrap")
    if boot:
        lines.append(f"[ ] 95 % interval, {boot['samples']} resamples of {boot['groups']} {boot['unit']}")
        if boot["groups"] < FEW:
            lines.append("    so few that the intervals are too narrow: take them as a hint")
        if boot["skipped"]:
            lines.append(f"    {boot['skipped']} resamples skipped: a stream held one class only")
    return lines


def _apart_words(summary: dict[str, Any]) -> str:
    sources = set(summary.get("sources", ()))
    made = bool(set(summary.get("self_made", ())) - sources) or not sources
    return " or ".join((["self-made"] if made else []) + (["a source of real faces"] if sources else []))


def print_matrix(
    matrix: pd.DataFrame,
    order: Sequence[str],
    summary: dict[str, Any] | None = None,
    metric: str = "auc",
    level: str = "frame",
    self_made: Collection[str] = (),
) -> str:
    """The matrix as text of at most 80 columns: a row an experience, a column a forgery, the unseen mean last.

    Cells in parentheses: not learnt yet. Below it the figures, with intervals where `summary` has them. Columns that
    do not fit go into further blocks.
    """
    summary = summary if summary is not None else summarise(matrix, order, self_made, level)
    part = matrix[(matrix["metric"] == metric) & (matrix["level"] == level)]
    test = part[part["stream"] == "test"].set_index(["after", "on"])["value"].to_dict()
    unseen = part[(part["stream"] == "unseen") & ~part["on"].isin(list(self_made))]
    means = unseen.groupby("after")["value"].agg(lambda v: v.mean(skipna=False)).to_dict()
    names = [*order, *(["unseen"] if means else [])]
    columns = list(zip(_shortened([n + "*" if n in self_made else n for n in names], 9), names, strict=True))
    steps = sorted({int(i) for i in part["after"]})
    heads = _shortened(["untrained" if i == UNTRAINED else f"{i} {order[i]}" for i in steps], 16)
    lines = [f"{metric.upper()} ({level} level), rows: after learning, columns: tested on"]
    for start in range(0, len(columns), 6):
        block = columns[start : start + 6]
        lines.append(f"{'':17s}" + "".join(f"{short:>9s} " for short, _ in block).rstrip())
        for step, head in zip(steps, heads, strict=True):
            cells = []
            for _, name in block:
                is_mean = name == "unseen" and name not in order
                value = means.get(step, np.nan) if is_mean else test.get((step, name), np.nan)
                cells.append(_cell(float(value), is_mean or order.index(name) <= step))
            lines.append((f"{head:17s}" + "".join(f"{c:>10s}" for c in cells)).rstrip())
        lines.append("")
    notes = ["( ) not learnt yet"] + ([f"* {_apart_words(summary)}, in no mean"] if set(self_made) & set(names) else [])
    left = summary.get("unmeasured")
    told = textwrap.wrap(f"not measured, for want of test faces, and in no mean: {', '.join(left)}", 80) if left else []
    return "\n".join([*lines, *_figure_lines(summary), "; ".join(notes), *told])
