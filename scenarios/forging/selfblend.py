"""Self-blended images: a face blended with a jittered copy of itself (Shiohara and Yamasaki, CVPR 2022).

The blend leaves the traces that all pasting leaves (statistics that differ inside and outside, a border, landmarks
that do not meet) and none of any generator, so detectors use it as a pretext: `self_blend` is pure and fast.
Deviations from the paper: landmark hulls from 68 points in place of 81; the jitter of either side is chosen as there,
its strengths fit crops of 128 px.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from ffd_continual.scenarios.faces import Face, Picture, Points, is_grey
from ffd_continual.scenarios.forging.contract import Forged
from ffd_continual.scenarios.forging.geometry import PARTS, face_outline, face_width, fill, grow
from ffd_continual.scenarios.matching import Field, compose


@dataclass(frozen=True)
class SelfblendConfig:
    """Strengths of the jitter: colour in grey levels, shift and scale in parts of the face's width."""

    colour: float = 14.0
    contrast: float = 0.12
    shift: float = 0.03
    scale: float = 0.05
    ratios: tuple[float, ...] = (0.5, 0.75, 0.9, 1.0, 1.0)


def blend_mask(landmarks: Points, size: tuple[int, int], rng: np.random.Generator) -> Field:
    """Random soft weight (H, W) in 0..1: face hull, lower or upper face, or one part; dented, then blurred."""
    width, kind = face_width(landmarks), rng.random()
    if kind < 0.55:
        points = face_outline(landmarks, rng.uniform(0.0, 0.2))
    elif kind < 0.7:
        points = np.concatenate([landmarks[2:15], landmarks[27:31]])
    elif kind < 0.85:
        points = np.concatenate([landmarks[0:3], landmarks[14:17], landmarks[17:36]])
    else:
        points = landmarks[list(PARTS[("eyes", "nose", "mouth")[int(rng.integers(3))]])]
    points = (points + rng.normal(0, 0.02 * width, points.shape)).astype(np.float32)
    mask = grow(fill(points, size), rng.uniform(-0.05, 0.06) * width)
    dent = cv2.resize(rng.normal(0, 0.05 * width, (5, 5, 2)).astype(np.float32), size[::-1])
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]].astype(np.float32)
    dented = cv2.remap(mask, columns + dent[..., 0], rows + dent[..., 1], cv2.INTER_LINEAR)
    sigma = rng.uniform(0.012, 0.06) * width
    soft = cv2.GaussianBlur(dented, (0, 0), sigma).astype(np.float32) / 255
    soft = np.clip((soft - 0.04) / 0.92, 0, 1)
    if rng.random() < 0.5:  # the paper erodes by a second blur and threshold: a seam well inside the mask
        soft = cv2.GaussianBlur(np.clip(soft * 1.6 - 0.6, 0, 1), (0, 0), sigma).astype(np.float32)
        soft = np.clip((soft - 0.04) / 0.92, 0, 1)
    return np.asarray(soft, np.float32)


def jitter(image: Picture, rng: np.random.Generator, config: SelfblendConfig) -> Field:
    """Colour, contrast, and sharpness or blur changed a little; grey stays grey. float32 in 0..255."""
    layer = image.astype(np.float32)
    tint = rng.normal(0, 0.5, 3) if not is_grey(image) else np.zeros(3)
    layer = layer + (rng.normal(0, 1) + tint).astype(np.float32) * config.colour / 1.5
    mean = layer.mean((0, 1), keepdims=True)
    layer = (layer - mean) * np.float32(1 + rng.normal(0, config.contrast)) + mean
    kind = rng.random()
    if kind < 0.4:
        soft = cv2.GaussianBlur(layer, (0, 0), 1.0)
        layer = layer + np.float32(rng.uniform(0.3, 0.9)) * (layer - soft)
    elif kind < 0.8:
        small = rng.uniform(0.45, 0.8)
        side = (max(int(image.shape[1] * small), 2), max(int(image.shape[0] * small), 2))
        down = cv2.resize(layer, side, interpolation=cv2.INTER_AREA)
        layer = cv2.resize(down, image.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    return np.clip(np.asarray(layer, np.float32), 0, 255)


def _blend(
    image: Picture, landmarks: Points, rng: np.random.Generator, config: SelfblendConfig, strength: float
) -> tuple[Picture, Picture]:
    """Jitter either the inside or the outside's statistics, shift the inside, blend."""
    size, width = image.shape[:2], face_width(landmarks)
    weight = blend_mask(landmarks, size, rng)
    layer = jitter(image, rng, config)
    centre = landmarks.mean(0)
    pivot = (float(centre[0]), float(centre[1]))
    turn = np.array(cv2.getRotationMatrix2D(pivot, rng.normal(0, 1.2), 1 + rng.normal(0, config.scale)), np.float64)
    turn[:, 2] += rng.normal(0, config.shift, 2) * width
    moved = cv2.warpAffine(layer, turn, size[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    weight = weight * np.float32(config.ratios[int(rng.integers(len(config.ratios)))])
    return compose(image, np.asarray(moved, np.float32), weight, strength)


def self_blend(
    image: Picture, landmarks: Points, rng: np.random.Generator, config: SelfblendConfig | None = None
) -> tuple[Picture, Picture]:
    """A pseudo-forgery made of one real face: (image, mask), uint8 (H, W, 3) and (H, W). Under 3 ms at 128 px.

    Outside the mask the picture keeps its bytes. Pure: the same generator state gives the same bytes.
    """
    return _blend(image, landmarks, rng, config or SelfblendConfig(), 0.0)


@dataclass(frozen=True)
class Selfblend:
    """Self-blended images as a forgery family, brought towards the pristine picture's band energies like the others.

    Its jitter is stronger than the pretext's; `match` is the share of the mismatch in band energy that is removed.
    """

    config: SelfblendConfig = field(
        default_factory=lambda: SelfblendConfig(colour=20.0, contrast=0.2, ratios=(0.75, 1.0, 1.0))
    )
    match: float = 0.4
    name: str = "selfblend"

    def forge(self, target: Face, others: Sequence[Face], rng: np.random.Generator) -> Forged | None:
        """Never None; `others` are not used."""
        return Forged(*_blend(target.image, target.landmarks, rng, self.config, self.match))
