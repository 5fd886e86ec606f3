"""The inter-module: the features that all forgeries share, learnt by a plastic path over the frozen early stages.

Reading of IIN-FFD (see iin.py). Axes: B faces, C channels, D common features, H, W of the evidence map.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffd_continual.strategies.learners.iin_losses import masked_mean, top_share


@dataclass(frozen=True)
class InterOutput:
    """The common path's answer for B faces."""

    pooled: Tensor  # (B, C) mean of the last map
    common: Tensor  # (B, D)
    z: Tensor  # (B,) common logit
    evidence: Tensor  # (B, 1, H, W) logits: forged here?
    middle: Tensor  # (B, C_mid, H, W) map that the evidence lies on


def middle_stage(stages: nn.Sequential, low: Tensor) -> tuple[int, int]:
    """(index of the last stage whose map is larger than the final one, its channels); the last stage if none is."""
    sizes, x = [], low
    with torch.no_grad():
        for stage in stages:
            x = stage(x)
            sizes.append((int(x.shape[-1]), int(x.shape[1])))
    larger = [i for i, (side, _) in enumerate(sizes) if side > sizes[-1][0]]
    index = larger[-1] if larger else len(sizes) - 1
    return index, sizes[index][1]


class InterModule(nn.Module):
    """Later stages, a projection to D common features, the common logit, and the evidence map.

    The evidence is the class activation of the logit: its part z_e is the mean of the top share of the map, so what
    raises the logit shows on the map. `share` 0 leaves the evidence out of the logit.
    """

    def __init__(self, stages: nn.Sequential, low: Tensor, channels: int, features: int, share: float):
        super().__init__()
        self.stages, self.share = stages, share
        self.middle, middle_channels = middle_stage(stages, low)
        self.project = nn.Linear(channels, features)
        self.head = nn.Linear(channels, 1)
        self.look = nn.Sequential(
            nn.Conv2d(middle_channels + channels, 64, 1), nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 1, 1)
        )
        self.middle_channels = middle_channels
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, low: Tensor) -> InterOutput:
        """Frozen early map (B, C_low, h, w) to the common path's answer."""
        x, middle = low, low
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index == self.middle:
                middle = x
        pooled = x.mean((2, 3))
        above = F.interpolate(x, size=middle.shape[-2:], mode="nearest")
        evidence = self.look(torch.cat([middle, above], dim=1))
        z = self.head(pooled).squeeze(1)
        if self.share > 0:
            z = z + masked_mean(evidence, top_share(evidence.detach(), self.share)).squeeze(1)
        return InterOutput(pooled, self.project(pooled), z, evidence, middle)


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
