"""One item (a video, picture, folder or archive of frames) into face crops on the disk and a record of them.

A real item's faces are detected and joined to tracks; a forgery of it takes over frames and boxes, so that both crops
show the same place. Boxes are the frame's own, not smoothed. The record is plain JSON: `cause` says why an item gave
nothing, `remarks` what was left out of it, `faces` has one entry a crop.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from ffd_continual.scenarios.datasets.listing import Item
from ffd_continual.scenarios.faces import FaceFinder, Picture
from ffd_continual.scenarios.pictures import encode_picture, write_bytes
from ffd_continual.scenarios.prepare.crops import Window, cut, rescaled, whole, window
from ffd_continual.scenarios.prepare.masks import Cut, Record, add_masks, sound
from ffd_continual.scenarios.prepare.matching import Match, matched
from ffd_continual.scenarios.prepare.readers import open_source
from ffd_continual.scenarios.prepare.settings import SUFFIX, PrepareConfig
from ffd_continual.scenarios.prepare.source import ItemError, Remarks, Source, slug, spread
from ffd_continual.scenarios.prepare.tracks import Tracker

_OURS = re.compile(r"\d{6,}(\+\d+)?\.(jpg|png|webp)")
APART = 0.5  # seconds between frames after which a face may be anywhere
CANDIDATES = 3  # faces of a frame that are held beyond those asked for, until the tracks are known


def prepare_item(
    item: Item, root: Path, out: Path, config: PrepareConfig, finder: FaceFinder, real: Record | None
) -> Record:
    """Cut and write an item's faces below `out`. `real`: the record of the item it was made from, if there is one.

    An item that cannot be used gives a record with a `cause`; only what stops everything, such as a full disk, raises.
    """
    remarks = Remarks()
    record: Record = {"video": item.video, "cause": "", "count": 0, "seconds": None, "shape": None, "faces": []}
    try:
        source = open_source(root, item.path, item.kind, item.files, remarks)
        record["count"] = source.count
        record["seconds"] = float(source.times[-1]) if source.times is not None else None
        matches = matched(source, real, item.kind) if real is not None and not real["cause"] else None
        made = None if matches is None else list(_reused(source, item, config, finder, matches, real, remarks))
        if not made:
            made = list(_detected(source, item, config, finder))
        if not made:
            first = next((cause for _, cause in remarks.listed), "")
            raise ItemError(first if source.count == 1 and first else "no face was found")
        record["shape"] = list(made[0].shape)
        record["faces"] = _written(made, item, source, out, config)
        if item.label:
            add_masks(record["faces"], made, item, source, root, out, config, remarks)
    except ItemError as error:
        record["cause"] = str(error)
    except cv2.error as error:
        record["cause"] = f"OpenCV cannot work on it: {error.err}"
    record["remarks"] = [list(one) for one in remarks.all(item.path) if one != (item.path, record["cause"])]
    return record


def _crop(image: Picture, where: Window, item: Item, config: PrepareConfig) -> bytes:
    forged = item.forgery if item.label else None
    return encode_picture(cut(image, where, config.size), SUFFIX[config.form], forged, config.quality)


def _detected(source: Source, item: Item, config: PrepareConfig, finder: FaceFinder) -> Iterator[Cut]:
    """Faces found in frames spread over the source, those of the main tracks only."""
    tracker = Tracker()
    held: list[Cut] = []
    before: float | None = None
    for position, image in source.frames(spread(source.count, config.frames)):
        if not sound(image):
            continue
        shape = (image.shape[0], image.shape[1])
        found = [one for one in finder.faces(image) if min(one.box[2:]) >= config.smallest or item.cropped]
        if item.cropped:
            where = whole(*shape)
            points = where.to_crop(found[0].landmarks, config.size) if found else None
            yield Cut(position, 0, None, where, _crop(image, where, item, config), points, shape)
            continue
        found = found[: config.faces + CANDIDATES]
        now = float(source.times[position]) if source.times is not None else None
        apart = now is None or before is None or now - before > APART
        before = now
        for one, track in zip(found, tracker.join(position, [one.box for one in found], apart), strict=True):
            where = window(one.box, config.enlarge)
            points = where.to_crop(one.landmarks, config.size)
            held.append(Cut(position, track, one.box, where, _crop(image, where, item, config), points, shape))
    ranks = tracker.main(config.faces)
    for kept in held:
        if kept.track in ranks:
            kept.track = ranks[kept.track]
            yield kept


def _reused(
    source: Source,
    item: Item,
    config: PrepareConfig,
    finder: FaceFinder,
    matches: dict[int, list[Match]],
    real: Record | None,
    remarks: Remarks,
) -> Iterator[Cut]:
    """Faces at the places of the real item's, rescaled where the frames' size differs."""
    old = tuple(real["shape"]) if real else (1, 1)
    for position, image in source.frames(sorted(matches)):
        if not sound(image):
            continue
        shape = (image.shape[0], image.shape[1])
        if abs(shape[1] * old[0] / (shape[0] * old[1]) - 1) > 0.02 and not item.cropped:
            remarks.add(item.path, "its frames have another shape than the real ones: faces detected anew")
            return
        for match in matches[position]:
            face = match.face
            if item.cropped or face["box"] is None:
                found = finder.faces(image)  # crops made by others need not lie alike
                where, box = whole(*shape), None
                points = where.to_crop(found[0].landmarks, config.size) if found else None
            else:
                box = rescaled(tuple(face["box"]), old, shape)
                where = window(box, config.enlarge)
                guess = where.to_frame(np.asarray(face["landmarks"], np.float32), config.size)
                eyes = np.stack([guess[36:42].mean(0), guess[42:48].mean(0)])
                points = where.to_crop(finder.landmarks(image, box, eyes), config.size)
            data = _crop(image, where, item, config)
            yield Cut(position, face["track"], box, where, data, points, shape, match)


def place(item: Item, number: int, track: int) -> str:
    """Where a crop lies below the folder of crops, without suffix; unique for (item, number, track)."""
    more = f"+{track}" if track else ""
    if item.kind == "picture":
        return f"pictures/{slug(item.video)}{more}"
    return f"faces/{slug(item.video)}/{number:06d}{more}"


def _clear(folder: Path) -> None:
    """Remove crops, and nothing else, from a folder of crops."""
    if folder.is_dir():
        for name in os.listdir(folder):
            if _OURS.fullmatch(name):
                (folder / name).unlink()


def _written(made: list[Cut], item: Item, source: Source, out: Path, config: PrepareConfig) -> list[Record]:
    """Write the crops, after removing what an earlier, different state of the item left; their records."""
    if item.kind != "picture":
        _clear(out / "faces" / slug(item.video))
        _clear(out / "masks" / "faces" / slug(item.video))
    faces = []
    for one in sorted(made, key=lambda one: (one.position, one.track)):
        number = int(source.numbers[one.position])
        path = place(item, number, one.track) + SUFFIX[config.form]
        write_bytes(out / path, one.data)
        faces.append(
            {
                "path": path,
                "bytes": len(one.data),
                "sha256": hashlib.sha256(one.data).hexdigest(),
                "number": number,
                "seconds": float(source.times[one.position]) if source.times is not None else None,
                "position": one.position,
                "track": one.track,
                "box": None if one.box is None else [round(float(v), 3) for v in one.box],
                "landmarks": None if one.points is None else np.round(one.points.astype(float), 2).tolist(),
                "pair": one.match.face["path"] if one.match and one.match.same else "",
                "mask": "",
                "mask_bytes": 0,
            }
        )
    return faces
