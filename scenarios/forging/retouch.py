"""Skin retouch: blemishes and wrinkles smoothed away, then new grain, as beauty filters do.

Edge-preserving smoothing (Tomasi and Manduchi, ICCV 1998) of the skin only; the grain is the picture's own fine detail
taken from elsewhere in the face, so its spectrum is right and its place is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from ffd_continual.scenarios.faces import Face
from ffd_continual.scenarios.forging.contract import Forged
from ffd_continual.scenarios.forging.geometry import face_outline, face_width, fill, part_mask, soften
from ffd_continual.scenarios.matching import compose, detail


@dataclass(frozen=True)
class RetouchConfig:
    """Smoothing in grey levels and face widths; the grain's displacement in face widths.

    `grain`: share of the fine detail that is put back; `match`: share of the mismatch in band energy that is removed.
    """

    levels: tuple[float, float] = (45.0, 75.0)
    reach: float = 0.07
    grain: tuple[float, float] = (0.4, 0.8)
    match: float = 0.25
    shift: tuple[float, float] = (0.03, 0.10)
    feather: float = 0.02


@dataclass(frozen=True)
class Retouch:
    """Smoothed skin with displaced grain; eyes, brows, lips and nostrils stay."""

    config: RetouchConfig = field(default_factory=RetouchConfig)
    name: str = "retouch"

    def forge(self, target: Face, others: Sequence[Face], rng: np.random.Generator) -> Forged | None:
        """Never None; `others` are not used."""
        config, marks = self.config, target.landmarks
        size, width = target.image.shape[:2], face_width(marks)
        mask = fill(face_outline(marks, rng.uniform(0.08, 0.16)), size)
        for part, margin in (("left_eye", 0.015), ("right_eye", 0.015), ("mouth", 0.015), ("nose", -0.04)):
            mask[part_mask(marks, part, size, margin) > 0] = 0
        weight = soften(mask, config.feather * width)
        level, reach = rng.uniform(*config.levels), config.reach * width
        image = target.image
        smooth = cv2.bilateralFilter(image, int(2 * reach) | 1, level, reach)
        smooth = cv2.bilateralFilter(smooth, int(2 * reach) | 1, level * 0.7, reach)
        away = rng.uniform(*config.shift) * width
        angle = rng.uniform(0, 2 * np.pi)
        grain = np.clip(detail(image, 1.2), -14, 14)  # an edge is no grain
        grain = np.roll(grain, (int(round(away * np.sin(angle))), int(round(away * np.cos(angle)))), (0, 1))
        mirrored = grain[:, ::-1] if rng.random() < 0.5 else grain
        layer = smooth.astype(np.float32) + np.float32(rng.uniform(*config.grain)) * mirrored
        return Forged(*compose(image, np.asarray(np.clip(layer, 0, 255), np.float32), weight, config.match))
