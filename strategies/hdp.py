"""HDP: historical distribution preserving. Sun et al., "Continual face forgery detection via historical distribution
preserving", IJCV 2024 (arXiv:2308.06217). No face is stored. When an experience closes, one universal perturbation
delta, |delta| <= bound in every pixel, is found that makes the detector call the experience's real faces forged. In
later experiences real + delta stands in for the past forgeries: labelled forged, its logits distilled from the
detector as the last experience left it; a second distillation keeps where that detector puts real faces.

    delta <- clip(delta + (bound / iterations) sign grad_delta sum_x log p(forged | clip(x + delta, 0, 1)), +-bound)
    L = learner(real, forged, real + delta) + w_d KD(z'(x + delta), z(x + delta)) + w_r |f'(x) - f(x)|^2 of real faces

Only the method's outline was at hand. **Readings**: the step above, one a batch of real faces, over at most
`iterations` passes, ended when `fooled` of the real faces are called forged (the values of `bound` and `fooled` are
second-hand); weights 1; the second distillation is one of features ("common") by mean squared difference; temperature
2; each stand-in takes the delta of a past experience drawn at random, that experience's number and (first) forgery.
Deviations: stand-ins take `share` of the batch, whose size stays; a delta is found on faces without augmentation, and
laid on augmented ones. The first experience is naive. Learners that file faces by their row (guide_space) meet a
real face's row once more as a forged one. Axes: B faces, S pixels a side, E past experiences.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ffd_continual.scenarios.batch import Batch
from ffd_continual.scenarios.dataset import plain_batch
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.views import keyed_generator
from ffd_continual.strategies.field_losses import (
    as_shown,
    feature_distillation,
    logit_distillation,
)
from ffd_continual.strategies.strategy import Context, Rows, State, Strategy
from ffd_continual.strategies.teacher import Teacher

if TYPE_CHECKING:
    from ffd_continual.strategies.training.template import FaceStrategy

_WHICH = 505  # tells the draw of perturbations from other uses of a key


@dataclass(frozen=True)
class HDPConfig:
    """Size of the perturbations, how many stand-ins, and the weights of both distillations (0: off)."""

    bound: float = 0.075  # of a pixel in 0..1; 0.15 in the common scale of -1..1
    iterations: int = 5
    fooled: float = 0.8  # share of real faces called forged at which a perturbation is good enough
    share: float = 0.33  # of the batch, from the second experience on
    logit_weight: float = 1.0  # of the stand-ins
    temperature: float = 2.0
    real_weight: float = 1.0  # of the real faces' features


def universal_step(
    delta: Tensor, images: Tensor, judge: Callable[[Tensor], Tensor], bound: float, size: float
) -> Tensor:
    """One signed-gradient step of a perturbation (3, S, S) towards "forged" on images (B, 3, S, S) in 0..1.

    judge gives logits (B,). Raises FFDError when no gradient reaches the pixels.
    """
    with torch.enable_grad():
        moved = delta.detach().clone().requires_grad_(True)
        loss = F.softplus(-judge((images + moved).clamp(0.0, 1.0))).sum()
        slope = torch.autograd.grad(loss, moved, allow_unused=True)[0] if loss.requires_grad else None
    if slope is None:
        raise FFDError(
            "strategy hdp perturbs pictures along the learner's gradient, and no gradient reaches the pixels: the "
            "learner's first layers are frozen and computed without one. Choose a learner that can be differentiated "
            "down to its pictures (e.g. learner.name=plain with learner.pooling=mean), or another strategy."
        )
    return (delta - size * slope.sign()).clamp(-bound, bound)


def universal_perturbation(
    judge: Callable[[Tensor], Tensor],
    batches: Callable[[], Iterable[Tensor]],
    delta: Tensor,
    bound: float,
    iterations: int,
    fooled: float,
) -> Tensor:
    """Passes over the real faces' pictures that `batches()` gives, from `delta` (3, S, S) on, until the share of faces
    called forged (z > 0) reaches `fooled`."""
    for _ in range(iterations):
        for images in batches():
            delta = universal_step(delta, images, judge, bound, bound / iterations)
        called, count = 0, 0
        with torch.no_grad():
            for images in batches():
                called += int((judge((images + delta).clamp(0.0, 1.0)) > 0).sum())
                count += len(images)
        if called >= fooled * count:
            break
    return delta


def stand_ins(batch: Batch, where: Tensor, delta: Tensor, experience: Tensor, forgery: Tensor) -> Batch:
    """The batch with the faces at `where` (B,) bool perturbed and labelled forged.

    delta (E, 3, S, S); experience (B,) says whose delta each takes; forgery (E,) the index of that past forgery.
    """
    added = torch.where(where[:, None, None, None], delta[experience], 0.0)
    changed: dict[str, Tensor] = {
        "target": torch.where(where, 1, batch.target),
        "forgery": torch.where(where, forgery[experience], batch.forgery),
        "experience": torch.where(where, experience, batch.experience),
        "mask_known": batch.mask_known & ~where,
        "pseudo_known": batch.pseudo_known & ~where,
    }
    for name in ("image", "view2", "other"):
        pictures: Tensor = getattr(batch, name)
        if pictures.shape[1]:
            changed[name] = torch.where(where[:, None, None, None], (pictures + added).clamp(0.0, 1.0), pictures)
    return batch._replace(**changed)


class HDP(Strategy):
    """Universal perturbations in place of exemplars, and a teacher while an experience is learnt."""

    config_type = HDPConfig

    def __init__(self, config: HDPConfig, context: Context):
        super().__init__(config, context)
        if context.sources.kept is not None:
            raise FFDError("strategy hdp perturbs pictures, and train.kept_views keeps features: set it to 0.")
        if config.iterations < 1 or config.bound <= 0:
            raise FFDError("strategy hdp needs strategy.iterations of 1 or more and strategy.bound above 0.")
        self.deltas: list[Tensor] = []  # one (3, S, S) an experience that is over
        self.teacher = Teacher()

    # Stand-ins --------------------------------------------------------------------------------------------------

    def replayed(self, batch: int) -> int:
        """Slots for stand-ins; at least one current face of each class stays."""
        return min(batch - 2, round(batch * self.config.share)) if self.deltas else 0

    def draw(self, count: int, rng: np.random.Generator) -> Rows:
        """Real faces of the current experience, for `before_training_iteration` to perturb."""
        rows = self._real(len(self.deltas))
        laps = [rng.permutation(rows) for _ in range(-(-count // len(rows)))]
        return np.concatenate(laps)[:count]

    def _real(self, experience: int) -> Rows:
        rows = self.context.train_rows[experience]
        return np.asarray(rows[self.context.sources.forgery[rows] == 0])

    def _forgeries(self) -> Tensor:
        """(E,) index of the first forgery of each past experience."""
        forgery = self.context.sources.forgery
        past = self.context.train_rows[: len(self.deltas)]
        return torch.tensor([int(forgery[rows][forgery[rows] > 0].min()) for rows in past])

    def before_training_exp(self, strategy: FaceStrategy, **kwargs: Any) -> None:
        """Before the first step: can this learner be perturbed at all? Later: the teacher."""
        learner, config = strategy.learner, self.config
        if config.share > 0 and not self.deltas:
            was = learner.training
            learner.eval()
            size = self.context.sources.table.size
            blank = torch.zeros(3, size, size, device=strategy.device)
            universal_step(blank, blank[None], lambda images: learner(images).z, config.bound, config.bound)
            learner.train(was)
        self.teacher.drop()
        if strategy.position[0] > 0 and (config.share * config.logit_weight > 0 or config.real_weight > 0):
            self.teacher.take(learner)

    def before_training_iteration(self, strategy: FaceStrategy, **kwargs: Any) -> None:
        """The drawn real faces, a batch's last ones, become forged ones."""
        batch: Batch = strategy.mbatch
        count, size = self.replayed(strategy.config.batch), len(batch.target)
        if count:
            where = torch.arange(size, device=strategy.device) >= size - count
            rng = keyed_generator(_WHICH, self.context.seed, *strategy.position)
            whose = torch.from_numpy(rng.integers(len(self.deltas), size=size)).to(strategy.device)
            deltas = torch.stack(self.deltas).to(strategy.device)
            strategy.mbatch = stand_ins(batch, where, deltas, whose, self._forgeries().to(strategy.device))

    # Distillation -----------------------------------------------------------------------------------------------

    def before_backward(self, strategy: FaceStrategy, **kwargs: Any) -> None:
        """Add both distillations to the step's loss, each under its own name."""
        if not self.teacher:
            return
        config, batch = self.config, strategy.mbatch
        new, old = self.teacher.pair(strategy)
        standing = batch.experience < strategy.position[0]
        real = as_shown(strategy.learner, batch).target == 0
        terms: dict[str, Tensor] = {}
        if config.logit_weight > 0 and self.replayed(strategy.config.batch):
            kept = logit_distillation(new.z[standing].float(), old.z[standing].float(), config.temperature)
            terms["keep_logit"] = config.logit_weight * kept
        if config.real_weight > 0:
            now, then = new.features["common"][real].float(), old.features["common"][real].float()
            terms["keep_real"] = config.real_weight * feature_distillation(now, then)
        strategy.add_terms(terms)

    def after_training_exp(self, strategy: FaceStrategy, **kwargs: Any) -> None:
        """The experience's perturbation, against the detector as it now is."""
        self.teacher.drop()
        if self.config.share <= 0:
            return
        learner, sources, rows = strategy.learner, self.context.sources, self._real(strategy.position[0])
        learner.eval()

        def pictures() -> Iterable[Tensor]:
            for start in range(0, len(rows), strategy.config.eval_batch):
                part = [int(row) for row in rows[start : start + strategy.config.eval_batch]]
                yield plain_batch(sources, part).image.to(strategy.device)

        config, size = self.config, sources.table.size
        start = torch.zeros(3, size, size, device=strategy.device)
        found = universal_perturbation(
            lambda images: learner(images).z, pictures, start, config.bound, config.iterations, config.fooled
        )
        self.deltas.append(found.cpu())

    # Keeping ----------------------------------------------------------------------------------------------------

    def stored_bytes(self) -> int:
        """The perturbations."""
        return sum(delta.numel() * delta.element_size() for delta in self.deltas)

    def state_dict(self) -> State:
        """The perturbations, and inside an experience the teacher."""
        return {f"delta.{i:03d}": delta for i, delta in enumerate(self.deltas)} | self.teacher.state(), {}

    def load_state_dict(self, state: State) -> None:
        """Take both back."""
        own = self.teacher.load(state[0])
        self.deltas = [own[name].cpu() for name in sorted(own)]
