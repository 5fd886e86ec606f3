"""Face morph: shape and texture half-way between two people (as in morphing attacks on passports, Ferrara 2014)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ffd_continual.scenarios.faces import Face
from ffd_continual.scenarios.forging.contract import Forged
from ffd_continual.scenarios.forging.geometry import (
    away_from_border,
    face_outline,
    face_width,
    fetch,
    fill,
    move,
    similarity,
    smooth_flow,
    soften,
)
from ffd_continual.scenarios.forging.sources import pick_source
from ffd_continual.scenarios.forging.swap import warp_onto
from ffd_continual.scenarios.matching import coarse, compose, match_colour


@dataclass(frozen=True)
class MorphConfig:
    """Share of the other person in the shape and in the texture; the seam's width in face widths.

    `ghost`: error in the other face's landmarks (face widths), which doubles contours; `scale`: working resolution
    against the crop's, `sharpen`: unsharp mask after it; `colour` and `match`: share of the mismatch in colour
    and band energy that is removed.
    """

    shape: tuple[float, float] = (0.3, 0.6)
    texture: tuple[float, float] = (0.4, 0.6)
    feather: tuple[float, float] = (0.03, 0.06)
    ghost: float = 0.04
    scale: tuple[float, float] = (0.45, 0.65)
    sharpen: tuple[float, float] = (0.6, 1.2)
    colour: float = 0.5
    match: float = 0.5


@dataclass(frozen=True)
class Morph:
    """Average of two people, both in shape and in texture."""

    config: MorphConfig = field(default_factory=MorphConfig)
    name: str = "morph"

    def forge(self, target: Face, others: Sequence[Face], rng: np.random.Generator) -> Forged | None:
        """None where nobody among `others` fits."""
        source = pick_source(target, others, rng)
        if source is None:
            return None
        config, size, width = self.config, target.image.shape[:2], face_width(target.landmarks)
        moved = move(source.landmarks, similarity(source.landmarks, target.landmarks))
        shift = rng.uniform(*config.shape) * (moved - target.landmarks)
        shape = (target.landmarks + shift).astype(np.float32)
        # The target's own picture bends smoothly, so that the shape changes without a seam at the mask's border.
        flow = smooth_flow(shape, shift.astype(np.float32), 0.09 * width, size)
        flow *= away_from_border(size)[..., None]
        reach = np.linalg.norm(flow, axis=2)
        base = fetch(target.image, flow)
        # Automatic landmarks miss by some pixels, all of a part together: the contours of the two do not meet.
        astray = rng.normal(0, config.ghost * width, (5, 2)).astype(np.float32)
        parts = np.repeat(np.arange(5), (17, 10, 9, 12, 20))
        middle = Face(target.image, shape + astray[parts], target.identity, target.name)
        other = warp_onto(source, middle)
        weight = soften(fill(face_outline(shape, 0.08), size), rng.uniform(*config.feather) * width)
        share = rng.uniform(*config.texture) * weight[..., None]
        other = match_colour(other, base, weight, config.colour)
        mean = np.asarray(share * other + (1 - share) * base, np.float32)
        soft = coarse(mean, rng.uniform(*config.scale), rng.uniform(*config.sharpen))
        layer = weight[..., None] * soft + (1 - weight[..., None]) * mean
        bent = np.clip((reach - 0.15) * 4, 0, 1).astype(np.float32)
        image, changed = compose(target.image, np.asarray(layer, np.float32), np.maximum(bent, weight), config.match)
        return Forged(image, changed, source.identity)
