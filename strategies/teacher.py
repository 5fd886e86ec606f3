"""A frozen snapshot of the learner that a strategy asks while a new experience is learnt, saved inside checkpoints.

It lives from an experience's start to its end: between experiences nothing of it is kept, so it costs no memory in
the sense of `stored_bytes`, but one more pass a step.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ffd_continual.strategies.learner import Learner, Output
from ffd_continual.strategies.replay import Replay, ReplayConfig
from ffd_continual.strategies.strategy import Context, State

if TYPE_CHECKING:
    from ffd_continual.strategies.training.template import FaceStrategy

_PREFIX = "teacher."


class Teacher:
    """Use: `take` as an experience opens, `pair` in each step, `drop` as it closes; `state` and `load` in between."""

    def __init__(self) -> None:
        self.learner: Learner | None = None

    def __bool__(self) -> bool:
        return self.learner is not None

    def take(self, learner: Learner) -> None:
        """The learner as it is now, in evaluation mode, without gradients; what never changes again is shared."""
        shared = {id(module): module for module in learner.settled()}
        with learner.speaking():
            self.learner = copy.deepcopy(learner, shared)
        self.learner.requires_grad_(False)
        self.learner.eval()

    def drop(self) -> None:
        """Forget the snapshot."""
        self.learner = None

    @torch.no_grad()
    def _answer(self, strategy: FaceStrategy, frozen: Tensor | None) -> Output:
        assert self.learner is not None, "asked before `take`"
        judge = getattr(self.learner, "judge_common", None)
        old: Output = judge(frozen) if judge is not None and frozen is not None else self.learner.look(strategy.mbatch)
        return old

    def pair(self, strategy: FaceStrategy) -> tuple[Output, Output]:
        """What the learner and its teacher say of the same faces, after the learner's step.

        A learner that answers in training with its common path alone (IIN) is compared with that of its teacher. One
        that shows some real faces self-blended, as forged, and does not tell which looks once more at the batch as it
        is: otherwise the teacher would be asked about other faces than the learner was.
        """
        new, batch = strategy.out, strategy.mbatch
        frozen = new.features.get("frozen")
        blends = batch.pseudo.shape[1] or batch.frozen_pseudo.shape[1]
        if frozen is None and blends:
            new = strategy.learner.look(batch)
        return new, self._answer(strategy, frozen)

    def state(self) -> dict[str, Tensor]:
        """Its tensors, named "teacher.*"; none where there is no snapshot."""
        return {} if self.learner is None else {f"{_PREFIX}{k}": v for k, v in self.learner.state_dict().items()}

    def load(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Take back what `state` gave, where a snapshot exists (an experience that was opened again makes one), and
        return the tensors that are not the teacher's."""
        taught = {k.removeprefix(_PREFIX): v for k, v in tensors.items() if k.startswith(_PREFIX)}
        if self.learner is not None and taught:
            self.learner.load_state_dict(taught)
        return {k: v for k, v in tensors.items() if not k.startswith(_PREFIX)}


class TaughtReplay(Replay):
    """Replay with a teacher in every experience after the first: the part that methods share, no method by itself."""

    def __init__(self, config: ReplayConfig, context: Context):
        super().__init__(config, context)
        self.teacher = Teacher()

    @abstractmethod
    def distils(self) -> bool:
        """Whether the settings, and the memory as an experience opens, leave anything to ask a teacher."""

    def before_training_exp(self, strategy: FaceStrategy, **kwargs: Any) -> None:
        """The learner as it came out of the last experience, with the new type's growth already done."""
        self.teacher.drop()
        if strategy.position[0] > 0 and self.distils():
            self.teacher.take(strategy.learner)

    def after_training_exp(self, strategy: FaceStrategy, **kwargs: Any) -> None:
        """The teacher has done its part; the memory takes its share of the experience."""
        self.teacher.drop()
        super().after_training_exp(strategy, **kwargs)

    def state_dict(self) -> State:
        """The memory, and inside an experience the teacher."""
        tensors, values = super().state_dict()
        return tensors | self.teacher.state(), values

    def load_state_dict(self, state: State) -> None:
        """Take both back."""
        super().load_state_dict((self.teacher.load(state[0]), state[1]))
