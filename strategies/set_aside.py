"""Shared by the methods that train stored faces apart from current ones (derpp, agem, er_ace).

The replayed share of a batch is taken out before the learner's own step and looked at in a pass of its own, so the
number of faces a step stays that of every other method, and no second loader is needed: which faces they are is the
step plan's answer, a pure function of (seed, experience, step) and of the memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ffd_continual.scenarios.batch import Batch
from ffd_continual.strategies.learner import Output
from ffd_continual.strategies.replay import Replay, ReplayConfig
from ffd_continual.strategies.strategy import Context

if TYPE_CHECKING:
    from ffd_continual.strategies.training.template import FaceStrategy


def set_aside(strategy: FaceStrategy) -> Batch | None:
    """In `before_training_iteration`: the faces of earlier experiences, in the order of their draw, taken out of the
    step's batch; None where there is none."""
    batch: Batch = strategy.mbatch
    stored = batch.experience < strategy.position[0]
    if not bool(stored.any()):
        return None
    strategy.mbatch = batch.take(~stored)
    return batch.take(stored)


def look_apart(strategy: FaceStrategy, faces: Batch) -> Output:
    """The learner's answer on faces set aside, as it trains (same precision as its step)."""
    with torch.autocast(strategy.device.type, torch.bfloat16, enabled=strategy.config.bf16):
        return strategy.learner.look(faces)


def decision_loss(z: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy of logits (B,) with labels (B,)."""
    return F.binary_cross_entropy_with_logits(z.float(), target.float())


class ApartReplay(Replay):
    """Replay whose stored faces wait beside the step's batch: the part that methods share, no method by itself."""

    def __init__(self, config: ReplayConfig, context: Context):
        super().__init__(config, context)
        self._apart: Batch | None = None

    def before_training_iteration(self, strategy: FaceStrategy, **kwargs: Any) -> None:
        """The learner's own step sees the current faces only."""
        self._apart = set_aside(strategy)

    def take_apart(self) -> Batch | None:
        """The step's stored faces, once; None where there is none."""
        faces, self._apart = self._apart, None
        return faces
