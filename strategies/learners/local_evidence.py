"""Where does one forgery type show? A linear discriminant of the locations of a closed module's map.

The common path learns on, and its evidence map with it: after eight types it found half as much of the first types'
masks as when it had just learnt them. A closed module never changes, so what is read from it is not forgotten. The
discriminant needs no gradient and no stored face: sums over the experience's training faces give class means and one
covariance, as in the router (Hayes and Kanan, Deep SLDA, CVPRW 2020). A location's features are the frozen map's and
the module's own, cosines of its place (faces are aligned, and a forgery has its usual places) and the module's logit:
is the face forged at all?
Axes: B faces, C channels of the frozen map, D of the module's own, H, W height and width of the frozen map, R = C + D +
16 features of a location.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WAVES = 4  # cosines along each side, the constant one left out: 15 features
EXTRA = WAVES**2  # and the logit
SHRINK = 0.01


def places(height: int, width: int) -> Tensor:
    """(WAVES^2 - 1, H, W): cos(pi i y) cos(pi j x) at the centres of a grid's cells, x and y in 0..1."""
    y, x = ((torch.arange(side) + 0.5) / side for side in (height, width))
    waves = [
        torch.cos(math.pi * i * y)[:, None] * torch.cos(math.pi * j * x) for i in range(WAVES) for j in range(WAVES)
    ]
    return torch.stack(waves[1:])


def location_features(low: Tensor, high: Tensor, z: Tensor) -> Tensor:
    """Frozen map (B, C, H, W), the module's own (B, D, h, w) and logit (B,) as features (B, R, H, W)."""
    height, width = low.shape[-2], low.shape[-1]
    wide = F.interpolate(high, size=(height, width), mode="nearest")
    where = places(height, width).to(low).expand(len(low), -1, -1, -1)
    return torch.cat([low, wide, where, z[:, None, None, None].expand(-1, 1, height, width)], dim=1)


class LocationSums:
    """Sums over locations, each counting as forged by the share of its pixels that are, in float64."""

    def __init__(self, features: int, device: torch.device):
        self.first = torch.zeros(2, features, dtype=torch.float64, device=device)  # by label: sums
        self.second = torch.zeros(features, features, dtype=torch.float64, device=device)
        self.count = torch.zeros(2, dtype=torch.float64, device=device)

    def add(self, features: Tensor, mask: Tensor) -> None:
        """Faces (B, R, H, W) with masks (B, 1, S, S), above 0 where forged."""
        share = F.adaptive_avg_pool2d((mask > 0).double(), (features.shape[-2], features.shape[-1])).flatten()
        rows = features.movedim(1, 3).flatten(0, 2).double()
        weights = torch.stack([1.0 - share, share])
        self.first += weights @ rows
        self.second += rows.T @ rows
        self.count += weights.sum(1)

    def discriminant(self) -> tuple[Tensor, Tensor]:
        """Weights (R,) and bias () of the log-odds; the covariance is shrunk towards its diagonal by SHRINK."""
        means = self.first / self.count[:, None]
        covariance = (self.second - means.T @ self.first) / self.count.sum()
        diagonal = torch.diag(covariance.diagonal().clamp_min(1e-8))
        weight = torch.linalg.solve((1 - SHRINK) * covariance + SHRINK * diagonal, means[1] - means[0])
        bias = (self.count[1] / self.count[0]).log() - 0.5 * (means[0] + means[1]) @ weight
        return weight.float(), bias.float()


class LocalEvidence(nn.Module):
    """The log-odds of forged pixels at each location; `met` is false until `learn` has seen masks."""

    def __init__(self, features: int):
        super().__init__()
        self.weight: Tensor
        self.bias: Tensor
        self.met: Tensor
        self.register_buffer("weight", torch.zeros(features))
        self.register_buffer("bias", torch.zeros(()))
        self.register_buffer("met", torch.zeros((), dtype=torch.bool))

    def forward(self, low: Tensor, high: Tensor, z: Tensor) -> Tensor:
        """(B, H, W), weights times `location_features`; NaN before anything was learnt: no say about places."""
        size = (low.shape[-2], low.shape[-1])
        own, wide, place, face = torch.split(self.weight, [low.shape[1], high.shape[1], EXTRA - 1, 1])
        evidence = torch.einsum("bchw,c->bhw", low, own)
        evidence = evidence + F.interpolate(torch.einsum("bchw,c->bhw", high, wide)[:, None], size).squeeze(1)
        evidence = evidence + torch.einsum("rhw,r->hw", places(*size).to(low), place)
        return torch.where(self.met, evidence + (z * face + self.bias)[:, None, None], torch.nan)

    def learn(self, sums: LocationSums) -> None:
        """Take the discriminant of the sums, if they hold forged and untouched locations."""
        if bool((sums.count > 0).all()):
            weight, bias = sums.discriminant()
            self.weight.copy_(weight)
            self.bias.copy_(bias)
            self.met.fill_(True)


def mixed_evidence(each: Tensor, share: Tensor, common: Tensor) -> Tensor:
    """Log-odds (B, 1, H, W) of sum_k a_k sigmoid(e_k): modules' evidence (B, K, H, W) by each type's share a (B, K) in
    the decision. A module without a say (NaN) takes the common path's evidence (B, 1, H, W) for its own."""
    heard = torch.where(torch.isnan(each), common, each)
    forged = torch.log(share.clamp_min(1e-12))[:, :, None, None]
    return torch.logsumexp(forged + F.logsigmoid(heard), 1, True) - torch.logsumexp(
        forged + F.logsigmoid(-heard), 1, True
    )
