"""The plain learner: a timm backbone, global average pooling and one logit, trained by binary cross-entropy.

The baseline of every paper of the field (Roessler et al., ICCV 2019, with Xception). Axes: B faces, D features.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ffd_continual.scenarios.batch import Batch
from ffd_continual.strategies.learner import Learner, Losses, Output, split_decay
from ffd_continual.strategies.learners.trunk import Trunk, TrunkConfig


@dataclass(frozen=True)
class PlainConfig:
    """`pseudo` adds self-blended faces made of the batch's real faces (Shiohara and Yamasaki, CVPR 2022)."""

    trunk: TrunkConfig = field(default_factory=TrunkConfig)
    trunk_lr: float = 0.3  # relative to the head's learning rate
    dropout: float = 0.0
    pseudo: float = 0.0  # share of the batch's real faces that are replaced by a self-blended forgery


class Plain(Learner):
    """Backbone, pooling, one logit."""

    config_type = PlainConfig

    def __init__(self, config: PlainConfig):
        super().__init__()
        self.config = config
        self.trunk = Trunk(config.trunk)
        self.head = nn.Linear(self.trunk.channels, 1)

    @property
    def needs(self) -> frozenset[str]:
        """Self-blended faces, when they are switched on."""
        return frozenset({"pseudo"}) if self.config.pseudo > 0 else frozenset()

    def forward(self, images: Tensor) -> Output:
        """(B, 3, S, S) to logit and the pooled feature "common" (B, D)."""
        feature = self.trunk(images).mean((2, 3))
        z = self.head(F.dropout(feature, self.config.dropout, self.training)).squeeze(1)
        return Output(z=z, features={"common": feature})

    def step(self, batch: Batch) -> tuple[Output, Losses]:
        """Binary cross-entropy on the batch; with `pseudo`, some real faces are shown self-blended, as forged."""
        images, target = batch.image, batch.target.float()
        if self.config.pseudo > 0:
            usable = batch.pseudo_known.nonzero().squeeze(1)
            swapped = usable[: round(self.config.pseudo * len(usable))]
            images, target = images.clone(), target.clone()
            images[swapped], target[swapped] = batch.pseudo[swapped], 1.0
        out = self(images)
        return out, {"decision": F.binary_cross_entropy_with_logits(out.z, target)}

    def param_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """The pretrained trunk learns at `trunk_lr` times the head's rate."""
        return [
            *split_decay(self.trunk.trained(), lr * self.config.trunk_lr, weight_decay),
            *split_decay(self.head.parameters(), lr, weight_decay),
        ]
