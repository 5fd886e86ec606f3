"""One threshold for many sources: what a face's score would be if real faces of all sources scored alike.

Each experience may have its own camera and people, and each leaves real faces at a level of its own: those of a type
that is hard to learn end near 0, those of an easy one far below. Within one source nothing is lost, but faces of
several sources, which one threshold judges and one AUC ranks, are told apart by their source. So when a type is
closed, the median score of its real training faces is kept, one number, and a face's score is read above the level of
the types that it resembles. Axes: B faces, K types.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Levels(nn.Module):
    """The median score of each type's real faces when it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.levels: Tensor
        self.register_buffer("levels", torch.zeros(0))

    def grow(self) -> None:
        """Room for one more type, at level 0 until it is closed."""
        self.levels = torch.cat([self.levels, self.levels.new_zeros(1)])

    def learn(self, kind: int, z: Tensor) -> None:
        """Set the level of type `kind` from its real faces' scores (N,); of no face at all it stays 0."""
        if len(z):
            self.levels[kind] = z.median()

    def forward(self, z: Tensor, weights: Tensor) -> Tensor:
        """Scores (B,) above the level that a face with routing weights (B, K), rows summing to 1, is expected at."""
        return z - weights @ self.levels

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: object) -> None:
        stored = state_dict.get(f"{prefix}levels")
        while stored is not None and len(self.levels) < len(stored):
            self.grow()
        super()._load_from_state_dict(state_dict, prefix, *args)
