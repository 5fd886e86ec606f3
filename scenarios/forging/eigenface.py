"""Eigenface: the inner face rebuilt from principal components (Turk and Pentland 1991), some of them changed.

A linear face model as statistical face editors use; fine detail is the picture's own, as in resynthesis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.faces import Face
from ffd_continual.scenarios.forging.contract import Forged
from ffd_continual.scenarios.forging.geometry import align, face_outline, face_width, fill, soften, unalign
from ffd_continual.scenarios.matching import compose, detail, match_colour


@dataclass(frozen=True)
class EigenfaceConfig:
    """Components kept, their random change in standard deviations, kept detail as in resynthesis.

    `colour` and `match`: share of the mismatch in colour and band energy that is removed.
    """

    side: int = 64
    components: int = 48
    change: float = 0.45
    detail: tuple[float, float] = (0.5, 0.8)
    sigma: float = 0.022
    feather: tuple[float, float] = (0.03, 0.06)
    colour: float = 0.7
    match: float = 0.4


def principal(data: NDArray[np.float32], count: int) -> tuple[NDArray[np.float32], ...]:
    """Mean (D,), components (K, D) and standard deviations (K,) of rows (N, D), by the N x N Gram matrix.

    Signs are fixed (largest entry positive), so the result does not depend on the solver's choice.
    """
    mean = data.mean(0)
    centred = data - mean
    values, vectors = np.linalg.eigh((centred @ centred.T).astype(np.float64))
    order = np.argsort(values)[::-1][: min(count, len(data) - 1)]
    order = order[values[order] > max(float(values.max()), 0.0) * 1e-6]
    parts = (vectors[:, order] / np.sqrt(values[order])).T.astype(np.float32) @ centred
    parts *= np.sign(parts[np.arange(len(parts)), np.abs(parts).argmax(1)])[:, None]
    return mean, parts, np.sqrt(values[order] / len(data)).astype(np.float32)


@dataclass
class Eigenface:
    """Principal-component face; must be fitted first."""

    config: EigenfaceConfig = field(default_factory=EigenfaceConfig)
    name: str = "eigenface"
    model: tuple[NDArray[np.float32], ...] | None = None

    def fit(self, faces: Sequence[Face], rng: np.random.Generator) -> None:
        """Mean and components of at most 600 of these faces."""
        chosen = rng.permutation(len(faces))[:600]
        rows = np.stack([align(faces[int(i)], self.config.side)[0].ravel() for i in np.sort(chosen)])
        self.model = principal(rows.astype(np.float32), self.config.components)

    def forge(self, target: Face, others: Sequence[Face], rng: np.random.Generator) -> Forged | None:
        """Never None; `others` are not used."""
        if self.model is None:
            raise FFDError("forgery family 'eigenface' has not been fitted: call fit(faces, rng) first")
        config, size, width = self.config, target.image.shape[:2], face_width(target.landmarks)
        mean, parts, spread = self.model
        inner, matrix = align(target, config.side)
        codes = parts @ (inner.ravel().astype(np.float32) - mean)
        # The first components are the light and the skin's tone: changing them would only be a colour cast.
        changed_codes = codes + rng.normal(0, config.change, len(codes)) * spread * (np.arange(len(codes)) >= 6)
        layer = np.clip(mean + changed_codes.astype(np.float32) @ parts, 0, 255).reshape(inner.shape)
        back, cover = unalign(np.asarray(layer, np.float32), matrix, size)
        mask = fill(face_outline(target.landmarks, rng.uniform(0.0, 0.08)), size)
        mask[cover < 0.99] = 0
        weight = soften(mask, rng.uniform(*config.feather) * width)
        back = match_colour(back, target.image, weight, config.colour)
        back = back + np.float32(rng.uniform(*config.detail)) * detail(target.image, config.sigma * width)
        return Forged(*compose(target.image, np.asarray(back, np.float32), weight, config.match))
