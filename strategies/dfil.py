"""DFIL: deepfake incremental learning. Pan et al., "DFIL: deepfake incremental learning by exploiting domain-invariant
forgery clues", ACM Multimedia 2023 (arXiv:2309.09526).

    L = CE + 0.1 SupCon(real, forged) + 0.01 |f' - f|^2 + 0.3 T^2 KL(teacher / T || student / T), T = 20

on new and stored faces. Supervised contrast makes features that mean real or forged whatever the domain; the two last
terms, from the second experience on, keep features and decisions near those of the detector as the last experience
left it. The memory holds by halves the faces nearest to their class's mean and those of highest entropy
(replay/selection.py, `hard_and_centre`).

**Readings**: temperature 0.1 of the contrast; mean over faces and features of the squared difference; all faces of a
batch are distilled; the weights add to a CE of weight 1. Deviations: decision logits are binary, [0, z]; the budget is
one for all experiences, shared evenly, so early ones shrink. Axes: B faces, D features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ffd_continual.strategies.field_losses import (
    as_shown,
    feature_distillation,
    logit_distillation,
    supervised_contrast,
)
from ffd_continual.strategies.replay import ReplayConfig
from ffd_continual.strategies.teacher import TaughtReplay

if TYPE_CHECKING:
    from ffd_continual.strategies.training.template import FaceStrategy


@dataclass(frozen=True)
class DFILConfig(ReplayConfig):
    """Replay's settings, and the weights of the terms (0: off)."""

    exemplars: int = 500
    policy: str = "hardandcentre"
    contrast_weight: float = 0.1
    contrast_temperature: float = 0.1
    feature_weight: float = 0.01
    logit_weight: float = 0.3
    temperature: float = 20.0


class DFIL(TaughtReplay):
    """Replay of central and hard faces, supervised contrast, and a teacher."""

    config_type = DFILConfig

    def distils(self) -> bool:
        """Features or decisions."""
        return bool(self.config.feature_weight > 0 or self.config.logit_weight > 0)

    def before_backward(self, strategy: FaceStrategy, **kwargs: Any) -> None:
        """Add the terms to the step's loss, each under its own name."""
        config, terms = self.config, dict[str, Tensor]()
        if config.contrast_weight > 0:
            labels = as_shown(strategy.learner, strategy.mbatch).target
            contrast = supervised_contrast(strategy.out.features["common"].float(), labels, config.contrast_temperature)
            terms["supervised_contrast"] = config.contrast_weight * contrast
        if self.teacher:
            new, old = self.teacher.pair(strategy)
            if config.feature_weight > 0:
                kept = feature_distillation(new.features["common"].float(), old.features["common"].float())
                terms["keep_feature"] = config.feature_weight * kept
            if config.logit_weight > 0:
                kept = logit_distillation(new.z.float(), old.z.float(), config.temperature)
                terms["keep_logit"] = config.logit_weight * kept
        strategy.add_terms(terms)
