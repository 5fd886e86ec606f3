"""IIN's two modules: the common logit shows on its map, the slow copy follows, and a closed module never moves."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ffd_continual.strategies.learners.inter import InterModule, IntraModule, follow, slow_copy


def _stages() -> nn.Module:
    torch.manual_seed(2)
    return nn.Sequential(nn.Conv2d(4, 5, 3, stride=2, padding=1), nn.ReLU())


@pytest.fixture
def low() -> Tensor:
    return torch.randn(3, 4, 6, 6, generator=torch.Generator().manual_seed(1))


def _module(share: float) -> InterModule:
    torch.manual_seed(0)
    return InterModule(_stages(), 4, 5, 7, 0.5, share).eval()


def test_the_logit_is_head_plus_mean_of_the_top_share(low: Tensor) -> None:
    module, stages = _module(0.1), _stages()
    with torch.no_grad():
        answer, high = module(low), stages(low)
    count = math.ceil(0.1 * 36)
    look, point = module.look[0], module.point
    assert isinstance(look, nn.Conv2d)
    assert look.bias is not None
    assert point.bias is not None
    for face in range(3):
        common = [sum(high[face, d].flatten().tolist()) / 9 for d in range(5)]
        assert answer.common[face].tolist() == pytest.approx(common, rel=1e-4, abs=1e-6)
        evidence = []
        for at in range(36):
            row, column = at // 6, at % 6
            here = low[face, :, row, column].tolist() + high[face, :, row // 2, column // 2].tolist()
            local = [
                max(0.0, sum(float(w) * x for w, x in zip(ws.flatten(), here, strict=True)) + float(b))
                for ws, b in zip(look.weight, look.bias, strict=True)
            ]
            weights = point.weight.flatten().tolist()
            evidence.append(sum(w * x for w, x in zip(weights, local, strict=True)) + float(point.bias))
        assert answer.evidence[face].flatten().tolist() == pytest.approx(evidence, rel=1e-3, abs=1e-5)
        head = sum(float(w) * c for w, c in zip(module.head.weight[0], common, strict=True))
        top = sorted(evidence, reverse=True)[:count]
        assert float(answer.z[face]) == pytest.approx(head + float(module.head.bias) + sum(top) / count, rel=1e-3)


def test_without_a_share_the_map_leaves_the_logit_alone(low: Tensor) -> None:
    module = _module(0.0)
    answer = module(low)
    assert torch.equal(answer.z, module.head(answer.common).squeeze(1))
    assert answer.evidence.abs().sum() > 0


def test_the_logit_teaches_the_locations_it_is_made_of(low: Tensor) -> None:
    answer = _module(0.1)(low)
    answer.evidence.retain_grad()
    answer.z.sum().backward()
    assert answer.evidence.grad is not None
    assert [int((g != 0).sum()) for g in answer.evidence.grad] == [4, 4, 4]


def test_follow_is_the_moving_average() -> None:
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


def test_an_intra_module_starts_from_another_and_leaves_it_alone(low: Tensor) -> None:
    stages = _stages()
    first, second = IntraModule(stages, 4, 5, 0.0), IntraModule(stages, 4, 5, 0.0)
    before = first(low)[1].detach().clone()
    assert not torch.equal(second(low)[1], before)
    second.copy_from(first)
    assert torch.equal(second(low)[1], before)
    with torch.no_grad():
        second.head.bias.add_(1.0)
    assert torch.equal(first(low)[1], before)


def test_a_closed_module_answers_bit_for_bit_after_later_experiences(workshop: Any) -> None:
    one, two = (workshop.train("iin", "iin", experiences=count) for count in (1, 2))
    rows = one.parts.scenario.index("test", "alpha")
    answers = []
    for run in (one, two):
        learner = run.parts.learner.eval()
        with torch.no_grad():
            _, frozen = learner._split(learner.seen(next(run.agent.faces(rows))))
            answers.append(learner.intra[0].say(frozen))
    assert torch.equal(*answers)
    assert answers[0].shape[1] == 1 + frozen.shape[-2] * frozen.shape[-1]  # the logit, and where the forgery shows
    assert not answers[0].isnan().any()
    assert not [name for name, _ in two.parts.learner.named_parameters() if "evidence" in name]  # no loss sees it
    assert not any(p.requires_grad for p in two.parts.learner.intra[0].parameters())
    assert all(p.requires_grad for p in two.parts.learner.intra[1].parameters())


def test_modules_start_from_the_stages_and_leave_them_alone(low: Tensor) -> None:
    stages = _stages().requires_grad_(False)
    module = IntraModule(stages, 4, 5, 0.0)
    assert all(torch.equal(a, b) for a, b in zip(module.stages.parameters(), stages.parameters(), strict=True))
    before = stages(low)
    module(low)[1].sum().backward()
    with torch.no_grad():
        for parameter in module.parameters():
            assert parameter.grad is not None
            parameter.sub_(parameter.grad)
    assert torch.equal(stages(low), before)
    assert not torch.equal(module.stages(low), before)
