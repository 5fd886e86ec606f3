"""From a photograph to the crop that a learner was taught on: faces found, framed as the run's data frame them.

A detector reads small traces at a fixed scale, so a face must lie in its crop as the training faces did: as large, and
centred where they are. Axes: H, W of a picture, S pixels a side of the crop; coordinates are pixels, x, y.
"""

from __future__ import annotations

import threading

import cv2
import numpy as np
import numpy.typing as npt

from ffd_continual.runs.facts import Framing
from ffd_continual.scenarios.faces import FaceFinder, Found, Points

Picture = npt.NDArray[np.uint8]


class Finder:
    """One face finder for all threads, made when the first picture comes."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.finder: FaceFinder | None = None

    def faces(self, picture: Picture) -> list[Found]:
        """Every face of a picture (H, W, 3) RGB, the largest first. FFDError where the models are not installed."""
        with self.lock:
            if self.finder is None:
                self.finder = FaceFinder()
            return self.finder.faces(picture)


def forged_framing(share: float) -> Framing:
    """How `ffd forge` frames (scenarios/faces.py, crop_face), seen through a central share of its crops."""
    return Framing(0.5 / share, 0.5, 0.5 + 0.04 / share)


def widened(framing: Framing, share: float) -> Framing:
    """The framing of the data's own crops, of which the learner sees the central `share`."""
    return Framing(framing.extent * share, 0.5 + (framing.x - 0.5) * share, 0.5 + (framing.y - 0.5) * share)


def frame_face(picture: Picture, landmarks: Points, framing: Framing, size: int) -> Picture:
    """The crop (S, S, 3) of a face with landmarks (68, 2) in a picture (H, W, 3): their hull as large, and centred
    where, the framing says. One resampling; beyond the picture's border it is mirrored."""
    low, high = landmarks.min(0), landmarks.max(0)
    side = max(4, round(float((high - low).max()) / framing.extent))
    centre = (low + high) / 2 + 0.5 + side * (0.5 - np.array([framing.x, framing.y]))
    left, top = (round(float(v) - side / 2) for v in centre)
    height, width = picture.shape[:2]
    pads = (max(-top, 0), max(top + side - height, 0), max(-left, 0), max(left + side - width, 0))
    if any(pads):
        picture = np.asarray(cv2.copyMakeBorder(picture, *pads, cv2.BORDER_REFLECT_101), np.uint8)
    cut = picture[top + pads[0] :, left + pads[2] :][:side, :side]
    way = cv2.INTER_AREA if size < side else cv2.INTER_CUBIC
    return np.ascontiguousarray(cv2.resize(cut, (size, size), interpolation=way), np.uint8)
