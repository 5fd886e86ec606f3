"""The run loop: learn an experience, save, measure on every stream; then the next. Any part done is never done again.

The order of events is what makes a kill harmless: an experience counts as learnt when its checkpoint has its final
name, and as measured when its predictions have theirs. `resume` walks the same loop and skips what is there.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ffd_continual.config import RunConfig
from ffd_continual.finish import finish_run
from ffd_continual.measuring.matrix import UNTRAINED
from ffd_continual.measuring.video_level import names_in
from ffd_continual.runs.assemble import Parts, assemble
from ffd_continual.runs.checkpoint import Checkpoint, load_checkpoint, read_meta, save_checkpoint
from ffd_continual.runs.detector import Detector, calibrated, judge, score_faces
from ffd_continual.runs.facts import measured, write_facts
from ffd_continual.runs.folder import RunFolder, write_table, write_text
from ffd_continual.runs.samples import write_samples
from ffd_continual.runs.saving import SafePoints, latest_safe_point, restore, state_of
from ffd_continual.runs.scalars import ScalarLog
from ffd_continual.runs.torch_state import compute_alike
from ffd_continual.scenarios.errors import FFDError, is_full
from ffd_continual.stopping import Stopping
from ffd_continual.strategies.learner import place
from ffd_continual.strategies.strategy import Rows
from ffd_continual.strategies.training.settings import LossError
from ffd_continual.terminal import say

if TYPE_CHECKING:
    from ffd_continual.strategies.training.template import FaceStrategy


@dataclass
class Clock:
    """Seconds of training and of measuring. Measuring is kept over kills in a small file; training in the checkpoints,
    so that it always belongs to the weights that stand beside it: what a kill threw away is not counted."""

    path: Path
    train: float = 0.0
    measure: float = 0.0
    began: float | None = None  # when the training now under way began, monotonic

    def load(self, trained: float | None) -> None:
        """From the file, and from the newest checkpoint's seconds where it has them."""
        if self.path.exists():
            try:
                saved = json.loads(self.path.read_text(encoding="utf-8"))
                self.train, self.measure = float(saved["train"]), float(saved["measure"])
            except (ValueError, KeyError, TypeError) as error:
                raise FFDError(f"{self.path} is damaged; delete it and resume: only seconds are lost.") from error
        if trained is not None:
            self.train = trained

    def trained(self) -> float:
        """Seconds of training up to now."""
        return self.train + (0.0 if self.began is None else time.monotonic() - self.began)

    def save(self) -> None:
        write_text(self.path, json.dumps({"train": self.train, "measure": self.measure}))


def start(config: RunConfig, path: Path) -> Path:
    """Make a new run folder and run it. Raises FFDError when the folder is in use."""
    folder = RunFolder(path)
    if folder.config.exists() and folder.predictions(UNTRAINED).parent.exists():  # not one that bad input ended
        raise FFDError(f"{path} holds a run already: `ffd resume {path}` goes on with it, or choose another --out.")
    if foreign := folder.foreign():
        raise FFDError(f"{path} is not empty and holds no run ({foreign} lies there): choose another --out.")
    folder.path.mkdir(parents=True, exist_ok=True)
    with folder.alone():
        folder.write_config(config)
        write_text(folder.path / "environment.json", json.dumps(folder.describe(config), indent=1))
        return _run(config, folder)


def resume(path: Path) -> Path:
    """Go on with a run from its last safe point; a finished one is only reported again."""
    if (path / "version.json").is_file():
        raise FFDError(f"{path} is a version of a lineage, and those never change: `ffd add` makes the next one.")
    if (path / "plan.json").is_file():
        raise FFDError(f"{path} is an addition to a lineage: `ffd add {path.parent} --resume` goes on with it.")
    folder = RunFolder(path)
    config = folder.read_config()
    written = folder.environment()
    if not written:
        write_text(folder.path / "environment.json", json.dumps(folder.describe(config), indent=1))
    elif written.get("threads") != config.train.threads:
        raise FFDError(
            f"{path} was run with {written.get('threads')} torch threads and its config now says "
            f"{config.train.threads}: sums would differ in their last bits. Set train.threads back to continue exactly."
        )
    with folder.alone():
        return _run(config, folder)


def _run(config: RunConfig, folder: RunFolder) -> Path:
    try:
        return _stream(config, folder)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"`ffd resume {folder.path}` goes on from there.") from None
    except OSError as error:
        if not is_full(error):
            raise
        where = f" at {error.filename}" if error.filename else ""
        raise FFDError(
            f"the disk is full{where}. Nothing saved is lost: make room, then `ffd resume {folder.path}`."
        ) from error


