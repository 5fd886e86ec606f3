"""Which curves a report shows: forgetting of each forgery, generalisation to unseen ones, losses."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from ffd_continual.reporting.charts import BLUE, GREY, ORANGE, Line, Panel
from ffd_continual.reporting.data import Point, RunData

LOSS_POINTS = 160


def _xy(points: Sequence[Point]) -> list[tuple[float, float]]:
    return [(p.after, p.value) for p in points]


def _band(run: RunData, points: Sequence[Point]) -> list[tuple[float, float, float]]:
    # The few videos of a small set have intervals wider than the axis.
    floor = auc_range(run)[0] if run.videos else 0.0
    return [(p.after, max(p.low, floor), max(p.high, floor)) for p in points]


def auc_range(run: RunData) -> tuple[float, float]:
    """One axis for all AUC panels, so that they can be compared: from below chance, or lower, to 1."""
    m = run.matrix
    values = m[(m["metric"] == "auc") & m["level"].isin(run.levels) & (m["stream"] != "valid")]["value"].dropna()
    return min(0.45, math.floor(float(values.min()) * 20 - 1) / 20 if len(values) else 0.45), 1.0


def forgetting_panels(run: RunData, level: str = "frame") -> list[Panel]:
    """A panel a forgery of the order: its AUC after each experience, the other forgeries' in grey behind."""
    ticks = run.ticks()
    curves = {name: run.curve("test", name, level=level) for name in run.order}
    panels = []
    for j, name in enumerate(run.order):
        points = curves[name]
        others = [Line(_xy(c), GREY, 1.0, n, dots=False, end_value=False) for n, c in curves.items() if n != name]
        own = Line(_xy(points), BLUE, 2.4, name, _band(run, points), solid_from=float(j))
        value = {p.after: p.value for p in points}
        note = "not learnt yet"
        if j == run.last and j in value:
            note = f"just learnt at {value[j]:.2f}"
        elif j in value and run.last in value:
            lost = value[j] - value[run.last]
            change = (
                f"lost {lost:.2f}" if lost >= 0.005 else f"gained {-lost:.2f}" if lost <= -0.005 else "nothing lost"
            )
            note = f"learnt at {value[j]:.2f}, now {value[run.last]:.2f}: {change}"
        title = name + (f" ({run.apart_word(name)})" if name in run.self_made else "")
        marks = [(float(j), "learnt")] if j <= run.last else []
        panels.append(Panel(title, [*others, own], ticks, auc_range(run), note, (0.5, "chance"), marks))
    return panels


def unseen_panels(run: RunData, level: str = "frame") -> list[Panel]:
    """Seen so far against never seen, then each unseen forgery."""
    ticks = run.ticks()
    both = []
    for key, colour, label in (("aa_curve", BLUE, "seen so far"), ("unseen_curve", ORANGE, "never seen")):
        curve = run.means("auc", level)[key]
        means = [(float(i), math.nan if v is None else v) for i, v in zip(curve["after"], curve["value"], strict=True)]
        if any(math.isfinite(y) for _, y in means):
            both.append(Line(means, colour, 2.4, label))
    panels = [
        Panel(
            "Seen and never seen",
            both,
            ticks,
            auc_range(run),
            "blue: learnt so far; orange: never learnt",
            (0.5, "chance"),
        )
    ]
    for name in run.unseen:
        points = run.curve("unseen", name, level=level)
        line = Line(_xy(points), ORANGE, 2.4, name, _band(run, points))
        now = f"now {points[-1].value:.2f}" if points else ""
        panels.append(Panel(name, [line], ticks, auc_range(run), now, (0.5, "chance")))
    return panels if run.unseen else panels[:1]


def smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Centred moving mean of (n,), with a shorter window at both ends; NaN are passed over."""
    table = pd.Series(values).rolling(window, center=True, min_periods=1)
    return np.asarray(table.mean(), dtype=np.float64)


def loss_panels(run: RunData) -> list[Panel]:
    """A panel a logged scalar, smoothed over 1/40 of its length, a line where an experience begins."""
    if run.scalars is None:
        return []
    panels = []
    for tag, part in run.scalars.groupby("tag", sort=False):
        part = part.sort_values("step")
        values = part["value"].to_numpy(np.float64)
        steps = part["step"].to_numpy(np.float64)
        if not np.isfinite(values).any():
            continue
        window = max(1, len(values) // 40)
        clean = pd.Series(np.where(np.isfinite(values), values, np.nan)).groupby(part["experience"].to_numpy())
        curve = clean.transform(lambda v, w=window: smooth(v.to_numpy(), w)).to_numpy()  # not across a new forgery
        kept = np.unique(np.linspace(0, len(curve) - 1, min(LOSS_POINTS, len(curve))).astype(int))
        starts = part.groupby("experience")["step"].min().sort_index()
        inside = [(float(s), "") for s in starts if s > steps[0]]
        low, high = float(np.nanmin(curve)), float(np.nanmax(curve))
        margin = 0.06 * (high - low) or 0.5
        low, high = 0.0 if 0 <= low <= 0.6 * high else low - margin, high + margin
        ticks = [(float(s), f"{s:,.0f}") for s in np.linspace(steps[0], steps[-1], 3).round()] if len(steps) > 1 else []
        line = Line(list(zip(steps[kept], curve[kept], strict=True)), BLUE, 1.8, str(tag), dots=False)
        broken = int((~np.isfinite(values)).sum())
        note = f"{broken} steps are NaN or infinite" if broken else ""
        panels.append(Panel(str(tag), [line], ticks, (low, high), note, None, inside))
    return panels
