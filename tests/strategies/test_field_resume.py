"""A kill inside an experience: from its safe point each of the field's strategies goes on with the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin

from ffd_continual.runs.checkpoint import Checkpoint, load_optimizer, optimizer_tensors
from ffd_continual.runs.saving import parameter_names, restore, state_of
from ffd_continual.strategies.learner import place
from ffd_continual.strategies.training.template import FaceStrategy


class _Take(SupervisedPlugin):  # type: ignore[misc]
    """Takes all that a safe point holds after the second step of the second experience."""

    def __init__(self) -> None:
        super().__init__()
        self.state: Any = None
        self.optimizer: dict[str, torch.Tensor] = {}

    def after_training_iteration(self, strategy: FaceStrategy, **kwargs: Any) -> None:
        if strategy.position == (1, 2):
            names = parameter_names(strategy.learner, strategy.keeper)
            moments = optimizer_tensors(strategy.optimizer, names)
            self.state = _copied(state_of(strategy.learner, strategy.keeper, strategy.position, 1, 0.0))
            self.optimizer = {name: value.clone() for name, value in moments.items()}


class _GiveBack(SupervisedPlugin):  # type: ignore[misc]
    """Gives it back as the experience opens."""

    def __init__(self, taken: _Take):
        super().__init__()
        self.taken = taken

    def before_training_epoch(self, strategy: FaceStrategy, **kwargs: Any) -> None:
        restore(strategy.learner, strategy.keeper, self.taken.state, Path("here"))
        names = parameter_names(strategy.learner, strategy.keeper)
        load_optimizer(strategy.optimizer, names, self.taken.optimizer)


def _copied(state: Checkpoint) -> Checkpoint:
    return Checkpoint({name: value.detach().clone() for name, value in state.tensors.items()}, state.meta)


def _last(parts: Any) -> dict[str, torch.Tensor]:
    return _copied(state_of(parts.learner, parts.keeper, (2, 0), 1, 0.0)).tensors


@pytest.mark.parametrize("strategy", ["cored", "dfil", "hdp", "sur_lid"])
def test_a_killed_experience_goes_on_bit_for_bit(workshop: Any, strategy: str) -> None:
    train = {"steps": 4, "lr": 1e-2}
    opened: list[Checkpoint] = []

    def after(experience: int, parts: Any) -> None:
        opened.append(_copied(state_of(parts.learner, parts.keeper, (experience + 1, 0), 1, 0.0)))

    point = _Take()
    straight = workshop.train("plain", strategy, experiences=2, after=after, plugins=[point], **train)

    config, parts = workshop.parts("plain", strategy, **train)  # a new process
    restore(parts.learner, parts.keeper, opened[0], Path("here"))
    place(parts.learner, parts.device)
    agent = parts.agent(config.train, [_GiveBack(point)])
    agent.position = (1, 2)
    agent.train(parts.benchmark.train_stream[1], eval_streams=[])
    one, two = _last(straight.parts), _last(parts)
    assert one.keys() == two.keys()
    assert [name for name in one if one[name].numpy().tobytes() != two[name].numpy().tobytes()] == []
    begun = opened[0].tensors
    assert any(not torch.equal(one[name], value) for name, value in begun.items() if name in one)
    teacher = [name for name in point.state.tensors if name.startswith("strategy.teacher.")]
    assert len(teacher) == len(parts.learner.state_dict())  # and none is left when the experience is over
    assert not any(name.startswith("strategy.teacher.") for name in one)
    assert parts.keeper.stored_bytes() == straight.parts.keeper.stored_bytes() > 0
