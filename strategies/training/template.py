"""The one thin Avalanche template that trains every learner under every strategy.

It differs from SupervisedTemplate in five places: batches come from a step plan (plan.py) instead of a shuffling
loader, the learner's named losses are the criterion, the optimizer is made anew each experience from the learner's
parameter groups, torch's generator is re-seeded at every step, and training can start inside an experience. Stock
plugins find what they expect: class logits [0, z] (B, 2) in `mb_output`, cross-entropy in `_criterion`, and the full
Output in `out`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from avalanche.training.plugins.evaluation import EvaluationPlugin
from avalanche.training.templates import SupervisedTemplate
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ffd_continual.scenarios.batch import Batch
from ffd_continual.scenarios.dataset import BatchDataset, Sources, plain_batch
from ffd_continual.strategies.learner import Learner, Losses, Output, place, two_logits
from ffd_continual.strategies.strategy import Rows, Strategy
from ffd_continual.strategies.training.plan import StepPlan
from ffd_continual.strategies.training.settings import LossError, TrainConfig, check_training, fork_seeded, rate_scale


class FaceStrategy(SupervisedTemplate):  # type: ignore[misc]
    """Avalanche strategy that runs one Learner under one Strategy."""

    loss: Tensor  # of the step: the learner's terms, and what the strategy adds

    def __init__(
        self,
        *,
        learner: Learner,
        keeper: Strategy,
        sources: Sources,
        config: TrainConfig,
        device: torch.device,
        plugins: Sequence[Any] = (),  # whatever has hooks
    ):
        check_training(config)
        super().__init__(
            model=learner,
            optimizer=torch.optim.AdamW([nn.Parameter(torch.zeros(1))]),
            criterion=nn.CrossEntropyLoss(),
            train_mb_size=config.batch,
            eval_mb_size=config.eval_batch,
            device=device,
            plugins=[keeper, *plugins],
            evaluator=_no_metrics(),
        )
        self.keeper, self.sources, self.config = keeper, sources, config
        self.mbatch: Any = None  # a Batch while training
        self.position = (0, 0)  # (experience, steps done in it)
        self.out = Output(z=torch.zeros(0))
        self.losses: Losses = {}
        self.learning_rates: list[float] = []

    @property
    def learner(self) -> Learner:
        """The model, by its contract."""
        return cast(Learner, self.model)

    # What a step sees -------------------------------------------------------------------------------------------

    def make_train_dataloader(self, **kwargs: Any) -> None:
        """A loader of whole batches that starts at the step in `position`."""
        experience, start = self.position
        plan = StepPlan(self.keeper, self.sources, experience, self.config.batch, start, self.config.steps)
        self.dataloader = DataLoader(
            BatchDataset(self.sources),
            sampler=plan,
            batch_size=None,
            num_workers=self.config.workers,
        )

    def faces(self, rows: Rows) -> Iterator[Batch]:
        """Rows as batches of the evaluation size, without views, on the device."""
        for i in range(0, len(rows), self.config.eval_batch):
            batch = plain_batch(self.sources, [int(r) for r in rows[i : i + self.config.eval_batch]], pictures=False)
            yield Batch(*(field.to(self.device) for field in batch))

    # Growing and optimizing -------------------------------------------------------------------------------------

    def check_model_and_optimizer(self, **kwargs: Any) -> None:
        """A new experience: the learner grows, and gets a new optimizer."""
        self.model = self.model_adaptation()
        self.make_optimizer()

    def model_adaptation(self, model: nn.Module | None = None) -> nn.Module:
        """Grow the learner by the experience's forgery, once, with its own random numbers."""
        learner = self.learner if model is None else cast(Learner, model)
        experience = self.position[0]
        if self.is_training and len(learner.growth) <= experience:
            name = self.experience_name(experience)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(fork_seeded(self.sources.seed, experience, 7))
                learner.begin(name)
                pool = self._at_hand(experience)
                shown = pool[:: max(1, len(pool) // learner.met)] if learner.met else pool
                with torch.no_grad():
                    learner.meet(self.faces(shown))
        return place(learner, self.device)

    def _at_hand(self, experience: int) -> Rows:
        """The experience's pool and what is remembered, each row once."""
        rows = np.concatenate([self.keeper.pool(experience), self.keeper.remembered()])
        _, first = np.unique(rows, return_index=True)
        return rows[np.sort(first)]

    def experience_name(self, experience: int) -> str:
        """The forgery (or group) that an experience brings."""
        row = int(self.keeper.context.train_rows[experience][0])
        return str(self.sources.table.rows["experience"].iloc[row])

    def make_optimizer(self, **kwargs: Any) -> None:
        """The configured optimizer over the learner's groups; its state does not outlive an experience."""
        groups = self.learner.param_groups(self.config.lr, self.config.weight_decay)
        self.optimizer: torch.optim.Optimizer
        if self.config.optimizer == "sgd":
            self.optimizer = torch.optim.SGD(groups, lr=self.config.lr, momentum=0.9)
        else:
            kind = torch.optim.Adam if self.config.optimizer == "adam" else torch.optim.AdamW
            self.optimizer = kind(groups, lr=self.config.lr)
        self.learning_rates = [group["lr"] for group in self.optimizer.param_groups]

    # One step ---------------------------------------------------------------------------------------------------

    def _unpack_minibatch(self) -> None:
        self.mbatch = Batch(*(field.to(self.device, non_blocking=True) for field in self.mbatch))

    def _before_training_iteration(self, **kwargs: Any) -> None:
        experience, step = self.position
        torch.manual_seed(fork_seeded(self.sources.seed, experience, step, 11))
        self.learner.progress = step / self.config.steps
        scale = rate_scale(self.config, step)
        for group, lr in zip(self.optimizer.param_groups, self.learning_rates, strict=True):
            group["lr"] = lr * scale
        super()._before_training_iteration(**kwargs)

    def forward(self) -> Tensor:
        """Training: the learner's step. Evaluation: its forward, through the strategy's decision rule."""
        if not self.is_training:
            self.out = self.learner(self.mb_x)
            return two_logits(self.keeper.decide(self.out))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bf16):
            self.out, self.losses = self.learner.step(self.mbatch)
        return two_logits(self.out.z.float())

    def criterion(self) -> Tensor:
        """Training: the sum of the named losses. Evaluation: cross-entropy on [0, z]."""
        if not self.is_training:
            return self._criterion(self.mb_output, self.mb_y)  # type: ignore[no-any-return]
        for term, loss in self.losses.items():
            if not bool(torch.isfinite(loss)):
                self._no_number(f"loss {term!r} is {float(loss)}")
        return torch.stack([loss.float() for loss in self.losses.values()]).sum()

    def add_terms(self, terms: Mapping[str, Tensor]) -> None:
        """In `before_backward`: a strategy's terms join the step's loss, listed by name beside the learner's own."""
        self.losses |= {name: term.detach() for name, term in terms.items()}
        if terms:
            self.loss = self.loss + torch.stack(list(terms.values())).sum()

    def _no_number(self, what: str) -> None:
        experience, step = self.position
        learner = type(self.learner).__module__.rpartition(".")[2]
        raise LossError(
            f"learner {learner}: {what} at step {step} of experience {experience} "
            f"({self.experience_name(experience)}). A smaller train.lr, or a smaller weight of that term, may help."
        )

    def training_epoch(self, **kwargs: Any) -> None:
        """One pass over the steps of an experience: Avalanche's loop, with micro-batches."""
        for whole in self.dataloader:
            self.mbatch = whole
            self._unpack_minibatch()
            self._before_training_iteration(**kwargs)
            whole_batch: Batch = self.mbatch  # a strategy may have set some faces aside
            self.optimizer.zero_grad()
            pieces = torch.arange(len(whole_batch.target), device=self.device).chunk(self.config.accumulate)
            for piece in pieces:
                self.mbatch = whole_batch if len(pieces) == 1 else whole_batch.take(piece)
                self.loss = self._make_empty_loss()
                self._before_forward(**kwargs)
                self.mb_output = self.forward()
                self._after_forward(**kwargs)
                self.loss = self.loss + self.criterion()
                self._before_backward(**kwargs)
                self.loss = self.loss / len(pieces)
                self.backward()
                self._after_backward(**kwargs)
            self._before_update(**kwargs)
            trained = [p for group in self.optimizer.param_groups for p in group["params"]]
            norm = nn.utils.clip_grad_norm_(trained, self.config.clip or math.inf)
            if not bool(torch.isfinite(norm)):
                self._no_number(f"the gradient of the sum of {', '.join(self.losses)} is {float(norm)}")
            self.optimizer_step()
            self._after_update(**kwargs)
            self.position = (self.position[0], self.position[1] + 1)
            self._after_training_iteration(**kwargs)

    def _after_training_exp(self, **kwargs: Any) -> None:
        """The learner closes the experience before the strategy's memory does."""
        experience = self.position[0]
        rows = self._at_hand(experience)
        self.model.eval()
        with torch.no_grad():
            self.learner.end(self.experience_name(experience), self.faces(rows))
        super()._after_training_exp(**kwargs)


def _no_metrics() -> EvaluationPlugin:
    """The platform measures by itself: of that Avalanche warns."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No loggers specified")
        return EvaluationPlugin()
