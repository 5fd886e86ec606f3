"""The two feature modules of IIN on frozen stages: one intra-module a forgery type, one inter-module for all.

Reading of IIN-FFD (see iin.py). Axes: B faces, F frozen statistics, C channels, H, W of the evidence map, D features.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffd_continual.strategies.learners.iin_losses import masked_mean, top_share


class IntraModule(nn.Module):
    """What one forgery type adds: D special features of the frozen statistics, and a logit. Its input never moves."""

    def __init__(self, statistics: int, features: int, dropout: float):
        super().__init__()
        self.dropout = dropout
        self.squeeze = nn.Linear(statistics, features)
        self.head = nn.Linear(features, 1)

    def forward(self, statistics: Tensor) -> tuple[Tensor, Tensor]:
        """Standardised statistics (B, F) to the special feature (B, D) and its logit (B,)."""
        special = self.squeeze(F.dropout(statistics, self.dropout, self.training))
        return special, self.head(torch.relu(special)).squeeze(1)

    def copy_from(self, other: IntraModule) -> None:
        """Start from what another type's module has learnt."""
        self.load_state_dict(other.state_dict())


@dataclass(frozen=True)
class InterOutput:
    """The common path's answer for B faces."""

    common: Tensor  # (B, D)
    z: Tensor  # (B,) common logit
    evidence: Tensor  # (B, 1, H, W) logits: forged here?
    local: Tensor  # (B, D, H, W) local features that the evidence is read from


class InterModule(nn.Module):
    """D common features with a logit, and the evidence map.

    The evidence is the class activation of the logit: the mean of the map's top share is part of it, so what raises
    the logit shows on the map. `share` 0 leaves the evidence out of the logit.
    """

    def __init__(self, statistics: int, channels: int, features: int, dropout: float, share: float):
        super().__init__()
        self.dropout, self.share = dropout, share
        self.squeeze = nn.Linear(statistics, features)
        self.head = nn.Linear(features, 1)
        self.look = nn.Sequential(nn.Conv2d(channels, features, 1), nn.ReLU())
        self.point = nn.Conv2d(features, 1, 1)

    def forward(self, statistics: Tensor, maps: Tensor) -> InterOutput:
        """Standardised statistics (B, F) and frozen maps (B, C, H, W) to the common path's answer."""
        common = self.squeeze(F.dropout(statistics, self.dropout, self.training))
        local = self.look(F.dropout(maps, self.dropout, self.training))
        evidence = self.point(local)
        z = self.head(torch.relu(common)).squeeze(1)
        if self.share > 0:
            z = z + masked_mean(evidence, top_share(evidence.detach(), self.share)).squeeze(1)
        return InterOutput(common, z, evidence, local)


def slow_copy(module: nn.Module) -> nn.Module:
    """A copy without gradients, to be moved by `follow`."""
    made = copy.deepcopy(module).requires_grad_(False)
    made.eval()
    return made


@torch.no_grad()
def follow(slow: nn.Module, fast: nn.Module, momentum: float) -> None:
    """slow <- momentum * slow + (1 - momentum) * fast, parameters and normalisation statistics alike."""
    for target, source in zip(slow.state_dict().values(), fast.state_dict().values(), strict=True):
        if target.is_floating_point():
            target.lerp_(source.detach(), 1.0 - momentum)
        else:
            target.copy_(source)
