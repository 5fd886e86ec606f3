"""The plain learner: a timm backbone, pooling and one logit, trained by binary cross-entropy.

`pooling: mean` is the baseline of every paper of the field (Roessler et al., ICCV 2019, with Xception): later stages
are fine-tuned and averaged. `pooling: statistics` leaves the backbone frozen and puts a small network on the statistics
of its stages: better on some hundred people, and fast. Axes: B faces, F frozen features, D features.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffd_continual.scenarios.batch import Batch
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.strategies.learner import Learner, Losses, Output, split_decay
from ffd_continual.strategies.learners.trunk import Standardise, Trunk, TrunkConfig


@dataclass(frozen=True)
class PlainConfig:
    """`pseudo` adds self-blended faces made of the batch's real faces (Shiohara and Yamasaki, CVPR 2022)."""

    trunk: TrunkConfig = field(default_factory=TrunkConfig)
    pooling: str = "mean"  # "mean" of the last map, or "statistics" of the frozen stages
    features: int = 64  # D, hidden features with pooling=statistics
    trunk_lr: float = 0.3  # relative to the head's learning rate
    dropout: float = 0.0
    pseudo: float = 0.0  # share of the batch's real faces that are replaced by a self-blended forgery


class Plain(Learner):
    """Backbone, pooling, one logit."""

    config_type = PlainConfig

    def __init__(self, config: PlainConfig):
        super().__init__()
        if config.pooling not in ("mean", "statistics"):
            raise FFDError(f"learner.pooling must be 'mean' or 'statistics', not {config.pooling!r}.")
        if config.pooling == "statistics" and config.trunk.frozen_stages == 0:
            raise FFDError(
                "learner.pooling=statistics reads frozen stages: set learner.trunk.frozen_stages to 1 or more."
            )
        self.config = config
        self.trunk = Trunk(config.trunk)
        self.still = config.pooling == "statistics"
        if self.still:
            self.trunk.high = nn.Sequential()
            count = 3 * sum(self.trunk.level_channels)
            self.standard = Standardise(count)
            self.squeeze = nn.Linear(count, config.features)
            self.head = nn.Linear(config.features, 1)
        else:
            self.head = nn.Linear(self.trunk.channels, 1)

    @property
    def needs(self) -> frozenset[str]:
        """Self-blended faces, when they are switched on."""
        return frozenset({"pseudo"}) if self.config.pseudo > 0 else frozenset()

    def frozen(self, images: Tensor) -> Tensor | None:
        """What the trunk's frozen stages say: their statistics, or with pooling=mean their last map."""
        if self.still:
            return self.trunk.statistics(images)
        return self.trunk.flat(images) if len(self.trunk.low) else None

    def frozen_key(self) -> str:
        """The frozen stages' weights, and what is read from them."""
        return self.trunk.key("statistics" if self.still else "map")

    def meet(self, faces: Iterable[Batch]) -> None:
        """The first faces ever met give the scale of the statistics."""
        if self.still and not bool(self.standard.met):
            self.standard.meet(torch.cat([self.seen(batch) for batch in faces]))

    def judge(self, frozen: Tensor) -> Output:
        """What the frozen stages said to an Output."""
        if not self.still:
            return self._pooled(self.trunk.rest(frozen))
        hidden = self.squeeze(F.dropout(self.standard(frozen), self.config.dropout, self.training))
        return Output(z=self.head(torch.relu(hidden)).squeeze(1), features={"common": hidden})

    def forward(self, images: Tensor) -> Output:
        """(B, 3, S, S) to logit and the feature "common" (B, D)."""
        if self.still:
            return self.judge(self.trunk.statistics(images))
        return self._pooled(self.trunk(images))

    def _pooled(self, maps: Tensor) -> Output:
        feature = maps.mean((2, 3))
        z = self.head(F.dropout(feature, self.config.dropout, self.training)).squeeze(1)
        return Output(z=z, features={"common": feature})

    def step(self, batch: Batch) -> tuple[Output, Losses]:
        """Binary cross-entropy on the batch; with `pseudo`, some real faces are shown self-blended, as forged."""
        batch = batch.with_pseudo(self.config.pseudo)[0]
        out = self.look(batch)
        return out, {"decision": F.binary_cross_entropy_with_logits(out.z, batch.target.float())}

    def param_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """The pretrained trunk learns at `trunk_lr` times the head's rate."""
        heads = [*self.head.parameters(), *(self.squeeze.parameters() if self.still else ())]
        trunk = split_decay(self.trunk.trained(), lr * self.config.trunk_lr, weight_decay)
        return [*trunk, *split_decay(heads, lr, weight_decay)]
