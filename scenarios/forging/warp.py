"""Expression warp: smile, mouth, brows and jaw moved by a smooth field (expression transfer as Face2Face's, CVPR 2016).

Nothing is pasted, so there is no seam: the trace is stretched and squeezed skin texture and impossible shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from ffd_continual.scenarios.faces import Face, Picture, Points
from ffd_continual.scenarios.forging.contract import Forged
from ffd_continual.scenarios.forging.geometry import (
    Field,
    anchors,
    away_from_border,
    face_width,
    fetch,
    part_mask,
    smooth_flow,
)
from ffd_continual.scenarios.matching import coarse, compose


@dataclass(frozen=True)
class WarpConfig:
    """Strength of one expression and reach of the field, in face widths.

    `scale`: working resolution against the crop's, `sharpen`: unsharp mask after it; `mouth`: blur of the inner
    mouth (face widths), where renderers draw teeth badly; `match`: share of the mismatch in band energy that is
    removed.
    """

    strength: tuple[float, float] = (0.07, 0.12)
    reach: float = 0.12
    scale: tuple[float, float] = (0.5, 0.65)
    sharpen: tuple[float, float] = (0.3, 0.7)
    mouth: tuple[float, float] = (0.02, 0.04)
    match: float = 0.65


def face_axes(landmarks: Points) -> tuple[Points, Points]:
    """Unit vectors to the picture's right along the eyes, and down to the chin."""
    left, right, mouth = anchors(landmarks)
    down = mouth - (left + right) / 2
    across = right - left
    return (
        across / max(float(np.linalg.norm(across)), 1e-3),
        down / max(float(np.linalg.norm(down)), 1e-3),
    )


def bend(
    target: Face, points: Points, shifts: Points, config: WarpConfig, rng: np.random.Generator
) -> tuple[Picture, Picture]:
    """The face under a smooth field moving `points` by `shifts` px, redrawn coarsely where it moves; (image, mask)."""
    width = face_width(target.landmarks)
    radius = config.reach * width
    flow: Field = smooth_flow(points, shifts.astype(np.float32), radius, target.image.shape[:2])
    moved = np.linalg.norm(flow, axis=2)
    # The field ends before it reaches 0 (below a seventh of a pixel nothing moves), and before the picture's border.
    fade = np.clip((moved - 0.15) / 0.35, 0, 1).astype(np.float32) * away_from_border(target.image.shape[:2])
    layer = coarse(
        fetch(target.image, flow * fade[..., None]), rng.uniform(*config.scale), rng.uniform(*config.sharpen)
    )
    sigma = rng.uniform(*config.mouth) * width
    inner = cv2.GaussianBlur(part_mask(target.landmarks, "mouth", fade.shape, 0.0), (0, 0), 0.5 * sigma + 0.5)
    share = (inner.astype(np.float32) / 255)[..., None]
    mixed = share * cv2.GaussianBlur(layer, (0, 0), sigma) + (1 - share) * layer
    return compose(target.image, np.asarray(mixed, np.float32), fade, config.match)


@dataclass(frozen=True)
class Warp:
    """Two or three expressions at once, each pushed by a few percent of the face's width."""

    config: WarpConfig = field(default_factory=WarpConfig)
    name: str = "warp"

    def forge(self, target: Face, others: Sequence[Face], rng: np.random.Generator) -> Forged | None:
        """Never None; `others` are not used."""
        marks, width = target.landmarks, face_width(target.landmarks)
        across, down = face_axes(marks)
        shifts = np.zeros((68, 2), np.float64)

        def push(index: Sequence[int], direction: Points, share: float) -> None:
            shifts[list(index)] += direction * share * rng.uniform(*self.config.strength) * width

        sign = float(rng.choice([-1.0, 1.0]))
        push([48, 60], -across * sign - down * sign, 0.9)  # corners of the mouth: smile or frown
        push([54, 64], across * sign - down * sign, 0.9)
        if rng.random() < 0.7:  # the mouth opens or closes, the jaw follows
            opening = float(rng.choice([-0.6, 1.0]))
            push([55, 56, 57, 58, 59, 65, 66, 67], down, opening)
            push([7, 8, 9], down, 0.6 * opening)
            push([50, 51, 52], down, -0.3 * opening)
        if rng.random() < 0.7:  # brows up, or drawn together
            lift = float(rng.choice([-0.7, 1.0]))
            push(range(17, 27), -down, lift)
            push([21], across, -0.4 * lift)
            push([22], across, 0.4 * lift)
        if rng.random() < 0.4:  # eyes narrowed or widened
            lid = float(rng.choice([-0.35, 0.35]))
            push([37, 38, 43, 44], down, lid)
        still = np.concatenate([np.arange(27, 36), [0, 1, 2, 14, 15, 16, 36, 39, 42, 45]])
        moving = np.nonzero(np.abs(shifts).sum(1))[0]
        chosen = np.unique(np.concatenate([moving, still]))
        return Forged(*bend(target, marks[chosen], shifts[chosen], self.config, rng))
