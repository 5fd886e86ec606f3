"""Face swap: another person's face warped onto this one's landmarks and blended (as FaceSwap of FaceForensics++).

Like that tool, and unlike swaps by a network, it has no working resolution of its own: the source is fetched once, by
one interpolation, at the size of the picture. Its traces are seam, contours that do not meet, light and colour, not a
lack of fine detail (docs/decisions/0006).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from ffd_continual.scenarios.faces import Face
from ffd_continual.scenarios.forging.contract import Forged
from ffd_continual.scenarios.forging.geometry import (
    face_outline,
    face_width,
    fetch,
    fill,
    frame_points,
    mesh_flow,
    move,
    similarity,
    soften,
)
from ffd_continual.scenarios.forging.sources import pick_source
from ffd_continual.scenarios.matching import Field, compose, match_colour


@dataclass(frozen=True)
class SwapConfig:
    """`forehead` lifts the mask above the brows, `jitter` moves its corners (face widths).

    `feather`: the seam's width, `gradient`: the share blended in the gradients, `colour` and `match`: share of the
    mismatch in colour and band energy that is removed.
    """

    forehead: tuple[float, float] = (0.06, 0.14)
    jitter: float = 0.02
    feather: tuple[float, float] = (0.012, 0.035)
    gradient: float = 0.25
    colour: float = 0.7
    match: float = 0.5


def warp_onto(source: Face, target: Face) -> Field:
    """The source's picture on the target's landmarks, (H, W, 3) float32: affine by triangle, similarity outside."""
    size = target.image.shape[:2]
    back = similarity(target.landmarks, source.landmarks)
    # Both the outline and the picture's corners anchor the mesh, so the forehead bends with the face.
    lift = face_outline(target.landmarks, 0.3)[17:]
    free = np.concatenate([lift, frame_points(size)])
    points = np.concatenate([target.landmarks, free])
    values = np.concatenate([source.landmarks, move(free, back)])
    return fetch(source.image, mesh_flow(points, values, size))


@dataclass(frozen=True)
class Swap:
    """Face swap by landmark mesh and gradient-domain or feathered blend."""

    config: SwapConfig = field(default_factory=SwapConfig)
    name: str = "swap"

    def forge(self, target: Face, others: Sequence[Face], rng: np.random.Generator) -> Forged | None:
        """None where nobody among `others` fits."""
        source = pick_source(target, others, rng)
        if source is None:
            return None
        config, size = self.config, target.image.shape[:2]
        width = face_width(target.landmarks)
        outline = face_outline(target.landmarks, rng.uniform(*config.forehead))
        mask = fill(outline + rng.normal(0, config.jitter * width, outline.shape).astype(np.float32), size)
        mask[:2], mask[-2:], mask[:, :2], mask[:, -2:] = 0, 0, 0, 0
        weight = soften(mask, rng.uniform(*config.feather) * width)
        layer = match_colour(warp_onto(source, target), target.image, weight, config.colour)
        if rng.random() < config.gradient:
            layer = poisson(layer, target.image, mask)
        image, changed = compose(target.image, layer, weight, config.match)
        return Forged(image, changed, source.identity)


def poisson(layer: Field, target: np.ndarray, mask: np.ndarray) -> Field:
    """Gradient-domain blend of the layer inside the mask (Perez et al., SIGGRAPH 2003), by OpenCV's solver."""
    x, y, w, h = cv2.boundingRect(mask)
    source = np.clip(np.rint(layer), 0, 255).astype(np.uint8)
    centre = (x + w // 2, y + h // 2)
    return np.asarray(cv2.seamlessClone(source, target, mask, centre, cv2.NORMAL_CLONE), np.float32)
