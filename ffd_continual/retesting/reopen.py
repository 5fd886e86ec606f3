"""A finished run taken up again: its parts, its final detector, and its own test faces, changed as one likes.

Threshold and calibration are those of the run, chosen on validation faces: what is done to test faces never moves
them. Pictures pass through the whole network, also where the run judged stored features of its frozen layers (those
are rounded to 16 bits), so changed and unchanged faces are judged alike. Axes: n rows, S pixels a side.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from tqdm import tqdm

from ffd_continual.config import RunConfig
from ffd_continual.measuring.metrics import Floats
from ffd_continual.runs.assemble import Parts, assemble
from ffd_continual.runs.checkpoint import TENSORS, load_checkpoint
from ffd_continual.runs.detector import score_faces
from ffd_continual.runs.folder import RunFolder, write_table
from ffd_continual.runs.saving import restore
from ffd_continual.runs.torch_state import compute_alike
from ffd_continual.scenarios.batch import Batch
from ffd_continual.scenarios.dataset import Sources, plain_batch
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.views import to_planes
from ffd_continual.strategies.learner import place
from ffd_continual.strategies.strategy import Rows
from ffd_continual.terminal import say

Picture = npt.NDArray[np.uint8]
Change = Callable[[Picture, int], Picture]  # a face (S, S, 3) and its manifest row
NAMES = ("path", "forgery", "dataset", "identity", "video")


@dataclass(frozen=True)
class Reopened:
    """A run, its detector after the last experience, and the thresholds of that."""

    path: Path
    config: RunConfig
    parts: Parts
    threshold: float  # on z
    video_threshold: float | None  # on a video's score; None: that of frames
    fingerprint: str  # names weights and faces

    @property
    def sources(self) -> Sources:
        """Faces as pictures, without masks (nothing is localised here) and stored features."""
        table = replace(self.parts.sources.table, masks=np.zeros((0,), np.uint8))
        return replace(self.parts.sources, table=table, kept=None)

    def streams(self) -> pd.DataFrame:
        """Every row of the streams test and unseen: at (row of the face table), row (of the manifest), stream, on,
        label, slot, after, threshold, names, and the columns that the manifest has beyond the format."""
        scenario, table = self.parts.scenario, self.parts.sources.table
        named = [("test", n) for n in scenario.experiences] + [("unseen", n) for n in scenario.unseen]
        places = [scenario.index(*one) for one in named]
        at = np.concatenate(places)
        rows = table.rows.iloc[at].reset_index(drop=True)
        own = [c for c in self.parts.manifest.subgroups if c in rows.columns]
        found = rows[[*NAMES, "label", *own]].assign(
            at=at,
            row=rows["manifest_row"].to_numpy(),
            slot=table.slot[at],
            stream=[stream for (stream, _), part in zip(named, places, strict=True) for _ in part],
            on=[name for (_, name), part in zip(named, places, strict=True) for _ in part],
            after=len(scenario.experiences) - 1,
            threshold=self.threshold,
        )
        return found if self.video_threshold is None else found.assign(video_threshold=self.video_threshold)

    def scores(self, rows: Rows, change: Change | None = None, title: str = "") -> Floats:
        """z (n,) of rows of the face table, each picture changed before it is judged; title: of a progress bar."""
        table = self.parts.sources.table
        slots, first, back = np.unique(table.slot[rows], return_index=True, return_inverse=True)
        if not len(slots):
            return np.zeros(0)
        learner, decide = self.parts.learner, self.parts.keeper.decide
        with tqdm(total=len(slots), desc=title, unit="face", leave=False, disable=not title) as bar:
            found = score_faces(learner, decide, self._batches(rows[first], change, bar))
        z = found["z"].to_numpy(np.float64)
        return np.asarray(z[back])

    def kept_scores(self, folder: Path, name: str, told: str, rows: Rows, change: Change | None) -> Floats:
        """`scores`, kept in `folder` under `name` and a hash of all that they hang on, of which `told` is the caller's:
        a stopped command goes on where it was, and nothing stale is read."""
        whole = hashlib.sha256(f"3|{self.fingerprint}|{told}|{self.config.train.threads}".encode())
        whole.update(np.ascontiguousarray(rows).tobytes())
        path = folder / f"{name}-{whole.hexdigest()[:16]}.parquet"
        if not path.is_file():
            write_table(path, pd.DataFrame({"z": self.scores(rows, change)}))
        return np.asarray(pd.read_parquet(path)["z"], np.float64)

    def _batches(self, rows: Rows, change: Change | None, bar: tqdm[None]) -> Iterator[Batch]:
        sources, step = self.sources, self.config.train.eval_batch
        numbers = sources.table.rows["manifest_row"].to_numpy()
        for start in range(0, len(rows), step):
            part = rows[start : start + step]
            batch = plain_batch(sources, [int(row) for row in part])
            if change is not None:
                faces = [np.array(sources.table.pictures[sources.table.slot[row]]) for row in part]
                changed = [change(face, int(numbers[row])) for face, row in zip(faces, part, strict=True)]
                batch = batch._replace(image=torch.from_numpy(to_planes(changed)))
            yield Batch(*(field.to(self.parts.device) for field in batch))
            bar.update(len(part))


def some_people(streams: pd.DataFrame, people: int, seed: int) -> pd.DataFrame:
    """The rows of `people` test persons (videos, files, where no person is known), drawn by the seed; all if 0."""
    person = streams["identity"].where(streams["identity"] != "", streams["video"])
    person = person.where(person != "", streams["path"])
    names = np.unique(person.to_numpy(str))
    if not people or people >= len(names):
        return streams
    drawn = np.random.default_rng(seed).permutation(names)[:people]
    return streams[person.isin(drawn)].reset_index(drop=True)


def reopened(folder: RunFolder, config: RunConfig, parts: Parts) -> Reopened:
    """What stands in the folder of a run whose parts are in their final state."""
    last = len(parts.scenario.experiences) - 1
    table = pd.read_parquet(folder.predictions(last))
    cuts = {name: table[name].iloc[0] for name in ("threshold", "video_threshold") if name in table.columns}
    if "threshold" not in cuts:
        raise FFDError(f"{folder.predictions(last)} names no threshold; delete it, then `ffd resume {folder.path}`.")
    weights = hashlib.sha256((folder.after(last) / TENSORS).read_bytes())
    rows = parts.sources.table.rows
    told = rows[["manifest_row", "path", "profile", "stream", "experience"]]
    weights.update(pd.util.hash_pandas_object(told, index=False).to_numpy().tobytes())
    weights.update(repr((config.scenario.size, config.scenario.crop, config.scenario.seed)).encode())
    video = cuts.get("video_threshold")
    return Reopened(
        folder.path,
        config,
        parts,
        float(cuts["threshold"]),
        None if video is None else float(video),
        weights.hexdigest(),
    )


def reopen(path: Path) -> Reopened:
    """Take up a finished run. Raises FFDError where it is none, is not finished, or its data has changed."""
    folder = RunFolder(path)
    config = folder.read_config()
    config = replace(config, train=replace(config.train, kept_views=0))  # pictures are judged, not stored features
    compute_alike(config.train.threads)
    parts = assemble(config, folder.cache, lambda rows: say(f"{rows['path'].nunique()} unreadable pictures left out"))
    last = len(parts.scenario.experiences) - 1
    if not (folder.after(last).is_dir() and folder.predictions(last).is_file()):
        raise FFDError(f"{path} is not finished: `ffd resume {path}` goes on with it.")
    where = folder.after(last)
    restore(parts.learner, parts.keeper, load_checkpoint(where), where)
    place(parts.learner, parts.device)
    run = reopened(folder, config, parts)
    keys = ["stream", "on", "row"]
    judged, now = pd.read_parquet(folder.predictions(last), columns=keys), run.streams()[keys]
    if len(judged) != len(now) or (judged.astype(str).to_numpy() != now.astype(str).to_numpy()).any():
        raise FFDError(
            f"the test faces of {path} are not those that {config.scenario.data} gives now: the data have changed "
            "since. Restore them, or run again."
        )
    return run
