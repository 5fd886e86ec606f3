"""Which known forgery does a face resemble? Prototypes in a fixed feature space, compared under a shared covariance.

The routing feature is a set of statistics of the frozen stages' map, so prototypes never go stale. A type has two
prototypes, one of its real faces and one of its forged ones (an experience may have its own camera and people, and
real faces carry that as well). Similarity is minus half the squared Mahalanobis distance with one covariance for all,
kept as running sums: no face has to be stored for it (Hayes and Kanan, Deep SLDA, CVPRW 2020). A face unlike all types
is far from each, and differences grow with distances, though they say less: they count in units of its novelty.
The features are the statistics of the first two levels, where a camera shows most.
Axes: B faces, R routing features, K types.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def routed(squared: Tensor, temperature: float, novelty: Tensor) -> Tensor:
    """Log weights (B, K) of squared distances (B, K), in units of `temperature` and, where above 1, of novelty (B,)."""
    return torch.log_softmax(-0.5 * squared / (temperature * novelty.clamp_min(1.0))[:, None], dim=1)


class Router(nn.Module):
    """Prototypes by type x label, a shared within-class covariance, and the scale of ordinary distances."""

    def __init__(self, features: int, shrink: float = 0.1):
        super().__init__()
        self.shrink = shrink
        self.means: Tensor
        self.scatter: Tensor
        self.count: Tensor
        self.usual: Tensor
        self.register_buffer("means", torch.zeros(0, 2, features))
        self.register_buffer("scatter", torch.zeros(features, features, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("usual", torch.zeros(0))  # (K,) 95 % quantile of a type's own distances

    def grow(self) -> None:
        """Room for one more type; without prototypes it attracts nothing."""
        more = torch.full((1, *self.means.shape[1:]), float("nan"), device=self.means.device)
        self.means = torch.cat([self.means, more])
        self.usual = torch.cat([self.usual, torch.full((1,), float("nan"), device=self.usual.device)])

    def learn(self, kind: int, features: Tensor, labels: Tensor) -> None:
        """Set the prototypes of type `kind` from its faces (N, R), labels (N,), and add their scatter."""
        for label in (0, 1):
            part = features[labels == label]
            if len(part):
                self.means[kind, label] = part.mean(0)
                centred = (part - part.mean(0)).double()
                self.scatter += centred.T @ centred
                self.count += len(part)
        self.usual[kind] = self.distances(features)[:, kind].quantile(0.95)

    def precision(self) -> Tensor:
        """Inverse of the shared covariance, shrunk towards its diagonal (R, R)."""
        covariance = self.scatter / self.count.clamp_min(1.0)
        diagonal = torch.diag(covariance.diagonal().clamp_min(1e-8))
        inverse: Tensor = torch.linalg.inv((1 - self.shrink) * covariance + self.shrink * diagonal)
        return inverse.float()

    def distances(self, features: Tensor) -> Tensor:
        """(B, K) squared Mahalanobis distance to a type's nearer prototype, divided by R; inf for unlearnt types."""
        gap = features[:, None, None, :] - self.means  # (B, K, 2, R)
        squared = torch.einsum("bklr,rs,bkls->bkl", gap, self.precision(), gap) / features.shape[1]
        return squared.nan_to_num(float("inf"), posinf=float("inf")).amin(2)

    def forward(self, features: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        """Log of routing weights w (B, K), rows of w summing to 1, and novelty (B,): nearest distance over the usual of
        that type; 1 is the border of the ordinary. Without any learnt type, w is uniform and novelty 0."""
        distance = self.distances(features)
        known = torch.isfinite(distance[0]) if len(distance) else torch.zeros(distance.shape[1], dtype=torch.bool)
        if not bool(known.any()):
            even = torch.full_like(distance, -math.log(max(1, distance.shape[1])))
            return even, torch.zeros(len(features), device=features.device)
        nearest, which = distance.min(1)
        novelty = nearest / self.usual[which].clamp_min(1e-6)
        return routed(features.shape[1] * distance, temperature, novelty), novelty

    def closed(self) -> ClosedRouter:
        """The same answers from constants alone."""
        return ClosedRouter(self)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: object) -> None:
        stored = state_dict.get(f"{prefix}means")
        while stored is not None and len(self.means) < len(stored):
            self.grow()
        super()._load_from_state_dict(state_dict, prefix, *args)


class ClosedRouter(nn.Module):
    """A router that learns no more: its inverse covariance is taken once, so its graph has neither branch nor inverse
    (ONNX has no such operator). Types that were never learnt have weight 0."""

    def __init__(self, router: Router):
        super().__init__()
        self.means: Tensor
        self.inverse: Tensor
        self.usual: Tensor
        self.missing: Tensor
        self.register_buffer("means", router.means.nan_to_num(0.0))
        self.register_buffer("inverse", router.precision())
        self.register_buffer("usual", router.usual.nan_to_num(1.0))
        self.register_buffer("missing", torch.isnan(router.means).any(2))  # (K, 2)
        self.learnt = bool((~self.missing).any())

    def forward(self, features: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        """See `Router.forward`."""
        gap = features[:, None, None, :] - self.means
        squared = ((gap @ self.inverse) * gap).sum(3) / features.shape[1]
        distance = torch.where(self.missing, torch.inf, squared).amin(2)
        if not self.learnt:
            return torch.full_like(squared[:, :, 0], -math.log(max(1, len(self.means)))), features.sum(1) * 0.0
        novelty = distance.amin(1) / self.usual[distance.argmin(1)].clamp_min(1e-6)
        return routed(features.shape[1] * distance, temperature, novelty), novelty
