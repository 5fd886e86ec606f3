"""IIN's two modules: the common logit shows on its map, the slow copy follows, and a closed module never moves."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from ffd_continual.strategies.learners.inter import InterModule, IntraModule, follow, slow_copy


@pytest.fixture
def seen() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, 10, generator=generator), torch.randn(3, 4, 6, 6, generator=generator)


def _module(share: float) -> InterModule:
    torch.manual_seed(0)
    return InterModule(10, 4, 5, 0.5, share).eval()


def test_the_logit_is_head_plus_mean_of_the_top_share(seen: tuple[Tensor, Tensor]) -> None:
    module = _module(0.1)
    with torch.no_grad():
        answer = module(*seen)
    count = math.ceil(0.1 * 36)
    for face in range(3):
        hidden = [
            sum(float(w) * float(x) for w, x in zip(row, seen[0][face], strict=True)) + float(b)
            for row, b in zip(module.squeeze.weight, module.squeeze.bias, strict=True)
        ]
        assert answer.common[face].tolist() == pytest.approx(hidden, rel=1e-4, abs=1e-5)
        head = sum(float(w) * max(0.0, h) for w, h in zip(module.head.weight[0], hidden, strict=True))
        top = sorted(answer.evidence[face].flatten().tolist(), reverse=True)[:count]
        expected = head + float(module.head.bias) + sum(top) / count
        assert float(answer.z[face]) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_without_a_share_the_map_leaves_the_logit_alone(seen: tuple[Tensor, Tensor]) -> None:
    module = _module(0.0)
    answer = module(*seen)
    assert torch.equal(answer.z, module.head(torch.relu(answer.common)).squeeze(1))
    assert answer.evidence.abs().sum() > 0


def test_the_logit_teaches_the_locations_it_is_made_of(seen: tuple[Tensor, Tensor]) -> None:
    answer = _module(0.1)(*seen)
    answer.evidence.retain_grad()
    answer.z.sum().backward()
    assert answer.evidence.grad is not None
    assert [int((g != 0).sum()) for g in answer.evidence.grad] == [4, 4, 4]


def test_follow_is_the_moving_average(seen: tuple[Tensor, Tensor]) -> None:
    fast = _module(0.1)
    slow = slow_copy(fast)
    assert not slow.training
    assert not any(p.requires_grad for p in slow.parameters())
    start = {k: v.clone() for k, v in slow.state_dict().items()}
    with torch.no_grad():
        for parameter in fast.parameters():
            parameter.add_(torch.randn_like(parameter))
    follow(slow, fast, 0.9)
    for name, now in slow.state_dict().items():
        assert torch.allclose(now, 0.9 * start[name] + 0.1 * fast.state_dict()[name], atol=1e-6), name
    follow(slow, fast, 0.0)
    assert all(torch.equal(a, b) for a, b in zip(slow.state_dict().values(), fast.state_dict().values(), strict=True))


def test_an_intra_module_starts_from_another_and_leaves_it_alone(seen: tuple[Tensor, Tensor]) -> None:
    torch.manual_seed(0)
    first, second = IntraModule(10, 5, 0.0), IntraModule(10, 5, 0.0)
    before = first(seen[0])[1].detach().clone()
    assert not torch.equal(second(seen[0])[1], before)
    second.copy_from(first)
    assert torch.equal(second(seen[0])[1], before)
    with torch.no_grad():
        second.head.bias.add_(1.0)
    assert torch.equal(first(seen[0])[1], before)


def test_a_closed_module_answers_bit_for_bit_after_later_experiences(workshop: Any) -> None:
    one, two = (workshop.train("iin", "iin", experiences=count) for count in (1, 2))
    rows = one.parts.scenario.index("test", "alpha")
    answers = []
    for run in (one, two):
        learner = run.parts.learner.eval()
        with torch.no_grad():
            statistics, _ = learner._split(learner.seen(next(run.agent.faces(rows))))
            answers.append(learner.intra[0](statistics)[1])
    assert torch.equal(*answers)
    assert not any(p.requires_grad for p in two.parts.learner.intra[0].parameters())
    assert all(p.requires_grad for p in two.parts.learner.intra[1].parameters())
