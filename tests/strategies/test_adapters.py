"""Intra-modules: a new one changes nothing, the base never moves, a closed one never drifts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ffd_continual.strategies.learners.adapters import IntraModule, adapted_layers, low_rank_update
from ffd_continual.strategies.learners.trunk import Trunk, TrunkConfig


@pytest.fixture
def base() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    trunk = Trunk(TrunkConfig("test_efficientnet", "none", 2))
    for layer in trunk.modules():
        if isinstance(layer, nn.BatchNorm2d):  # statistics that would show if they were ignored
            layer.running_mean.uniform_(-0.2, 0.2)
            layer.running_var.uniform_(0.5, 1.5)
    trunk.requires_grad_(False).eval()
    return trunk.high, trunk.extract(torch.rand(6, 3, 48, 48))


def _state(module: nn.Module) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in module.state_dict().items()}


def test_low_rank_update_against_loops() -> None:
    weight, down, up = torch.randn(3, 4, 1, 1), torch.randn(2, 4), torch.randn(3, 2)
    found = low_rank_update(weight, down, up)
    for o in range(3):
        for i in range(4):
            wanted = float(weight[o, i, 0, 0]) + sum(float(up[o, r]) * float(down[r, i]) for r in range(2))
            assert float(found[o, i, 0, 0]) == pytest.approx(wanted, rel=1e-5, abs=1e-6)


def test_a_fresh_module_is_the_frozen_base(base: tuple[nn.Module, Tensor]) -> None:
    high, low = base
    points, norms = adapted_layers(high)
    assert points
    assert norms
    module = IntraModule(high, int(high(low).shape[1]), 5, rank=2).eval()
    special, z = module(high, low)
    wanted = module.squeeze(high(low).mean((2, 3)))
    assert torch.equal(special, wanted)
    assert torch.equal(z, module.head(torch.relu(wanted)).squeeze(1))
    with torch.no_grad():
        next(iter(module.up.values())).fill_(0.5)
    assert not torch.equal(module(high, low)[0], wanted)


def test_training_a_module_leaves_the_base_bit_for_bit(base: tuple[nn.Module, Tensor]) -> None:
    high, low = base
    module = IntraModule(high, int(high(low).shape[1]), 5, rank=2).train()
    before, mine = _state(high), _state(module)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        module(high, low)[1].square().sum().backward()
        optimizer.step()
    assert _state(high) == before
    assert all(p.grad is None for p in high.parameters())
    after = _state(module)
    assert any(name.startswith("mean_") and after[name] != mine[name] for name in mine)  # statistics of its own
    assert any(name.startswith("up.") and after[name] != mine[name] for name in mine)


def test_only_the_newest_trains_and_closed_ones_never_drift(workshop: Any) -> None:
    answers: dict[int, list[bytes]] = {}
    frozen: list[tuple[dict[str, bytes], dict[str, bytes]]] = []

    def look(experience: int, parts: Any) -> None:
        learner = parts.learner.eval()
        assert len(learner.intra) == experience + 1
        for number, module in enumerate(learner.intra):
            assert all(p.requires_grad == (number == experience) for p in module.parameters())
            with torch.no_grad():
                low = learner.trunk.extract(torch.linspace(0, 1, 2 * 3 * 32 * 32).view(2, 3, 32, 32))
                special, z = module(learner.base, low)
            answers.setdefault(number, []).append(special.numpy().tobytes() + z.numpy().tobytes())
        frozen.append((_state(learner.base), _state(learner.trunk.low)))

    run = workshop.train("iin", "iin", after=look, lr=1e-2)
    assert [len(set(seen)) for seen in answers.values()] == [1, 1, 1]
    assert [len(seen) for seen in answers.values()] == [3, 2, 1]
    assert len({seen[0] for seen in answers.values()}) == 3  # each learnt something of its own
    assert frozen[0] == frozen[1] == frozen[2]
    grouped = {id(p) for group in run.agent.optimizer.param_groups for p in group["params"]}
    assert {id(p) for p in run.parts.learner.intra[2].parameters()} <= grouped
    assert not {id(p) for m in run.parts.learner.intra[:2] for p in m.parameters()} & grouped


def test_copy_from_starts_where_the_other_ended(base: tuple[nn.Module, Tensor]) -> None:
    high, low = base
    one, two = (IntraModule(high, int(high(low).shape[1]), 5, rank=2).eval() for _ in range(2))
    assert not torch.equal(one(high, low)[0], two(high, low)[0])
    two.copy_from(one)
    assert torch.equal(one(high, low)[0], two(high, low)[0])
