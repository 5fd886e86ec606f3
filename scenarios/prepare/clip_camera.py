"""A photograph as a hand-held camera would film it: pan, zoom, a little roll, drifting light, sensor noise.

Everything is a pure function of (seed, name, frame), so that a clip can be made again, frame by frame, by whoever needs
it. Pictures are uint8 RGB (H, W, 3); points are pixels, x to the right, y down, (0, 0) the centre of the first pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ffd_continual.scenarios.faces import Face, Picture, Points, is_grey
from ffd_continual.scenarios.forging.making import draw

WAVES = 3  # sines that each movement is the sum of


@dataclass(frozen=True)
class CameraConfig:
    """How the camera moves and sees; ranges are drawn once a clip.

    `zoom`: enlargement over the smallest that fills the frame; `pan`: share of the margin which that leaves; `roll` in
    degrees; `light`: relative drift of brightness, `tint` of each colour, `shade` across the picture; `noise`: standard
    deviation in grey levels at black and at white.
    """

    height: int = 320
    frames: int = 50
    rate: int = 25
    zoom: tuple[float, float] = (1.07, 1.16)
    pan: float = 0.85
    roll: float = 1.2
    light: tuple[float, float] = (0.02, 0.09)
    tint: float = 0.012
    shade: float = 0.05
    noise: tuple[float, float] = (0.8, 3.2)


def frame_size(photograph: Picture, height: int) -> tuple[int, int]:
    """(height, width) of the video, both even, its shape the photograph's within 9:16 and 16:9."""
    shape = photograph.shape[1] / photograph.shape[0]
    width = round(height * min(max(shape, 9 / 16), 16 / 9))
    return height - height % 2, width - width % 2


class Camera:
    """One clip of one photograph."""

    def __init__(self, photograph: Picture, landmarks: Points, name: str, seed: int, config: CameraConfig) -> None:
        """`landmarks` (68, 2) in the photograph; `name` and `seed` draw the movements."""
        self.config, self.name, self.seed = config, name, seed
        self.size = frame_size(photograph, config.height)
        rows, columns = photograph.shape[:2]
        fill = max(self.size[0] / rows, self.size[1] / columns)
        # One resampling to the video's scale; what follows in each frame is nearly of unit scale.
        size = (max(round(columns * fill), 1), max(round(rows * fill), 1))
        flags = cv2.INTER_AREA if fill < 1 else cv2.INTER_LANCZOS4
        self.scene = np.asarray(cv2.resize(photograph, size, interpolation=flags), np.uint8)
        scale = np.array([size[0] / columns, size[1] / rows])
        self.marks = np.asarray((landmarks + 0.5) * scale - 0.5, np.float32)
        self.grey = is_grey(photograph)
        rng = draw(seed, "camera", name)
        self._zoom = rng.uniform(*config.zoom)
        self._waves = rng.uniform(0.3, 1.6, (7, WAVES)), rng.uniform(0, 2 * np.pi, (7, WAVES))
        self._light = rng.uniform(*config.light)
        angle = rng.uniform(0, 2 * np.pi)
        y, x = np.mgrid[-1 : 1 : self.size[0] * 1j, -1 : 1 : self.size[1] * 1j]
        self._slope = np.asarray(np.cos(angle) * x + np.sin(angle) * y, np.float32)

    def _wave(self, which: int, time: float) -> float:
        """A smooth movement in -1..1 at `time` seconds."""
        speed, phase = self._waves
        return float(np.sin(2 * np.pi * 0.5 * speed[which] * time + phase[which]).mean())

    def _view(self, frame: int) -> NDArray[np.float64]:
        """Scene -> frame, (2, 3)."""
        config, time = self.config, frame / self.config.rate
        height, width = self.size
        zoom = self._zoom * (1 + 0.03 * self._wave(0, time))
        angle = np.deg2rad(config.roll) * self._wave(1, time)
        rows, columns = self.scene.shape[:2]
        free = np.array([columns - width / zoom, rows - height / zoom]) / 2 * config.pan
        centre = np.array([columns - 1, rows - 1]) / 2
        centre = centre + free * np.array([self._wave(2, time), self._wave(3, time)])
        turn = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        shift = np.array([width - 1, height - 1]) / 2 - turn @ centre
        return np.concatenate([turn, shift[:, None]], 1)

    def shoot(self, frame: int, scene: Picture | None = None) -> tuple[Picture, Points]:
        """Frame number `frame` and the 68 landmarks in it; of another `scene` of the same size where one is given."""
        config, time = self.config, frame / self.config.rate
        view = self._view(frame)
        border = cv2.BORDER_REFLECT_101
        filmed = self.scene if scene is None else scene
        seen = cv2.warpAffine(filmed, view, self.size[::-1], flags=cv2.INTER_CUBIC, borderMode=border)
        rng = draw(self.seed, "noise", self.name, str(frame))
        tint = np.ones(3, np.float32)
        if not self.grey:
            tint += np.float32(config.tint) * np.array([self._wave(5, time), 0, self._wave(6, time)], np.float32)
        gain = 1 + self._light * self._wave(4, time) + config.shade * self._wave(6, time) * self._slope
        lit = seen.astype(np.float32) * (gain.astype(np.float32)[..., None] * tint)
        planes = 1 if self.grey else 3  # a grey picture stays one
        dark, bright = config.noise
        deviation = dark + (bright - dark) * np.clip(lit / 255, 0, 1)
        lit += deviation * rng.standard_normal((*self.size, planes), np.float32)
        marks = self.marks @ view[:, :2].T + view[:, 2]
        return np.asarray(np.clip(np.rint(lit), 0, 255), np.uint8), np.asarray(marks, np.float32)

    def trace(self, frame: int, mask: Picture) -> Picture:
        """A mask (H, W) of the scene as frame number `frame` shows it: 255 wherever interpolation may reach it."""
        wide = cv2.dilate(mask, np.ones((5, 5), np.uint8))  # cubic interpolation reaches two pixels
        seen = cv2.warpAffine(wide, self._view(frame), self.size[::-1], flags=cv2.INTER_LINEAR)
        return np.where(np.asarray(seen) > 0, 255, 0).astype(np.uint8)


