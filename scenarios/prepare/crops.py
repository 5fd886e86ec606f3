"""Square crops around a face's box, and back: what lies beyond the frame's border is mirrored.

A window is (left, top, side) in whole pixels of a frame; pixel (i, j) of a crop of S pixels shows the frame at
left + (i + 0.5) * side / S - 0.5.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from ffd_continual.scenarios.faces import Picture, Points
from ffd_continual.scenarios.prepare.tracks import Box


@dataclass(frozen=True)
class Window:
    """A square of a frame."""

    left: int
    top: int
    side: int

    def to_crop(self, points: Points, size: int) -> Points:
        """Points (n, 2) of the frame in pixels of the crop."""
        moved = (points - np.array([self.left, self.top]) + 0.5) * (size / self.side) - 0.5
        return np.asarray(moved, np.float32)

    def to_frame(self, points: Points, size: int) -> Points:
        """The way back."""
        return np.asarray((points + 0.5) * (self.side / size) - 0.5 + np.array([self.left, self.top]), np.float32)


def window(box: Box, enlarge: float) -> Window:
    """The square about the box's centre, `enlarge` times its longer side."""
    x, y, width, height = box
    side = max(round(max(width, height) * enlarge), 4)
    return Window(round(x + width / 2 - side / 2), round(y + height / 2 - side / 2), side)


def whole(height: int, width: int) -> Window:
    """The square about a picture that is a crop already: its longer side, so that nothing is lost."""
    side = max(height, width)
    return Window(-((side - width) // 2), -((side - height) // 2), side)


def rescaled(box: Box, old: tuple[int, int], new: tuple[int, int]) -> Box:
    """A box of a frame of `old` (height, width) in one of `new`."""
    down, across = new[0] / old[0], new[1] / old[1]
    return box[0] * across, box[1] * down, box[2] * across, box[3] * down


def _mirrored(start: int, length: int, limit: int) -> npt.NDArray[np.int64]:
    """Rows start..start+length-1 folded into 0..limit-1, the border row itself not repeated."""
    if limit == 1:
        return np.zeros(length, np.int64)
    folded = np.abs(np.arange(start, start + length)) % (2 * limit - 2)
    return np.asarray(np.minimum(folded, 2 * limit - 2 - folded), np.int64)


def cut(image: npt.NDArray[np.uint8], where: Window, size: int) -> Picture:
    """The crop (size, size) or (size, size, 3); area filter when shrinking, Lanczos when growing."""
    height, width = image.shape[:2]
    left, top, side = where.left, where.top, where.side
    if left >= 0 and top >= 0 and left + side <= width and top + side <= height:
        crop = image[top : top + side, left : left + side]
    else:
        crop = image[np.ix_(_mirrored(top, side, height), _mirrored(left, side, width))]
    if side == size:
        return np.ascontiguousarray(crop)
    flags = cv2.INTER_AREA if size < side else cv2.INTER_LANCZOS4
    return np.asarray(cv2.resize(np.ascontiguousarray(crop), (size, size), interpolation=flags), np.uint8)


def points_text(points: Points) -> str:
    """The manifest's JSON list of [x, y], hundredths of a pixel."""
    return json.dumps([[round(float(x), 2), round(float(y), 2)] for x, y in points], separators=(",", ":"))


def cut_mask(image: Picture, where: Window, size: int) -> Picture:
    """A data set's mask picture, cut like its face: white where the brightest channel reaches half, after resizing."""
    grey = cut(np.ascontiguousarray(image.max(axis=2)), where, size)
    return np.where(grey >= 128, 255, 0).astype(np.uint8)
