"""Masks of forged crops: the data set's own, cut like their faces, or made from a crop and its pair.

Without either a run makes the mask itself from the manifest's pair, by the same code (`scenarios.traces`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ffd_continual.scenarios.datasets.listing import Item
from ffd_continual.scenarios.faces import Picture, Points
from ffd_continual.scenarios.pictures import read_mask, read_picture, write_mask
from ffd_continual.scenarios.prepare.crops import Window, cut_mask, rescaled, whole, window
from ffd_continual.scenarios.prepare.matching import Match
from ffd_continual.scenarios.prepare.readers import open_source
from ffd_continual.scenarios.prepare.settings import PrepareConfig
from ffd_continual.scenarios.prepare.source import ItemError, Remarks, Source, inside
from ffd_continual.scenarios.prepare.stills import is_picture
from ffd_continual.scenarios.prepare.tracks import Box
from ffd_continual.scenarios.traces import difference_mask, ssim_mask

Record = dict[str, Any]
_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
SHAPE = 4  # a frame more than so many times as wide as high, or the reverse, is refused: a band costs memory


@dataclass
class Cut:
    """A crop before it is written."""

    position: int
    track: int
    box: Box | None
    where: Window
    data: bytes
    points: Points | None
    shape: tuple[int, int]
    match: Match | None = None


def sound(image: Picture) -> bool:
    """Whether a frame is large enough to look at. Raises ItemError for one that is far too wide or high."""
    height, width = int(image.shape[0]), int(image.shape[1])
    if max(height, width) > SHAPE * min(height, width):
        raise ItemError(f"refused: {width} x {height} pixels is no shape of a face picture")
    return min(height, width) >= 16


def add_masks(
    faces: list[Record],
    made: list[Cut],
    item: Item,
    source: Source,
    root: Path,
    out: Path,
    config: PrepareConfig,
    remarks: Remarks,
) -> None:
    """The data set's own masks where it has them; else, if asked for, from the pair by the code a run would use."""
    by_place = {(one.position, one.track): one for one in made}
    if item.mask:
        try:
            for position, mask in _mask_frames(faces, item, source, root, remarks):
                for face in faces:
                    if face["position"] == position:
                        one = by_place[position, face["track"]]
                        shape = (mask.shape[0], mask.shape[1])
                        box = None if one.box is None else rescaled(one.box, one.shape, shape)
                        where = whole(*shape) if box is None else window(box, config.enlarge)
                        _write_mask(face, cut_mask(mask, where, config.size), out)
        except ItemError as error:
            remarks.add(item.mask, f"mask not used: {error}")
        _leave_out_untouched(faces, item, out, remarks)
    if config.masks != "pair":
        make = ssim_mask if config.masks == "ssim" else difference_mask
        for face in faces:
            if not face["mask"] and face["pair"]:
                _write_mask(face, make(read_picture(out / face["path"]), read_picture(out / face["pair"])), out)


def _leave_out_untouched(faces: list[Record], item: Item, out: Path, remarks: Remarks) -> None:
    """Of several people in a forged video, those whom its masks never touch are real: no rows that call them forged."""
    touched = {face["track"] for face in faces if face["mask"] and read_mask(out / face["mask"]).any()}
    known = {face["track"] for face in faces if face["mask"]}
    for track in sorted(known - touched) if touched else ():
        remarks.add(item.path, f"face {track} left out: the masks say that it is not forged")
        for face in [one for one in faces if one["track"] == track]:
            faces.remove(face)
            for name in ("path", "mask"):
                if face[name]:
                    (out / face[name]).unlink(missing_ok=True)


def _mask_frames(
    faces: list[Record], item: Item, source: Source, root: Path, remarks: Remarks
) -> Iterator[tuple[int, Picture]]:
    """(position in `source`, mask picture) for each frame that has a face and a mask."""
    path = inside(root, item.mask)
    low = item.mask.lower()
    kind = "frames" if path.is_dir() else "picture" if is_picture(low) else "video"
    masks = open_source(root, item.mask, "archive" if low.endswith(_ARCHIVES) else kind, (), remarks)
    wanted: dict[int, int] = {}
    named = {int(number): at for at, number in enumerate(masks.numbers)}
    # Names tell more than places, where there are names.
    by_place = masks.count == source.count and not (
        source.times is None and source.count > 1 and all(face["number"] in named for face in faces)
    )
    for face in faces:
        at = face["position"] if by_place else named.get(face["number"], -1)
        if 0 <= at < masks.count:
            wanted[at] = face["position"]
    for at, picture in masks.frames(sorted(wanted)):
        if sound(picture):
            yield wanted[at], picture


def _write_mask(face: Record, mask: Picture, out: Path) -> None:
    path = "masks/" + os.path.splitext(face["path"])[0] + ".png"
    write_mask(out / path, mask)
    face["mask"], face["mask_bytes"] = path, (out / path).stat().st_size
