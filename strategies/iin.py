"""IIN's continual part: balanced exemplars, and distillation of the common path from its previous snapshot.

Reading of IIN-FFD (see learners/iin.py). Works with any learner: what is distilled is the decision logit, and the
common feature and evidence map where the learner has them. Learning without forgetting (Li and Hoiem, TPAMI 2018) is
the source of the principle. Axes: B faces.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ffd_continual.strategies.learner import Output
from ffd_continual.strategies.replay import ReplayConfig
from ffd_continual.strategies.teacher import TaughtReplay

if TYPE_CHECKING:
    from ffd_continual.strategies.training.template import FaceStrategy


@dataclass(frozen=True)
class IINStrategyConfig(ReplayConfig):
    """Replay's settings, and the weights of distillation (0 switches a term off)."""

    exemplars: int = 20
    logit_weight: float = 0.5
    feature_weight: float = 0.1
    evidence_weight: float = 0.1


def distillation(new: Output, old: Output, config: IINStrategyConfig) -> dict[str, Tensor]:
    """Logit: BCE of the new common logit against the old one's probability; feature: 1 - cosine; evidence: BCE."""
    z_new, z_old = new.features.get("z_common", new.z), old.features.get("z_common", old.z)
    losses = {}
    if config.logit_weight > 0:
        losses["keep_logit"] = config.logit_weight * F.binary_cross_entropy_with_logits(z_new, torch.sigmoid(z_old))
    if config.feature_weight > 0 and "common" in new.features:
        cosine = F.cosine_similarity(new.features["common"], old.features["common"])
        losses["keep_feature"] = config.feature_weight * (1.0 - cosine).mean()
    if config.evidence_weight > 0 and "trace" in new.maps and "trace" in old.maps:
        target = torch.sigmoid(old.maps["trace"])
        losses["keep_trace"] = config.evidence_weight * F.binary_cross_entropy_with_logits(new.maps["trace"], target)
    return losses


class IINStrategy(TaughtReplay):
    """Replay with a frozen snapshot of the learner as teacher, taken as each later experience opens."""

    config_type = IINStrategyConfig

    def distils(self) -> bool:
        """Any of the three terms."""
        c = self.config
        return bool(c.logit_weight > 0 or c.feature_weight > 0 or c.evidence_weight > 0)

    def before_backward(self, strategy: FaceStrategy, **kwargs: Any) -> None:
        """Add the distillation terms to the step's loss, each under its own name."""
        if self.teacher:
            strategy.add_terms(distillation(*self.teacher.pair(strategy), self.config))
