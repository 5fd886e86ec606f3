"""A kill inside an experience: from its safe point each of the field's strategies goes on with the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin

from ffd_continual.checkpoint import load_optimizer, optimizer_tensors
from ffd_continual.saving import parameter_names, restore, state_of
from ffd_continual.strategies.template import FaceStrategy, place


class _Killed(Exception):
    """Stands for a kill."""


class _Point(SupervisedPlugin):  # type: ignore[misc]
    """Takes all that a safe point holds after one step of the second experience, and stops; or takes it back."""

    def __init__(self, step: int, taken: dict[str, Any] | None = None):
        super().__init__()
        self.step, self.taken, self.back = step, taken or {}, taken is not None

    def before_training_epoch(self, strategy: FaceStrategy, **kwargs: Any) -> None:
        if self.back:
            restore(strategy.learner, strategy.keeper, self.taken["state"], Path("here"))
            names = parameter_names(strategy.learner, strategy.keeper)
            load_optimizer(strategy.optimizer, names, self.taken["optimizer"])

    def after_training_iteration(self, strategy: FaceStrategy, **kwargs: Any) -> None:
        if not self.back and strategy.position == (1, self.step):
            names = parameter_names(strategy.learner, strategy.keeper)
            moments = optimizer_tensors(strategy.optimizer, names)
            state = state_of(strategy.learner, strategy.keeper, strategy.position, 1, 0.0)
            self.taken["state"] = type(state)({k: v.clone() for k, v in state.tensors.items()}, state.meta)
            self.taken["optimizer"] = {k: v.clone() for k, v in moments.items()}
            raise _Killed


def _last(parts: Any) -> dict[str, torch.Tensor]:
    state = state_of(parts.learner, parts.keeper, (2, 0), 1, 0.0)
    return {name: value.detach().clone() for name, value in state.tensors.items()}


@pytest.mark.parametrize("strategy", ["cored", "dfil", "hdp", "sur_lid"])
def test_a_killed_experience_goes_on_bit_for_bit(workshop: Any, strategy: str) -> None:
    train = {"steps": 4, "lr": 1e-2}
    opened: dict[str, Any] = {}

    def after(experience: int, parts: Any) -> None:
        if experience == 0:
            state = state_of(parts.learner, parts.keeper, (1, 0), 1, 0.0)
            opened["state"] = type(state)({k: v.detach().clone() for k, v in state.tensors.items()}, state.meta)

    straight = workshop.train("plain", strategy, experiences=2, after=after, **train)
    point = _Point(2)
    with pytest.raises(_Killed):
        workshop.train("plain", strategy, experiences=2, plugins=[point], **train)

    config, parts = workshop.parts("plain", strategy, **train)
    restore(parts.learner, parts.keeper, opened["state"], Path("here"))
    place(parts.learner, parts.device)
    back = _Point(2, point.taken)
    agent = FaceStrategy(parts.learner, parts.keeper, parts.sources, config.train, parts.device, [back])
    agent.position = (1, 2)
    agent.train(parts.benchmark.train_stream[1], eval_streams=[])
    one, two = _last(straight.parts), _last(parts)
    assert one.keys() == two.keys()
    different = [name for name in one if one[name].numpy().tobytes() != two[name].numpy().tobytes()]
    assert not different
    teacher = [name for name in point.taken["state"].tensors if name.startswith("strategy.teacher.")]
    assert len(teacher) == len(parts.learner.state_dict())  # and none is left when the experience is over
    assert not any(name.startswith("strategy.teacher.") for name in one)
    assert parts.keeper.stored_bytes() == straight.parts.keeper.stored_bytes() > 0
