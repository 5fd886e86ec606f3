"""A method's curves over the run: what it has seen so far, what it never sees, each forgery; means over its seeds.

A curve is {after: AUC}; what one seed lacks is left out, as a mean over the other seeds would be another figure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

Curve = dict[int, float]


@dataclass(frozen=True)
class Curves:
    """At one level; types: {forgery: curve}, of the forgeries that all seeds have."""

    seen: Curve = field(default_factory=dict)
    unseen: Curve = field(default_factory=dict)
    types: dict[str, Curve] = field(default_factory=dict)


def _mean(curves: Sequence[Curve]) -> Curve:
    common = sorted(set.intersection(*(set(curve) for curve in curves)))
    return {i: float(np.mean([curve[i] for curve in curves])) for i in common}


def _stored(summary: dict[str, Any], name: str) -> Curve:
    curve = summary["auc"].get(name, {"after": [], "value": []})
    return {int(i): math.nan if v is None else float(v) for i, v in zip(curve["after"], curve["value"], strict=True)}


def _types(run: Path, level: str) -> dict[str, Curve]:
    matrix = pd.read_parquet(run / "matrix.parquet")
    part = matrix[(matrix["metric"] == "auc") & (matrix["level"] == level) & (matrix["stream"] == "test")]
    return {
        str(on): {int(i): float(v) for i, v in zip(rows["after"], rows["value"], strict=True)}
        for on, rows in part.groupby("on")
    }


def curves_of(
    runs: Sequence[Path], summaries: Sequence[dict[str, Any]], order: Sequence[str], level: str = "frame"
) -> Curves:
    """Of the folders of one method's runs, and their summaries at that level."""
    types = [_types(run, level) for run in runs]
    return Curves(
        _mean([_stored(summary, "aa_curve") for summary in summaries]),
        _mean([_stored(summary, "unseen_curve") for summary in summaries]),
        {on: _mean([curves[on] for curves in types]) for on in order if all(on in curves for curves in types)},
    )
