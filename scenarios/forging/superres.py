"""Super-resolution face: the inner face made small and redrawn by a sub-pixel network, as face enhancers do.

Enhancers (ESPCN's descendants) are run over most deepfakes; their invented detail is the trace, not its amount: the
band energies are brought towards the pristine ones.
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
    Superresolver,
    aligned_faces,
    one_thread,
    to_layer,
    to_tensor,
    train,
)
from ffd_continual.scenarios.matching import compose, match_colour


@dataclass(frozen=True)
class SuperresConfig:
    """Side of the aligned face (a multiple of `factor`), training length, share of the
    enhanced face in the blend, seam in face widths.

    `match`: share of the mismatch in band energy that is removed.
    """

    side: int = 112
    factor: int = 2
    steps: int = 300
    share: tuple[float, float] = (0.5, 0.85)
    feather: tuple[float, float] = (0.03, 0.07)
    match: float = 0.5


@dataclass
class Superres:
    """Enhanced inner face; must be fitted first."""

    config: SuperresConfig = field(default_factory=SuperresConfig)
    name: str = "superres"
    network: Superresolver | None = None

    def fit(self, faces: Sequence[Face], rng: np.random.Generator) -> None:
        """Train the network on these people, about 10 s on one core."""
        self.network = Superresolver(self.config.factor)
        train(self.network, aligned_faces(faces, self.config.side), rng, self.config.steps, batch=16)

    def forge(self, target: Face, others: Sequence[Face], rng: np.random.Generator) -> Forged | None:
        """`others` are not used; None where the aligned face misses the outline altogether."""
        if self.network is None:
            raise FFDError("forgery family 'superres' has not been fitted: call fit(faces, rng) first")
        config, size, width = self.config, target.image.shape[:2], face_width(target.landmarks)
        inner, matrix = align(target, config.side)
        with torch.no_grad(), one_thread():
            layer = to_layer(self.network(to_tensor(inner)))
        back, cover = unalign(layer, matrix, size)
        # Enhancers are blended with their input, or skin turns to plastic.
        share = np.float32(rng.uniform(*config.share))
        back = share * back + (1 - share) * target.image.astype(np.float32)
        mask = fill(face_outline(target.landmarks, rng.uniform(0.0, 0.08)), size)
        mask[cover < 0.99] = 0
        weight = soften(mask, rng.uniform(*config.feather) * width)
        if not (weight > 0).any():
            return None
        return Forged(*compose(target.image, match_colour(back, target.image, weight), weight, self.config.match))
