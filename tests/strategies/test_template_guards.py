"""Schedules, optimizers, terms of strategies, and the bases that methods share."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from ffd_continual.load import strategy_class
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.strategies.set_aside import ApartReplay
from ffd_continual.strategies.teacher import TaughtReplay
from ffd_continual.strategies.training.settings import TrainConfig, check_training, rate_scale


def test_cosine_rises_and_falls_to_zero() -> None:
    config = TrainConfig(steps=100, warmup=0.1)
    scales = [rate_scale(config, step) for step in range(100)]
    assert scales[0] == pytest.approx(0.1)
    assert max(scales) == scales[9]
    assert scales[50] == pytest.approx(0.5)
    assert scales[99] == pytest.approx(0.5 * (1 + math.cos(math.pi * 0.99)))


def test_steps_fall_to_a_tenth_at_each_milestone() -> None:
    config = TrainConfig(steps=20, warmup=0.0, schedule="steps", decay_at=(0.5, 0.75))
    scales = [rate_scale(config, step) for step in range(20)]
    assert scales[:10] == [1.0] * 10
    assert scales[10:15] == pytest.approx([0.1] * 5)
    assert scales[15:] == pytest.approx([0.01] * 5)


@pytest.mark.parametrize(
    "config", [TrainConfig(optimizer="lion"), TrainConfig(schedule="line"), TrainConfig(schedule="steps"),
               TrainConfig(decay_at=(0.5,))]
)  # fmt: skip
def test_unknown_or_half_given_settings_are_named(config: TrainConfig) -> None:
    with pytest.raises(FFDError, match="train\\."):
        check_training(config)


def test_a_strategy_s_terms_are_summed_into_the_loss_and_listed(workshop: Any) -> None:
    agent = workshop.train("plain", "naive", experiences=1, steps=1).agent
    agent.losses, weight = {"decision": torch.tensor(0.5)}, torch.tensor(3.0, requires_grad=True)
    agent.loss = torch.tensor(0.5)
    agent.add_terms({})
    assert float(agent.loss) == 0.5
    agent.add_terms({"near": 2.0 * weight, "far": weight**2})
    assert {name: float(term) for name, term in agent.losses.items()} == {"decision": 0.5, "near": 6.0, "far": 9.0}
    assert not any(term.requires_grad for term in agent.losses.values())
    agent.loss.backward()
    assert weight.grad is not None
    assert (float(agent.loss.detach()), float(weight.grad)) == (15.5, 8.0)  # 2 + 2 w


def test_shared_bases_are_no_methods() -> None:
    for name in ("teacher", "set_aside", "template"):
        with pytest.raises(FFDError, match=f"no strategy is named '{name}'"):
            strategy_class(name)
    assert strategy_class("dfil").__mro__[1] is TaughtReplay
    assert strategy_class("agem").__mro__[1] is ApartReplay
