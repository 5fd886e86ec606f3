"""A-GEM: averaged gradient episodic memory. Chaudhry et al., ICLR 2019 (arXiv:1812.00420), Eq. 11.

    g~ = g - (g . g_ref) / (g_ref . g_ref) g_ref   where g . g_ref < 0,   else g~ = g

g is the gradient of the learner's losses on the current faces, g_ref that of the decision's binary cross-entropy on
stored ones; both over all trained parameters as one vector, before clipping. Stored faces are only asked, never fitted.
Deviations: the stored faces asked in a step are `share` of the batch, whose size stays, so the method costs no more
than replay (the paper draws a second batch of 256 or so); the memory is shared evenly over forgery x label and changes
only when an experience ends. Axes: P parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ffd_continual.strategies.importance import trained
from ffd_continual.strategies.replay import ReplayConfig
from ffd_continual.strategies.set_aside import ApartReplay, decision_loss, look_apart

if TYPE_CHECKING:
    from ffd_continual.strategies.training.template import FaceStrategy


@dataclass(frozen=True)
class AGEMConfig(ReplayConfig):
    """Replay's settings; `share` is of stored faces that give the reference gradient."""


def project(gradients: Sequence[Tensor], reference: Sequence[Tensor]) -> list[Tensor]:
    """Eq. 11 on a vector given in pieces: unchanged where it agrees with the reference, else without its part along
    it."""
    pairs = list(zip(gradients, reference, strict=True))
    dot = torch.stack([(g * r).contiguous().sum() for g, r in pairs]).sum()
    if not bool(dot < 0):
        return list(gradients)
    length = torch.stack([(r * r).contiguous().sum() for r in reference]).sum()
    return [g - dot / length * r for g, r in pairs]


class AGEM(ApartReplay):
    """Steps that do not raise the loss on stored faces, to first order."""

    config_type = AGEMConfig

    def before_update(self, strategy: FaceStrategy, **kwargs: Any) -> None:
        """Ask the stored faces for the reference, and project."""
        faces = self.take_apart()
        if faces is None:
            return
        parameters = list(trained(strategy).values())
        loss = decision_loss(look_apart(strategy, faces).z, faces.target)
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        pairs = [(p, r) for p, r in zip(parameters, found, strict=True) if p.grad is not None or r is not None]
        zeros = [torch.zeros_like(p) for p, _ in pairs]
        own = [zero if p.grad is None else p.grad for (p, _), zero in zip(pairs, zeros, strict=True)]
        reference = [zero if r is None else r for (_, r), zero in zip(pairs, zeros, strict=True)]
        for (parameter, _), gradient in zip(pairs, project(own, reference), strict=True):
            if parameter.grad is not None or bool(gradient.any()):
                parameter.grad = gradient
