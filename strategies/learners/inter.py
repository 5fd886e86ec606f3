"""The two modules of IIN on frozen stages: one intra-module a forgery type, one inter-module for all.

Both are the pretrained stages that follow the frozen ones, learning on: a copy a type, and one copy for the common
path. Reading of IIN-FFD (see iin.py). Axes: B faces, C channels of the frozen map, H, W its height and width, D
channels of the stages' own map, h, w its height and width, E features of a location.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffd_continual.strategies.learners.iin_losses import masked_mean, top_share
from ffd_continual.strategies.learners.local_evidence import EXTRA, LocalEvidence, LocationSums, location_features


def started(stages: nn.Module) -> nn.Module:
    """A trainable copy of stages."""
    return copy.deepcopy(stages).requires_grad_(True)


class IntraOutput(NamedTuple):
    """An intra-module's answer for B faces."""

    special: Tensor  # (B, D)
    z: Tensor  # (B,)
    evidence: Tensor  # (B, H, W) log-odds of forged pixels; NaN until the module is closed, or without masks


class IntraModule(nn.Module):
    """What one forgery type adds: special features of the frozen map, a logit, and where its masks lie. Its input never
    moves, and the evidence is read from what is closed (local_evidence.py): no loss sees it."""

    def __init__(self, stages: nn.Module, channels: int, features: int, dropout: float):
        super().__init__()
        self.dropout = dropout
        self.stages = started(stages)
        self.head = nn.Linear(features, 1)
        self.evidence = LocalEvidence(channels + features + EXTRA)

    def forward(self, low: Tensor) -> IntraOutput:
        """Of the frozen map (B, C, H, W)."""
        high = self.stages(low)
        special = high.mean((2, 3))
        z = self.head(F.dropout(special, self.dropout, self.training)).squeeze(1)
        return IntraOutput(special, z, self.evidence(low, high, z))

    def say(self, low: Tensor) -> Tensor:
        """All that a decision reads of it: rows (B, 1 + H W) of the logit and the evidence."""
        _, z, evidence = self(low)
        return torch.cat([z[:, None], evidence.flatten(1)], dim=1)

    def locations(self, low: Tensor) -> Tensor:
        """What the evidence reads (B, R, H, W)."""
        high = self.stages(low)
        return location_features(low, high, self.head(high.mean((2, 3))).squeeze(1))

    def sums(self) -> LocationSums:
        """Empty ones, for `evidence.learn`."""
        return LocationSums(len(self.evidence.weight), self.evidence.weight.device)

    def copy_from(self, other: IntraModule) -> None:
        """Start from what another type's module has learnt."""
        self.stages.load_state_dict(other.stages.state_dict())
        self.head.load_state_dict(other.head.state_dict())


@dataclass(frozen=True)
class InterOutput:
    """The common path's answer for B faces."""

    common: Tensor  # (B, D)
    z: Tensor  # (B,) common logit
    evidence: Tensor  # (B, 1, H, W) logits: forged here?
    local: Tensor  # (B, E, H, W) local features that the evidence is read from


class InterModule(nn.Module):
    """D common features with a logit, and the evidence map, read from the frozen map and the stages' own together.

    The evidence is the class activation of the logit: the mean of the map's top share is part of it, so what raises
    the logit shows on the map. `share` 0 leaves the evidence out of the logit.
    """

    def __init__(self, stages: nn.Module, channels: int, features: int, local: int, dropout: float, share: float):
        super().__init__()
        self.dropout, self.share = dropout, share
        self.stages = started(stages)
        self.head = nn.Linear(features, 1)
        self.look = nn.Sequential(nn.Conv2d(channels + features, local, 1), nn.ReLU())
        self.point = nn.Conv2d(local, 1, 1)

    def forward(self, low: Tensor) -> InterOutput:
        """Frozen map (B, C, H, W) to the common path's answer."""
        high = self.stages(low)
        common = high.mean((2, 3))
        wide = F.interpolate(high, size=(low.shape[-2], low.shape[-1]), mode="nearest")
        local = self.look(F.dropout(torch.cat([low, wide], dim=1), self.dropout, self.training))
        evidence = self.point(local)
        z = self.head(F.dropout(common, self.dropout, self.training)).squeeze(1)
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
