"""Saving and taking back the whole state of training: learner, optimizer, strategy, position."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ffd_continual.config import CheckpointConfig
from ffd_continual.runs.checkpoint import (
    META,
    Checkpoint,
    broken,
    load_checkpoint,
    load_optimizer,
    optimizer_tensors,
    save_checkpoint,
)
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.stopping import Stopping
from ffd_continual.strategies.learner import Learner
from ffd_continual.strategies.strategy import Strategy

if TYPE_CHECKING:
    from ffd_continual.strategies.training.template import FaceStrategy

KEPT = 2


def state_of(learner: Learner, keeper: Strategy, position: tuple[int, int], threads: int, seconds: float) -> Checkpoint:
    """Learner and strategy as they are; `position` is (experience, steps done), `seconds` of training led here."""
    tensors = {f"learner.{k}": v for k, v in learner.state_dict().items()}
    kept, values = keeper.state_dict()
    tensors |= {f"strategy.{k}": v for k, v in kept.items()}
    meta = {
        "position": list(position),
        "growth": list(learner.growth),
        "strategy": values,
        "threads": threads,
        "seconds": seconds,
        "torch": torch.__version__,
    }
    return Checkpoint(tensors, meta)


def _counts(value: object) -> bool:
    whole = isinstance(value, list) and all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in value)
    return whole and len(value) == 2  # type: ignore[arg-type]


def _names(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def checked(checkpoint: Checkpoint, where: Path) -> Checkpoint:
    """The checkpoint, if its JSON holds what `state_of` writes. Raises FFDError that names the entry."""
    wanted: tuple[tuple[str, Callable[[object], bool], str], ...] = (
        ("position", _counts, "two whole numbers"),
        ("growth", _names, "a list of names"),
        ("strategy", lambda value: isinstance(value, dict), "a mapping"),
    )
    for key, fits, words in wanted:
        if key not in checkpoint.meta:
            raise broken(where, f"{META} has no entry {key!r}")
        if not fits(checkpoint.meta[key]):
            raise broken(where, f"{key} in {META} is {str(checkpoint.meta[key])[:60]!r}, not {words}")
    return checkpoint


def _named(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def restore_learner(learner: Learner, checkpoint: Checkpoint, where: Path) -> None:
    """Grow the learner as its log says, then load every tensor. Raises FFDError when they do not fit."""
    _restore(learner, None, checkpoint, where)


def restore(learner: Learner, keeper: Strategy, checkpoint: Checkpoint, where: Path) -> None:
    """`restore_learner`, and what the strategy keeps."""
    _restore(learner, keeper, checkpoint, where)


def _restore(learner: Learner, keeper: Strategy | None, checkpoint: Checkpoint, where: Path) -> None:
    checked(checkpoint, where)
    known = len(learner.growth)
    try:
        for forgery in checkpoint.meta["growth"][known:]:
            learner.begin(forgery)
        learner.load_state_dict(_named(checkpoint.tensors, "learner."))
        if keeper is not None:
            keeper.load_state_dict((_named(checkpoint.tensors, "strategy."), checkpoint.meta["strategy"]))
    except (RuntimeError, KeyError, ValueError, TypeError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise FFDError(
            f"{where} does not fit this configuration or version: {first}. "
            "Use the version and the configuration that wrote it."
        ) from error


def parameter_names(learner: Learner, keeper: Strategy) -> dict[int, str]:
    """id(parameter) to its name: the learner's, and those of the networks that the strategy keeps."""
    own = {id(p): f"strategy.{m}.{name}" for m, net in keeper.modules().items() for name, p in net.named_parameters()}
    return own | {id(p): name for name, p in learner.named_parameters()}


def latest_safe_point(folder: Path, experience: int) -> Path | None:
    """The newest whole checkpoint inside this experience."""
    points = sorted(p for p in folder.glob(f"e{experience:03d}_s*") if p.is_dir() and p.suffix == "")
    return points[-1] if points else None


class SafePoints:
    """Saves at step boundaries every N minutes or steps; at an experience's start takes the last one back.

    A plugin by its hooks, as strategies are.
    """

    def __init__(
        self,
        folder: Path,
        config: CheckpointConfig,
        threads: int,
        resume: bool,
        trained: Callable[[], float],
        stopping: Stopping,
    ):
        self.folder, self.config, self.threads, self.resume = folder, config, threads, resume
        self.trained = trained  # seconds of training up to now
        self.stopping = stopping  # whether the user wants to end here
        self.saved_at = time.monotonic()

    def find(self, experience: int) -> tuple[Path, Checkpoint] | None:
        """The safe point to start an experience from, if there is one."""
        path = latest_safe_point(self.folder, experience) if self.resume else None
        return None if path is None else (path, checked(load_checkpoint(path), path))

    def before_training_epoch(self, strategy: FaceStrategy, **kwargs: Any) -> None:
        """The experience has been opened as in the killed run (grown, hooks run): now its state comes back."""
        found = self.find(strategy.position[0])
        if found is not None:
            path, checkpoint = found
            restore(strategy.learner, strategy.keeper, checkpoint, path)
            names = parameter_names(strategy.learner, strategy.keeper)
            load_optimizer(strategy.optimizer, names, _named(checkpoint.tensors, "optimizer."))
        self.saved_at = time.monotonic()

    def after_training_iteration(self, strategy: FaceStrategy, **kwargs: Any) -> None:
        """Save when it is time, or when Ctrl-C was pressed: then training ends here."""
        experience, step = strategy.position
        by_steps = self.config.steps > 0 and step % self.config.steps == 0
        due = by_steps or time.monotonic() - self.saved_at >= self.config.minutes * 60
        if (due or self.stopping.asked) and step < strategy.config.steps:  # after the last step all of it is saved
            self.save(strategy)
            if self.stopping.asked:
                raise KeyboardInterrupt

    def save(self, strategy: FaceStrategy) -> None:
        """One safe point; older ones but the last two are removed after it is whole."""
        experience, step = strategy.position
        state = state_of(strategy.learner, strategy.keeper, strategy.position, self.threads, self.trained())
        moments = optimizer_tensors(strategy.optimizer, parameter_names(strategy.learner, strategy.keeper))
        tensors = state.tensors | {f"optimizer.{k}": v for k, v in moments.items()}
        save_checkpoint(self.folder / f"e{experience:03d}_s{step:07d}", Checkpoint(tensors, state.meta))
        for old in sorted(p for p in self.folder.glob("e*_s*") if p.suffix == "")[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)
        self.saved_at = time.monotonic()
