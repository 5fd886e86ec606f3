"""Robustness as a page, as pictures and as a section of a run's report: curves of AUC over the severity.

Where faces are frames of videos everything stands there twice, face by face and video by video, on the same axes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from ffd_continual.reporting.charts import BLUE, ORANGE, Line, Panel, colours, escape
from ffd_continual.reporting.frame import heat_colours, page, panels, show
from ffd_continual.reporting.plots import write_panels
from ffd_continual.retesting.robustness import LEARNT, LOST, NEVER, TABLE, curve, kinds, levels_in, streams_of
from ffd_continual.runs.folder import write_table, write_text
from ffd_continual.scenarios.perturb import PERTURBATIONS, SEVERITIES

Tables = Mapping[str, pd.DataFrame]
HUES = {LEARNT: BLUE, NEVER: ORANGE}
WORST = SEVERITIES
CHANCE = (0.5, "chance")
BY = {"frame": "face by face", "video": "video by video"}


def _range(tables: Tables, ons: Sequence[str], metric: str) -> tuple[float, float]:
    """One axis for all panels, so that they can be compared; bands lie inside."""
    shown = levels_in(tables)
    parts = [t[(t["metric"] == metric) & t["level"].isin(shown) & t["on"].isin(ons)] for t in tables.values()]
    lowest = float(pd.concat(parts)[["value", "low"]].min().min()) if parts else math.nan
    return min(0.45, math.floor(lowest * 20) / 20) if math.isfinite(lowest) else 0.45, 1.0


def _line(points: pd.DataFrame, colour: str, label: str, end: bool) -> Line:
    across = [float(s) for s in points["severity"]]
    band = list(zip(across, points["low"], points["high"], strict=True))
    values = list(zip(across, points["value"], strict=True))
    return Line(values, colour, 2.2, label, band, end_value=end)


def _ticks(table: pd.DataFrame, name: str) -> list[tuple[float, str]]:
    points = curve(table, name, LEARNT)
    return [(float(r.severity), f"{r.setting:g}" if r.severity else "clean") for r in points.itertuples()]


def _means(tables: Tables) -> list[str]:
    """The means that there are: a scenario without unseen forgeries has one."""
    first = next(iter(tables.values()))
    return [on for on in (LEARNT, NEVER) if (first["on"] == on).any()]


def overview_panels(tables: Tables, metric: str = "auc", level: str = "frame") -> list[Panel]:
    """A panel a perturbation. Of one run it has the mean over learnt forgeries, blue, and over those never learnt,
    orange; of several runs, in their colours, the first panels have the one mean, the others the other."""
    first = next(iter(tables.values()))
    means = _means(tables)
    y_range, names = _range(tables, means, metric), kinds(first)

    def panel(name: str, lines: list[Line], note: str) -> Panel:
        return Panel(PERTURBATIONS[name].title, lines, _ticks(first, name), y_range, note, CHANCE)

    if len(tables) == 1:
        return [
            panel(n, [_line(curve(first, n, on, metric, level), HUES[on], on, True) for on in means], "") for n in names
        ]
    coloured = list(zip(tables.items(), colours(len(tables)), strict=True))
    few = len(tables) <= 3
    return [
        panel(n, [_line(curve(table, n, on, metric, level), hue, label, few) for (label, table), hue in coloured], on)
        for on in means
        for n in names
    ]


def forgery_panels(tables: Tables, name: str, level: str = "frame") -> list[Panel]:
    """One perturbation: a panel a forgery, a line a run."""
    first = next(iter(tables.values()))
    both = streams_of(first)
    y_range, ticks = _range(tables, [on for _, on in both], "auc"), _ticks(first, name)
    single = len(tables) == 1
    shown = []
    for stream, on in both:
        hues = [BLUE if stream == "test" else ORANGE] if single else colours(len(tables))
        lines = [
            _line(curve(table, name, on, "auc", level), hue, label, len(tables) <= 3)
            for (label, table), hue in zip(tables.items(), hues, strict=True)
        ]
        shown.append(Panel(on, lines, ticks, y_range, "learnt" if stream == "test" else "never learnt", CHANCE))
    return shown


def _worst(table: pd.DataFrame, level: str) -> str:
    """AUC of every forgery: clean, and at the highest severity of each perturbation."""
    names = kinds(table)
    part = table[(table["metric"] == "auc") & (table["level"] == level)]
    value = {(r.perturbation, r.severity, r.on): r.value for r in part.itertuples()}
    heads = "".join(f"<th>{escape(n)}</th>" for n in ("clean", *names))
    rows = []
    for stream, on in [*streams_of(table), ("", LEARNT), ("", NEVER)]:
        if ("clean", 0, on) not in value:
            continue
        cells = []
        for at in [("clean", 0), *((n, WORST) for n in names)]:
            v = value.get((*at, on), math.nan)
            back, letters = heat_colours(v)
            cells.append(f'<td style="background:{back};color:{letters}">{show(v, 2)}</td>')
        note = " <small>never learnt</small>" if stream == "unseen" else ""
        rows.append(f"<tr><th>{escape(on)}{note}</th>{''.join(cells)}</tr>")
    body = f"<thead><tr><th></th>{heads}</tr></thead><tbody>{''.join(rows)}</tbody>"
    return f'<div class="wide"><table class="heat">{body}</table></div>'


def _losses(table: pd.DataFrame, level: str) -> str:
    """In words, what costs most and what least of the learnt forgeries' AUC."""
    lost = {name: curve(table, name, LEARNT, LOST, level).tail(1) for name in kinds(table)}
    ranked = sorted(((float(p["value"].iloc[0]), n, p.iloc[0]) for n, p in lost.items() if len(p)), key=lambda r: -r[0])
    if not ranked:
        return ""

    def said(entry: tuple[float, str, pd.Series]) -> str:
        value, name, row = entry
        return f"{escape(name)} ({show(value)} [{show(float(row['low']))}, {show(float(row['high']))}])"

    text = f"At severity {WORST} the learnt forgeries lose most AUC to {said(ranked[0])}"
    return f"<p>{text}{f' and least to {said(ranked[-1])}' if len(ranked) > 1 else ''}.</p>"


