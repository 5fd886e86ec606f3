"""A strategy that is killed inside an experience and taken up again by fresh objects ends with the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from avalanche.core import SupervisedPlugin

from ffd_continual.load import known_methods
from ffd_continual.runs.checkpoint import (
    Checkpoint,
    load_checkpoint,
    load_optimizer,
    optimizer_tensors,
    save_checkpoint,
)
from ffd_continual.runs.saving import parameter_names, restore, state_of
from ffd_continual.strategies.learner import place
from ffd_continual.strategies.strategy import Strategy
from ffd_continual.strategies.training.template import FaceStrategy

#: Settings under which a method's penalty is felt within a few steps.
STRONG = {
    "ewc": {"weight": 1e3, "faces": 6},
    "si": {"weight": 10.0},
    "mas": {"weight": 10.0, "faces": 6},
}
#: Strategies that are defined for one learner.
LEARNERS: dict[str, tuple[str, dict[str, Any]]] = {"er_ace": ("ce", {"classes": "many"})}
#: The field's own are killed in test_field_resume.py; these two keep no state, as naive.
ELSEWHERE = {"cored", "dfil", "hdp", "sur_lid", "joint", "cumulative"}
STEPS = 4


def _state(parts: Any, position: tuple[int, int]) -> Checkpoint:
    return state_of(parts.learner, parts.keeper, position, 1, 0.0)


class _Saves(SupervisedPlugin):  # type: ignore[misc]
    """Saves in the middle of the second experience. What was learnt from there on is lost with a kill."""

    def __init__(self, folder: Path):
        super().__init__()
        self.folder = folder

    def after_training_iteration(self, strategy: FaceStrategy, **kwargs: Any) -> None:
        if strategy.position == (1, 2):
            state = state_of(strategy.learner, strategy.keeper, strategy.position, 1, 0.0)
            moments = optimizer_tensors(strategy.optimizer, parameter_names(strategy.learner, strategy.keeper))
            tensors = state.tensors | {f"optimizer.{k}": v for k, v in moments.items()}
            save_checkpoint(self.folder, Checkpoint(tensors, state.meta))


class _Goes(SupervisedPlugin):  # type: ignore[misc]
    """Takes that state back where a run does, and writes down the losses."""

    def __init__(self, folder: Path):
        super().__init__()
        self.folder, self.losses = folder, list[float]()

    def before_training_epoch(self, strategy: FaceStrategy, **kwargs: Any) -> None:
        if strategy.position[0] == 1:
            found = load_checkpoint(self.folder)
            restore(strategy.learner, strategy.keeper, found, self.folder)
            prefix = "optimizer."
            moments = {k.removeprefix(prefix): v for k, v in found.tensors.items() if k.startswith(prefix)}
            load_optimizer(strategy.optimizer, parameter_names(strategy.learner, strategy.keeper), moments)

    def after_training_iteration(self, strategy: FaceStrategy, **kwargs: Any) -> None:
        self.losses.append(float(strategy.loss.detach()))


def _bytes(tensors: dict[str, torch.Tensor]) -> dict[str, bytes]:
    return {name: value.detach().contiguous().numpy().tobytes() for name, value in tensors.items()}


@pytest.mark.parametrize("strategy", sorted(known_methods(Strategy).keys() - ELSEWHERE))
def test_a_kill_inside_an_experience_changes_no_bit(workshop: Any, tmp_path: Path, strategy: str) -> None:
    learner, learn = LEARNERS.get(strategy, ("plain", {}))
    args = {"learn": learn, "keep": STRONG.get(strategy, {}), "steps": STEPS, "lr": 1e-2}
    after, inside = tmp_path / "after", tmp_path / "inside"

    def save(experience: int, parts: Any) -> None:
        if experience == 0:
            save_checkpoint(after, _state(parts, (1, 0)))

    whole = workshop.train(learner, strategy, plugins=[_Saves(inside)], after=save, **args)

    config, parts = workshop.parts(learner, strategy, **args)
    restore(parts.learner, parts.keeper, load_checkpoint(after), after)
    assert parts.learner.growth == ["alpha"]
    place(parts.learner, parts.device)
    goes = _Goes(inside)
    agent = parts.agent(config.train, [goes])
    for position in ((1, 2), (2, 0)):
        agent.position = position
        agent.train(parts.benchmark.train_stream[position[0]], eval_streams=[])
    assert goes.losses == [step["loss"] for step in whole.losses[STEPS + 2 :]]
    assert _bytes(parts.learner.state_dict()) == _bytes(whole.parts.learner.state_dict())
    (mine, my_values), (theirs, their_values) = parts.keeper.state_dict(), whole.parts.keeper.state_dict()
    assert _bytes(mine) == _bytes(theirs)
    assert my_values == their_values
    assert parts.keeper.stored_bytes() == whole.parts.keeper.stored_bytes()
