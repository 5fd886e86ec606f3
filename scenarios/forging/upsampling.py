"""Up-sampling traces: mouth or eyes redrawn by a network of transposed convolutions (as NeuralTextures' renderer).

Only the region changes; what remains of the network is the periodic pattern of its last layers (Frank et al., 2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.faces import Face
from ffd_continual.scenarios.forging.contract import Forged
from ffd_continual.scenarios.forging.geometry import align, face_width, part_mask, soften, unalign
from ffd_continual.scenarios.forging.networks import Upsampler, aligned_faces, one_thread, to_layer, to_tensor, train
from ffd_continual.scenarios.matching import compose, match_colour


@dataclass(frozen=True)
class UpsamplingConfig:
    """Side of the aligned face (a multiple of 4), training length, margin and seam in face widths.

    `match`: share of the mismatch in band energy that is removed.
    """

    side: int = 96
    steps: int = 450
    margin: tuple[float, float] = (0.08, 0.16)
    feather: tuple[float, float] = (0.02, 0.04)
    match: float = 0.8


@dataclass
class Upsampling:
    """Mouth with nose, eyes or both through the up-sampling network; must be fitted first."""

    config: UpsamplingConfig = field(default_factory=UpsamplingConfig)
    name: str = "upsampling"
    network: Upsampler | None = None

    def fit(self, faces: Sequence[Face], rng: np.random.Generator) -> None:
        """Train the network on these people, about 20 s on one core."""
        self.network = Upsampler()
        train(self.network, aligned_faces(faces, self.config.side), rng, self.config.steps, batch=16)

    def forge(self, target: Face, others: Sequence[Face], rng: np.random.Generator) -> Forged | None:
        """`others` are not used; None where the part lies outside the aligned face."""
        if self.network is None:
            raise FFDError("forgery family 'upsampling' has not been fitted: call fit(faces, rng) first")
        config, size, width = self.config, target.image.shape[:2], face_width(target.landmarks)
        inner, matrix = align(target, config.side)
        with torch.no_grad(), one_thread():
            layer = to_layer(self.network(to_tensor(inner)))
        back, cover = unalign(layer, matrix, size)
        mask = np.zeros(size, np.uint8)
        for part in (("mouth", "nose"), ("mouth", "eyes"), ("mouth", "nose", "eyes"))[int(rng.integers(3))]:
            mask = np.maximum(mask, part_mask(target.landmarks, part, size, rng.uniform(*config.margin)))
        mask[cover < 0.99] = 0
        weight = soften(mask, rng.uniform(*config.feather) * width)
        if not (weight > 0).any():
            return None
        return Forged(*compose(target.image, match_colour(back, target.image, weight), weight, config.match))
