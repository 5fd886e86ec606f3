"""Balanced experience replay (Chaudhry et al., arXiv:1902.10486): a share of every batch comes from stored faces.

The memory is balanced by forgery x real/forged x person or video (replay/memory.py). The batch's size is the same as
without replay, so methods are compared at equal compute.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from ffd_continual.replay.exemplars import ExemplarTable
from ffd_continual.replay.memory import Budget, ExemplarMemory
from ffd_continual.replay.selection import HardAndCentre, Herding, Reservoir, SelectionPolicy, SparseUniform
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.views import keyed_generator
from ffd_continual.strategies.strategy import Context, Rows, State, Strategy

if TYPE_CHECKING:
    from ffd_continual.strategies.training.template import FaceStrategy

POLICIES: tuple[type, ...] = (Reservoir, Herding, HardAndCentre, SparseUniform)
_UPDATE = 303


@dataclass(frozen=True)
class ReplayConfig:
    """How much is stored, chosen how, and how much of a batch it fills."""

    exemplars: int = 200  # stored faces in all
    policy: str = "reservoir"  # reservoir, herding, hardandcentre, sparseuniform
    share: float = 0.33  # of the batch, once something is stored


def make_policy(name: str) -> SelectionPolicy:
    """A selection policy by its name, case and hyphens ignored."""
    known = {cls.__name__.lower(): cls for cls in POLICIES}
    plain = name.lower().replace("-", "").replace("_", "")
    if plain not in known:
        raise FFDError(f"strategy.policy: {name!r} is not known. Known: {', '.join(known)}.")
    made: SelectionPolicy = known[plain]()
    return made


class Replay(Strategy):
    """Stores faces after each experience and replays them in every later step."""

    config_type = ReplayConfig
    stores_logits: ClassVar[bool] = False  # keep `_logits` with the faces; they count as memory

    def __init__(self, config: ReplayConfig, context: Context):
        super().__init__(config, context)
        policy, budget = make_policy(config.policy), Budget(items=config.exemplars)
        self.memory = ExemplarMemory(budget, policy, store_logits=self.stores_logits)

    def replayed(self, batch: int) -> int:
        """A fixed share once the memory holds something; at least one current face of each class stays."""
        return min(batch - 2, round(batch * self.config.share)) if len(self.memory) else 0

    def draw(self, count: int, rng: np.random.Generator) -> Rows:
        """Balanced over forgery x label."""
        return np.asarray(self.memory.draw(count, rng), np.int64)

    def remembered(self) -> Rows:
        """Stored rows, in the memory's order."""
        return np.asarray(self.memory.table.row, np.int64)

    def after_training_exp(self, strategy: FaceStrategy, **kwargs: Any) -> None:
        """Offer the experience's faces to the memory; features and scores only where the policy asks for them."""
        experience = strategy.position[0]
        rows = self.context.train_rows[experience]
        table = self.context.sources.table
        features, scores = None, 0.5 * np.ones(len(rows))
        if self.memory.policy.needs_features:
            features, scores = self._features(strategy, rows)
        offered = ExemplarTable.of(
            rows,
            strategy.experience_name(experience),
            (self.context.sources.forgery[rows] > 0).astype(int),
            group=table.rows["person"].to_numpy()[rows].astype(str),
            score=scores,
            logit=self._logits(strategy, rows) if self.stores_logits else float("nan"),
            size=int(table.pictures[0].nbytes),
            feature=features,
        )
        self.memory.update(offered, keyed_generator(_UPDATE, self.context.seed, experience))

    @torch.no_grad()
    def _features(self, strategy: FaceStrategy, rows: Rows) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        outs = [strategy.learner.look(batch) for batch in strategy.faces(rows)]
        features = torch.cat([out.features["common"] for out in outs]).float().cpu().numpy()
        scores = torch.cat([torch.sigmoid(self.decide(out)) for out in outs]).float().cpu().numpy()
        return features, scores

    @torch.no_grad()
    def _logits(self, strategy: FaceStrategy, rows: Rows) -> np.ndarray[Any, Any]:
        """z of the learner as it is, without views."""
        return torch.cat([strategy.learner.look(batch).z for batch in strategy.faces(rows)]).float().cpu().numpy()

    def stored_bytes(self) -> int:
        """Faces, and the logits kept with them."""
        return super().stored_bytes() + (4 * len(self.memory) if self.stores_logits else 0)

    def state_dict(self) -> State:
        """The memory's table."""
        state = self.memory.state_dict()
        return state["tensors"], state["json"]

    def load_state_dict(self, state: State) -> None:
        """Take the memory back."""
        self.memory.load_state_dict({"tensors": state[0], "json": state[1]})
