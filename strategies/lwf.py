"""LwF: learning without forgetting. Li and Hoiem, TPAMI 2018 (arXiv:1606.09282), Eq. 2-3. No face is stored.

    L = L_t + lambda_o L_old,   L_old = - sum_c y'_c log yhat'_c,   y'_c = softmax(old logits / T)_c

with the answers y' of the model as the last experience left it, on the current faces, and T = 2. For one decision the
class logits are [0, z], so y' = sigmoid(z_old / T) and L_old = BCE(z_new / T, sigmoid(z_old / T)), mean over faces.
There is no factor T^2 (it is Hinton's, not this paper's).
Deviations: old and new forgeries share one head, where the paper adds a head a task; so there is no warm-up of a new
head either. Axes: B faces.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ffd_continual.strategies.strategy import Context, State, Strategy
from ffd_continual.strategies.teacher import Teacher

if TYPE_CHECKING:
    from ffd_continual.strategies.training.template import FaceStrategy


@dataclass(frozen=True)
class LwFConfig:
    """The paper's values."""

    weight: float = 1.0  # lambda_o; 0: naive
    temperature: float = 2.0  # T


def soft_decision_loss(new: Tensor, old: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of the new decision (B,) with the old one's, both softened; mean over faces."""
    soft = torch.sigmoid(old.float() / temperature)
    return F.binary_cross_entropy_with_logits(new.float() / temperature, soft)


class LwF(Strategy):
    """Distillation of the decision from the last experience's model, on the current faces."""

    config_type = LwFConfig

    def __init__(self, config: LwFConfig, context: Context):
        super().__init__(config, context)
        self.teacher = Teacher()

    def before_training_exp(self, strategy: FaceStrategy, **kwargs: Any) -> None:
        """The teacher is the learner as the last experience left it."""
        self.teacher.drop()
        if strategy.position[0] > 0 and self.config.weight > 0:
            self.teacher.take(strategy.learner)

    def before_backward(self, strategy: FaceStrategy, **kwargs: Any) -> None:
        """Add the distillation term."""
        if self.teacher:
            new, old = self.teacher.pair(strategy)
            term = self.config.weight * soft_decision_loss(new.z, old.z, self.config.temperature)
            strategy.add_terms({"lwf": term})

    def after_training_exp(self, strategy: FaceStrategy, **kwargs: Any) -> None:
        """The teacher has done its part."""
        self.teacher.drop()

    def state_dict(self) -> State:
        """Inside an experience, the teacher."""
        return self.teacher.state(), {}

    def load_state_dict(self, state: State) -> None:
        """Take it back."""
        self.teacher.load(state[0])