STYLE = (
    "<style>.keys{display:flex;flex-wrap:wrap;gap:4px 18px;font-size:.875rem;margin:8px 0}"
    ".keys i{display:inline-block;width:18px;height:4px;border-radius:2px;margin:0 6px 3px 0}"
    "details{margin:6px 0}summary{cursor:pointer;font-weight:600;font-size:.9375rem}</style>"
)
LEVELS_STYLE = (
    "<style>h3.level{font-size:1.1rem;margin-top:34px;padding-top:10px;border-top:1px solid var(--line)}"
    "h4{font-size:.9375rem;margin:20px 0 6px}</style>"
)


def _level(tables: Tables, level: str, heading: str) -> str:
    """All that is shown at one level; heading: the tag of its headings."""

    def headed(text: str) -> str:
        return f"<{heading}>{text}</{heading}>"

    html = panels(overview_panels(tables, level=level))
    for label, table in tables.items():
        html += headed(f"AUC at severity {WORST}" + ("" if len(tables) == 1 else f": {escape(label)}"))
        html += _losses(table, level) + _worst(table, level)
    words = (
        "Where AUC stays and accuracy falls, the scores have moved, and a threshold that fits such pictures would help."
    )
    html += headed("Accuracy at the run's own threshold") + (f"<p>{words}</p>" if level == "frame" else "")
    html += panels(overview_panels(tables, "acc", level)) + headed("AUC of every forgery")
    for name in kinds(next(iter(tables.values()))):
        title = escape(PERTURBATIONS[name].title)
        html += f"<details><summary>{title}</summary>{panels(forgery_panels(tables, name, level))}</details>"
    return html


def robustness_section(tables: Tables) -> str:
    """HTML of one run or several: overview, the highest severity of each forgery, and every curve to be opened."""
    single = len(tables) == 1
    row = next(iter(tables.values())).iloc[0]
    told = f"{row['groups']} {row['unit']}" if "groups" in row else "whole persons or videos"
    if single:
        key = ' <span style="color:var(--blue)">Blue</span>: mean over what was learnt'
        if NEVER in _means(tables):
            key += '; <span style="color:var(--orange)">orange</span>: over what was never learnt'
        key += "."
    else:
        hues = zip(tables, colours(len(tables)), strict=True)
        listed = "".join(f'<span><i style="background:{hue}"></i>{escape(label)}</span>' for label, hue in hues)
        key = f'</p><div class="keys">{listed}</div><p>'
    html = (
        f"{STYLE}<p>The final detector on its own test faces after each perturbation, from clean to severity {WORST}: "
        f"AUC, shaded the 95 % interval over {escape(told)}. The detector was not prepared for it: its threshold stays "
        f"where validation faces put it. The prepared face is perturbed, as the detector would see it.{key}</p>"
    )
    if levels_in(tables) == ("frame",):
        return html + _level(tables, "frame", "h3")
    told = f"{row['videos']} videos, one score each: the {escape(row['rule'])}" if "rule" in row else "videos"
    return (
        f'{html}{LEVELS_STYLE}<h3 class="level">Face by face</h3>{_level(tables, "frame", "h4")}'
        f'<h3 class="level">Video by video</h3><p>The same faces as {told}. Accuracy: at the videos\' own threshold. '
        f"Axes as above.</p>{_level(tables, 'video', 'h4')}"
    )


def write_plots(folder: Path, tables: Tables) -> None:
    """The overviews robustness.png and robustness_accuracy.png; robustness_<perturbation>.png has a panel a forgery.
    At video level their names begin with robustness_videos."""
    legend = list(zip(tables, colours(len(tables)), strict=True)) if len(tables) > 1 else []
    both = legend if legend else [(on, HUES[on]) for on in _means(tables)]
    levels = levels_in(tables)
    for level in levels:
        name = "robustness" if level == "frame" else "robustness_videos"
        words = f", {BY[level]}" if len(levels) > 1 else ""
        heading = f"AUC under perturbation{words}"
        write_panels(folder / f"{name}.png", overview_panels(tables, level=level), heading, 4, both)
        heading = f"Accuracy at the run's own threshold under perturbation{words}"
        write_panels(folder / f"{name}_accuracy.png", overview_panels(tables, "acc", level), heading, 4, both)
        for kind in kinds(next(iter(tables.values()))):
            heading = f"AUC, {PERTURBATIONS[kind].title}{words}"
            write_panels(folder / f"{name}_{kind}.png", forgery_panels(tables, kind, level), heading, 4, legend)


def write_robustness(out: Path, tables: Tables, title: str) -> Path:
    """Tables (Parquet, CSV), pictures and page of one run or several; returns the page's path."""
    whole = pd.concat(tables.values(), ignore_index=True)
    write_table(out / TABLE, whole)
    write_text(out / "robustness.csv", whole.to_csv(index=False))
    write_plots(out, tables)
    head = f'<p class="lead">{escape(", ".join(tables))}</p>' if len(tables) > 1 else ""
    write_text(out / "robustness.html", page(title, [("robustness", "", head + robustness_section(tables))]))
    return out / "robustness.html"
