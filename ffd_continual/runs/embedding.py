"""Where do faces lie in the learner's common features? Two principal axes of a finished run's test faces.

An axis is chosen by spread alone, without labels: where forged faces lie apart from real ones on it, that is what the
features hold, and not what was looked for. Axes: N faces, D features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from ffd_continual.runs.assemble import Parts
from ffd_continual.scenarios.batch import Batch
from ffd_continual.scenarios.dataset import plain_batch
from ffd_continual.strategies.strategy import Rows

FACES = 800  # about so many are drawn, of all streams together


def principal(features: NDArray[np.float64]) -> tuple[NDArray[np.float64], list[float]]:
    """Positions (N, 2) of features (N, D) on their two principal axes, and each axis' share of the whole variance. The
    largest weight of an axis is positive, so that the same faces always give the same picture."""
    centred = features - features.mean(0)
    _, spread, axes = np.linalg.svd(centred, full_matrices=False)
    axes, share = axes[:2], spread**2 / max(float((spread**2).sum()), 1e-12)
    signs = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(1)])
    found = centred @ (axes * signs[:, None]).T
    wide = np.zeros((len(features), 2))
    wide[:, : found.shape[1]] = found
    return wide, [float(v) for v in share[:2]]


def shown(parts: Parts) -> tuple[Rows, pd.DataFrame]:
    """Rows of the test and unseen streams, spread evenly, each with its stream (columns on, stream); a face that
    several streams share is shown in the first."""
    scenario = parts.scenario
    streams = [("test", name) for name in scenario.experiences] + [("unseen", name) for name in scenario.unseen]
    rows, names = [], []
    for stream, name in streams:
        every = scenario.index(stream, name)
        chosen = every[np.unique(np.linspace(0, len(every) - 1, max(2, FACES // len(streams))).astype(np.int64))]
        rows.append(chosen)
        names += [(name, stream)] * len(chosen)
    found, told = np.concatenate(rows), pd.DataFrame(names, columns=["on", "stream"])
    _, first = np.unique(parts.sources.table.slot[found], return_index=True)
    return np.asarray(found[np.sort(first)], np.int64), told.iloc[np.sort(first)].reset_index(drop=True)


@torch.no_grad()
def measure_embedding(parts: Parts, batch_size: int) -> tuple[pd.DataFrame, dict[str, Any]]:
    """embedding.parquet (on, stream, label, x, y; no face is named), and {"faces": N, "explained": two shares}."""
    rows, table = shown(parts)
    learner, features = parts.learner, []
    was = learner.training
    learner.eval()
    for start in range(0, len(rows), batch_size):
        chunk = [int(row) for row in rows[start : start + batch_size]]
        batch = Batch(*(field.to(parts.device) for field in plain_batch(parts.sources, chunk, pictures=False)))
        features.append(learner.look(batch).features["common"].flatten(1).double().cpu().numpy())
    learner.train(was)
    places, shares = principal(np.concatenate(features))
    table["label"] = parts.sources.table.rows["label"].to_numpy()[rows].astype(np.int64)
    table["x"], table["y"] = places[:, 0], places[:, 1]
    return table, {"faces": len(table), "explained": shares}
