"""SUR-LID. Cheng et al., "Stacking brick by brick: aligned feature isolation for incremental face forgery detection",
CVPR 2025 (arXiv:2411.11396). Every task keeps a place of its own in feature space, and all are judged together.

    L = L_iso + mu1 L_dis + mu2 L_det,  mu1 = 1, mu2 = 0.1
    L_iso: supervised contrast of features, groups (task, real or forged); stored features, mixed, are added to it:
           beta (alpha f1 + (1 - alpha) f2) + (1 - beta) c, c the group's centroid
    L_dis: squared difference of stored faces' features to those of the encoder as the last task left it
    L_det: cross-entropy of each task's linear head on the task's own faces
    after each step: theta <- |theta| unit((1 - gamma) theta/|theta| + gamma old/|old|),  gamma = 0.001, of the new head
    at test: the mean of all heads

Sparse uniform replay: by task and label, faces in order of their distance to the centroid are cut into segments; each
gives its most stable face (cosine of its feature with that of the picture shuffled as a grid) and the least like it.

The outline and the formulas above were at hand. **Readings**: segments of equal count; a 2 x 2 grid, never left as it
was; f1, f2 two stored faces of a group under the encoder at the task's start, c their mean, alpha and beta uniform,
`filled` a group and step; contrast temperature 0.1; mean over faces and features of the squared difference; old heads
go on learning; gamma turns weights, not biases; the mean is one of logits. Deviations: the learner's own losses are
trained beside L (a learner may be more than an encoder with one head); exemplars are a budget for all tasks together
(the paper: 500 a task), so early tasks' shares shrink. Axes: B faces, D features, M stored faces.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffd_continual.scenarios.dataset import plain_batch
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.views import keyed_generator
from ffd_continual.strategies.field_losses import as_shown, feature_distillation, supervised_contrast
from ffd_continual.strategies.learner import Output, split_decay
from ffd_continual.strategies.replay import ReplayConfig
from ffd_continual.strategies.strategy import Context, Rows, State
from ffd_continual.strategies.sur_lid_parts import StableAndUnlike, align, grid_shuffle, refill
from ffd_continual.strategies.teacher import TaughtReplay
from ffd_continual.strategies.training.settings import fork_seeded

if TYPE_CHECKING:
    from ffd_continual.strategies.training.template import FaceStrategy

_SHUFFLE, _FILL, _HEAD = 606, 607, 608  # tell the uses of a key apart


@dataclass(frozen=True)
class SURLIDConfig(ReplayConfig):
    """Replay's settings, and the weights of the parts (0: off)."""

    exemplars: int = 500
    policy: str = "sur"  # sparse uniform replay as above; or one of replay's policies
    cells: int = 2  # of a shuffled picture, a side
    isolation_weight: float = 1.0
    contrast_temperature: float = 0.1
    filled: int = 4  # mixed features a past group, in each step
    distill_weight: float = 1.0  # mu1
    detect_weight: float = 0.1  # mu2; 0: no heads, the learner's own logit decides
    align: float = 0.001  # gamma


