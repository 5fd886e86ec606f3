"""The detector in five calls: load, predict, add, evaluate, neighbours.

    from ffd_continual.api import add, evaluate, load, neighbours, predict

    detector = load("runs/demo")                              # a finished run, or a lineage
    for record in predict(detector, ["photo.jpg", "folder"]):
        print(record["path"], record["score"], record["decision"])
    print(evaluate(detector, "data/mine").frame["auc"])       # Interval(value, low, high, skipped)
    for near in neighbours(detector, "photo.jpg", 5):
        print(near.distance, near.forgery, near.path)
    outcome = add("lineages/mine", "newfake", "data/newfake") # learnt, measured, promoted or refused

A loaded detector never changes and may be used by several threads. What is wrong with the input is an `FFDError` whose
message says what to do; pictures are RGB arrays (H, W, 3) uint8 or paths.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ffd_continual.detecting.evaluate import Evaluation, evaluate_faces
from ffd_continual.detecting.evidence import Evidence, gather
from ffd_continual.detecting.inputs import walk_inputs
from ffd_continual.detecting.opened import Opened, open_detector
from ffd_continual.detecting.predict import Asking, Judging
from ffd_continual.detecting.verdict import Neighbour, Verdict
from ffd_continual.lineage.add import Addition, begin
from ffd_continual.lineage.candidate import Rules
from ffd_continual.lineage.grow import Outcome, grow
from ffd_continual.lineage.page import write_page
from ffd_continual.lineage.store import writing
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.manifest import Manifest
from ffd_continual.scenarios.pictures import read_picture

__all__ = [
    "Evaluation", "Evidence", "FFDError", "Neighbour", "Opened", "Outcome", "Rules", "Verdict",
    "add", "evaluate", "gather", "load", "neighbours", "predict",
]  # fmt: skip

Picture = npt.NDArray[np.uint8]
PathLike = Path | str


def load(
    path: PathLike,
    version: int | None = None,
    fpr: float | None = None,
    band: float | None = None,
    device: str | None = None,
) -> Opened:
    """Open the detector of a finished run or of a lineage (the promoted version, or `version`).

    fpr, band: at most this share of validation's real faces is called forged, of its forged ones real (default 5 %
    each); between the two thresholds there is no decision. device: "cpu", "cuda" or "auto"; default: the run's.
    """
    return open_detector(path, version, fpr, band, device)


def predict(
    detector: Opened,
    inputs: PathLike | Picture | Iterable[PathLike | Picture],
    cropped: bool = False,
    nearest: int = 0,
    overlay: PathLike | None = None,
) -> Iterator[dict[str, Any]]:
    """Records of faces in paths (pictures, videos, folders) and arrays, as `ffd predict` writes them, in their order.

    An array's path is "array 0", "array 1", ... cropped: they are face crops, framed as the run's data. nearest:
    as many neighbours a face. overlay: folder for pictures with the trace map.
    """
    evidence = gather(detector) if nearest else None
    near = None if evidence is None else lambda verdicts: evidence.nearest(verdicts, nearest)
    judging = Judging(detector, Asking(cropped, None if overlay is None else Path(overlay), near))
    single = isinstance(inputs, str | Path | np.ndarray)
    arrays = 0
    paths: list[str] = []
    for one in [inputs] if single else inputs:  # type: ignore[union-attr]
        if isinstance(one, np.ndarray):
            yield from _records(judging, paths)
            paths = []
            yield from judging.picture(checked_picture(one), f"array {arrays}")
            arrays += 1
        else:
            paths.append(str(one))
    yield from _records(judging, paths)


def _records(judging: Judging, paths: list[str]) -> Iterator[dict[str, Any]]:
    for records in judging.records(walk_inputs(paths)):
        yield from records


def checked_picture(picture: Picture) -> Picture:
    """The array, if it is a picture: uint8 RGB (H, W, 3). Raises FFDError otherwise."""
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
        raise FFDError(f"a picture is uint8 RGB (H, W, 3), not {picture.dtype} {picture.shape}.")
    return picture


def add(
    lineage: PathLike,
    forgery: str,
    data: PathLike,
    rules: Rules | None = None,
    steps: int | None = None,
    identity_pattern: str = "",
) -> Outcome:
    """Teach one more forgery to a lineage: learnt from the promoted version, measured on all earlier streams, promoted
    or refused (`Outcome.verdict`), as `ffd add` does. data: a manifest, or DIR/real and DIR/<forgery>.

    rules: how much may be forgotten; steps: default as many as the parent. An interrupted one goes on with
    `ffd add LINEAGE --resume`. Raises FFDError where the lineage is being written by another process.
    """
    with writing(Path(lineage)) as opened:
        begin(opened, Addition(Path(data), forgery, rules=rules or Rules(), steps=steps, pattern=identity_pattern))
        outcome = grow(opened)
        write_page(opened)
    return outcome


def evaluate(
    detector: Opened,
    data: Manifest | PathLike,
    split: str = "test",
    samples: int = 1000,
    seed: int = 0,
    progress: bool = False,
    only: Sequence[str] = (),
) -> Evaluation:
    """Measure on face crops of a manifest or a folder: AUC, accuracy, EER, AP, TPR, ECE, each with a 95 % interval
    over persons, at frame and video level, and the AUC of each forgery with its means. split "all" takes every face;
    only: these forgeries, beside all real faces."""
    return evaluate_faces(detector, data, split, samples=samples, seed=seed, progress=progress, only=only)


def neighbours(
    detector: Opened,
    picture: PathLike | Picture,
    count: int = 5,
    cropped: bool = False,
    evidence: Evidence | None = None,
) -> list[Neighbour]:
    """The stored faces nearest to the largest face of a picture, nearest first; [] where no face is found.

    evidence: what `gather(detector)` gave, to read the stored faces once for many pictures.
    """
    if count < 1:
        raise FFDError(f"count is the number of neighbours, 1 or more, not {count}.")
    image = checked_picture(picture) if isinstance(picture, np.ndarray) else read_picture(picture)
    verdicts = detector.judge([image], maps=False) if cropped else detector.look(image, maps=False)[:1]
    if not verdicts:
        return []
    return list((evidence or gather(detector)).nearest(verdicts, count)[0])
