"""The detector: learner + decision rule + calibration + threshold. The one thing that is evaluated, saved and used."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from ffd_continual.measuring.calibration import Calibration, fit_platt
from ffd_continual.measuring.metrics import threshold_for_accuracy
from ffd_continual.measuring.traces import mask_iou, pixel_auc
from ffd_continual.measuring.video_level import MEAN, VideoRule, video_threshold
from ffd_continual.scenarios.batch import Batch
from ffd_continual.strategies.learner import Learner, Output


@dataclass(frozen=True)
class Detector:
    """Judges faces. Calibration and threshold come from validation faces of the seen experiences (facts.py)."""

    learner: Learner
    decide: Callable[[Output], Tensor]
    calibration: Calibration
    threshold: float  # on z
    video_threshold: float | None = None  # on a video's score; None: that of frames
    valid: pd.DataFrame = field(default_factory=pd.DataFrame)  # the validation faces' scores, for facts.py


def calibrated(
    learner: Learner,
    decide: Callable[[Output], Tensor],
    scores: pd.DataFrame,
    videos: NDArray[np.str_] | None = None,
    rule: VideoRule = MEAN,
) -> Detector:
    """Fit calibration and thresholds on the scores of validation faces; without any, p = sigmoid(z), the threshold 0.

    videos: name of the video of every row of the run, "" for none; `rule` turns frames into videos.
    """
    if scores.empty:
        return Detector(learner, decide, Calibration(), 0.0)
    labels, z = scores["label"].to_numpy(), scores["z"].to_numpy()
    whole = None if videos is None else video_threshold(labels, z, videos[scores["row"].to_numpy()], rule)
    return Detector(learner, decide, fit_platt(labels, z), threshold_for_accuracy(labels, z), whole, scores)


@torch.no_grad()
def score_faces(
    learner: Learner, decide: Callable[[Output], Tensor], batches: Iterable[Batch], traces: bool = True
) -> pd.DataFrame:
    """One row a face: row, label, z, z_common, attribution, novelty, iou, pixel_auc (NaN or "" where there is none).

    traces: compare the trace maps with the masks, too.
    """
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
        if traces and "trace" in out.maps and batch.mask.shape[1]:
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
    at = np.flatnonzero(usable & masks.any((1, 2)))
    table.loc[at, "iou"] = [mask_iou(maps[i], masks[i]) for i in at]
    table.loc[at, "pixel_auc"] = [pixel_auc(maps[i], masks[i]) for i in at]


def judge(detector: Detector, batches: Iterable[Batch]) -> pd.DataFrame:
    """`score_faces` with the calibrated probability `p`, the `threshold` and, where there is one, `video_threshold`."""
    scores = score_faces(detector.learner, detector.decide, batches)
    if not scores.empty:
        scores["p"] = detector.calibration.apply(scores["z"].to_numpy())
        scores["threshold"] = detector.threshold
        if detector.video_threshold is not None:
            scores["video_threshold"] = detector.video_threshold
    return scores
