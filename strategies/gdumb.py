"""GDumb: greedy sampler, dumb learner. Prabhu et al., "GDumb: a simple approach that questions our progress in
continual learning", ECCV 2020. A balanced memory is filled greedily, and whenever a model is wanted, one is trained
from scratch on the memory alone.

Form here: a model is wanted after each experience. So an experience opens by offering its faces to the memory, the
learner goes back to its initial weights, and the experience's steps, as many as every method has, are drawn from the
memory only (current faces that were not chosen are never trained on). A checkpoint then holds GDumb's model of that
moment, and the steps inside an experience resume like any other's.
Deviations: a class is one experience's real or forged faces; the memory takes a random, even share of each class
(replay/memory.py) where the paper takes first comers and evicts at random; the optimizer and its schedule are those of
the other methods. "Initial" are the parameters and normalisation statistics as the learner was built or grew; parts
that the learner has closed (a module of an earlier type that it trains no more) stay, feature queues are emptied, and
prototypes stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ffd_continual.replay.exemplars import ExemplarTable
from ffd_continual.replay.memory import Budget, ExemplarMemory
from ffd_continual.replay.queues import FeatureQueue
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.views import keyed_generator
from ffd_continual.strategies.importance import Tensors, byte_count, copies, old_part, pack, trained, unpack
from ffd_continual.strategies.learner import Learner
from ffd_continual.strategies.strategy import Context, Rows, State, Strategy

if TYPE_CHECKING:
    from ffd_continual.strategies.training.template import FaceStrategy

_UPDATE = 707
_STATISTICS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True)
class GDumbConfig:
    """How much is stored."""

    exemplars: int = 200  # stored faces in all, those of the current experience included


def weights_of(learner: Learner) -> dict[str, Tensor]:
    """Parameters and normalisation statistics, by name."""
    found: dict[str, Tensor] = dict(learner.named_parameters())
    for prefix, module in learner.named_modules():
        if isinstance(module, _STATISTICS):
            found |= {f"{prefix}.{name}": value for name, value in module.named_buffers(recurse=False)}
    return found


@torch.no_grad()
def reset(learner: Learner, weights: Mapping[str, Tensor]) -> None:
    """Give the learner back these weights (of what has grown, the old part), and empty its feature queues."""
    now = weights_of(learner)
    for name, value in weights.items():
        old_part(now[name], value, name).copy_(value)
    for module in learner.modules():
        if isinstance(module, FeatureQueue):
            module.count.zero_()
            module.head.zero_()


class GDumb(Strategy):
    """The current pool is the memory; every experience starts from the initial weights."""

    config_type = GDumbConfig

    def __init__(self, config: GDumbConfig, context: Context):
        super().__init__(config, context)
        if config.exemplars < 2:
            raise FFDError(
                f"strategy.exemplars={config.exemplars}: gdumb trains on stored faces only and needs at least one real "
                "and one forged: set 2 or more."
            )
        self.memory = ExemplarMemory(Budget(items=config.exemplars), store_logits=False)
        self.initial: Tensors = {}  # of what training has changed since
        self.trained: list[str] = []  # names of all parameters that were ever trained

    def pool(self, experience: int) -> Rows:
        """The memory's rows, and nothing else."""
        return self.remembered()

    def remembered(self) -> Rows:
        """Stored rows, in the memory's order."""
        return np.asarray(self.memory.table.row, np.int64)

    def before_train_dataset_adaptation(self, strategy: FaceStrategy, **kwargs: Any) -> None:
        """The sampler: before the experience's loader is made, its faces are offered, once."""
        experience = strategy.position[0]
        if self.memory.updates > experience:
            return
        rows, table = self.context.train_rows[experience], self.context.sources.table
        offered = ExemplarTable.of(
            rows,
            strategy.experience_name(experience),
            (self.context.sources.forgery[rows] > 0).astype(int),
            group=table.rows["person"].to_numpy()[rows].astype(str),
            score=0.5,
            size=int(table.pictures[0].nbytes),
        )
        self.memory.update(offered, keyed_generator(_UPDATE, self.context.seed, experience))

    def before_training_exp(self, strategy: FaceStrategy, **kwargs: Any) -> None:
        """The dumb learner: back to the initial weights; what has just grown is initial as it is."""
        names = trained(strategy).keys()
        closed = set(self.trained) - names
        self.trained = sorted({*self.trained, *names})
        reset(strategy.learner, {name: value for name, value in self.initial.items() if name not in closed})
        now = weights_of(strategy.learner)
        self.initial = copies({name: value for name, value in now.items() if name not in closed})

    def after_training_exp(self, strategy: FaceStrategy, **kwargs: Any) -> None:
        """What training left as it was need not be kept: the learner still holds it."""
        now = weights_of(strategy.learner)
        self.initial = {name: value for name, value in self.initial.items() if not torch.equal(value, now[name])}

    def stored_bytes(self) -> int:
        """Faces and initial weights."""
        return super().stored_bytes() + byte_count(self.initial)

    def state_dict(self) -> State:
        """Memory, initial weights, and the names of what was ever trained."""
        state = self.memory.state_dict()
        tensors = pack(memory=state["tensors"], initial=self.initial)
        return tensors, {"memory": state["json"], "trained": self.trained}

    def load_state_dict(self, state: State) -> None:
        """Take them back."""
        tensors, values = state
        self.memory.load_state_dict({"tensors": unpack(tensors, "memory"), "json": values["memory"]})
        self.initial, self.trained = unpack(tensors, "initial"), list(values["trained"])
