"""CoReD. Kim, Tariq and Woo, "CoReD: generalizing fake media detection with continual representation using
distillation", ACM Multimedia 2021 (arXiv:2107.02408).

    L = CE(new and stored faces) + w_d T^2 KL(teacher / T || student / T) + w_r |f'_bin(x) - f(x)|^2

The teacher is the detector as the last experience left it. As an experience opens, its features of the stored faces
are averaged by label and by confidence (the teacher's probability of the face's own label, K bins); a face's feature
is pulled to the mean of its own bin. Only this outline was at hand. **Readings**: bins of one width from 0.5 to 1 (a
face that the teacher takes for the other label belongs to none); a face of the batch belongs to the bin that the
teacher gives it; squared distance, mean over faces and features; T 2, both weights 1; all faces of a batch are
distilled; the stored faces are chosen at random. Deviation: decision logits are binary, [0, z]. Axes: B faces, D
features, K bins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ffd_continual.scenarios.errors import FFDError
from ffd_continual.strategies.field_losses import (
    as_shown,
    bin_means,
    confidence_bin,
    logit_distillation,
    representation_pull,
)
from ffd_continual.strategies.replay import ReplayConfig
from ffd_continual.strategies.strategy import Context, State
from ffd_continual.strategies.teacher import TaughtReplay

if TYPE_CHECKING:
    from ffd_continual.strategies.training.template import FaceStrategy


@dataclass(frozen=True)
class CoReDConfig(ReplayConfig):
    """Replay's settings, and the weights of both terms (0: off)."""

    logit_weight: float = 1.0
    temperature: float = 2.0
    representation_weight: float = 1.0
    bins: int = 5  # of confidence, a label


class CoReD(TaughtReplay):
    """Replay, a teacher, and the teacher's mean features of the stored faces."""

    config_type = CoReDConfig

    def __init__(self, config: CoReDConfig, context: Context):
        super().__init__(config, context)
        if config.bins < 1:
            raise FFDError(f"strategy.bins={config.bins}: cored needs 1 bin of confidence or more.")
        self.means, self.counts = torch.zeros(2, config.bins, 0), torch.zeros(2, config.bins, dtype=torch.int64)

    def distils(self) -> bool:
        """Decisions or features."""
        return bool(self.config.logit_weight > 0 or self.config.representation_weight > 0)

    def before_training_exp(self, strategy: FaceStrategy, **kwargs: Any) -> None:
        """The teacher, and its bins over the stored faces."""
        super().before_training_exp(strategy, **kwargs)
        self.counts = torch.zeros_like(self.counts)
        if self.teacher and self.config.representation_weight > 0 and len(self.memory):
            self._fill_bins(strategy)

    @torch.no_grad()
    def _fill_bins(self, strategy: FaceStrategy) -> None:
        assert self.teacher.learner is not None
        faces = list(strategy.faces(self.remembered()))
        outs = [self.teacher.learner.look(batch) for batch in faces]
        labels = torch.cat([batch.target for batch in faces])
        z = torch.cat([out.features.get("z_common", out.z) for out in outs])  # what `Teacher.pair` compares
        places = confidence_bin(z.float(), labels, self.config.bins)
        features = torch.cat([out.features["common"] for out in outs]).float()
        self.means, self.counts = bin_means(features, labels, places, self.config.bins)

    def before_backward(self, strategy: FaceStrategy, **kwargs: Any) -> None:
        """Add both terms to the step's loss, each under its own name."""
        if not self.teacher:
            return
        config, batch = self.config, strategy.mbatch
        new, old = self.teacher.pair(strategy)
        terms: dict[str, Tensor] = {}
        if config.logit_weight > 0:
            kept = logit_distillation(new.z.float(), old.z.float(), config.temperature)
            terms["keep_logit"] = config.logit_weight * kept
        if config.representation_weight > 0 and int(self.counts.sum()):
            # `pair` may have looked at the batch as it is, where the learner's step showed some faces self-blended.
            labels = as_shown(strategy.learner, batch).target if new is strategy.out else batch.target
            places = confidence_bin(old.z.float(), labels, config.bins)
            pull = representation_pull(new.features["common"].float(), labels, places, self.means, self.counts)
            terms["representation"] = config.representation_weight * pull
        strategy.add_terms(terms)

    def state_dict(self) -> State:
        """The memory, and inside an experience the teacher and its bins."""
        tensors, values = super().state_dict()
        if self.teacher:
            tensors = tensors | {"bins.means": self.means, "bins.counts": self.counts}
        return tensors, values

    def load_state_dict(self, state: State) -> None:
        """Take all back."""
        tensors, values = state
        if self.teacher and "bins.means" in tensors:
            self.means = tensors["bins.means"].to(self.means.device)
            self.counts = tensors["bins.counts"].to(self.counts.device)
        super().load_state_dict(({k: v for k, v in tensors.items() if not k.startswith("bins.")}, values))
