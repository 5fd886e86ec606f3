"""The report's figures as PNG files, for slides and papers: the same panels as in the page, and the matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ffd_continual.reporting.charts import INK, Panel
from ffd_continual.reporting.data import RunData

DPI = 160


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#9aa3af")
    axes.tick_params(labelsize=7, colors="#4a5260", length=2)


def _short(title: str, width: int = 44) -> str:
    # Many forgeries in one experience make a name longer than a panel, which then had no room for its axes.
    return title if len(title) <= width else title[: width - 1] + "…"


def _draw(axes: Axes, panel: Panel) -> None:
    taken: list[float] = []  # heights of the labels at the right, in shares of the axis
    for line in panel.lines:
        early = [p for p in line.points if p[0] <= line.solid_from]
        late = [p for p in line.points if p[0] >= line.solid_from]
        axes.plot(*zip(*early, strict=True), "--", color=line.colour, lw=line.width * 0.6) if len(early) > 1 else None
        axes.plot(*zip(*late, strict=True), color=line.colour, lw=line.width * 0.7) if late else None
        if line.dots:
            axes.plot(*zip(*line.points, strict=True), "o", ms=3, color=line.colour) if line.points else None
        if line.band:
            across, low, high = (list(v) for v in zip(*line.band, strict=True))
            axes.fill_between(across, low, high, color=line.colour, alpha=0.15, lw=0)
        known = [p for p in line.points if math.isfinite(p[1])]
        if line.end_value and known:
            bottom, top = panel.y_range
            wanted = (known[-1][1] - bottom) / ((top - bottom) or 1.0)
            free = [wanted + 0.015 * k * side for k in range(24) for side in (1, -1)]
            at = next((y for y in free if all(abs(y - other) >= 0.06 for other in taken)), wanted)
            taken.append(at)
            axes.annotate(
                f"{known[-1][1]:.3g}", (known[-1][0], bottom + at * (top - bottom)), (5, -2), fontsize=7,
                textcoords="offset points", color=line.colour, annotation_clip=False,
            )  # fmt: skip
    if panel.rule:
        axes.axhline(panel.rule[0], color="#9aa3af", lw=0.8, ls=":")
    for x, _ in panel.marks:
        axes.axvline(x, color="#9aa3af", lw=0.8)
    axes.set_ylim(*panel.y_range)
    turned = sum(len(name) for _, name in panel.x_ticks) > 26
    axes.set_xticks([x for x, _ in panel.x_ticks], [name for _, name in panel.x_ticks])
    axes.tick_params(axis="x", rotation=35 if turned else 0)
    axes.set_title(
        _short(panel.title), fontsize=9, loc="left", color=INK, fontweight="bold", pad=16 if panel.note else 6
    )
    axes.text(0, 1.03, panel.note, transform=axes.transAxes, fontsize=7, color="#4a5260")
    _tidy(axes)


@rc_context({"text.parse_math": False})  # a "$" in a forgery's name begins no formula
def write_panels(
    path: Path, panels: Sequence[Panel], heading: str, columns: int = 3, legend: Sequence[tuple[str, str]] = ()
) -> None:
    """All panels in one picture, `columns` beside each other; legend: (name, colour) of lines, below them."""
    columns = max(1, min(columns, len(panels)))
    rows = max(1, math.ceil(len(panels) / columns))
    figure = Figure(figsize=(3.2 * columns + 0.3, 2.5 * rows + 0.4), layout="constrained")
    figure.suptitle(heading, fontsize=10, x=0.01, ha="left", color=INK)
    grid = figure.subplots(rows, columns, squeeze=False)
    for k, axes in enumerate(grid.flat):
        if k < len(panels):
            _draw(axes, panels[k])
        else:
            axes.set_axis_off()
    if legend:
        lines = [Line2D([], [], color=colour, lw=2, label=name) for name, colour in legend]
        figure.legend(
            handles=lines, loc="outside lower left", ncols=min(len(lines), 2 * columns), fontsize=8, frameon=False
        )
    figure.savefig(path, dpi=DPI)


@rc_context({"text.parse_math": False})  # a "$" in a forgery's name begins no formula
def write_matrix(path: Path, run: RunData, level: str = "frame") -> None:
    """The AUC matrix as a picture with its numbers; cells in parentheses were not learnt yet."""
    names = [("test", n) for n in run.order] + [("unseen", n) for n in run.unseen]
    steps = run.step_names()
    value = {(s, n, p.after): p.value for s, n in names for p in run.curve(s, n, level=level)}
    grid = np.array([[value.get((s, n, i), math.nan) for s, n in names] for i, _ in steps])
    longest = min(24, max(len(n) for _, n in (*names, *steps)))
    size = (1.0 + 0.06 * longest + 0.75 * len(names), 1.0 + 0.035 * longest + 0.42 * len(steps))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    axes.imshow(grid, cmap="Blues", vmin=0.5, vmax=1.15, aspect="auto")
    for r, (i, _) in enumerate(steps):
        for c, (stream, name) in enumerate(names):
            text = "" if math.isnan(grid[r, c]) else f"{grid[r, c]:.2f}"
            if stream == "test" and text and run.order.index(name) > i:
                text = f"({text})"
            axes.text(c, r, text, ha="center", va="center", fontsize=8, color="white" if grid[r, c] > 0.88 else INK)
    if run.unseen:
        axes.axvline(len(run.order) - 0.5, color="white", lw=4)
    axes.set_xticks(
        range(len(names)), [_short(n, 24) for _, n in names], rotation=35, ha="right", rotation_mode="anchor"
    )
    axes.set_yticks(range(len(steps)), [_short(n, 24) for _, n in steps])
    axes.set_ylabel("after learning", fontsize=8, color=INK)
    words = ", video by video" if level == "video" else ""
    figure.suptitle(f"AUC on each test stream{words}", fontsize=9, x=0.01, ha="left", color=INK, fontweight="bold")
    axes.spines[:].set_visible(False)
    axes.tick_params(labelsize=8, length=0)
    figure.savefig(path, dpi=DPI)
