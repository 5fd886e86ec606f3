"""What a strategy is: how a learner keeps what it knew. One Avalanche plugin that also owns the rows of a step.

Avalanche calls a plugin by the names of its hooks (`before_training_exp`, `after_update`, ...), whatever its class: a
strategy defines those that it needs, each `(self, strategy: FaceStrategy, **kwargs: Any) -> None`, and configurations
are read without loading Avalanche.

A strategy never sees test faces or later experiences: its context gives train rows of experiences that have begun.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from ffd_continual.scenarios.dataset import Sources
from ffd_continual.strategies.learner import Output

Rows = npt.NDArray[np.int64]
State = tuple[dict[str, Tensor], dict[str, Any]]


@dataclass(frozen=True)
class Context:
    """What a strategy may know of a run."""

    sources: Sources
    train_rows: tuple[Rows, ...]  # one array an experience, in order
    seed: int


class Strategy:
    """Base: sequential fine-tuning. Subclasses override what they change."""

    config_type: ClassVar[type[Any]]
    supports_distributed = False  # what Avalanche asks of a plugin
    retrains = False  # True for upper bounds that see every experience at once

    def __init__(self, config: Any, context: Context):
        self.config, self.context = config, context

    def pool(self, experience: int) -> Rows:
        """Rows that are drawn as current ones during an experience."""
        return self.context.train_rows[experience]

    def replayed(self, batch: int) -> int:
        """How many of a batch's faces are drawn by `draw`; the batch's size never changes."""
        return 0

    def draw(self, count: int, rng: np.random.Generator) -> Rows:
        """Rows to replay: a pure function of the memory and the generator."""
        raise TypeError(f"{type(self).__name__} replays nothing")

    def remembered(self) -> Rows:
        """All rows kept; they count as memory and may refresh prototypes."""
        return np.zeros(0, np.int64)

    def modules(self) -> dict[str, nn.Module]:
        """Networks the strategy keeps beside the learner (a teacher): counted as memory."""
        return {}

    def stored_bytes(self) -> int:
        """Bytes kept from one experience to the next: exemplars, features, added networks; not the learner."""
        face = int(self.context.sources.table.pictures[0].nbytes)
        networks = sum(t.numel() * t.element_size() for m in self.modules().values() for t in m.state_dict().values())
        return len(self.remembered()) * face + int(networks)

    def decide(self, out: Output) -> Tensor:
        """The decision rule: an Output to the logit (B,) that is evaluated."""
        return out.z

    def closed_rule(self) -> Callable[[Output], Tensor]:
        """The same rule for an export: no branch on what the strategy keeps."""
        return self.decide

    def state_dict(self) -> State:
        """All that a resumed run needs: tensors and JSON-able values."""
        return {}, {}

    def load_state_dict(self, state: State) -> None:
        """Take back what `state_dict` gave."""
