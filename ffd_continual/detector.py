"""The detector: learner + decision rule + calibration + threshold. The one thing that is evaluated, saved and used."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ffd_continual.metrics import mask_iou, pixel_auc, threshold_for_accuracy
from ffd_continual.metrics_calibration import Calibration, fit_platt
from ffd_continual.scenarios.batch import Batch
from ffd_continual.strategies.learner import Learner, Output


@dataclass(frozen=True)
class Detector:
    """Judges faces. Calibration and threshold were chosen on validation faces of the seen experiences."""

    learner: Learner
    decide: Callable[[Output], Tensor]
    calibration: Calibration
    threshold: float  # on z


def calibrated(learner: Learner, decide: Callable[[Output], Tensor], valid: Iterable[Batch]) -> Detector:
    """Fit calibration and threshold on validation batches; without any, p = sigmoid(z) and the threshold is 0."""
    scores = score_faces(learner, decide, valid)
    if scores.empty:
        return Detector(learner, decide, Calibration(), 0.0)
    labels, z = scores["label"].to_numpy(), scores["z"].to_numpy()
    return Detector(learner, decide, fit_platt(labels, z), threshold_for_accuracy(labels, z))


@torch.no_grad()
def score_faces(learner: Learner, decide: Callable[[Output], Tensor], batches: Iterable[Batch]) -> pd.DataFrame:
    """One row a face: row, label, z, z_common, attribution, novelty, iou, pixel_auc (NaN or "" where there is none)."""
    was = learner.training
    learner.eval()
    parts = []
    for batch in batches:
        out = learner.look(batch)
        count = len(batch.target)
        table = pd.DataFrame(
            {
                "row": batch.row.cpu().numpy(),
                "label": batch.target.cpu().numpy(),
                "z": decide(out).double().cpu().numpy(),
                "z_common": out.features["z_common"].double().cpu().numpy() if "z_common" in out.features else np.nan,
                "novelty": np.nan if out.novelty is None else out.novelty.double().cpu().numpy(),
                "attribution": "",
                "iou": np.nan,
                "pixel_auc": np.nan,
            },
            index=range(count),
        )
        if out.attribution is not None and out.known:
            best = out.attribution.argmax(1).cpu().numpy()
            table["attribution"] = [out.known[i] for i in best]
        if "trace" in out.maps and batch.mask.shape[1]:
            _localised(table, out.maps["trace"], batch)
        parts.append(table)
    learner.train(was)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _localised(table: pd.DataFrame, trace: Tensor, batch: Batch) -> None:
    """IoU (at probability 0.5) and pixel AUC of the trace map, enlarged to the faces' size, for forged faces whose mask
    is known; pixel AUC is NaN where all pixels are forged."""
    size = batch.mask.shape[-2:]
    maps = torch.sigmoid(torch.nn.functional.interpolate(trace, size=size, mode="bilinear")).squeeze(1).cpu().numpy()
    masks = batch.mask.squeeze(1).cpu().numpy() > 0.5
    usable = (batch.mask_known & (batch.target == 1)).cpu().numpy()
    for i in np.flatnonzero(usable):
        if masks[i].any():
            table.loc[i, "iou"] = mask_iou(maps[i], masks[i])
            table.loc[i, "pixel_auc"] = pixel_auc(maps[i], masks[i])


def judge(detector: Detector, batches: Iterable[Batch]) -> pd.DataFrame:
    """`score_faces` with the calibrated probability `p` and the `threshold`."""
    scores = score_faces(detector.learner, detector.decide, batches)
    if not scores.empty:
        scores["p"] = detector.calibration.apply(scores["z"].to_numpy())
        scores["threshold"] = detector.threshold
    return scores
