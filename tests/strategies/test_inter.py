"""The common path: its logit shows on its map, and its slow copy follows it by the formula."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from ffd_continual.strategies.learners.inter import InterModule, follow, middle_stage, slow_copy


def _stages() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(4, 5, 1),
        nn.Sequential(nn.Conv2d(5, 6, 3, padding=1), nn.BatchNorm2d(6)),
        nn.Conv2d(6, 7, 2, stride=2),
        nn.Conv2d(7, 8, 1),
    )


@pytest.fixture
def low() -> Tensor:
    return torch.randn(3, 4, 6, 6, generator=torch.Generator().manual_seed(1))


def test_the_evidence_lies_on_the_last_larger_map(low: Tensor) -> None:
    assert middle_stage(_stages(), low) == (1, 6)
    assert middle_stage(nn.Sequential(nn.Conv2d(4, 5, 1), nn.Conv2d(5, 9, 1)), low) == (1, 9)


def test_the_logit_is_head_plus_mean_of_the_top_share(low: Tensor) -> None:
    stages = _stages()
    module = InterModule(stages, low, 8, 5, share=0.1).eval()
    with torch.no_grad():
        module.head.weight.normal_()
        module.head.bias.fill_(0.3)
        answer = module(low)
        last = stages(low)
    assert answer.evidence.shape == (3, 1, 6, 6)
    count = math.ceil(0.1 * 36)
    for face in range(3):
        pooled = [float(last[face, c].mean()) for c in range(8)]
        head = sum(float(w) * p for w, p in zip(module.head.weight[0], pooled, strict=True)) + 0.3
        top = sorted(answer.evidence[face].flatten().tolist(), reverse=True)[:count]
        assert float(answer.z[face]) == pytest.approx(head + sum(top) / count, rel=1e-4, abs=1e-5)
    assert torch.allclose(answer.common, module.project(last.mean((2, 3))), atol=1e-6)
    assert torch.allclose(answer.middle, stages[1](stages[0](low)))


def test_without_a_share_the_map_leaves_the_logit_alone(low: Tensor) -> None:
    module = InterModule(_stages(), low, 8, 5, share=0.0).eval()
    assert module(low).z.tolist() == [0.0, 0.0, 0.0]  # the head starts at zero
    assert module(low).evidence.abs().sum() > 0


def test_the_logit_teaches_the_locations_it_is_made_of(low: Tensor) -> None:
    module = InterModule(_stages(), low, 8, 5, share=0.1).eval()
    answer = module(low)
    answer.evidence.retain_grad()
    answer.z.sum().backward()
    assert answer.evidence.grad is not None
    assert [int((g != 0).sum()) for g in answer.evidence.grad] == [4, 4, 4]


def test_follow_is_the_moving_average_and_copies_counters(low: Tensor) -> None:
    fast = InterModule(_stages(), low, 8, 5, share=0.1)
    slow = slow_copy(fast)
    assert not slow.training
    assert not any(p.requires_grad for p in slow.parameters())
    start = {k: v.clone() for k, v in slow.state_dict().items()}
    with torch.no_grad():
        for parameter in fast.parameters():
            parameter.add_(torch.randn_like(parameter))
    fast.train()(low)  # statistics and their counter move
    follow(slow, fast, 0.9)
    for name, now in slow.state_dict().items():
        there = fast.state_dict()[name]
        if now.is_floating_point():
            assert torch.allclose(now, 0.9 * start[name] + 0.1 * there, atol=1e-6), name
        else:
            assert torch.equal(now, there), name
    counter = "stages.1.1.num_batches_tracked"
    assert int(slow.state_dict()[counter]) == int(start[counter]) + 1
    assert all(p.grad is None for p in slow.parameters())
    follow(slow, fast, 0.0)
    assert all(torch.equal(a, b) for a, b in zip(slow.state_dict().values(), fast.state_dict().values(), strict=True))
