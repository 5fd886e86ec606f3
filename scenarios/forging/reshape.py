"""Beauty reshape: slimmer cheeks, larger eyes, narrower nose, by local warps (Gustafson 1993), as phones offer.

One warp, one interpolation, at the picture's own size: the trace is the shape and the stretched skin, not a lack of
fine detail (docs/decisions/0006).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ffd_continual.scenarios.faces import Face
from ffd_continual.scenarios.forging.contract import Forged
from ffd_continual.scenarios.forging.geometry import LEFT_EYE, RIGHT_EYE, Field, away_from_border, face_width, fetch
from ffd_continual.scenarios.matching import compose


@dataclass(frozen=True)
class ReshapeConfig:
    """Strengths: enlargement of the eyes (ratio), slimming of jaw and nose (face widths).

    `match`: share of the mismatch in band energy that is removed.
    """

    eyes: tuple[float, float] = (0.25, 0.4)
    jaw: tuple[float, float] = (0.06, 0.1)
    nose: tuple[float, float] = (0.04, 0.07)
    match: float = 0.25


def zoom(size: tuple[int, int], centre: Field, radius: float, strength: float) -> Field:
    """Flow (H, W, 2) that enlarges a disc by `strength` (0.2: a fifth) at its centre, to nothing at its rim."""
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]].astype(np.float32)
    away = np.stack([columns - centre[0], rows - centre[1]], 2)
    share = np.clip(1 - (away**2).sum(2) / radius**2, 0, 1)[..., None] ** 2
    return np.asarray(-away * share * strength / (1 + strength), np.float32)


def pull(size: tuple[int, int], centre: Field, radius: float, shift: Field) -> Field:
    """Flow that moves a disc's middle by `shift` px and leaves its rim (the brush of image editors)."""
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]].astype(np.float32)
    distance = (columns - centre[0]) ** 2 + (rows - centre[1]) ** 2
    share = np.clip(1 - distance / radius**2, 0, 1)[..., None] ** 2
    return np.asarray(-share * shift, np.float32)


@dataclass(frozen=True)
class Reshape:
    """Two or three of: larger eyes, slimmer jaw, narrower nose."""

    config: ReshapeConfig = field(default_factory=ReshapeConfig)
    name: str = "reshape"

    def forge(self, target: Face, others: Sequence[Face], rng: np.random.Generator) -> Forged | None:
        """Never None; `others` are not used."""
        marks, size, width = target.landmarks, target.image.shape[:2], face_width(target.landmarks)
        flow = np.zeros((*size, 2), np.float32)
        leave_out = int(rng.integers(4))  # 3: all of them
        if leave_out != 0:
            strength = rng.uniform(*self.config.eyes)
            for eye in (marks[LEFT_EYE], marks[RIGHT_EYE]):
                flow += zoom(size, eye.mean(0), 0.24 * width, strength)
        middle = marks[27:31].mean(0)
        if leave_out != 1:
            strength = rng.uniform(*self.config.jaw) * width
            for corner in (3, 5, 11, 13):
                inward = middle - marks[corner]
                inward = inward / max(float(np.linalg.norm(inward)), 1e-3)
                flow += pull(size, marks[corner], 0.3 * width, (inward * strength * 0.7).astype(np.float32))
        if leave_out != 2:
            strength = rng.uniform(*self.config.nose) * width
            for side in (31, 35):
                inward = marks[33] - marks[side]
                inward = inward / max(float(np.linalg.norm(inward)), 1e-3)
                flow += pull(size, marks[side], 0.16 * width, (inward * strength).astype(np.float32))
        moved = np.linalg.norm(flow, axis=2)
        fade = np.clip((moved - 0.15) / 0.35, 0, 1).astype(np.float32) * away_from_border(size)
        layer = fetch(target.image, flow * fade[..., None])
        image, changed = compose(target.image, layer, fade, self.config.match)
        return Forged(image, changed)
