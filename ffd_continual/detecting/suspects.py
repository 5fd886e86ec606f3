"""The faces of suspicious files, described a part at a time, so that a run that was stopped goes on where it was.

OUT/crops holds each face as the data hold theirs on disk. OUT/parts holds plan.json (what the work was begun with)
and one safetensors file a part: what the detector says of its faces as arrays, and in its metadata the files it covers,
a row a face and why files could not be read. A part is written whole once its faces are described; reading the same
inputs again passes over the files of finished parts. Memory: less than 1 kB a face and known forgery, and 20 kB a face.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from tqdm import tqdm

from ffd_continual.detecting.described import Described, describe_faces, join
from ffd_continual.detecting.framing import forged_framing, frame_face, widened
from ffd_continual.detecting.inputs import Input
from ffd_continual.detecting.opened import Opened, Picture
from ffd_continual.runs.folder import write_text
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.pictures import read_picture, write_bytes, write_picture
from ffd_continual.scenarios.prepare.source import ItemError, Remarks, spread
from ffd_continual.scenarios.prepare.video import VideoFile

PLAN = "plan.json"
FILES = 256  # at most so many in a part, however few faces they hold


def begun(out: Path) -> bool:
    """Whether `out` was begun and not finished. Raises FFDError where anything else lies there."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    if not (out / "parts" / PLAN).is_file():
        raise FFDError(f"{out} is there already. Choose another --out, or remove it.")
    return True


def begin(out: Path, plan: Mapping[str, Any]) -> None:
    """Make `out` ready: a new folder, or one that was begun with the same plan. Raises FFDError on any other."""
    there = out / "parts" / PLAN
    if begun(out):
        try:
            before = json.loads(there.read_text(encoding="utf-8"))
        except ValueError as error:
            raise FFDError(f"{there} is damaged ({error}). Remove {out} to begin anew.") from error
        for name, value in plan.items():
            if before.get(name) != value:
                raise FFDError(
                    f"{out} was begun with {name} {before.get(name)}, now it is {value}. Choose another --out, or "
                    "remove it."
                )
        return
    write_text(there, json.dumps(dict(plan), indent=1))


class Suspects:
    """The faces of files: `rows` (path, frame, face, crop), what is said of them, and why files could not be read."""

    def __init__(self, detector: Opened, out: Path, cropped: bool, frames: int):
        """Takes up the finished parts of `out`. Raises FFDError where one is damaged."""
        self.detector, self.out, self.cropped, self.frames = detector, out, cropped, frames
        share = detector.config.scenario.crop
        self.side = round(detector.size / share)
        self.framing = widened(detector.facts.framing or forged_framing(share), share)
        self.names: list[str] = []  # of the files in finished parts
        self.rows: list[dict[str, Any]] = []
        self.bad: list[str] = []
        self.parts: list[Described] = []
        self.count = 0  # finished parts
        self._fresh()
        for path in sorted((out / "parts").glob("*.safetensors")):
            self._take_up(path)

    def _fresh(self) -> None:
        self.waiting: list[Picture] = []
        self.new: dict[str, list[Any]] = {"names": [], "rows": [], "bad": []}

    def _take_up(self, path: Path) -> None:
        try:
            with safe_open(path, framework="numpy") as file:
                arrays = {name: np.asarray(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
                about = json.loads(file.metadata()["about"])
        except (SafetensorError, KeyError, ValueError, TypeError) as error:
            raise FFDError(f"{path} is damaged ({error}). Remove {self.out} to begin anew.") from error
        self._keep(about, Described(**arrays) if arrays else None)

    def _keep(self, about: Mapping[str, list[Any]], described: Described | None) -> None:
        self.names += about["names"]
        self.rows += about["rows"]
        self.bad += about["bad"]
        self.parts += [] if described is None else [described]
        self.count += 1

    def read(self, inputs: Iterable[Input]) -> Described:
        """All faces of the files. Raises FFDError where other files were begun with, or no file holds a face."""
        past = list(self.names)
        given = 0
        for given, source in enumerate(tqdm(inputs, "looking", unit="file", disable=None), 1):
            if given <= len(past):
                if source.name != past[given - 1]:
                    self._others(past[given - 1], source.name)
                continue
            found: list[tuple[Picture, int | None]] = []
            try:
                for picture, frame in self._pictures(source):
                    found += [(crop, frame) for crop in self._crops(picture)]
            except FFDError as error:
                self.new["bad"].append(str(error))
            self._put(source, found)
            self.new["names"].append(source.name)
            if len(self.waiting) >= self.detector.config.train.eval_batch or len(self.new["names"]) >= FILES:
                self.flush()
        if given < len(past):
            self._others(past[given], "no more")
        if self.new["names"]:
            self.flush()
        if not self.rows:
            first = f": {self.bad[0]}" if self.bad else ""
            raise FFDError(f"the inputs hold no face ({len(self.bad)} of them cannot be read{first}).")
        return join(self.parts)

    def _others(self, before: str, now: str) -> None:
        raise FFDError(
            f"{self.out} was begun with other files: where {before} was, there is {now}. Give the same ones, choose "
            "another --out, or remove it."
        )

    def _pictures(self, source: Input) -> Iterator[tuple[Picture, int | None]]:
        """Pictures of a file, with the frame's number in a video. Raises FFDError where it cannot be read."""
        if not source.video:
            yield read_picture(source.path), None
            return
        try:
            video = VideoFile(source.path, source.name, Remarks())
            for position, picture in video.frames(spread(video.count, self.frames)):
                yield picture, int(video.numbers[position])
        except ItemError as error:
            raise FFDError(f"cannot use the video {source.name}: {error}") from error

    def _crops(self, picture: Picture) -> list[Picture]:
        if self.cropped:
            return [picture]
        return [frame_face(picture, one.landmarks, self.framing, self.side) for one, _ in self.detector.find(picture)]

    def _put(self, source: Input, found: list[tuple[Picture, int | None]]) -> None:
        """Outside of what may fail for a bad file: a disk that is full must stop the work, not pass for one."""
        faces: dict[int | None, int] = {}
        for crop, frame in found:
            name = f"crops/{len(self.rows) + len(self.new['rows']):06d}.png"
            write_picture(self.out / name, crop)
            number = faces[frame] = faces.get(frame, -1) + 1
            self.new["rows"].append({"path": source.name, "frame": frame, "face": number, "crop": name})
            self.waiting.append(self.detector.fit(crop))

    def flush(self) -> None:
        """Describe what waits, and write it as a part."""
        described = describe_faces(self.detector, self.waiting) if self.waiting else None
        arrays = {} if described is None else {f.name: getattr(described, f.name) for f in fields(Described)}
        whole = {name: np.ascontiguousarray(values) for name, values in arrays.items()}
        path = self.out / "parts" / f"{self.count:06d}.safetensors"
        write_bytes(path, save(whole, metadata={"about": json.dumps(self.new)}))
        self._keep(self.new, described)
        self._fresh()
