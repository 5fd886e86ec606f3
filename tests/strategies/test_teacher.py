"""The snapshot that a strategy asks: apart from the learner in all that still moves, shared in what never does."""

from __future__ import annotations

import pytest
import torch

from ffd_continual.strategies.learners.iin import IIN, IINConfig
from ffd_continual.strategies.teacher import Teacher


@pytest.fixture
def learner() -> IIN:
    torch.manual_seed(0)
    made = IIN(IINConfig())
    for name in ("swap", "warp", "morph"):
        made.begin(name)
    return made.train()


def test_a_teacher_shares_closed_modules_and_nothing_that_moves(learner: IIN) -> None:
    teacher = Teacher()
    teacher.take(learner)
    taken = teacher.learner
    assert isinstance(taken, IIN)
    assert taken.intra[0] is learner.intra[0]
    assert taken.intra[1] is learner.intra[1]
    shared = {id(p) for module in learner.settled() for p in module.parameters()}
    moving = {id(p) for p in learner.parameters()} - shared
    assert moving
    assert not moving & {id(p) for p in taken.parameters()}
    assert not any(p.requires_grad for p in taken.parameters())
    assert learner.inter.training, "taking a snapshot leaves the learner as it was"
    assert learner.intra[-1].training
    assert all(p.requires_grad for p in learner.intra[-1].parameters())
    assert not any(module.training for module in learner.settled())


def test_a_teacher_stays_what_it_was(learner: IIN) -> None:
    frozen = learner.frozen(torch.rand(4, 3, 64, 64))
    teacher = Teacher()
    teacher.take(learner)
    assert isinstance(teacher.learner, IIN)
    before = teacher.learner.judge_common(frozen).z.clone()
    kept = {name: tensor.clone() for name, tensor in teacher.state().items()}
    with torch.no_grad():
        for group in learner.param_groups(1e-3, 0.0):
            for parameter in group["params"]:
                parameter += 0.1
        for tensor in learner.slow.state_dict().values():
            tensor.zero_()
    torch.testing.assert_close(teacher.learner.judge_common(frozen).z, before, rtol=0, atol=0)
    for name, tensor in teacher.state().items():
        torch.testing.assert_close(tensor, kept[name], rtol=0, atol=0, equal_nan=True)
