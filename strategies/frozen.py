"""Frozen backbone: what the trunk sees never changes, only the layers above it learn. The simplest way to forget
little, and to learn little (a linear probe of the last experience, in the words of the transfer literature).

The trunk is every module that a learner calls `trunk` (strategies/learners/trunk.py, pyramid.py): its parameters get no
gradient and its normalisation statistics stand still. With `after` experiences it is trained first, by fine-tuning.
A learner whose trunk is frozen to the end already (pooling=statistics, iin) trains the same as with strategy naive.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from ffd_continual.scenarios.errors import FFDError
from ffd_continual.strategies.importance import trained
from ffd_continual.strategies.learner import Learner
from ffd_continual.strategies.strategy import Strategy

if TYPE_CHECKING:
    from ffd_continual.strategies.training.template import FaceStrategy


@dataclass(frozen=True)
class FrozenConfig:
    """When the trunk stops learning."""

    after: int = 0  # experiences in which it still learns; 1 where it starts from random weights


def trunks(learner: Learner) -> list[nn.Module]:
    """The modules that a learner calls `trunk`."""
    return [module for name, module in learner.named_modules() if name.rpartition(".")[2] == "trunk"]


def freeze(strategy: FaceStrategy) -> None:
    """No gradient to the trunk, no movement of its statistics. FFDError where the learner has none, or nothing else."""
    learner = strategy.learner
    name = type(learner).__module__.rpartition(".")[2]
    found = trunks(learner)
    if not found:
        raise FFDError(
            f"strategy frozen keeps a learner's trunk as it is, and learner {name} calls no part of it `trunk`. "
            "Choose another strategy, or name the learner's encoder `trunk`."
        )
    for trunk in found:
        trunk.requires_grad_(False)
        trunk.eval()
    if not trained(strategy):
        raise FFDError(
            f"strategy frozen: nothing of learner {name} is left to learn without its trunk. Choose another strategy."
        )


class Frozen(Strategy):
    """Fine-tuning of all that is not the trunk."""

    config_type = FrozenConfig

    def before_training_exp(self, strategy: FaceStrategy, **kwargs: Any) -> None:
        """After the learner has grown and turned to training."""
        if strategy.position[0] >= self.config.after:
            freeze(strategy)
