"""The report's part on features: one cloud of points a forgery, on the same two axes, real faces behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ffd_continual.reporting.charts import BLUE, GREY, INK, ORANGE, escape
from ffd_continual.reporting.data import RunData
from ffd_continual.reporting.frame import show
from ffd_continual.reporting.plots import DPI

SIDE = 240
Points = NDArray[np.float64]


@dataclass(frozen=True)
class Cloud:
    """A panel: points (n, 2) of forged faces before those of real ones; all panels have the same axes."""

    title: str
    note: str
    colour: str
    forged: Points
    real: Points


def _clouds(run: RunData, table: pd.DataFrame) -> list[Cloud]:
    places = table[["x", "y"]].to_numpy(np.float64)
    # The far one in a hundred lies on the edge, or it would press all others together.
    low, high = np.percentile(places, [0.5, 99.5], axis=0)
    places = (places.clip(low, high) - low) / np.maximum(high - low, 1e-12)
    real = (table["label"] == 0).to_numpy()
    found = []
    for stream, names, colour in (("test", run.order, BLUE), ("unseen", run.unseen, ORANGE)):
        for name in names:
            forged = ((table["on"] == name) & (table["stream"] == stream)).to_numpy() & ~real
            curve = run.curve(stream, name)
            told = "never learnt" if stream == "unseen" else "learnt"
            note = f"{told}, AUC now {show(curve[-1].value, 2)}" if curve else told
            found.append(Cloud(name, note, colour, places[forged], places[real]))
    return [cloud for cloud in found if len(cloud.forged)]


def _dots(points: Points, colour: str, opacity: float) -> str:
    at = 6 + (SIDE - 12) * np.stack([points[:, 0], 1.0 - points[:, 1]], axis=1)
    # A stroke of no length with round ends is a dot: one path for all of them keeps the page small.
    path = "".join(f"M{x:.0f} {y:.0f}h0" for x, y in at)
    return f'<path d="{path}" stroke="{colour}" stroke-width="5" stroke-linecap="round" opacity="{opacity}"/>'


def _figure(cloud: Cloud) -> str:
    box = f'<rect x=".5" y=".5" width="{SIDE - 1}" height="{SIDE - 1}" fill="none" stroke="#e9ecf0"/>'
    words = f"{escape(cloud.title)}: {len(cloud.forged)} forged faces among {len(cloud.real)} real ones"
    svg = f'<svg viewBox="0 0 {SIDE} {SIDE}" role="img" aria-label="{words}">{box}'
    svg += _dots(cloud.real, GREY, 0.7) + _dots(cloud.forged, cloud.colour, 0.6) + "</svg>"
    return f"<figure><figcaption>{escape(cloud.title)}<span>{escape(cloud.note)}</span></figcaption>{svg}</figure>"


def embedding(run: RunData) -> str:
    """A panel a forgery; nothing where the run has no table of them."""
    if run.embedding is None:
        return ""
    first, second = (round(100 * share) for share in run.summary["embedding"]["explained"])
    clouds = "".join(_figure(cloud) for cloud in _clouds(run, run.embedding))
    return (
        f"<p>{len(run.embedding):,} test faces in the detector's common features at the end, on the two axes along "
        f"which these spread most ({first} and {second} % of their variance). Each panel has the forged faces of one "
        "forgery in blue, or orange where it was never learnt, and all real faces in grey. Where the colour lies on "
        "the grey, these axes do not tell it from real; other features, or a forgery's own module, still may.</p>"
        f'<div class="panels">{clouds}</div>'
    )


@rc_context({"text.parse_math": False})  # a "$" in a forgery's name begins no formula
def write_clouds(path: Path, run: RunData, columns: int = 4) -> None:
    """The same panels as a PNG file."""
    clouds: Sequence[Cloud] = _clouds(run, run.embedding) if run.embedding is not None else ()
    if not clouds:
        return
    columns = min(columns, len(clouds))
    rows = -(-len(clouds) // columns)
    figure = Figure(figsize=(2.4 * columns, 2.7 * rows + 0.4), layout="constrained")
    figure.suptitle("Common features of test faces, two principal axes", fontsize=10, x=0.01, ha="left", color=INK)
    for axes, cloud in zip(figure.subplots(rows, columns, squeeze=False).flat, clouds, strict=False):
        axes.scatter(*cloud.real.T, s=7, c=GREY, alpha=0.7, lw=0)
        axes.scatter(*cloud.forged.T, s=7, c=cloud.colour, alpha=0.6, lw=0)
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal", xticks=[], yticks=[])
        axes.set_title(f"{cloud.title}\n{cloud.note}", fontsize=8, loc="left", color=INK)
        axes.spines[:].set_color("#e9ecf0")
    for axes in figure.axes[len(clouds) :]:
        axes.set_axis_off()
    figure.savefig(path, dpi=DPI)
