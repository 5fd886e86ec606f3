"""MAS: memory aware synapses. Aljundi et al., ECCV 2018 (arXiv:1711.09601), Eq. 2-4.

    Omega_i = mean over faces of | d ||F(x; theta)||_2^2 / d theta_i |,   summed over the experiences
    L(theta) = L_t(theta) + lambda sum_i Omega_i (theta_i - theta*_i)^2

No label is needed. The output F is the decision's logit z, so ||F||^2 = z^2; each face has its own absolute gradient.
Deviations: Omega is taken on `faces` of the experience's train faces, without augmentation, normalisation fixed and
dropout off.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
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
class MASConfig:
    """The paper's lambda is 1."""

    weight: float = 1.0  # lambda; 0: naive
    faces: int = 200  # train faces of an experience that give its Omega, 0: all


def squared_output(out: Output, face: Batch) -> Tensor:
    """||F(x)||^2 = z^2, summed over faces."""
    return (out.z.float() ** 2).sum()


def output_sensitivity(learner: Learner, faces: Iterable[Batch], parameters: Mapping[str, nn.Parameter]) -> Tensors:
    """Eq. 4: mean over faces of each face's absolute gradient of z^2, by parameter."""
    return mean_of(face_gradients(learner, faces, squared_output, parameters), torch.abs)


class MAS(Strategy):
    """Importances summed over experiences, anchored where the last one ended."""

    config_type = MASConfig

    def __init__(self, config: MASConfig, context: Context):
        super().__init__(config, context)
        self.omega: Tensors = {}
        self.anchor: Tensors = {}

    def before_backward(self, strategy: FaceStrategy, **kwargs: Any) -> None:
        """Add the penalty; with weight 0 no parameter is touched."""
        if self.omega and self.config.weight > 0:
            penalty = self.config.weight * quadratic(trained(strategy), self.omega, self.anchor)
            strategy.add_terms({"mas": penalty})

    def after_training_exp(self, strategy: FaceStrategy, **kwargs: Any) -> None:
        """Add the experience's importances, and anchor the parameters where they are."""
        parameters = trained(strategy)
        rows = sample_rows(self.context, strategy.position[0], self.config.faces)
        found = output_sensitivity(strategy.learner, strategy.faces(rows), parameters)
        self.omega |= {n: widened(self.omega.get(n), value, n) + value for n, value in found.items()}
        self.anchor |= copies(parameters)

    def _tensors(self) -> Tensors:
        return pack(omega=self.omega, anchor=self.anchor)

    def stored_bytes(self) -> int:
        """Importances and anchors."""
        return super().stored_bytes() + byte_count(self._tensors())

    def state_dict(self) -> State:
        """Importances and anchors."""
        return self._tensors(), {}

    def load_state_dict(self, state: State) -> None:
        """Take them back."""
        self.omega, self.anchor = unpack(state[0], "omega"), unpack(state[0], "anchor")
