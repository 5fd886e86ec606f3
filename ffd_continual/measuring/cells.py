"""The cells that a table of predictions holds: the faces, or videos, of one model on one stream, and what is measured.

Tables as in matrix.py. Axes: n = faces (or videos) of a cell, b = resamples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ffd_continual.measuring.metrics import METRICS, BatchedMetric, Bools, Floats, as_labels_and_scores
from ffd_continual.measuring.video_level import MEAN, VideoRule, names_in, video_level

KEYS = ("after", "on", "stream")
TRACES = ("iou", "pixel_auc")  # measured face by face on the trace map, then averaged


def batched_mean(_labels: Bools, values: Floats, weights: Floats) -> Floats:
    """Weighted mean (b,) over the faces where the value exists."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.asarray((weights[:, known] @ values[known]) / weights[:, known].sum(axis=1))


#: name -> (measure, the column of scores it reads); those of the trace are means over the faces that have one.
MEASURED: Mapping[str, tuple[BatchedMetric, str]] = MappingProxyType(
    {**METRICS, **{trace: (batched_mean, trace) for trace in TRACES}}
)


class Cell(NamedTuple):
    """The faces (or videos) of one model on one stream; rows index the table of predictions."""

    after: int
    on: str
    stream: str
    labels: Bools
    columns: dict[str, NDArray[Any]]
    rows: NDArray[np.int64]


def cells_of(predictions: pd.DataFrame, level: str, score: str = "z", rule: VideoRule = MEAN) -> Iterator[Cell]:
    """Every (after, on, stream) with the score columns it has: z, margin = z - threshold, p, iou, pixel_auc.

    At level "video" a cell holds videos, by the rule, and the margin is that of their own threshold where one is known.
    """
    videos = names_in(predictions, "video") if level == "video" else np.zeros(0, dtype=str)
    column = "video_threshold" if level == "video" and rule.way != "vote" else "threshold"
    whole = {
        name: predictions[name].to_numpy(np.float64)
        for name in {score, "z", column, "threshold", "p", *TRACES} & set(predictions.columns)
    }
    every = predictions["label"].to_numpy()
    places = predictions.groupby(list(KEYS), sort=False).ngroup().to_numpy()
    ordered = np.argsort(places, kind="stable")
    cuts = np.flatnonzero(np.diff(places[ordered])) + 1
    names = [predictions[key].to_numpy() for key in KEYS]
    for rows in np.split(ordered, cuts) if len(ordered) else ():
        after, on, stream = (values[rows[0]] for values in names)
        part = {name: values[rows] for name, values in whole.items()}
        columns = {"z": part[score]}
        cut = column if column in part and not np.isnan(part[column]).any() else "threshold"
        if cut in part and not np.isnan(part[cut]).any():
            columns["margin"] = part["z"] - part[cut]
        if "p" in part and not np.isnan(part["p"]).any():
            columns["p"] = part["p"]
        labels = every[rows]
        forged, _ = as_labels_and_scores(labels, columns["z"])
        if level == "video":
            found = video_level(labels, columns, videos[rows], rule)
            columns = {k: found[k] for k in columns if k in found}
            forged, rows = found["label"].astype(bool), rows[found["first"]]
        else:
            columns |= {trace: part[trace] for trace in TRACES if trace in part and not np.isnan(part[trace]).all()}
        yield Cell(int(after), str(on), str(stream), forged, columns, rows)