@dataclass(frozen=True)
class Cut:
    """A square crop at the video's own resolution, and where its first pixel lies in the frame."""

    face: Face
    left: int
    top: int


def side_of(landmarks: Points) -> int:
    """Side in pixels of a crop of which the landmarks take half."""
    return max(int(round(2 * float((landmarks.max(0) - landmarks.min(0)).max()))), 8)


def cut_face(frame: Picture, landmarks: Points, side: int, identity: str, name: str) -> Cut:
    """The face's square of `side` pixels, not resampled, mirrored beyond the frame's border."""
    low, high = landmarks.min(0), landmarks.max(0)
    centre = (low + high) / 2 - np.array([0, 0.04 * side])  # the hull ends at the brows; the head does not
    left, top = (int(round(v - side / 2)) for v in centre)
    height, width = frame.shape[:2]
    pads = (max(-top, 0), max(top + side - height, 0), max(-left, 0), max(left + side - width, 0))
    wide = cv2.copyMakeBorder(frame, *pads, cv2.BORDER_REFLECT_101) if any(pads) else frame
    y, x = top + pads[0], left + pads[2]
    crop = np.asarray(np.ascontiguousarray(wide[y : y + side, x : x + side]), np.uint8)
    return Cut(Face(crop, np.asarray(landmarks - np.array([left, top]), np.float32), identity, name), left, top)


def paste(frame: Picture, image: Picture, mask: Picture, cut: Cut) -> tuple[Picture, Picture]:
    """The frame with the crop laid where its mask is set, and the mask (H, W) in the frame."""
    result, whole = frame.copy(), np.zeros(frame.shape[:2], np.uint8)
    side, (height, width) = mask.shape[0], frame.shape[:2]
    y0, y1 = max(cut.top, 0), min(cut.top + side, height)
    x0, x1 = max(cut.left, 0), min(cut.left + side, width)
    inside = slice(y0 - cut.top, y1 - cut.top), slice(x0 - cut.left, x1 - cut.left)
    changed = mask[inside] > 0
    result[y0:y1, x0:x1][changed] = image[inside][changed]
    whole[y0:y1, x0:x1][changed] = 255
    return result, whole
