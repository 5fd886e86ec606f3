"""Grad-CAM: a map worked by hand, frozen parts, and every learner left as it was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ffd_continual.load import known_methods
from ffd_continual.measuring.gradcam import grad_cam
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.strategies.learner import Learner, Output
from ffd_continual.strategies.learners.ce import CE, CEConfig
from ffd_continual.strategies.learners.plain import Plain, PlainConfig
from ffd_continual.strategies.learners.trunk import TrunkConfig

TRUNK = TrunkConfig(backbone="test_efficientnet", weights="none", frozen_stages=2)


@dataclass(frozen=True)
class NoConfig:
    """Nothing to set."""


class Hand(Learner):
    """Two convolutions, of which the first, or both, may be frozen; a third that the logit does not depend on."""

    config_type = NoConfig

    def __init__(self, frozen: str = ""):
        super().__init__()
        first = nn.Conv2d(3, 2, 1, bias=False)
        self.first = nn.Sequential(first, nn.ReLU(inplace=True))
        self.second = nn.Conv2d(2, 2, 1, bias=False)
        self.aside = nn.Conv2d(2, 1, 1)
        self.head = nn.Linear(2, 1, bias=False)
        self.frozen_parts = frozen
        with torch.no_grad():
            first.weight.copy_(torch.tensor([[1.0, 0, 0], [0, 1, 0]]).view(2, 3, 1, 1))
            self.second.weight.copy_(torch.tensor([[1.0, -1.0], [0.0, 2.0]]).view(2, 2, 1, 1))
            self.head.weight.copy_(torch.tensor([[4.0, 8.0]]))

    def forward(self, images: Tensor) -> Output:
        if self.frozen_parts:
            self.first.requires_grad_(False)
            self.second.requires_grad_(self.frozen_parts != "both")
            with torch.no_grad():
                made = self.first(images)
                made = self.second(made) if self.frozen_parts == "both" else made
            made = made if self.frozen_parts == "both" else self.second(made)
        else:
            made = self.second(self.first(images))
        trace = self.aside(made)
        return Output(z=self.head(made.mean((2, 3))).squeeze(1), maps={"trace": trace})


@pytest.mark.parametrize("frozen", ["", "first", "both"])
def test_map_worked_by_hand(frozen: str) -> None:
    """Channels 0 and 1 of the picture are [1 0; 0 1] and [0 1; 0 0]; the first layer copies them, the second makes
    A_0 = c_0 - c_1 = [1 -1; 0 1] and A_1 = 2 c_1 = [0 2; 0 0]. z = 4 mean A_0 + 8 mean A_1, so dz/dA_0 = 1 and
    dz/dA_1 = 2 everywhere, and the map is ReLU(A_0 + 2 A_1) = [1 3; 0 1]."""
    image = torch.zeros(2, 3, 2, 2)
    image[0, 0] = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    image[0, 1] = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    image[1, 1] = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    learner = Hand(frozen)
    made = grad_cam(learner, image)
    assert made.tolist() == [[[[1.0, 3.0], [0.0, 1.0]]], [[[0.0, 0.0], [3.0, 0.0]]]]
    assert torch.is_grad_enabled()
    with torch.no_grad():
        assert torch.equal(grad_cam(learner, image), made)
        assert not torch.is_grad_enabled()


def test_a_negative_weight_leaves_nothing() -> None:
    learner = Hand()
    with torch.no_grad():
        learner.head.weight.copy_(torch.tensor([[-4.0, 0.0]]))
    image = torch.rand(3, 3, 5, 5)
    image[:, 1] = 0  # A_0 = c_0 >= 0
    assert not grad_cam(learner, image).any()


@pytest.mark.parametrize("kind", ["plain", "two", "many"])
def test_with_mean_pooling_it_is_the_class_activation_map(kind: str) -> None:
    """z = w . mean A + b: the map is ReLU(sum_k w_k A_k) / hw (Selvaraju et al., section 3.1)."""
    torch.manual_seed(0)
    learner: Any = Plain(PlainConfig(trunk=TRUNK)) if kind == "plain" else CE(CEConfig(trunk=TRUNK, classes=kind))
    if kind == "many":
        learner.begin("alpha")
        learner.head.assign(torch.tensor([1]))
        weight = learner.head.types[0].weight[0] - learner.head.real.weight[0]
    else:
        weight = learner.head.weight[0] if kind == "plain" else learner.head.weight[1] - learner.head.weight[0]
    images = torch.rand(3, 3, 128, 128)
    made = grad_cam(learner, images)
    learner.eval()
    with torch.no_grad():
        last = learner.trunk(images)
    slow = torch.zeros(3, 1, *last.shape[2:])
    for b in range(3):
        for y in range(last.shape[2]):
            for x in range(last.shape[3]):
                total = sum(float(w) * float(a) for w, a in zip(weight, last[b, :, y, x], strict=True))
                slow[b, 0, y, x] = max(0.0, total / (last.shape[2] * last.shape[3]))
    assert torch.allclose(made, slow, atol=1e-5 * float(slow.max()) + 1e-7)
    assert float(slow.max()) > 0


class Flat(Learner):
    """No convolution at all."""

    config_type = NoConfig

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(12, 1)

    def forward(self, images: Tensor) -> Output:
        return Output(z=self.head(images.flatten(1)).squeeze(1))


def test_without_a_convolution_it_says_so() -> None:
    with pytest.raises(FFDError, match="the logit of Flat depends on no convolution map"):
        grad_cam(Flat(), torch.rand(1, 3, 2, 2))


@pytest.mark.parametrize("name", sorted(known_methods(Learner)))
def test_every_learner_gives_a_map_and_stays_as_it_was(workshop: Any, name: str) -> None:
    _, parts = workshop.parts(name)
    learner, images = parts.learner, torch.rand(2, 3, 64, 64)
    learner.begin("alpha")
    learner.train()
    with torch.no_grad():
        learner.eval()
        before = learner(images).z
        learner.train()
    state = {k: v.clone() for k, v in learner.state_dict().items()}
    modes = {n: m.training for n, m in learner.named_modules()}
    wanted = {n: p.requires_grad for n, p in learner.named_parameters()}
    made = grad_cam(learner, images)
    assert made.shape[:2] == (2, 1)
    assert made.shape[2] * made.shape[3] > 1
    assert bool(torch.isfinite(made).all())
    assert bool((made >= 0).all())
    assert not made.requires_grad
    assert {n: m.training for n, m in learner.named_modules()} == modes
    assert {n: p.requires_grad for n, p in learner.named_parameters()} == wanted
    assert all(p.grad is None for p in learner.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in learner.modules())
    now = learner.state_dict()
    assert all(now[k].numpy().tobytes() == v.numpy().tobytes() for k, v in state.items())
    learner.eval()
    with torch.no_grad():
        assert torch.equal(learner(images).z, before)