class SURLID(TaughtReplay):
    """Replay, isolated groups, a teacher, and a head a task that decides with the others."""

    config_type = SURLIDConfig

    def __init__(self, config: SURLIDConfig, context: Context):
        own = config.policy.lower() == "sur"
        super().__init__(replace(config, policy="sparseuniform") if own else config, context)
        self.config = config
        if config.cells < 2 or not 0 <= config.align < 1:
            raise FFDError("strategy sur_lid needs strategy.cells of 2 or more and strategy.align from 0 to below 1.")
        if own:
            self.memory.policy = StableAndUnlike()
        self.heads = nn.ModuleList()  # one Linear(D, 1) a task
        self.stored, self.groups = torch.zeros(0, 0), torch.zeros(0, dtype=torch.int64)  # what re-filling mixes

    def modules(self) -> dict[str, nn.Module]:
        """The heads; the teacher lives only while an experience is learnt."""
        return {"heads": self.heads} if len(self.heads) else {}

    def decide(self, out: Output) -> Tensor:
        """The mean of the heads."""
        if not len(self.heads):
            return out.z
        features = out.features["common"].float()
        self.heads.to(features.device)
        return torch.stack([head(features).squeeze(1) for head in self.heads]).mean(0)

    # Opening an experience --------------------------------------------------------------------------------------

    def _mixes(self) -> bool:
        return bool(self.config.isolation_weight > 0 and self.config.filled > 0)

    def distils(self) -> bool:
        """Stored faces' features, or what re-filling mixes."""
        return bool(len(self.memory) and (self.config.distill_weight > 0 or self._mixes()))

    def before_training_exp(self, strategy: FaceStrategy, **kwargs: Any) -> None:
        """A new head joins the optimizer; the teacher, and the stored faces' features under it."""
        super().before_training_exp(strategy, **kwargs)
        self.stored, self.groups = torch.zeros(0, 0), torch.zeros(0, dtype=torch.int64)
        if self.config.detect_weight > 0:
            self._grow(strategy)
        if self.teacher.learner is not None and self._mixes():
            rows = self.remembered()
            self.stored = self._common(self.teacher.learner, strategy, rows)
            origin = torch.from_numpy(self.context.sources.experience[rows])
            label = torch.from_numpy(self.memory.table.label.astype(np.int64))
            self.groups = (2 * origin + label).to(self.stored.device)

    def _grow(self, strategy: FaceStrategy) -> None:
        experience, learner = strategy.position[0], strategy.learner
        if len(self.heads) == experience:
            was = learner.training
            learner.eval()
            width = self._common(learner, strategy, self.context.train_rows[experience][:1]).shape[1]
            learner.train(was)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(fork_seeded(self.context.seed, experience, _HEAD))
                self.heads.append(nn.Linear(width, 1))
        self.heads.to(strategy.device)
        for group in split_decay(self.heads.parameters(), strategy.config.lr, strategy.config.weight_decay):
            strategy.optimizer.add_param_group(group)
            strategy.learning_rates.append(group["lr"])

    @staticmethod
    @torch.no_grad()
    def _common(learner: Any, strategy: FaceStrategy, rows: Rows) -> Tensor:
        return torch.cat([learner.look(batch).features["common"] for batch in strategy.faces(rows)]).float()

    # One step ---------------------------------------------------------------------------------------------------

    def _filled(self, strategy: FaceStrategy) -> tuple[Tensor, Tensor]:
        """`filled` mixed features (N, D) of each stored group, and their groups (N,)."""
        rng = keyed_generator(_FILL, self.context.seed, *strategy.position)
        pairs = []
        for group in sorted(set(self.groups.tolist())):
            members = (self.groups == group).nonzero().squeeze(1).cpu().numpy()
            pairs.append(rng.choice(members, size=(2, self.config.filled)))
        first, second = torch.from_numpy(np.concatenate(pairs, axis=1)).to(self.stored.device)
        shares = torch.from_numpy(rng.random((2, len(first)), dtype=np.float32)).to(self.stored.device)
        return refill(self.stored, self.groups, first, second, shares[0], shares[1]), self.groups[first]

    def before_backward(self, strategy: FaceStrategy, **kwargs: Any) -> None:
        """Add isolation, distillation and the heads' losses to the step's loss, each under its own name."""
        config, batch, terms = self.config, strategy.mbatch, dict[str, Tensor]()
        features = strategy.out.features["common"].float()
        target = as_shown(strategy.learner, batch).target
        if config.isolation_weight > 0:
            filled = self._filled(strategy) if len(self.stored) else (None, None)
            contrast = supervised_contrast(
                features, 2 * batch.experience + target, config.contrast_temperature, *filled
            )
            terms["isolation"] = config.isolation_weight * contrast
        if config.distill_weight > 0 and self.teacher:
            new, old = self.teacher.pair(strategy)
            past = batch.experience < strategy.position[0]
            kept = feature_distillation(new.features["common"][past].float(), old.features["common"][past].float())
            terms["keep_feature"] = config.distill_weight * kept
        if len(self.heads):
            z = torch.cat([head(features) for head in self.heads], dim=1)
            own = z.gather(1, batch.experience[:, None]).squeeze(1)
            terms["detect"] = config.detect_weight * F.binary_cross_entropy_with_logits(own, target.float())
        strategy.add_terms(terms)

    @torch.no_grad()
    def after_update(self, strategy: FaceStrategy, **kwargs: Any) -> None:
        """Turn the newest head towards the one before."""
        if len(self.heads) > 1 and self.config.align > 0:
            new, old = self.heads[-1].weight, self.heads[-2].weight
            assert isinstance(new, Tensor)
            assert isinstance(old, Tensor)
            new.copy_(align(new, old, self.config.align))

    # Closing an experience --------------------------------------------------------------------------------------

    @torch.no_grad()
    def _features(self, strategy: FaceStrategy, rows: Rows) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        features, scores = super()._features(strategy, rows)
        policy = self.memory.policy
        if isinstance(policy, StableAndUnlike):
            plain, cells, parts = torch.from_numpy(features), self.config.cells, []
            for start in range(0, len(rows), strategy.config.eval_batch):
                chosen = [int(row) for row in rows[start : start + strategy.config.eval_batch]]
                images = plain_batch(self.context.sources, chosen).image.to(strategy.device)
                orders = np.stack([self._order(row, cells * cells) for row in chosen])
                shuffled = grid_shuffle(images, cells, torch.from_numpy(orders).to(strategy.device))
                parts.append(strategy.learner(shuffled).features["common"].float().cpu())
            likeness = F.cosine_similarity(plain, torch.cat(parts)).tolist()
            policy.stability = dict(zip((int(row) for row in rows), likeness, strict=True))
        return features, scores

    def _order(self, row: int, count: int) -> np.ndarray[Any, Any]:
        order = keyed_generator(_SHUFFLE, self.context.seed, row).permutation(count)
        return order[::-1].copy() if bool((order == np.arange(count)).all()) else order

    # Keeping ----------------------------------------------------------------------------------------------------

    def state_dict(self) -> State:
        """The memory and the heads; inside an experience also the teacher and what re-filling mixes."""
        tensors, values = super().state_dict()
        tensors = tensors | {f"heads.{name}": value for name, value in self.heads.state_dict().items()}
        if self.teacher:
            tensors = tensors | {"fill.stored": self.stored, "fill.groups": self.groups}
        return tensors, values

    def load_state_dict(self, state: State) -> None:
        """Take all back; heads that exist keep their place in the optimizer."""
        tensors, values = state
        heads = {k.removeprefix("heads."): v for k, v in tensors.items() if k.startswith("heads.")}
        while f"{len(self.heads)}.weight" in heads:
            self.heads.append(nn.Linear(heads[f"{len(self.heads)}.weight"].shape[1], 1))
        self.heads.load_state_dict(heads)
        if self.teacher and "fill.stored" in tensors:
            self.stored = tensors["fill.stored"].to(self.stored.device)
            self.groups = tensors["fill.groups"].to(self.groups.device)
        rest = {k: v for k, v in tensors.items() if not k.startswith(("heads.", "fill."))}
        super().load_state_dict((rest, values))
