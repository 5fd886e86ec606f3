"""How long and how fast a learner trains: the settings that every method of a comparison shares.

It stands apart from the template, so that reading a configuration does not load Avalanche.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ffd_continual.scenarios.errors import FFDError


@dataclass(frozen=True)
class TrainConfig:
    """How long and how fast; the same for every method of a comparison."""

    steps: int = 60  # optimizer steps an experience
    batch: int = 32  # faces a step, replayed ones included
    lr: float = 1e-3  # of new layers; learners scale it for pretrained ones
    weight_decay: float = 1e-4
    optimizer: str = "adamw"  # "adamw", "adam", "sgd" (momentum 0.9)
    warmup: float = 0.1  # share of an experience's steps in which the rate rises
    schedule: str = "cosine"  # after the warm-up: "cosine" to zero, "constant", "steps" (a tenth at each of decay_at)
    decay_at: tuple[float, ...] = ()  # shares of an experience's steps, with schedule "steps"
    clip: float = 5.0  # largest norm of the gradient, 0 for none
    accumulate: int = 1  # micro-batches a step (the batch is cut into so many)
    bf16: bool = False  # autocast; slower than float32 on most CPUs
    kept_views: int = 0  # keep the frozen layers' features of so many views a face (scenarios/kept.py); 0: fresh views
    workers: int = 0  # processes that make batches
    eval_batch: int = 64  # fixed, so that scores do not depend on the batch they came in
    threads: int = 2  # of torch; recorded, since sums depend on it
    device: str = "auto"  # "auto", "cpu", "cuda"


class LossError(FFDError):
    """Training met a loss or a gradient that is no number; the weights are still those of the step before."""


def fork_seeded(*key: int) -> int:
    """A torch seed that is a pure function of its key."""
    return int(np.random.SeedSequence([k & 0xFFFFFFFF for k in key]).generate_state(1, np.uint64)[0] >> 1)


def rate_scale(config: TrainConfig, step: int) -> float:
    """What the learning rates are multiplied by at one step of an experience, in 0..1."""
    rise = min(1.0, (step + 1) / max(1.0, config.warmup * config.steps))
    if config.schedule == "cosine":
        return rise * 0.5 * (1.0 + math.cos(math.pi * step / config.steps))
    return rise * 0.1 ** sum(step >= at * config.steps for at in config.decay_at)


def check_training(config: TrainConfig) -> None:
    """Raise FFDError on an optimizer or a schedule that is not known."""
    for key, value, known in (
        ("optimizer", config.optimizer, ("adamw", "adam", "sgd")),
        ("schedule", config.schedule, ("cosine", "constant", "steps")),
    ):
        if value not in known:
            raise FFDError(f"train.{key} must be one of {', '.join(known)}, not {value!r}.")
    if (config.schedule == "steps") != bool(config.decay_at):
        raise FFDError("train.decay_at and train.schedule=steps belong together: give both or neither.")
