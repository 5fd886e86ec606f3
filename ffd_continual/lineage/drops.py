"""How much did each known forgery lose? The candidate against the version in use, on the same test faces.

drop = AUC of the version in use - AUC of the candidate; its 95 % interval by drawing persons, both judged on each draw.
The rule: a candidate is promoted if no forgery's drop, and not their mean, exceeds the tolerance. The drop itself
decides, since small test streams have wide intervals that would refuse everything; `strict` asks that the intervals'
upper ends, too, stay within the tolerance. Axes: b resamples, g persons.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from ffd_continual.measuring.matrix import number, resampling_groups
from ffd_continual.measuring.metrics import auc, batched_auc, draw_counts, percentile_interval, resample

MEAN = "mean"


@dataclass(frozen=True)
class Drop:
    """One forgery's (or their mean's) AUC before and after on the same `faces`; drop > 0: it got worse."""

    name: str
    before: float
    after: float
    drop: float
    low: float
    high: float
    faces: int

    def as_json(self) -> dict[str, Any]:
        """NaN as None."""
        return {key: number(v) if isinstance(v, float) else v for key, v in asdict(self).items()}


def paired(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """Predictions of two models on the faces that both judged: the later one's columns, and `z_before`."""
    keys = ["stream", "on", "row"]
    return after.merge(before[[*keys, "z"]].rename(columns={"z": "z_before"}), on=keys)


def drops(
    before: pd.DataFrame,
    after: pd.DataFrame,
    names: Sequence[str],
    samples: int,
    seed: int,
    stream: str = "test",
    apart: Collection[str] = (),
) -> list[Drop]:
    """The drop on every named stream, then that of their mean, without those `apart`; predictions as in matrix.py, one
    model each."""
    both = paired(before, after)
    both = both[(both["stream"] == stream) & both["on"].isin(names)].reset_index(drop=True)
    if both.empty:
        return []
    _, groups, count = resampling_groups(both)
    rng = np.random.default_rng(seed)
    counts = draw_counts(count, samples, rng) if count > 1 and samples else np.zeros((0, count))
    found, drawn = [], []
    for name in names:
        at = np.flatnonzero((both["on"] == name).to_numpy())
        labels = both["label"].to_numpy()[at].astype(bool)
        if not labels.any() or labels.all():
            continue
        one, two = both["z_before"].to_numpy()[at], both["z"].to_numpy()[at]
        gaps = resample(batched_auc, labels, one, groups[at], counts) - resample(
            batched_auc, labels, two, groups[at], counts
        )
        was, now = auc(labels, one), auc(labels, two)
        found.append(Drop(name, was, now, was - now, *percentile_interval(was - now, gaps)[1:3], len(at)))
        if name not in apart:
            drawn.append(gaps)
    if drawn:
        own = [d for d in found if d.name not in apart]
        was, now = (float(np.mean([getattr(d, key) for d in own])) for key in ("before", "after"))
        low, high = percentile_interval(was - now, np.mean(drawn, axis=0))[1:3]
        found.append(Drop(MEAN, was, now, was - now, low, high, sum(d.faces for d in own)))
    return found


def fallen(found: Sequence[Drop], tolerance: float, mean_tolerance: float, strict: bool) -> list[Drop]:
    """Those that forbid promotion; a drop that cannot be measured does not."""
    out = []
    for one in found:
        limit = mean_tolerance if one.name == MEAN else tolerance
        worst = max(one.drop, one.high) if strict and np.isfinite(one.high) else one.drop
        if worst > limit + 1e-12:
            out.append(one)
    return out


def in_words(one: Drop) -> str:
    """A drop for a terminal."""
    interval = f" [{one.low:+.3f}, {one.high:+.3f}]" if np.isfinite(one.low) else ""
    return f"{one.name}: AUC {one.before:.3f} -> {one.after:.3f}, drop {one.drop:+.3f}{interval}"
