"""SI: synaptic intelligence. Zenke et al., "Continual learning through synaptic intelligence", ICML 2017
(arXiv:1703.04200), Eq. 3-5.

    omega_i = - sum over steps of g_i (theta_i after the step - theta_i before it),   g = gradient of the learner's loss
    Omega_i = sum over experiences of omega_i / (Delta_i^2 + xi),   Delta_i = theta_i at its end - at its start
    L(theta) = L_t(theta) + c sum_i Omega_i (theta~_i - theta_i)^2,   theta~ = where the last experience ended

g is the gradient of all of the learner's losses, penalty and clipping left out. The penalty's gradient
2 c Omega (theta - theta~) is written straight into the parameters' gradients, which leaves g as it is without another
backward pass; clipping and the optimizer see their sum.
Deviations: a negative omega counts as 0 (the penalty would have no minimum); the optimizer may decay weights, and that
movement is part of the path.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ffd_continual.strategies.importance import (
    Tensors,
    byte_count,
    copies,
    old_part,
    pack,
    quadratic,
    trained,
    unpack,
    widened,
)
from ffd_continual.strategies.strategy import Context, State, Strategy

if TYPE_CHECKING:
    from ffd_continual.strategies.training.template import FaceStrategy


@dataclass(frozen=True)
class SIConfig:
    """The paper's values for permuted MNIST."""

    weight: float = 0.1  # c; 0: naive
    damping: float = 0.1  # xi


def path_step(gradient: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """What one step adds to omega: minus the gradient times the movement."""
    return -gradient * (after - before)


def importance_of(path: Tensor, start: Tensor, end: Tensor, damping: float) -> Tensor:
    """Eq. 5's term of one experience: omega / (Delta^2 + xi), negative omega as 0."""
    return path.clamp_min(0.0) / ((end - start) ** 2 + damping)


class SI(Strategy):
    """Path integrals while an experience is learnt, a quadratic anchor afterwards."""

    config_type = SIConfig

    def __init__(self, config: SIConfig, context: Context):
        super().__init__(config, context)
        self.omega: Tensors = {}  # Omega, over all experiences that are over
        self.anchor: Tensors = {}  # theta~
        self.path: Tensors = {}  # omega of the current experience
        self.start: Tensors = {}  # where it began
        self._step: dict[str, tuple[Tensor, Tensor]] = {}  # (gradient, value) between a step's two hooks

    def before_training_exp(self, strategy: FaceStrategy, **kwargs: Any) -> None:
        """A new path from where the parameters are, new ones included."""
        self.start = copies(trained(strategy))
        self.path = {name: torch.zeros_like(value) for name, value in self.start.items()}

    def before_update(self, strategy: FaceStrategy, **kwargs: Any) -> None:
        """Note the losses' gradient, then add the penalty's to it."""
        parameters = trained(strategy)
        moved = {n: p for n, p in parameters.items() if p.grad is not None}
        self._step = {n: (p.grad.clone(), p.detach().clone()) for n, p in moved.items() if p.grad is not None}
        if self.omega and self.config.weight > 0:
            strategy.losses["si"] = self.config.weight * quadratic(parameters, self.omega, self.anchor).detach()
            self._add_penalty(parameters)

    @torch.no_grad()
    def _add_penalty(self, parameters: Mapping[str, Tensor]) -> None:
        for name, parameter in parameters.items():
            if name in self.omega:
                before = self.anchor[name].to(parameter.device)
                pull = 2.0 * self.config.weight * self.omega[name].to(parameter.device)
                pull = pull * (old_part(parameter, before, name) - before)
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                old_part(parameter.grad, before, name).add_(pull)

    @torch.no_grad()
    def after_update(self, strategy: FaceStrategy, **kwargs: Any) -> None:
        """One more piece of the path."""
        for name, parameter in trained(strategy).items():
            if name in self._step:
                self.path[name] = self.path[name].to(parameter.device) + path_step(*self._step[name], parameter)
        self._step = {}

    def after_training_exp(self, strategy: FaceStrategy, **kwargs: Any) -> None:
        """The path becomes importance."""
        for name, end in copies(trained(strategy)).items():
            path, start = self.path[name].to(end.device), self.start[name].to(end.device)
            more = importance_of(path, start, end, self.config.damping)
            self.omega[name] = widened(self.omega.get(name), end, name) + more
            self.anchor[name] = end
        self.path, self.start = {}, {}

    def _tensors(self) -> Tensors:
        return pack(omega=self.omega, anchor=self.anchor)

    def stored_bytes(self) -> int:
        """Importances and anchors; the path lives only while an experience is learnt."""
        return super().stored_bytes() + byte_count(self._tensors())

    def state_dict(self) -> State:
        """Importances and anchors, and inside an experience its path and start."""
        return self._tensors() | pack(path=self.path, start=self.start), {}

    def load_state_dict(self, state: State) -> None:
        """Take them back."""
        self.omega, self.anchor, self.path, self.start = (
            unpack(state[0], part) for part in ("omega", "anchor", "path", "start")
        )
