"""New kinds of forgeries among suspicious faces: what resembles no known one, in groups to look at and add.

A face is novel when its novelty exceeds what 95 % of the detector's own validation forgeries have. Novel faces are
grouped in the directions that tell known forgeries apart, both in what the learner's modules see and in residuals; each
group gets a contact sheet, and all of them one draft manifest of crops, framed as the run's data, that `ffd add` takes
once a person has looked at it. Stopped, the same command goes on (suspects.py).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from ffd_continual.detecting.described import describe_faces, distinct
from ffd_continual.detecting.evidence import class_names, read_rows, run_rows, spread_rows, stored_rows
from ffd_continual.detecting.grouping import group_faces
from ffd_continual.detecting.inputs import Input
from ffd_continual.detecting.novelty import TAUGHT, Novelty
from ffd_continual.detecting.opened import Opened
from ffd_continual.detecting.suspects import PLAN, Suspects, begin
from ffd_continual.lineage.lineage import open_lineage
from ffd_continual.lineage.rows import brought
from ffd_continual.reporting.pictures import contact_sheet
from ffd_continual.runs.folder import write_text
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.manifest import write_manifest
from ffd_continual.scenarios.pictures import read_picture, write_picture

QUANTILE = 0.95
WAY, MIXED, BY = "kinship", "kinship-mixed", "agglomerative"  # docs/detector.md tells why
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
    reals: float  # share of real validation faces above it; NaN without any


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
    rows, kind = stored_rows(detector, TAUGHT)
    kept, faces = distinct(*read_rows(detector, rows))
    classes = class_names(kept)
    if len(set(classes) - {"real"}) < 1 or len(kept) < FEWEST:
        raise FFDError(
            f"{detector.version} has {len(kept)} readable {kind}: too few to tell what is new. Put the data back, or "
            "keep more exemplars."
        )
    if detector.lineage is not None and detector.number is not None:
        valid = brought(open_lineage(detector.lineage), detector.number, ("valid",))
    else:
        valid = run_rows(detector)
        valid = valid[valid["stream"] == "valid"]
    usual = read_rows(detector, spread_rows(valid[valid["label"] == 1]))[1]
    if not usual:
        raise FFDError(f"{detector.version} has no readable validation forgery, so no threshold can be set.")
    known = describe_faces(detector, usual)
    novelty = Novelty(describe_faces(detector, faces), classes, known)
    threshold = float(np.quantile(novelty.score(way, known), QUANTILE))
    reals = read_rows(detector, spread_rows(valid[valid["label"] == 0].drop_duplicates("path")))[1]
    above = novelty.score(way, describe_faces(detector, reals)) > threshold if reals else np.array([np.nan])
    return Standard(novelty, way, threshold, len(kept), kind, len(usual), float(np.mean(above)))


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
    groups become the forgeries name-01, name-02, ... of out/manifest.csv. An `out` that was begun with the same of all
    these goes on. Raises FFDError where `out` is in use or the inputs hold no face.
    """
    known = standard or known_standard(detector)
    begin(
        out,
        {
            "detector": detector.version, "way": known.way, "cropped": cropped, "frames": frames,
            "smallest": smallest, "name": name,
        },
    )  # fmt: skip
    reader = Suspects(detector, out, cropped, frames)
    seen = reader.read(inputs)
    scores = known.novelty.score(known.way, seen)
    novel = np.flatnonzero(scores > known.threshold)
    labels = np.full(len(scores), -1, np.int64)
    if len(novel):
        labels[novel] = group_faces(known.novelty.families(seen.take(novel)), BY, smallest)
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
    faces.loc[faces["group"] == "", "crop"] = ""
    write_text(out / "faces.csv", faces.to_csv(index=False))
    manifest = _manifest(out, faces) if groups else None
    about = {"detector": detector.version, "way": known.way, "threshold": known.threshold, "unreadable": reader.bad}
    write_text(out / "discover.json", json.dumps(about, indent=1))
    kept = set(faces["crop"])  # last of all: whoever is stopped before finds every crop again
    for path in (out / "crops").iterdir():
        if f"crops/{path.name}" not in kept:
            path.unlink()
    (out / "parts" / PLAN).unlink()  # now it is finished
    shutil.rmtree(out / "parts")
    return Discovery(groups, faces, reader.bad, manifest)


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
