"""Judging files in a stream: faces of many files fill one batch, records come in the order of the files.

A video's chosen frames are spread over all of it; its last record sums them up: in each frame the largest face speaks,
and the run's video rule (mean, or mean of the highest) turns their scores into one. The decision is the frames' rule.

Memory is bounded: at any time one batch of crops is held, and of a video its chosen frames' faces. A file that cannot
be read gives an error record and stops nothing; a picture without a face says so. Axes: S pixels a side of a crop.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ffd_continual.detecting.inputs import Input, too_long
from ffd_continual.detecting.opened import Opened
from ffd_continual.detecting.verdict import Neighbour, Verdict
from ffd_continual.measuring.video_level import MEAN, video_level
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.faces import Found
from ffd_continual.scenarios.pictures import Picture, read_picture, read_size, write_picture
from ffd_continual.scenarios.prepare.source import ItemError, Remarks, spread
from ffd_continual.scenarios.prepare.video import VideoFile

Record = dict[str, Any]
FACELESS = "no face is found in this crop: the score means nothing"
SQUARE = 1.25  # a crop whose sides differ by more is told of
NearestOf = Callable[[list[Verdict]], list[tuple[Neighbour, ...]]]
SHOWN = 256  # pixels a side of each half of an overlay picture


@dataclass(frozen=True)
class Asked:
    """One face waiting for its verdict."""

    crop: Picture  # (S, S, 3)
    frame: int | None = None
    face: int = 0
    found: Found | None = None
    note: str | None = None


@dataclass
class Job:
    """One input: its faces, or why there are none."""

    source: Input
    faces: list[Asked] = field(default_factory=list)
    error: str | None = None
    frames: int = 0  # of a video, looked at
    note: str | None = None


@dataclass(frozen=True)
class Asking:
    """How files are judged beyond the detector itself."""

    cropped: bool = False  # pictures are crops already, framed as the run's data
    overlay: Path | None = None  # folder for pictures with the trace map
    nearest: NearestOf | None = None
    frames: int = 32  # of a video, spread over all of it


def faces_of(detector: Opened, picture: Picture, cropped: bool, frame: int | None = None) -> list[Asked]:
    """The faces of a picture (H, W, 3); with `cropped` the picture itself, with a note where no face is found in it."""
    if cropped:
        height, width = picture.shape[:2]
        odd = f"this crop is {width} x {height} pixels, no square: it is squeezed into one"
        told = [odd] if max(height, width) > SQUARE * min(height, width) else []
        note = "; ".join([*told, *([] if detector.has_face(picture) else [FACELESS])]) or None
        return [Asked(detector.fit(picture), frame, note=note)]
    made = []
    for number, (found, crop) in enumerate(detector.find(picture)):
        side = max(found.box[2:])
        small = f"small face: {side:.0f} pixels, judged at {detector.size}" if 2 * side < detector.size else None
        made.append(Asked(crop, frame, number, found, small))
    return made


def read_job(detector: Opened, source: Input, asking: Asking) -> Job:
    """Read one input and find its faces."""
    job = Job(source)
    try:
        if source.video:
            return _video_job(detector, job, asking)
        if wrong := too_long(*read_size(source.path)):
            raise FFDError(f"cannot judge the picture {source.name}: {wrong}. Crop or shrink it first.")
        job.faces = faces_of(detector, read_picture(source.path), asking.cropped)
    except FFDError as error:
        job.error = str(error)
    except OSError as error:  # a path of too many characters, a disk that fails
        job.error = f"cannot read {source.name}: {error.strerror or error}."
    return job


def _video_job(detector: Opened, job: Job, asking: Asking) -> Job:
    """The faces of a video's frames. Raises FFDError where it holds none that can be read."""
    remarks = Remarks()
    try:
        video = VideoFile(job.source.path, job.source.name, remarks)
        for position, picture in video.frames(spread(video.count, asking.frames)):
            job.frames += 1
            job.faces += faces_of(detector, picture, asking.cropped, int(video.numbers[position]))
    except ItemError as error:
        raise FFDError(f"cannot use the video {job.source.name}: {error}") from error
    job.note = "; ".join(cause for _, cause in remarks.listed) or None
    if not job.frames:
        raise FFDError(f"cannot use the video {job.source.name}: {job.note or 'none of its frames can be decoded'}")
    return job


