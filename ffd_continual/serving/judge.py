"""From an upload to an answer: the records of `ffd predict`, and small pictures to look at.

Axes: H, W of a picture, S pixels a side of a crop.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ffd_continual.detecting.inputs import too_long
from ffd_continual.detecting.opened import Opened
from ffd_continual.detecting.predict import Asked, faces_of
from ffd_continual.detecting.verdict import Verdict
from ffd_continual.reporting.pictures import data_uri
from ffd_continual.scenarios.pictures import Picture, PictureError, encode_picture, read_picture, read_size
from ffd_continual.serving.detector import Ready
from ffd_continual.serving.upload import Upload, UploadError

Record = dict[str, Any]
NAME = "upload"  # `path` of the records: the client's own name for its file is never asked for
EVIDENCE = (
    "A score is evidence, not proof; error rates differ between groups of people and cameras, and on generators nobody "
    "has seen all published detectors are weak. Do not decide about a person by a score alone."
)
NEAREST = 5  # stored faces shown beside a judged one
MOST_PIXELS = 64_000_000  # of a picture
PREVIEW = 1280  # pixels of the longer side


def rule_of(detector: Opened) -> Record:
    """How decisions are made: thresholds on z and on the calibrated score, and the rates asked for."""
    rule, scale = detector.rule, detector.facts.calibration
    low, high = (float(v) for v in scale.apply([rule.real, rule.forged]))
    rates = math.isfinite(rule.fpr)
    return {
        "fpr": rule.fpr if rates else None,
        "band": rule.band if rates else None,
        "forged_from_z": rule.forged,
        "real_below_z": rule.real,
        "forged_from_score": high,
        "real_below_score": low,
        "reals": detector.facts.reals,
        "forgeds": detector.facts.forgeds,
    }


def about(detector: Opened) -> Record:
    """What every record of an answer shares."""
    rule = rule_of(detector)
    return {"path": NAME, "version": detector.version, "fpr": rule["fpr"], "band": rule["band"]}


def thumbnail(detector: Opened, path: str) -> str | None:
    """A stored face as the learner sees it, as a data URI; None where its file is gone."""
    try:
        return data_uri(detector.fit(read_picture(path)))
    except PictureError:
        return None


def judge_faces(ready: Ready, faces: Sequence[Asked], images: bool) -> tuple[list[Record], list[Verdict]]:
    """A record and a verdict a face.

    `images` adds data URIs to the records: `crop`, `overlay` where there is a map, `picture` of each neighbour.
    """
    detector, shared = ready.detector, about(ready.detector)
    verdicts = detector.ask([face.crop for face in faces], maps=images)
    near = ready.evidence.nearest(verdicts, NEAREST) if ready.evidence is not None and faces else [()] * len(faces)
    made = []
    shown: dict[str, str | None] = {}  # frames of a video have the same neighbours
    for asked, verdict, neighbours in zip(faces, verdicts, near, strict=True):
        box = None if asked.found is None else asked.found.box
        record = {**shared, "kind": "face", "frame": asked.frame, "face": asked.face, "note": asked.note}
        record |= replace(verdict, box=box, neighbours=neighbours).record()
        for listed, one in zip(record.get("neighbours", ()), neighbours, strict=True):
            listed["path"] = Path(one.path).name  # where the server keeps its faces is nobody's business
            if images and one.path not in shown:
                shown[one.path] = thumbnail(detector, one.path)
            if images:
                listed["picture"] = shown[one.path]
        if images:
            record["crop"] = data_uri(verdict.crop)
            record["overlay"] = None if verdict.trace is None else data_uri(verdict.overlay())
            record["trace_kind"] = verdict.trace_kind or None
        made.append(record)
    return made, verdicts


def too_big(height: int, width: int) -> str | None:
    """Why a picture of so many pixels is not judged; None where it is. Told before a pixel is decoded."""
    if height * width > MOST_PIXELS:
        return f"{width} x {height} pixels are more than {MOST_PIXELS // 10**6} megapixels"
    return too_long(height, width)


def read_upload(upload: Upload) -> Picture:
    """The picture (H, W, 3). Raises UploadError (422) that says what is wrong with it."""
    data = upload.data()
    try:
        if wrong := too_big(*read_size(NAME, data)):
            raise UploadError(422, f"this picture is not judged: {wrong}. Crop or shrink it first.")
        return read_picture(NAME, data)
    except PictureError as error:
        raise UploadError(422, f"this picture cannot be read: {error.cause or error}.") from error


def judge_picture(ready: Ready, upload: Upload, cropped: bool, images: bool) -> Record:
    """The answer for a picture. Raises UploadError."""
    picture = read_upload(upload)
    height, width = picture.shape[:2]
    records, _ = judge_faces(ready, faces_of(ready.detector, picture, cropped), images)
    if not records:
        records = [{**about(ready.detector), "kind": "no face", "note": "no face was found"}]
    answer: Record = {"kind": "picture", "width": width, "height": height, "records": records}
    if images:
        answer["preview"] = picture_uri(picture)
    return answer


def picture_uri(picture: Picture, longest: int = PREVIEW) -> str:
    """RGB (H, W, 3) as a JPEG data URI of at most `longest` pixels a side."""
    scale = min(1.0, longest / max(picture.shape[:2]))
    if scale < 1:
        size = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
        picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
    return "data:image/jpeg;base64," + base64.b64encode(encode_picture(picture, ".jpg", quality=85)).decode("ascii")


def finite(value: Any) -> Any:
    """The same with None for numbers that JSON cannot hold."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
