"""CE-2 and CE-(N+1): their equations by hand, and a classifier that grows without touching its old classes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from ffd_continual.config import config_from
from ffd_continual.runs.assemble import assemble
from ffd_continual.scenarios.dataset import plain_batch
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.strategies.learner import place
from ffd_continual.strategies.learners.ce import CE, CEConfig, TypeHead, any_forgery
from ffd_continual.strategies.learners.trunk import TrunkConfig

TRUNK = TrunkConfig(backbone="test_efficientnet", weights="none", frozen_stages=2)


def test_two_classes_learn_as_one_logit_does() -> None:
    """Cross-entropy over (l_0, l_1) = BCE on l_1 - l_0, and half of the BCE gradient's step lands on each row."""
    torch.manual_seed(0)
    learner = CE(CEConfig(trunk=TRUNK))
    feature, target = torch.randn(7, learner.trunk.channels), torch.tensor([0, 1, 1, 0, 1, 0, 0])
    head = learner.head
    assert isinstance(head, torch.nn.Linear)
    two = F.cross_entropy(head(feature), target)
    two.backward()  # type: ignore[no-untyped-call]
    assert head.weight.grad is not None
    assert head.bias.grad is not None
    weight = (head.weight[1] - head.weight[0]).detach().requires_grad_()
    bias = (head.bias[1] - head.bias[0]).detach().requires_grad_()
    one = F.binary_cross_entropy_with_logits(feature @ weight + bias, target.float())
    one.backward()  # type: ignore[no-untyped-call]
    assert torch.allclose(one, two, atol=1e-6)
    assert weight.grad is not None
    assert bias.grad is not None
    assert torch.allclose(head.weight.grad[1], weight.grad, atol=1e-6)
    assert torch.allclose(head.weight.grad[0], -weight.grad, atol=1e-6)
    assert torch.allclose(head.bias.grad, torch.stack([-bias.grad, bias.grad]), atol=1e-6)


def test_z_is_the_log_odds_of_not_real() -> None:
    """Logits (real, a, b) = (log 2, log 3, log 5): P(real) = 2 / 10, odds of forged 8 / 2, z = log 4."""
    logits = torch.tensor([[math.log(2), math.log(3), math.log(5)], [1.0, -2.0, 0.5]])
    z = any_forgery(logits)
    assert float(z[0]) == pytest.approx(math.log(4), abs=1e-6)
    for row, value in zip(logits, z, strict=True):
        odds = [math.exp(float(v)) for v in row]
        assert float(torch.sigmoid(value)) == pytest.approx(1 - odds[0] / sum(odds), abs=1e-6)
    assert any_forgery(torch.tensor([[3.0], [-1.0]])).tolist() == [-3.0, 1.0]
    free = torch.tensor([[0.5, 2.0, -math.inf]])
    assert any_forgery(free).tolist() == [1.5]


def test_classes_go_by_first_appearance_and_old_ones_stay() -> None:
    torch.manual_seed(0)
    head = TypeHead(3)
    head.grow(2)
    assert head.assign(torch.tensor([0, 5, 5, 0])) == 0
    assert head.assign(torch.tensor([2, 0, 5])) == 0
    assert head.kinds.tolist() == [5, 2]
    assert head.targets(torch.tensor([0, 2, 5, 5])).tolist() == [0, 2, 1, 1]
    assert head.assign(torch.tensor([7, 5])) == 1  # no class is free
    feature = torch.randn(4, 3)
    before = head(feature)
    head.grow(3)
    assert torch.equal(head(feature)[:, :3], before)
    assert (head(feature)[:, 3] == -math.inf).all()
    loss = F.cross_entropy(head(feature), torch.tensor([0, 1, 2, 0]))
    assert torch.allclose(loss, F.cross_entropy(before, torch.tensor([0, 1, 2, 0])))  # a free class weighs nothing
    other = TypeHead(3)
    other.load_state_dict(head.state_dict())
    assert other.kinds.tolist() == [5, 2, -1]
    assert torch.equal(other(feature), head(feature))


def _parts(workshop: Any, strategy: str, order: list[str]) -> Any:
    config = config_from(
        {
            "scenario": {"data": str(workshop.manifest), "order": order, "size": 32},
            "learner": {"name": "ce", "classes": "many", "trunk": {
                "backbone": "test_efficientnet", "weights": "none", "frozen_stages": 2}},
            "strategy": {"name": strategy},
            "train": {"steps": 2, "batch": 8, "threads": 1, "eval_batch": 32, "device": "cpu"},
        }
    )  # fmt: skip
    parts = assemble(config, workshop.cache, lambda rows: None)
    return parts.agent(config.train), parts


@pytest.mark.parametrize(
    ("strategy", "order", "classes"),
    [
        ("naive", ["alpha", "beta", "gamma"], [1, 2, 3]),
        ("naive", ["alpha+gamma", "beta"], [2, 3]),
        ("joint", ["alpha", "beta", "gamma"], [3, 3, 3]),
        ("replay", ["beta", "alpha+gamma"], [1, 3]),
    ],
)
def test_types_in_a_run(workshop: Any, strategy: str, order: list[str], classes: list[int]) -> None:
    agent, parts = _parts(workshop, strategy, order)
    for experience, count in enumerate(classes):
        agent.position = (experience, 0)
        agent.train(parts.benchmark.train_stream[experience], eval_streams=[])
        assert len(parts.learner.head.types) == count
    head, names = parts.learner.head, parts.sources.table.names
    assert sorted(head.kinds.tolist()) == [1, 2, 3]
    parts.learner.eval()
    out = parts.learner(plain_batch(parts.sources, [0, 1, 2, 3]).image)
    assert out.known == tuple(names[kind] for kind in head.kinds)
    assert out.attribution.shape == (4, 3)
    assert torch.allclose(out.attribution.sum(1), torch.ones(4))
    again = place(CE(parts.learner.config), parts.device)
    for name in parts.learner.growth:
        again.begin(name)
    again.load_state_dict(parts.learner.state_dict())
    again.eval()
    assert torch.equal(again(plain_batch(parts.sources, [0, 1, 2, 3]).image).z, out.z)


def test_old_rows_keep_their_weights_when_an_experience_begins(workshop: Any) -> None:
    agent, parts = _parts(workshop, "naive", ["alpha", "beta", "gamma"])
    agent.train(parts.benchmark.train_stream[0], eval_streams=[])
    old = {k: v.clone() for k, v in parts.learner.head.state_dict().items()}
    agent.position, agent.is_training = (1, 0), True
    agent.model_adaptation()
    assert len(parts.learner.head.types) == 2
    now = parts.learner.head.state_dict()
    assert all(torch.equal(now[k][: len(v)], v) for k, v in old.items())
    new = {id(p) for p in parts.learner.head.types[1].parameters()}
    trained = {id(p) for group in parts.learner.param_groups(1e-3, 0.0) for p in group["params"]}
    assert new <= trained


def test_untrained_and_wrongly_configured() -> None:
    learner = CE(CEConfig(trunk=TRUNK, classes="many")).eval()
    out = learner(torch.rand(2, 3, 32, 32))
    assert torch.isfinite(out.z).all()
    assert out.attribution is None
    with pytest.raises(FFDError, match=r"learner\.classes must be 'two' .* not 'three'"):
        CE(CEConfig(trunk=TRUNK, classes="three"))
    assert CE(CEConfig(trunk=TRUNK, classes="two"))(torch.rand(2, 3, 32, 32)).z.shape == (2,)
