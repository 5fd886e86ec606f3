"""Schedules, optimizers, and what happens when a loss is no number."""

from __future__ import annotations

import math

import pytest

from ffd_continual.scenarios.errors import FFDError
from ffd_continual.strategies.template import TrainConfig, check_training, rate_scale


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
