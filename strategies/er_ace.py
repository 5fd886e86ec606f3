"""ER-ACE: experience replay with asymmetric cross-entropy. Caccia et al., "New insights on reducing abrupt
representation change in online continual learning", ICLR 2022 (arXiv:2104.05025), section 4.

    L = L_ce(current faces; classes among them) + L_ce(stored faces; all classes)

The softmax of a current face runs over the classes of its batch only, so that learning a new class does not push down
the logits of old ones; stored faces compare all. Every batch holds real and forged faces, so for a real/forged decision
nothing is ever absent and the method would be replay: it is defined here over real and the forgery types, for
learners that name types by a distribution (Output.attribution; learner ce with classes=many). The class probabilities
are those of the Output: p_real = sigmoid(-z), p_k = sigmoid(z) attribution_k, which for a softmax over real and K types
with z its log-odds of "not real" is that softmax.
Deviations: stored faces are `share` of the batch, whose size stays; the memory is balanced (see replay) and changes
when an experience ends. The learner's term "decision" is replaced, its other terms see current faces only.
Axes: B faces, K types, C = 1 + K classes, the first real.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ffd_continual.scenarios.batch import Batch
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.strategies.learner import Output
from ffd_continual.strategies.replay import ReplayConfig
from ffd_continual.strategies.set_aside import ApartReplay, look_apart

if TYPE_CHECKING:
    from ffd_continual.strategies.training.template import FaceStrategy


@dataclass(frozen=True)
class ERACEConfig(ReplayConfig):
    """Replay's settings."""


def class_log_probabilities(z: Tensor, attribution: Tensor) -> Tensor:
    """log p (B, C) of real and of K types from the logit z (B,) and the types' shares (B, K)."""
    z, shares = z.float(), attribution.float().clamp_min(torch.finfo(torch.float32).tiny)
    return torch.cat([F.logsigmoid(-z)[:, None], F.logsigmoid(z)[:, None] + shares.log()], dim=1)


def masked_cross_entropy(log_p: Tensor, target: Tensor, classes: Tensor) -> Tensor:
    """Mean cross-entropy of log-probabilities (B, C) with targets (B,), renormalised over `classes` (C,) bool."""
    return F.nll_loss(log_p.masked_fill(~classes, float("-inf")).log_softmax(1), target)


class ERACE(ApartReplay):
    """Replay in which current faces never argue against absent types."""

    config_type = ERACEConfig

    def _classes(self, strategy: FaceStrategy, out: Output, batch: Batch) -> tuple[Tensor, Tensor]:
        """log p (B, C) and targets (B,) by the learner's own order of types."""
        if out.attribution is None or "decision" not in strategy.losses:
            name = type(strategy.learner).__module__.rpartition(".")[2]
            raise FFDError(
                f"strategy er_ace leaves out the forgery types that a batch does not hold, and learner {name} as "
                "configured tells real from forged only, where nothing is ever left out: that is strategy replay. "
                "Use it, or learner.name=ce with learner.classes=many."
            )
        names = self.context.sources.table.names
        place = [0 if f == 0 else 1 + out.known.index(names[f]) for f in batch.forgery.tolist()]
        target = torch.tensor(place, device=batch.target.device)
        return class_log_probabilities(out.z, out.attribution), target

    def after_forward(self, strategy: FaceStrategy, **kwargs: Any) -> None:
        """The decision's loss over the classes of the current faces."""
        log_p, target = self._classes(strategy, strategy.out, strategy.mbatch)
        present = torch.zeros(log_p.shape[1], dtype=torch.bool, device=log_p.device)
        present[target] = True
        strategy.losses = strategy.losses | {"decision": masked_cross_entropy(log_p, target, present)}

    def before_update(self, strategy: FaceStrategy, **kwargs: Any) -> None:
        """The stored faces' loss over all classes adds its gradient."""
        faces = self.take_apart()
        if faces is None:
            return
        log_p, target = self._classes(strategy, look_apart(strategy, faces), faces)
        loss = masked_cross_entropy(log_p, target, torch.ones(log_p.shape[1], dtype=torch.bool, device=log_p.device))
        strategy.losses["stored"] = loss.detach()
        loss.backward()  # type: ignore[no-untyped-call]
