"""What a learner is: a network with its loss, grown by one forgery at a time, and everything inference needs.

Axes: B faces, S pixels, D features, K known forgeries. A learner never sees metrics, validation or test faces.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from ffd_continual.scenarios.batch import Batch


@dataclass(frozen=True)
class Output:
    """What a learner says of B faces."""

    z: Tensor  # (B,) logit, > 0 means forged
    features: dict[str, Tensor] = field(default_factory=dict)  # name -> (B, D); "common" is always there
    maps: dict[str, Tensor] = field(default_factory=dict)  # name -> (B, 1, h, w) logits; "trace" localises
    attribution: Tensor | None = None  # (B, K) weights over the forgeries in `known`, rows sum to 1
    novelty: Tensor | None = None  # (B,) larger is less like anything known
    known: tuple[str, ...] = ()  # names of the K forgeries


Losses = dict[str, Tensor]


class Answers(Protocol):
    """Answers for modules that learn no more: what they said of a face before need not be computed again."""

    def said(self, module: nn.Module, read: Tensor) -> Tensor:
        """What the module's `say` gives for what it reads of B faces: rows (B, N) of numbers."""


class Learner(nn.Module):
    """Base of all learners. Subclasses set `config_type`, build themselves from (config, context), and grow."""

    config_type: ClassVar[type[Any]]
    met: ClassVar[int] = 256  # about so many faces are shown to `meet`; 0: all of the pool and the memory

    def __init__(self) -> None:
        super().__init__()
        self.growth: list[str] = []
        self.progress = 0.0  # share of the experience's steps that are done, set before every step
        self.answers: Answers | None = None  # asked in place of modules, while nothing learns; None: they speak

    @property
    def needs(self) -> frozenset[str]:
        """Optional batch fields this learner asks for (scenarios/batch.py, OPTIONAL_NEEDS)."""
        return frozenset()

    @property
    def wants(self) -> frozenset[str]:
        """Optional batch fields it uses where the data give them, and can do without."""
        return frozenset()

    def begin(self, forgery: str) -> None:
        """A forgery arrives: add what it needs. Called once a forgery, also when a checkpoint's growth is replayed."""
        self.growth.append(forgery)

    def meet(self, faces: Iterable[Batch]) -> None:
        """A look at some training faces of the experience that has just begun, before its first step."""

    def frozen(self, images: Tensor) -> Tensor | None:
        """What never-changing layers make of pictures (B, 3, S, S): (B, F), or None when some layer may change.

        A run can then keep these answers instead of pictures (`train.kept_views`).
        """
        return None

    def frozen_key(self) -> str:
        """Names the frozen layers and their weights: kept features of another key are not read."""
        return ""

    def judge(self, frozen: Tensor) -> Output:
        """The rest of `forward`, from what `frozen` gave."""
        raise TypeError(f"{type(self).__name__} has no frozen layers to judge from")

    def seen(self, batch: Batch) -> Tensor:
        """A batch's frozen features, kept or computed."""
        if batch.frozen.shape[1]:
            return batch.frozen
        made = self.frozen(batch.image)
        assert made is not None, "only learners with frozen layers ask for their features"
        return made

    def look(self, batch: Batch) -> Output:
        """`forward` on a batch that may hold kept features instead of pictures."""
        return self.judge(batch.frozen) if batch.frozen.shape[1] else self(batch.image)

    def step(self, batch: Batch) -> tuple[Output, Losses]:
        """Run the network once on a training batch; the named losses are summed and trained."""
        raise TypeError(f"{type(self).__name__} has no step")

    def forward(self, images: Tensor) -> Output:
        """(B, 3, S, S) in 0..1 to an Output."""
        raise TypeError(f"{type(self).__name__} has no forward")

    def end(self, forgery: str, faces: Iterable[Batch]) -> None:
        """The experience is over: refresh what is computed from its training faces, then freeze what stays."""

    def param_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Parameter groups for the optimizer; the default trains all that requires a gradient at `lr`.

        Biases and normalisation parameters (one axis) are not decayed.
        """
        trained = [p for p in self.parameters() if p.requires_grad]
        return split_decay(trained, lr, weight_decay)

    def settled(self) -> Sequence[nn.Module]:
        """Modules of closed experiences: without gradients, in evaluation mode, and never changed again."""
        return ()

    @contextmanager
    def speaking(self) -> Iterator[None]:
        """Every module is run, whatever `answers` knows: for those who copy it, or hook into modules."""
        held, self.answers = self.answers, None
        try:
            yield
        finally:
            self.answers = held

    def gauges(self) -> dict[str, float]:
        """What is logged after each step beside the losses and is none of them, e.g. how full a queue is."""
        return {}

    def closed(self) -> Learner:
        """A copy that judges alike and never learns again: what an export is made of."""
        with self.speaking():
            made = copy.deepcopy(self)
        made.requires_grad_(False)
        made.eval()
        return made

    def costs(self) -> dict[str, float]:
        """Parameters of the whole learner and of one added type, for the report."""
        return {"parameters": float(sum(p.numel() for p in self.parameters())), "parameters_per_type": 0.0}


def split_decay(parameters: Iterable[nn.Parameter], lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """Two optimizer groups: matrices with weight decay, vectors (biases, normalisation) without."""
    listed = list(parameters)
    return [
        group
        for group in (
            {"params": [p for p in listed if p.ndim > 1], "lr": lr, "weight_decay": weight_decay},
            {"params": [p for p in listed if p.ndim <= 1], "lr": lr, "weight_decay": 0.0},
        )
        if group["params"]
    ]


def two_logits(z: Tensor) -> Tensor:
    """(B,) logit to (B, 2) class logits [0, z]: cross-entropy on them equals BCE on z."""
    return torch.stack([torch.zeros_like(z), z], dim=1)


def place(learner: Learner, device: torch.device) -> Learner:
    """Put a learner on its device, convolutions in channels-last order (about twice as fast on a CPU).

    Always through here: another order of the same weights changes sums in their last bits.
    """
    return learner.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