def _stream(config: RunConfig, folder: RunFolder) -> Path:
    compute_alike(config.train.threads)

    def report_skipped(rows: pd.DataFrame) -> None:
        listed = rows[["manifest_row", "path", "cause"]].drop_duplicates("path")
        write_text(folder.path / "skipped.csv", listed.to_csv(index=False))
        say(f"{len(listed)} unreadable pictures left out, listed in {folder.path / 'skipped.csv'}")

    parts = assemble(config, folder.cache, report_skipped)
    names = parts.scenario.experiences
    learnt = _learnt(folder, len(names))
    clock = Clock(folder.path / "clock.json")
    stopping = Stopping()
    inside = SafePoints(folder.safe_points, config.checkpoint, config.train.threads, True, clock.trained, stopping)
    found = inside.find(learnt) if learnt < len(names) else None
    begun = int(found[1].meta["position"][1]) if found else 0
    scalars = ScalarLog(folder.scalars, folder.path / "events", names, learnt * config.train.steps + begun)
    agent = parts.agent(config.train, [scalars, inside])
    clock.load(_trained(folder, found, learnt))
    try:
        if not folder.predictions(UNTRAINED).exists():  # nothing is loaded yet
            measure(agent, parts, folder, config, UNTRAINED, clock)
        for experience in range(len(names)):
            if experience < learnt:
                if folder.predictions(experience).exists():
                    continue
                load_state(parts, folder.after(experience))
                agent.position = (experience, config.train.steps)
            else:
                if len(parts.learner.growth) < experience:  # fewer also where lost predictions were made again
                    load_state(parts, folder.after(experience - 1))
                learn(agent, parts, folder, experience, begun if experience == learnt else 0, clock, stopping)
            measure(agent, parts, folder, config, experience, clock)
    finally:
        scalars.close()
    if len(parts.learner.growth) < len(names):
        load_state(parts, folder.after(len(names) - 1))
    write_samples(folder.path / "samples", parts, config.evaluation.samples)
    return finish_run(folder, config, parts, clock.train, clock.measure)


def _learnt(folder: RunFolder, count: int) -> int:
    """How many experiences have their checkpoint."""
    return next((i for i in range(count) if not folder.after(i).is_dir()), count)


def _trained(folder: RunFolder, found: tuple[Path, Checkpoint] | None, learnt: int) -> float | None:
    """Seconds of training behind the newest checkpoint; None where there is none, or it does not tell."""
    if found is None and learnt == 0:
        return None
    meta = found[1].meta if found else read_meta(folder.after(learnt - 1))
    seconds = meta.get("seconds")
    return float(seconds) if isinstance(seconds, int | float) else None


def load_state(parts: Parts, path: Path) -> None:
    """Learner and strategy as a checkpoint left them, on the run's device."""
    restore(parts.learner, parts.keeper, load_checkpoint(path), path)
    place(parts.learner, parts.device)


def learn(
    agent: FaceStrategy,
    parts: Parts,
    folder: RunFolder,
    experience: int,
    begun: int,
    clock: Clock,
    stopping: Stopping,
) -> None:
    """One experience, from step `begun` on; its checkpoint is written, its safe points go."""
    clock.began = time.monotonic()
    agent.position = (experience, begun)
    try:
        with stopping:
            agent.train(parts.benchmark.train_stream[experience], eval_streams=[])
    except LossError as error:
        good = latest_safe_point(folder.safe_points, experience) or folder.after(experience - 1)
        kept = f"The last good checkpoint is {good}." if good.is_dir() else "No checkpoint was written before."
        raise FFDError(f"{error} {kept}") from error
    clock.train, clock.began = clock.trained(), None
    state = state_of(parts.learner, parts.keeper, (experience + 1, 0), agent.config.threads, clock.train)
    save_checkpoint(folder.after(experience), state)
    shutil.rmtree(folder.safe_points, ignore_errors=True)
    clock.save()
    if stopping.asked:
        raise KeyboardInterrupt


def valid_rows(parts: Parts, experience: int) -> Rows:
    """Validation faces of the experiences seen so far: all that selection may use."""
    seen = parts.scenario.experiences[: experience + 1]
    found = [parts.scenario.index("valid", name) for name in seen]
    return np.concatenate(found) if found else np.zeros(0, np.int64)


def score_once(agent: FaceStrategy, parts: Parts, rows: Rows, detector: Detector | None = None) -> pd.DataFrame:
    """A line for each row, in their order; a face that several of them share through one camera is judged once. With a
    detector `judge`, else `score_faces` without traces."""
    _, first, place = np.unique(parts.sources.table.slot[rows], return_index=True, return_inverse=True)
    faces = agent.faces(rows[first])
    if detector is None:
        scores = score_faces(parts.learner, parts.keeper.decide, faces, traces=False)
    else:
        scores = judge(detector, faces)
    return scores.iloc[place].assign(row=rows).reset_index(drop=True)


def measure(
    agent: FaceStrategy, parts: Parts, folder: RunFolder, config: RunConfig, experience: int, clock: Clock
) -> None:
    """Scores of every test and unseen face after an experience; threshold and calibration from validation faces."""
    began = time.monotonic()
    learner, keeper = parts.learner, parts.keeper
    videos = names_in(parts.sources.table.rows, "video")
    valid = score_once(agent, parts, valid_rows(parts, experience))
    detector = calibrated(learner, keeper.decide, valid, videos, config.evaluation.video_rule)
    streams = [("test", name) for name in parts.scenario.experiences] + [("unseen", n) for n in parts.scenario.unseen]
    chosen = [parts.scenario.index(stream, name) for stream, name in streams]
    rows = np.concatenate(chosen)
    scores = score_once(agent, parts, rows, detector)
    described = parts.sources.table.rows.iloc[rows].reset_index(drop=True)
    scores["row"] = described["manifest_row"].to_numpy()
    scores["on"] = [name for (_, name), part in zip(streams, chosen, strict=True) for _ in part]
    scores["stream"] = [stream for (stream, _), part in zip(streams, chosen, strict=True) for _ in part]
    scores["after"] = experience
    extra = ["path", "forgery", "dataset", "identity", "video", "source_identity"]
    table = pd.concat([described[extra], scores], axis=1)
    write_facts(folder.path, measured(detector, parts.sources.table, experience))
    write_table(folder.predictions(experience), table)
    clock.measure += time.monotonic() - began
    clock.save()
