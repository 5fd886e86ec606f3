"""EWC: elastic weight consolidation. Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks", PNAS
2017 (arXiv:1612.00796), Eq. 3; online form: Schwarz et al., "Progress and Compress", ICML 2018, section 3.2.

    L(theta) = L_t(theta) + lambda / 2 sum_k sum_i F_k,i (theta_i - theta*_k,i)^2
    F_k,i = mean over faces of (d log p(y | x, theta) / d theta_i)^2 at the end theta*_k of experience k
    online:  F <- gamma F + F_k, with the latest theta* as the only anchor

p is the decision: sigmoid(z) of the learner's logit, whatever other losses it trains. F squares each face's own
gradient (squaring a batch's mean gradient is another, much smaller, quantity).
Deviations: y is the face's true label (the "empirical" Fisher) where the definition draws it from the model; F is taken
on `faces` of the experience's train faces, without augmentation, normalisation fixed and dropout off.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffd_continual.scenarios.batch import Batch
from ffd_continual.strategies.importance import (
    Tensors,
    byte_count,
    copies,
    face_gradients,
    mean_of,
    pack,
    quadratic,
    sample_rows,
    trained,
    unpack,
    widened,
)
from ffd_continual.strategies.learner import Learner, Output
from ffd_continual.strategies.strategy import Context, State, Strategy

if TYPE_CHECKING:
    from ffd_continual.strategies.training.template import FaceStrategy


@dataclass(frozen=True)
class EWCConfig:
    """lambda has no value for all networks: the Fisher's scale is the network's. 400 is that of the paper's games."""

    weight: float = 400.0  # lambda; 0: naive
    online: bool = False  # one Fisher and one anchor instead of one an experience
    decay: float = 0.95  # gamma, of the online form
    faces: int = 200  # train faces of an experience that give its Fisher, 0: all


def log_likelihood(out: Output, face: Batch) -> Tensor:
    """log p(y | x) of the decision, summed over faces."""
    return -F.binary_cross_entropy_with_logits(out.z.float(), face.target.float(), reduction="sum")


def fisher_diagonal(learner: Learner, faces: Iterable[Batch], parameters: Mapping[str, nn.Parameter]) -> Tensors:
    """Mean over faces of each face's squared gradient of the log-likelihood, by parameter."""
    return mean_of(face_gradients(learner, faces, log_likelihood, parameters), torch.square)


def ewc_penalty(parameters: Mapping[str, Tensor], past: Sequence[tuple[Tensors, Tensors]], weight: float) -> Tensor:
    """lambda / 2 times the sum of the quadratic terms of all (Fisher, anchor) pairs."""
    return 0.5 * weight * torch.stack([quadratic(parameters, fisher, anchor) for fisher, anchor in past]).sum()


class EWC(Strategy):
    """A quadratic anchor for each experience, or one for all of them."""

    config_type = EWCConfig

    def __init__(self, config: EWCConfig, context: Context):
        super().__init__(config, context)
        self.past: list[tuple[Tensors, Tensors]] = []  # (Fisher, anchor) an experience, or the one of the online form

    def before_backward(self, strategy: FaceStrategy, **kwargs: Any) -> None:
        """Add the penalty; with weight 0 no parameter is touched."""
        if self.past and self.config.weight > 0:
            strategy.add_terms({"ewc": ewc_penalty(trained(strategy), self.past, self.config.weight)})

    def after_training_exp(self, strategy: FaceStrategy, **kwargs: Any) -> None:
        """The experience's Fisher and where its parameters came to rest."""
        parameters = trained(strategy)
        rows = sample_rows(self.context, strategy.position[0], self.config.faces)
        fisher = fisher_diagonal(strategy.learner, strategy.faces(rows), parameters)
        if self.config.online and self.past:
            before, anchor = self.past.pop()
            fisher = {n: self.config.decay * widened(before.get(n), f, n) + f for n, f in fisher.items()}
            gone = {n: self.config.decay * f for n, f in before.items() if n not in fisher}
            self.past.append((fisher | gone, anchor | copies(parameters)))
        else:
            self.past.append((fisher, copies(parameters)))

    def _tensors(self) -> Tensors:
        parts = {
            f"{word}{k}": pair[i] for k, pair in enumerate(self.past) for i, word in enumerate(("fisher", "anchor"))
        }
        return pack(**parts)

    def stored_bytes(self) -> int:
        """Fishers and anchors."""
        return super().stored_bytes() + byte_count(self._tensors())

    def state_dict(self) -> State:
        """Fishers and anchors by number."""
        return self._tensors(), {"past": len(self.past)}

    def load_state_dict(self, state: State) -> None:
        """Take them back."""
        tensors, values = state
        self.past = [(unpack(tensors, f"fisher{k}"), unpack(tensors, f"anchor{k}")) for k in range(values["past"])]
