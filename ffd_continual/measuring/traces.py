"""How well a map finds the pixels that a forgery changed: overlap, and AUC over the pixels of one face.

Axes: H, W pixels of a map, P of them in all, k distinct values, N masks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ffd_continual.measuring.metrics import Bools, Floats, auc
from ffd_continual.scenarios.errors import FFDError


def mask_iou(trace: ArrayLike, mask: ArrayLike, threshold: float = 0.5) -> float:
    """Overlap of a map in [0, 1] cut at `threshold` with the true mask (> 0), same (H, W).

    NaN where the mask is empty: a real face has no trace to find, and counting it as 1 would flatter the mean.
    """
    found, true = np.asarray(trace) >= threshold, np.asarray(mask) > 0
    if found.shape != true.shape:
        raise FFDError(f"the map is {found.shape} and the mask {true.shape}: resize the map to the mask first")
    return float((found & true).sum() / (found | true).sum()) if true.any() else float("nan")


def pixel_auc(trace: ArrayLike, mask: ArrayLike) -> float:
    """AUC of a map's pixels against the mask (> 0), same (H, W); NaN where the mask is empty or full."""
    true, values = np.asarray(mask).ravel() > 0, np.asarray(trace).ravel()
    if values.dtype == np.float32 and values.shape == true.shape and np.isfinite(values).all() and (values >= 0).all():
        return _area_of_bits(values + np.float32(0), true)  # -0 becomes 0
    return auc(true, np.asarray(values, np.float64))


def _area_of_bits(values: NDArray[np.float32], true: Bools) -> float:
    """The same for values (P,) of 0 and more, whose bits rise with them: label and value sort as one whole number."""
    keys = np.sort((values.view(np.uint32) << np.uint32(1)) | true)
    forged = (keys & 1).astype(np.int64)
    last = np.flatnonzero(np.append((keys[1:] >> 1) != (keys[:-1] >> 1), True))
    hits, both = np.cumsum(forged)[last], last + 1
    return _area(np.diff(hits, prepend=0), np.diff(both - hits, prepend=0))


def _area(forged: NDArray[np.int64], real: NDArray[np.int64]) -> float:
    """AUC from the counts (k,) of both classes at each distinct value, lowest first: the Mann-Whitney statistic."""
    pairs = int(forged.sum()) * int(real.sum())
    twice = int((forged * (2 * (np.cumsum(real) - real) + real)).sum())
    return twice / (2 * pairs) if pairs else float("nan")


def pixel_aucs(trace: Floats, masks: Bools) -> list[float]:
    """`pixel_auc` of one map (H, W) against many masks (N, H, W); the map is sorted once."""
    levels, level = np.unique(trace.ravel(), return_inverse=True)
    every = np.bincount(level)
    found = []
    for mask in masks:
        forged = np.bincount(level[mask.ravel()], minlength=len(levels))
        found.append(_area(forged, every - forged))
    return found
