"""Nearest mean of exemplars, as in iCaRL: Rebuffi et al., CVPR 2017 (arXiv:1611.07725), Alg. 1 and 4, for real and
forged faces.

    mu_c = unit(mean over exemplars x of class c of unit(phi(x))),   z = min_{real c} |unit(phi(x)) - mu_c|
                                                                       - min_{forged c} |unit(phi(x)) - mu_c|

phi is the learner's feature "common"; a class is one experience's real or forged faces. z > 0: a forged mean is
nearest, which is iCaRL's decision; |z| <= 2. Exemplars are chosen by herding and replayed; means are taken anew from
them when an experience ends, so they follow the features.
Deviations: training is balanced replay with the learner's own losses (iCaRL adds a distillation; strategy lwf or iin
has one). Before the first experience has ended, and without exemplars, z is the learner's own. Axes: B, N faces,
D features, M means.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ffd_continual.strategies.learner import Output
from ffd_continual.strategies.replay import Replay, ReplayConfig
from ffd_continual.strategies.strategy import Context, State

if TYPE_CHECKING:
    from ffd_continual.strategies.training.template import FaceStrategy


@dataclass(frozen=True)
class NearestMeanConfig(ReplayConfig):
    """Replay's settings, with the paper's selection."""

    policy: str = "herding"


def class_means(features: Tensor, classes: Tensor) -> Tensor:
    """Unit means (M, D), in order of the class numbers in `classes` (N,), of unit features (N, D)."""
    unit = F.normalize(features.float(), dim=1)
    return torch.stack([F.normalize(unit[classes == c].mean(0), dim=0) for c in classes.unique()])  # type: ignore[no-untyped-call]


def nearest(features: Tensor, means: Tensor) -> Tensor:
    """Distance (B,) of features (B, D), made unit, to the nearest of the means (M, D)."""
    unit = F.normalize(features.float(), dim=1)
    found: Tensor = (unit[:, None, :] - means[None, :, :]).norm(dim=2).amin(1)
    return found


def mean_logit(features: Tensor, means: Tensor, labels: Tensor) -> Tensor:
    """z (B,) of features (B, D) from means (M, D) with labels (M,), both labels among them."""
    return nearest(features, means[labels == 0]) - nearest(features, means[labels == 1])


class NearestMean(Replay):
    """Replay of herded exemplars; the decision is by the nearest of their means."""

    config_type = NearestMeanConfig

    def __init__(self, config: NearestMeanConfig, context: Context):
        super().__init__(config, context)
        self.means = torch.zeros(0, 0)
        self.labels = torch.zeros(0, dtype=torch.int64)

    def after_training_exp(self, strategy: FaceStrategy, **kwargs: Any) -> None:
        """Choose exemplars, then take all means anew."""
        super().after_training_exp(strategy, **kwargs)
        rows = self.remembered()
        if not len(rows):
            return
        with torch.no_grad():
            outs = [strategy.learner.look(batch) for batch in strategy.faces(rows)]
        features = torch.cat([out.features["common"] for out in outs])
        label = torch.from_numpy(self.context.sources.forgery[rows] > 0).long()
        classes = 2 * torch.from_numpy(self.context.sources.experience[rows]) + label
        self.means = class_means(features, classes.to(features.device))
        self.labels = classes.unique() % 2  # type: ignore[no-untyped-call]

    def decide(self, out: Output) -> Tensor:
        """By the nearest mean, once there is one of each label."""
        if not (bool((self.labels == 0).any()) and bool((self.labels == 1).any())):
            return out.z
        feature = out.features["common"]
        return mean_logit(feature, self.means.to(feature.device), self.labels.to(feature.device))

    def closed_rule(self) -> Callable[[Output], Tensor]:
        """Its means taken once, without a branch on their labels."""
        real, forged = (self.means[self.labels == label].clone() for label in (0, 1))
        if not (len(real) and len(forged)):
            return super().closed_rule()
        return lambda out: nearest(out.features["common"], real) - nearest(out.features["common"], forged)

    def stored_bytes(self) -> int:
        """Faces and means."""
        return super().stored_bytes() + self.means.numel() * self.means.element_size()

    def state_dict(self) -> State:
        """The memory and the means."""
        tensors, values = super().state_dict()
        return tensors | {"mean_features": self.means, "mean_labels": self.labels}, values

    def load_state_dict(self, state: State) -> None:
        """Take both back."""
        tensors = dict(state[0])
        self.means, self.labels = tensors.pop("mean_features"), tensors.pop("mean_labels").cpu()
        super().load_state_dict((tensors, state[1]))
