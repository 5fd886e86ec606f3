"""Relighting: the inner face lit from another side, or in another colour, than the rest of the picture.

Shading comes from a coarse head shape (an ellipsoid with a nose) under Lambert's law; it is the ratio image of new and
old light (Shashua and Riklin-Raviv 2001) that multiplies the skin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from ffd_continual.scenarios.faces import Face, is_grey
from ffd_continual.scenarios.forging.contract import Forged
from ffd_continual.scenarios.forging.geometry import Field, face_outline, face_width, fill, soften
from ffd_continual.scenarios.forging.warp import face_axes
from ffd_continual.scenarios.matching import compose, match_colour


@dataclass(frozen=True)
class RelightConfig:
    """`contrast`: how strongly the new light shades; `tint`: colour of the light; seam in face widths.

    `cast`: spread of the inner face's own colour gains; `colour` and `match`: share of the mismatch in colour and band
    energy that is removed.
    """

    contrast: tuple[float, float] = (0.7, 1.2)
    tint: float = 0.07
    cast: float = 0.05
    feather: tuple[float, float] = (0.02, 0.05)
    colour: float = 0.3
    match: float = 0.4


def head_normals(face: Face) -> Field:
    """Unit normals (H, W, 3) of an ellipsoid through the landmarks with a ridge for the nose; z to the viewer."""
    marks, size, width = face.landmarks, face.image.shape[:2], face_width(face.landmarks)
    across, down = face_axes(marks)
    centre = marks[[0, 16, 8, 27]].mean(0)
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]].astype(np.float32)
    away = np.stack([columns, rows], 2) - centre
    u = (away @ across.astype(np.float32)) / (0.58 * width)
    v = (away @ down.astype(np.float32)) / (0.75 * width)
    depth = np.sqrt(np.clip(1 - u**2 - v**2, 0.05, 1)) * 0.55 * width
    ridge = np.zeros(size, np.float32)
    line = np.round(marks[27:31]).astype(np.int32).reshape(-1, 1, 2)
    cv2.polylines(ridge, [line], False, (1.0,), max(int(0.05 * width), 1))
    for socket in (marks[36:42], marks[42:48]):
        cv2.circle(ridge, np.round(socket.mean(0)).astype(int).tolist(), max(int(0.07 * width), 1), (-0.5,), -1)
    depth = depth + cv2.GaussianBlur(ridge, (0, 0), 0.05 * width) * 0.2 * width
    depth = cv2.GaussianBlur(depth.astype(np.float32), (0, 0), 0.03 * width)
    slope_y, slope_x = np.gradient(depth)
    normals = np.stack([-slope_x, -slope_y, np.ones_like(depth)], 2)
    return np.asarray(normals / np.linalg.norm(normals, axis=2, keepdims=True), np.float32)


@dataclass(frozen=True)
class Relight:
    """The face under a new directional light; mean colour is kept, its distribution over the face is not."""

    config: RelightConfig = field(default_factory=RelightConfig)
    name: str = "relight"

    def forge(self, target: Face, others: Sequence[Face], rng: np.random.Generator) -> Forged | None:
        """Never None; `others` are not used."""
        config, size, width = self.config, target.image.shape[:2], face_width(target.landmarks)
        side = rng.uniform(0, 2 * np.pi)
        light = np.array([np.cos(side) * 0.85, np.sin(side) * 0.6, 0.6])
        shade = head_normals(target) @ (light / np.linalg.norm(light)).astype(np.float32)
        mask = fill(face_outline(target.landmarks, rng.uniform(0.04, 0.12)), size)
        weight = soften(mask, rng.uniform(*config.feather) * width)
        inside = shade[mask > 0]
        ratio = 1 + rng.uniform(*config.contrast) * (shade - inside.mean()) / max(float(inside.std()), 1e-3) * 0.5
        coloured = 0.0 if is_grey(target.image) else 1.0
        tint, cast = coloured * rng.normal(0, config.tint, 3), coloured * rng.normal(0, config.cast, 3)
        gain = np.clip(ratio[..., None] * (1 + cast + tint * (shade - inside.mean())[..., None] * 3), 0.3, 2.2)
        linear = (target.image.astype(np.float32) / 255) ** 2.2 * gain
        layer = np.asarray(np.clip(linear, 0, 1) ** (1 / 2.2) * 255, np.float32)
        matched = match_colour(layer, target.image, weight, config.colour)
        image, changed = compose(target.image, matched, weight, config.match)
        return Forged(image, changed)
