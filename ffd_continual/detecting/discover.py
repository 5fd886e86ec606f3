"""New kinds of forgeries among suspicious faces: what resembles no known one, in groups to look at and add.

A face is novel when its novelty exceeds what 95 % of the detector's own validation forgeries have. Novel faces are
grouped by what the learner's modules see of them, in the directions that tell known forgeries apart; each group gets a
contact sheet, and all of them one draft manifest of crops, framed as the run's data, that `ffd add` takes once a person
has looked at it. Memory: about 20 kB a face.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from ffd_continual.detecting.evidence import class_names, read_rows, run_rows, spread_rows, stored_rows
from ffd_continual.detecting.framing import forged_framing, frame_face, widened
from ffd_continual.detecting.grouping import group_faces
from ffd_continual.detecting.inputs import Input
from ffd_continual.detecting.novelty import Described, Novelty, describe_faces, join
from ffd_continual.detecting.opened import Opened, Picture
from ffd_continual.lineage.lineage import open_lineage
from ffd_continual.lineage.rows import brought
from ffd_continual.reporting.pictures import contact_sheet
from ffd_continual.runs.folder import write_text
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.manifest import write_manifest
from ffd_continual.scenarios.pictures import read_picture, write_picture
from ffd_continual.scenarios.prepare.source import ItemError, Remarks, spread
from ffd_continual.scenarios.prepare.video import VideoFile

QUANTILE = 0.95
WAY, BY, SPACE = "neighbour-special", "agglomerative", "special"  # docs/detector.md tells why
ON_SHEET, ACROSS = 30, 6
FEWEST = 8  # stored faces; so few tell little, and their spread is shrunk accordingly


@dataclass(frozen=True)
class Standard:
    """What is known, and from where on a face is novel."""

    novelty: Novelty
    way: str
    threshold: float
    stored: int
    kind: str
    usual: int  # validation forgeries that the threshold was set on


@dataclass(frozen=True)
class Group:
    """One group of novel faces."""

    name: str
    faces: int
    score: float  # mean probability of being forged
    resembles: str  # the known forgery with the largest mean weight, or ""
    sheet: Path


@dataclass(frozen=True)
class Discovery:
    """What came out; `faces` has one row a face."""

    groups: list[Group]
    faces: pd.DataFrame
    unreadable: list[str]
    manifest: Path | None


def known_standard(detector: Opened, way: str = WAY) -> Standard:
    """The scores of a detector's stored faces and the threshold from its validation forgeries.

    A run reads them from its data, a lineage from its own copies. Raises FFDError where there are none.
    """
    rows, kind = stored_rows(detector)
    kept, faces = read_rows(detector, rows)
    classes = class_names(kept)
    if len(set(classes) - {"real"}) < 1 or len(kept) < FEWEST:
        raise FFDError(
            f"{detector.version} has {len(kept)} readable {kind}: too few to tell what is new. Put the data back, or "
            "keep more exemplars."
        )
    novelty = Novelty(describe_faces(detector, faces), classes)
    if detector.lineage is not None and detector.number is not None:
        valid = brought(open_lineage(detector.lineage), detector.number, ("valid",))
    else:
        valid = run_rows(detector)
        valid = valid[valid["stream"] == "valid"]
    _, faces = read_rows(detector, spread_rows(valid[valid["label"] == 1]))
    if not faces:
        raise FFDError(f"{detector.version} has no readable validation forgery, so no threshold can be set.")
    usual = novelty.score(way, describe_faces(detector, faces))
    return Standard(novelty, way, float(np.quantile(usual, QUANTILE)), len(kept), kind, len(faces))


class _Faces:
    """The faces of files, a batch at a time: crops as the data hold them on disk, descriptions in memory."""

    def __init__(self, detector: Opened, folder: Path, cropped: bool, frames: int):
        self.detector, self.folder, self.cropped, self.frames = detector, folder, cropped, frames
        share = detector.config.scenario.crop
        self.side = round(detector.size / share)
        self.framing = widened(detector.facts.framing or forged_framing(share), share)
        self.rows: list[dict[str, Any]] = []
        self.parts: list[Described] = []
        self.waiting: list[Picture] = []

    def read(self, source: Input) -> None:
        """All faces of one file. Raises FFDError where it cannot be read."""
        if not source.video:
            self._picture(source, read_picture(source.path), None)
            return
        try:
            video = VideoFile(source.path, source.name, Remarks())
            for position, picture in video.frames(spread(video.count, self.frames)):
                self._picture(source, picture, int(video.numbers[position]))
        except ItemError as error:
            raise FFDError(f"cannot use the video {source.name}: {error}") from error

    def _picture(self, source: Input, picture: Picture, frame: int | None) -> None:
        marks = [] if self.cropped else [found.landmarks for found, _ in self.detector.find(picture)]
        wide = [picture] if self.cropped else [frame_face(picture, m, self.framing, self.side) for m in marks]
        for number, crop in enumerate(wide):
            name = f"{len(self.rows):06d}.png"
            write_picture(self.folder / name, crop)
            self.rows.append({"path": source.name, "frame": frame, "face": number, "crop": f"crops/{name}"})
            self.waiting.append(self.detector.fit(crop))
        if len(self.waiting) >= self.detector.config.train.eval_batch:
            self.flush()

    def flush(self) -> None:
        """Describe what waits."""
        if self.waiting:
            self.parts.append(describe_faces(self.detector, self.waiting))
            self.waiting = []


def _sheet(out: Path, name: str, crops: list[Path], words: str) -> Path:
    """A contact sheet with its words above, as PNG."""
    pictures = [read_picture(path) for path in crops[:ON_SHEET]]
    body = contact_sheet([pictures[i : i + ACROSS] for i in range(0, len(pictures), ACROSS)], side=128)
    wide = max(body.shape[1], 6 + 134 * ACROSS)
    head = np.full((34, wide, 3), 255, np.uint8)
    cv2.putText(head, words, (8, 23), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    full = np.full((body.shape[0], wide, 3), 255, np.uint8)
    full[:, : body.shape[1]] = body
    path = out / f"{name}.png"
    write_picture(path, np.concatenate([head, full]))
    return path


def discover(
    detector: Opened,
    inputs: Iterable[Input],
    out: Path,
    standard: Standard | None = None,
    cropped: bool = False,
    smallest: int = 5,
    frames: int = 8,
    name: str = "new",
) -> Discovery:
    """Find groups of faces that resemble no known forgery, and write them to the new folder `out`.

    standard: `known_standard(detector)`, the default. smallest: faces that make a group. frames: of a video. name:
    groups become the forgeries name-01, name-02, ... of out/manifest.csv. Raises FFDError where `out` is in use or the
    inputs hold no face.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FFDError(f"{out} is there already. Choose another --out, or remove it.")
    known = standard or known_standard(detector)
    (out / "crops").mkdir(parents=True, exist_ok=True)
    reader, bad = _Faces(detector, out / "crops", cropped, frames), []
    for source in tqdm(inputs, "looking", unit="file", disable=None):
        try:
            reader.read(source)
        except FFDError as error:
            bad.append(str(error))
    reader.flush()
    if not reader.rows:
        raise FFDError(f"the inputs hold no face ({len(bad)} of them cannot be read{': ' + bad[0] if bad else ''}).")
    seen = join(reader.parts)
    scores = known.novelty.score(known.way, seen)
    novel = np.flatnonzero(scores > known.threshold)
    labels = np.full(len(scores), -1, np.int64)
    if len(novel):
        labels[novel] = group_faces(known.novelty.white[SPACE].kin(getattr(seen, SPACE)[novel]), BY, smallest)
    faces = pd.DataFrame(reader.rows).assign(novelty=scores, threshold=known.threshold, score=seen.p, group="")
    best = [detector.known[i] if seen.weights.shape[1] > 1 else "" for i in seen.weights.argmax(1)]
    faces = faces.assign(resembles=best)
    groups = []
    for number in range(int(labels.max()) + 1):
        at = np.flatnonzero(labels == number)
        at = at[np.argsort(-scores[at], kind="stable")]
        faces.loc[at, "group"] = f"{name}-{number + 1:02d}"
        title = f"{name}-{number + 1:02d}"
        closest = detector.known[int(seen.weights[at].mean(0).argmax())] if seen.weights.shape[1] > 1 else ""
        words = f"{title}: {len(at)} faces, mean score {seen.p[at].mean():.2f}, novelty {scores[at].mean():.2f}"
        sheet = _sheet(out, title, [out / str(crop) for crop in faces["crop"].iloc[at]], words)
        groups.append(Group(title, len(at), float(seen.p[at].mean()), closest, sheet))
    for crop in faces.loc[faces["group"] == "", "crop"]:
        (out / str(crop)).unlink()
    faces.loc[faces["group"] == "", "crop"] = ""
    write_text(out / "faces.csv", faces.to_csv(index=False))
    about = {"detector": detector.version, "way": known.way, "threshold": known.threshold, "unreadable": bad}
    write_text(out / "discover.json", json.dumps(about, indent=1))
    return Discovery(groups, faces, bad, _manifest(out, faces) if groups else None)


def _manifest(out: Path, faces: pd.DataFrame) -> Path:
    """The draft: grouped crops as forged faces of their group; frames of one video stay together in a split."""
    grouped = faces[faces["group"] != ""]
    clip = grouped["path"].where(grouped["frame"].notna(), "")
    table = pd.DataFrame(
        {
            "path": grouped["crop"], "label": 1, "forgery": grouped["group"], "dataset": "discovered", "video": clip,
            "frame": grouped["frame"], "identity": clip.where(clip != "", grouped["path"]),
        }
    )  # fmt: skip
    path = out / "manifest.csv"
    write_manifest(table, path)
    return path
