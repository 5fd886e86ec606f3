"""A figure that a paper printed, as configs/protocols/*.yaml holds it."""

from __future__ import annotations

from dataclasses import dataclass

#: What papers call a metric -> (metric, level) of a run's matrix.
METRICS = {"ACC": ("acc", "frame"), "AUC": ("auc", "frame"), "video AUC": ("auc", "video")}


@dataclass(frozen=True)
class Published:
    """One printed row; in per cent, as printed."""

    method: str
    metric: str  # one of METRICS
    value: float  # mean over what was learnt, after the last experience; with `stream`, of that alone
    source: str
    forgetting: float | None = None  # mean of just learnt less at the end, without the last experience
    stream: str = ""  # one of the protocol; empty: all that was learnt
