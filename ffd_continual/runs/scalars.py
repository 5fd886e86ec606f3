"""Loss curves and progress of a run: one JSON line a step, the same scalars in TensorBoard, a bar on the terminal."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from tqdm import tqdm

from ffd_continual.runs.folder import write_text

if TYPE_CHECKING:
    from ffd_continual.strategies.training.template import FaceStrategy


def read_scalars(path: Path) -> pd.DataFrame:
    """Loss curves as a table: step (over the whole run), experience, tag, value. A half-written line is dropped."""
    rows = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            for tag, value in record["values"].items():
                rows.append((record["step"], record["experience"], tag, value))
    return pd.DataFrame(rows, columns=["step", "experience", "tag", "value"])


def cut_scalars(path: Path, step: int) -> None:
    """Drop the lines from `step` on: a resumed run writes them again."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] < step:
                kept.append(line)
        except ValueError:
            continue
    write_text(path, "".join(line + "\n" for line in kept))


class ScalarLog:
    """Writes every named loss, the learning rate and the learner's gauges at each step: a plugin by its hooks."""

    def __init__(self, path: Path, events: Path, names: tuple[str, ...], start: int):
        from torch.utils.tensorboard import SummaryWriter  # who only reads scalars does not wait for it

        self.names = names
        path.parent.mkdir(parents=True, exist_ok=True)
        cut_scalars(path, start)
        self.file = path.open("a", encoding="utf-8")
        self.writer = SummaryWriter(str(events), purge_step=start)
        self.bar: Any = None

    def before_training_epoch(self, strategy: FaceStrategy, **kwargs: Any) -> None:
        """One bar an experience."""
        experience, done = strategy.position
        title = f"{experience + 1}/{len(self.names)} {self.names[experience]}"
        self.bar = tqdm(total=strategy.config.steps, initial=done, desc=title, unit="step", file=sys.stderr)

    def after_training_iteration(self, strategy: FaceStrategy, **kwargs: Any) -> None:
        """Log the step that is just done."""
        experience, done = strategy.position
        step = experience * strategy.config.steps + done - 1
        values = {name: float(loss.detach()) for name, loss in strategy.losses.items()}
        values["loss"] = float(strategy.loss.detach())
        values["lr"] = float(strategy.optimizer.param_groups[-1]["lr"])
        values |= strategy.learner.gauges()
        self.file.write(json.dumps({"step": step, "experience": experience, "values": values}) + "\n")
        self.file.flush()  # a safe point may follow, and a resumed run writes only what comes after it
        for tag, value in values.items():
            self.writer.add_scalar(f"train/{tag}", value, step)
        self.bar.update()
        self.bar.set_postfix_str(f"loss {values['loss']:.3f}", refresh=False)

    def after_training_epoch(self, strategy: FaceStrategy, **kwargs: Any) -> None:
        """The experience's curve is on disk."""
        self.bar.close()
        self.file.flush()

    def close(self) -> None:
        """Flush what is left."""
        if self.bar is not None:
            self.bar.close()
        self.file.close()
        self.writer.close()
