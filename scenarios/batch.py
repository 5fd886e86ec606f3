"""The one schema of a batch: what every learner and every strategy sees.

Axes: B faces, S pixels a side. All fields are tensors of fixed shape (Avalanche's collate and replay crash on None,
strings and ragged shapes); a field that no part of the run needs is an empty tensor of shape (B, 0).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

#: Optional fields a learner may ask for in its `needs`; all the others are always there.
OPTIONAL_NEEDS = frozenset({"mask", "pair", "view2", "pseudo", "other"})


class Batch(NamedTuple):
    """One mini-batch; the order is Avalanche's: picture, target, extras, task label."""

    image: Tensor  # (B, 3, S, S) float32 in 0..1, view 1
    target: Tensor  # (B,) int64: 0 real, 1 forged
    forgery: Tensor  # (B,) int64: index of the forgery among all names of the scenario, 0 is "real"
    experience: Tensor  # (B,) int64: the experience the face came with; -1 in unseen streams
    mask: Tensor  # (B, 1, S, S) float32, 1 where the forgery changed the face; follows view 1
    mask_known: Tensor  # (B,) bool; always true for real faces, whose mask is empty
    pair: Tensor  # (B, 3, S, S) float32, the pristine counterpart, through view 1's geometry
    pair_known: Tensor  # (B,) bool
    view2: Tensor  # (B, 3, S, S) float32, a second, independent view of the same face
    pseudo: Tensor  # (B, 3, S, S) float32, a self-blended forgery made of a real face
    pseudo_mask: Tensor  # (B, 1, S, S) float32
    pseudo_known: Tensor  # (B,) bool
    other: Tensor  # (B, 3, S, S) float32, another frame of the same video
    other_known: Tensor  # (B,) bool
    other_pair: Tensor  # (B, 3, S, S) float32, the other frame's pristine counterpart; only where pairs are asked for
    other_pair_known: Tensor  # (B,) bool
    other_mask: Tensor  # (B, 1, S, S) float32, the other frame's mask; only where masks are asked for
    other_mask_known: Tensor  # (B,) bool
    frozen: Tensor  # (B, F) kept features of view 1, in place of pictures (scenarios/kept.py); (B, 0) otherwise
    frozen2: Tensor  # (B, F) of view 2
    frozen_pseudo: Tensor  # (B, F) of the self-blended face
    video: Tensor  # (B,) int64, index of the video (or the identity for pictures)
    row: Tensor  # (B,) int64, row of the run's face table
    task: Tensor  # (B,) int64, constantly 0: the forgery as a task label would leak it at test

    def with_pseudo(self, share: float) -> tuple[Batch, Tensor]:
        """The first `share` of the usable real faces shown self-blended, as forged; and which those are, (B,) bool."""
        shown = torch.zeros_like(self.target, dtype=torch.bool)
        if share <= 0 or not (self.pseudo.shape[1] or self.frozen_pseudo.shape[1]):
            return self, shown
        usable = self.pseudo_known.nonzero().squeeze(1)
        shown[usable[: round(share * len(usable))]] = True
        changed: dict[str, Tensor] = {"target": torch.where(shown, 1, self.target)}
        for name, source in (("image", self.pseudo), ("mask", self.pseudo_mask), ("frozen", self.frozen_pseudo)):
            field: Tensor = getattr(self, name)
            if field.shape[1] and source.shape[1]:
                changed[name] = field.clone()
                changed[name][shown] = source[shown]
        if self.mask.shape[1]:
            changed["mask_known"] = self.mask_known | shown
        return self._replace(**changed), shown

    def take(self, index: Tensor) -> Batch:
        """The faces at `index`, (N,) int64 or (B,) bool."""
        return Batch(*(field[index] for field in self))
