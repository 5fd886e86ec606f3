"""Parts swap: the eyes, the nose or the mouth of another person, set into the face by a similarity map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from ffd_continual.scenarios.faces import Face
from ffd_continual.scenarios.forging.contract import Forged
from ffd_continual.scenarios.forging.geometry import PARTS, face_width, part_mask, similarity, soften
from ffd_continual.scenarios.forging.sources import pick_source
from ffd_continual.scenarios.matching import coarse, compose, match_colour


@dataclass(frozen=True)
class PartsConfig:
    """Which part is exchanged how often, how far around it (face widths), and the seam's width.

    `scale` and `sharpen`: the patch's lower working resolution and what follows it; `colour` and `match`: share of the
    mismatch in colour and band energy that is removed.
    """

    parts: tuple[str, ...] = ("eyes", "eyes", "nose", "mouth", "mouth")
    margin: tuple[float, float] = (0.07, 0.12)
    feather: tuple[float, float] = (0.008, 0.02)
    scale: tuple[float, float] = (0.28, 0.4)
    sharpen: tuple[float, float] = (0.6, 1.2)
    colour: float = 0.45
    match: float = 0.35


@dataclass(frozen=True)
class Parts:
    """One or two facial parts of another person."""

    config: PartsConfig = field(default_factory=PartsConfig)
    name: str = "parts"

    def forge(self, target: Face, others: Sequence[Face], rng: np.random.Generator) -> Forged | None:
        """None where nobody among `others` fits."""
        source = pick_source(target, others, rng, best=5)
        if source is None:
            return None
        config, size, width = self.config, target.image.shape[:2], face_width(target.landmarks)
        image, changed = target.image, np.zeros(size, np.uint8)
        chosen = {config.parts[int(i)] for i in rng.integers(len(config.parts), size=2)}
        for part in sorted(chosen):
            index = list(PARTS[part])
            matrix = similarity(source.landmarks[index], target.landmarks[index])
            layer = cv2.warpAffine(
                source.image.astype(np.float32),
                matrix,
                size[::-1],
                flags=cv2.INTER_CUBIC,
                borderMode=cv2.BORDER_REFLECT,
            )
            layer = coarse(np.asarray(layer, np.float32), rng.uniform(*config.scale), rng.uniform(*config.sharpen))
            mask = part_mask(target.landmarks, part, size, rng.uniform(*config.margin))
            weight = soften(mask, rng.uniform(*config.feather) * width)
            matched = match_colour(layer, target.image, weight, config.colour)
            image, touched = compose(image, matched, weight, config.match)
            changed = np.maximum(changed, touched)
        return Forged(image, changed, source.identity)
