"""Masks from pairs: which pixels a forgery changed, told from a forged face and the pristine one it was made from.

Two measures of change, each a mean over 5 x 5 windows, then the same three steps. `difference`: absolute difference of
the colours, as |x - x_real| in Sun et al., "Dual Contrastive Learning for General Face Forgery Detection", AAAI 2022.
`ssim`: structural dissimilarity (Wang et al., IEEE TIP 2004) as in Jia et al., "Inconsistency-Aware Wavelet Dual-Branch
Network for Face Forgery Detection", IEEE TBIOM 2021, section IV-A.

1. Binarised. **Reading**: the wavelet paper's "threshold 5" fits no scale of SSIM; 5 of 255 grey levels of 1 - SSIM is
   taken. Both thresholds rise with the noise between the two files: what separate compression leaves, told by the
   picture's median change, is no forgery. They rise to a limit only, so that a wholly forged face still shows.
2. Holes of at most a 256th of the picture are filled. 3. Specks of less than that are dropped.
Limits: a forgery weaker than the noise is not seen; a mask is the changed *pixels*, not the region a tool worked on.
Where face and pair were compressed apart, SSIM also marks contours: take `difference` there.
Axes: H, W pixels, 3 RGB channels.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from ffd_continual.scenarios.errors import FFDError

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

WINDOW = 5
GRAIN = 256  # holes and specks: up to one part of so many of the picture
DIFFERENCE = (1.5, 2.5, 12.0)  # grey levels: least threshold, multiple of the noise, largest threshold
DISSIMILARITY = (5 / 255, 3.0, 0.5)  # 1 - SSIM
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2  # SSIM's stabilisers for 8-bit pictures


def _windows(values: Floats) -> Floats:
    """Mean of each pixel's 5 x 5 window; borders are mirrored."""
    return np.asarray(cv2.blur(values, (WINDOW, WINDOW), borderType=cv2.BORDER_REFLECT), np.float32)


def difference(image: Bytes, pair: Bytes) -> Floats:
    """(H, W) grey levels: the largest channel's |image - pair|, averaged over windows."""
    _same_size(image, pair)
    return _windows(np.asarray(cv2.absdiff(image, pair).max(axis=2), np.float32))


def dissimilarity(image: Bytes, pair: Bytes) -> Floats:
    """(H, W) 1 - SSIM in 0..2 of each pixel's window, mean of the channels (population variances)."""
    _same_size(image, pair)
    # About mid-grey the squares are small enough for float32.
    x, y = image.astype(np.float32) - 128, pair.astype(np.float32) - 128
    mean_x, mean_y = _windows(x), _windows(y)
    var_x, var_y = _windows(x * x) - mean_x**2, _windows(y * y) - mean_y**2
    both = _windows(x * y) - mean_x * mean_y
    mean_x, mean_y = mean_x + 128, mean_y + 128
    light = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
    structure = (2 * both + C2) / (np.maximum(var_x, 0) + np.maximum(var_y, 0) + C2)
    return np.asarray(1 - (light * structure).mean(axis=2), np.float32)


def threshold(change: Floats, limits: tuple[float, float, float]) -> float:
    """Least threshold, or a multiple of the picture's median change, up to the largest; limits in that order."""
    least, multiple, most = limits
    return float(max(least, min(multiple * float(np.median(change)), most)))


def without_grain(mask: npt.NDArray[np.bool_]) -> Bytes:
    """Fill small holes (4-connected, not open to the border), drop small specks (8-connected); 0 and 255."""
    marked = mask.astype(np.uint8)
    height, width = marked.shape
    grain = height * width // GRAIN
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(1 - marked, connectivity=4)
    for k in range(1, count):
        left, top, across, down, area = boxes[k]
        if area <= grain and left > 0 and top > 0 and left + across < width and top + down < height:
            marked[labels == k] = 1
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(marked, connectivity=8)
    small = np.flatnonzero(boxes[:, cv2.CC_STAT_AREA] < grain)
    marked[np.isin(labels, small[small > 0])] = 0
    return np.asarray(marked * 255, np.uint8)


def difference_mask(image: Bytes, pair: Bytes) -> Bytes:
    """Forged face and its pristine counterpart, (H, W, 3) each, to the changed pixels (H, W), 0 or 255."""
    change = difference(image, pair)
    return without_grain(change > threshold(change, DIFFERENCE))


def ssim_mask(image: Bytes, pair: Bytes) -> Bytes:
    """The same by structural dissimilarity in 5 x 5 windows, the wavelet paper's ground truth."""
    change = dissimilarity(image, pair)
    return without_grain(change > threshold(change, DISSIMILARITY))


def _same_size(image: Bytes, pair: Bytes) -> None:
    if image.shape != pair.shape:
        raise FFDError(
            f"a mask from a pair needs two pictures of one size: this one has {image.shape[1]} x {image.shape[0]} "
            f"pixels, its pair {pair.shape[1]} x {pair.shape[0]}. `ffd check` lists such pairs (pair-size)."
        )
