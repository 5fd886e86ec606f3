"""Face resynthesis: the inner face passed through a trained autoencoder, its code moved towards another person.

As Deepfakes do (encoder, code, decoder at 64 px, colour matching, soft blend); the pores and hairs that no such decoder
draws are taken from the picture itself, so that blur is not the trace, but features that do not meet their detail are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.faces import Face
from ffd_continual.scenarios.forging.contract import Forged
from ffd_continual.scenarios.forging.geometry import align, face_outline, face_width, fill, soften, unalign
from ffd_continual.scenarios.forging.networks import (
    Autoencoder,
    aligned_faces,
    one_thread,
    small_warp,
    to_layer,
    to_tensor,
    train,
)
from ffd_continual.scenarios.forging.sources import pick_source
from ffd_continual.scenarios.matching import compose, detail, match_colour


@dataclass(frozen=True)
class ResynthesisConfig:
    """Training length, share of the other person's code, share and scale (face widths) of the kept detail."""

    steps: int = 450
    mix: tuple[float, float] = (0.15, 0.55)
    detail: tuple[float, float] = (0.6, 1.0)
    sigma: float = 0.022
    feather: tuple[float, float] = (0.04, 0.08)


@dataclass
class Resynthesis:
    """Deepfakes-like face; must be fitted first."""

    config: ResynthesisConfig = field(default_factory=ResynthesisConfig)
    name: str = "resynthesis"
    network: Autoencoder | None = None

    def fit(self, faces: Sequence[Face], rng: np.random.Generator) -> None:
        """Train the autoencoder on these people, about 30 s on one core."""
        self.network = Autoencoder()
        train(self.network, aligned_faces(faces, 64), rng, self.config.steps, distort=small_warp)

    def forge(self, target: Face, others: Sequence[Face], rng: np.random.Generator) -> Forged | None:
        """None where nobody among `others` fits."""
        if self.network is None:
            raise FFDError("forgery family 'resynthesis' has not been fitted: call fit(faces, rng) first")
        source = pick_source(target, others, rng, best=6)
        if source is None:
            return None
        config, size, width = self.config, target.image.shape[:2], face_width(target.landmarks)
        inner, matrix = align(target, 64)
        with torch.no_grad(), one_thread():
            codes = self.network.encode(torch.cat([to_tensor(inner), to_tensor(align(source, 64)[0])]))
            share = rng.uniform(*config.mix)
            layer = to_layer(self.network.decode((1 - share) * codes[:1] + share * codes[1:]))
        back, cover = unalign(layer, matrix, size)
        mask = fill(face_outline(target.landmarks, rng.uniform(0.0, 0.08)), size)
        mask[cover < 0.99] = 0
        weight = soften(mask, rng.uniform(*config.feather) * width)
        back = match_colour(back, target.image, weight)
        back = back + np.float32(rng.uniform(*config.detail)) * detail(target.image, config.sigma * width)
        image, changed = compose(target.image, back, weight)
        return Forged(image, changed, source.identity)