def sum_up(detector: Opened, job: Job, verdicts: list[Verdict]) -> Record:
    """A video's own record; `verdicts` are those of its faces, frame by frame, the largest of each frame first."""
    own = [verdict for asked, verdict in zip(job.faces, verdicts, strict=True) if asked.face == 0]
    record: Record = {"kind": "video", "frames": job.frames, "note": job.note}
    if not own:
        return record | {"note": "; ".join(filter(None, ("no face was found", job.note)))}
    z = np.array([verdict.z for verdict in own])
    rule = detector.config.evaluation.video_rule
    rule = MEAN if rule.way == "vote" else rule  # votes are no scores
    whole = video_level(np.zeros(len(z)), {"z": z, "p": detector.facts.calibration.apply(z)}, ["it"] * len(z), rule)
    names = list(own[0].attribution)
    weights = {name: float(np.mean([verdict.attribution[name] for verdict in own])) for name in names}
    novel = [verdict.novelty for verdict in own if verdict.novelty is not None]
    middle = Verdict(
        float(whole["z"][0]),
        float(whole["p"][0]),
        detector.rule.decide(float(whole["z"][0])),
        weights,
        float(np.mean(novel)) if novel else None,
        own[0].crop,
        own[0].feature,
    )
    return record | middle.record()


class Judging:
    """The stream; `counts` tells afterwards how many records there were of each kind and decision."""

    def __init__(self, detector: Opened, asking: Asking):
        self.detector, self.asking = detector, asking
        self.counts: Counter[str] = Counter()
        rule = detector.rule
        chosen = {"fpr": rule.fpr, "band": rule.band} if rule.fpr == rule.fpr else {"fpr": None, "band": None}
        self.settings: Record = {"version": detector.version, **chosen}

    def records(self, inputs: Iterable[Input]) -> Iterator[list[Record]]:
        """Records of whole inputs, some inputs at a time."""
        waiting: list[Job] = []
        batch = self.detector.config.train.eval_batch
        for source in inputs:
            waiting.append(read_job(self.detector, source, self.asking))
            if sum(max(1, len(job.faces)) for job in waiting) >= batch:
                yield self._judged(waiting)
                waiting = []
        if waiting:
            yield self._judged(waiting)

    def picture(self, picture: Picture, name: str) -> list[Record]:
        """Records of a picture (H, W, 3) RGB in memory, called `name`."""
        return self._judged([Job(Input(Path(name), False), faces_of(self.detector, picture, self.asking.cropped))])

    def _judged(self, jobs: list[Job]) -> list[Record]:
        faces = [face for job in jobs for face in job.faces]
        verdicts = self.detector.ask([face.crop for face in faces], maps=self.asking.overlay is not None)
        if self.asking.nearest is not None and verdicts:
            near = self.asking.nearest(verdicts)
            verdicts = [replace(v, neighbours=n) for v, n in zip(verdicts, near, strict=True)]
        answers = iter(verdicts)
        made = [record for job in jobs for record in self._of(job, [next(answers) for _ in job.faces])]
        for record in made:
            self.counts[record["kind"]] += 1
            self.counts[f"{record['kind']}: {record.get('decision')}"] += 1
        return made

    def _of(self, job: Job, verdicts: list[Verdict]) -> Iterator[Record]:
        about: Record = {"path": job.source.name, **self.settings}
        if job.error is not None:
            yield about | {"kind": "error", "error": job.error}
        elif not verdicts and not job.source.video:
            yield about | {"kind": "no face", "note": "no face was found"}
        for asked, verdict in zip(job.faces, verdicts, strict=True):
            box = None if asked.found is None else asked.found.box
            record = about | {"kind": "face", "frame": asked.frame, "face": asked.face, "note": asked.note}
            record |= replace(verdict, box=box).record()
            if self.asking.overlay is not None:
                record["overlay"] = self._overlay(self.asking.overlay, job.source, asked, verdict)
            yield record
        if job.source.video and job.error is None:
            yield about | sum_up(self.detector, job, verdicts)

    def _overlay(self, folder: Path, source: Input, asked: Asked, verdict: Verdict) -> str | None:
        """The crop beside itself with the map over it, as PNG; its name. None where the learner has no map."""
        if verdict.trace is None:
            return None
        mark = hashlib.sha256(source.name.encode()).hexdigest()[:8]
        frame = "" if asked.frame is None else f"-frame{asked.frame:06d}"
        stem = "".join(c if c.isalnum() or c in "-_." else "_" for c in source.path.stem)[:60]
        name = f"{stem}-{mark}{frame}-face{asked.face}.png"
        both = np.concatenate([verdict.crop, verdict.overlay()], axis=1)
        write_picture(folder / name, np.asarray(cv2.resize(both, (2 * SHOWN, SHOWN), interpolation=cv2.INTER_CUBIC)))
        return name


def left_to_do(inputs: Iterable[Input], done: Iterable[str], where: Path | None) -> Iterator[Input]:
    """The inputs behind those that `done` names. FFDError where the two do not follow the same list."""
    names, inputs = iter(done), iter(inputs)
    for source in inputs:
        finished = next(names, None)
        if finished is None:
            yield source
            yield from inputs
            return
        if finished != source.name:
            raise FFDError(
                f"{where} was begun with other inputs: it holds {finished} where {source.name} comes now. Give the "
                "same ones in the same order, another --out, or --overwrite."
            )
    if (more := next(names, None)) is not None:
        raise FFDError(f"{where} holds {more}, which is not among the inputs. Give another --out, or --overwrite.")
