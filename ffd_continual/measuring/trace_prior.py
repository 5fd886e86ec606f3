"""How far does position alone find the changed pixels? The mean training mask, shown as a constant map.

Faces are aligned, so most forgeries change the same place: a trace map means something only beyond this figure.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ffd_continual.measuring.traces import mask_iou, pixel_aucs
from ffd_continual.scenarios.streams import Scenario
from ffd_continual.scenarios.table import FaceTable
from ffd_continual.strategies.strategy import Rows

Figures = dict[str, dict[str, dict[str, float]]]


def _masked(table: FaceTable, rows: Rows) -> NDArray[np.bool_]:
    """Changed pixels (N, S, S) of the forged faces among `rows` whose mask is known."""
    slots = table.slot[rows]
    usable = (table.rows["label"].to_numpy()[rows] == 1) & table.mask_known[slots]
    return np.stack([table.masks[s] > 127 for s in slots[usable]]) if usable.any() else np.zeros((0, 0, 0), bool)


def trace_prior(table: FaceTable, scenario: Scenario) -> Figures:
    """iou and pixel_auc of the mean training mask on each test and unseen stream: {stream: {name: {figure: value}}}.

    The mean is over the forged training faces of all experiences with a known mask; IoU is cut at 0.5. Empty without.
    """
    if not len(table.masks):
        return {}
    taught = [_masked(table, scenario.index("train", name)) for name in scenario.experiences]
    taught = [masks for masks in taught if len(masks)]
    if not taught:
        return {}
    prior = np.concatenate(taught).mean(0)
    figures: Figures = {}
    for stream, names in (("test", scenario.experiences), ("unseen", scenario.unseen)):
        for name in names:
            masks = _masked(table, scenario.index(stream, name))
            masks = masks[masks.any((1, 2))]
            areas = pixel_aucs(prior, masks[~masks.all((1, 2))])
            if areas:
                iou = float(np.mean([mask_iou(prior, m) for m in masks]))
                figures.setdefault(stream, {})[name] = {"iou": iou, "pixel_auc": float(np.mean(areas))}
    return figures
