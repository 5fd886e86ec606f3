"""Avalanche's own plugins on this project's template.

They call the model and expect class logits, where a learner answers with an Output: while one of their hooks runs, the
strategy's model is a view of the learner that gives [0, z]. They see the decision loss only, and what they keep is not
part of a checkpoint: they serve comparisons from Python, `FaceStrategy(..., plugins=[Stock(EWCPlugin(1.0))])`.
Axes: B faces, S pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from avalanche.core import SupervisedPlugin
from torch import Tensor, nn

from ffd_continual.strategies.learner import Learner, two_logits
from ffd_continual.strategies.training.template import FaceStrategy

HOOKS = tuple(
    f"{when}_{what}"
    for what in ("training", "training_exp", "training_epoch", "training_iteration", "forward", "backward", "update")
    for when in ("before", "after")
)


class TwoLogits(nn.Module):
    """A learner as a classifier; it shares the learner's parameters."""

    def __init__(self, learner: Learner):
        super().__init__()
        self.learner = learner

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) to class logits (B, 2)."""
        return two_logits(self.learner(images).z)


def _delegate(hook: str) -> Callable[..., None]:
    def call(self: Stock, strategy: FaceStrategy, **kwargs: Any) -> None:
        learner = strategy.learner
        strategy.model = TwoLogits(learner)
        try:
            getattr(self.plugin, hook)(strategy, **kwargs)
        finally:
            strategy.model = learner

    return call


class Stock(SupervisedPlugin):  # type: ignore[misc]
    """One of Avalanche's plugins, shown class logits."""

    def __init__(self, plugin: SupervisedPlugin):
        super().__init__()
        self.plugin = plugin


for _hook in HOOKS:
    setattr(Stock, _hook, _delegate(_hook))
