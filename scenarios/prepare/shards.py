"""Crops into tar shards for large sets, after WebDataset's convention: members of one key stand together.

OUT/shards/000000.tar holds, for each face, KEY.jpg, KEY.json (its manifest row) and KEY.mask.png where there is a mask;
KEY is the crop's path without suffix. The plan is a pure function of the finished table; a shard is written whole from
the loose crops, noted in the journal, and only then are its loose crops removed. So the disk holds all crops plus one
shard, and a kill loses one shard's writing at most.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from ffd_continual.scenarios.errors import FFDError, is_full
from ffd_continual.scenarios.prepare.journal import Journal

FOLDER = "shards"
SHARD_BYTES = 256 * 2**20
_BLOCK = 512


@dataclass(frozen=True)
class _Face:
    key: str
    loose: tuple[tuple[str, str], ...]  # (member's name, loose file)
    about: bytes


def _faces(table: pd.DataFrame) -> list[_Face]:
    faces = []
    columns = [name for name in table.columns if name not in ("path", "pair", "mask")]
    for row in table.to_dict("records"):
        path = str(row["path"])
        key, suffix = os.path.splitext(path)
        loose = [(key + suffix, path)]
        if row["mask"]:
            loose.append((f"{key}.mask.png", str(row["mask"])))
        told = {name: None if pd.isna(row[name]) else row[name] for name in columns}
        about = json.dumps(told, default=int, allow_nan=False, separators=(",", ":")).encode()
        faces.append(_Face(key, tuple(loose), about))
    return faces


def _padded(size: int) -> int:
    return _BLOCK + -(-size // _BLOCK) * _BLOCK


def _sizes(table: pd.DataFrame, out: Path, journal: Journal) -> dict[str, int]:
    """Bytes of every loose file, from the disk or, once packed, from the journal."""
    sizes: dict[str, int] = {}
    for video in journal.videos():
        for face in journal.record(video)["faces"]:
            sizes[face["path"]] = face["bytes"]
            sizes[face["mask"]] = face["mask_bytes"]
    return sizes


def pack_shards(table: pd.DataFrame, out: Path, journal: Journal, limit: int, progress: bool) -> pd.DataFrame:
    """Pack all crops of `table`; the table with paths into the shards. Goes on where a killed call stopped.

    `limit`: bytes of a shard, exceeded only by a single face that is larger. Raises FFDError when the disk is full or a
    finished shard is gone.
    """
    sizes = _sizes(table, out, journal)
    plan: list[list[_Face]] = []
    filled = 0
    for face in _faces(table):
        need = _padded(len(face.about)) + sum(_padded(sizes[loose]) for _, loose in face.loose)
        if not plan or filled + need > limit:
            plan.append([])
            filled = 0
        plan[-1].append(face)
        filled += need
    moved: dict[str, str] = {"": ""}
    bar = tqdm(plan, desc="packing", unit="shard", disable=None if progress else True)
    for number, faces in enumerate(bar):
        name = f"{FOLDER}/{number:06d}.tar"
        for face in faces:
            moved.update((loose, f"{name}/{member}") for member, loose in face.loose)
        holds = hashlib.sha256(
            repr([(face.loose, [sizes[loose] for _, loose in face.loose], face.about) for face in faces]).encode()
        ).hexdigest()[:24]
        if journal.shards.get(name) != holds:
            if name in journal.shards:
                raise FFDError(f"{out / name} holds other faces than wanted now: choose another folder for --out.")
            _write(out / name, faces, out)
            journal.add_shard(name, holds)
        elif not (out / name).is_file():
            raise FFDError(f"the finished shard {out / name} is gone: delete {out} and prepare again.")
        for face in faces:
            for _, loose in face.loose:
                (out / loose).unlink(missing_ok=True)
    _remove_empty(out)
    columns = {name: pd.Series([moved[str(cell)] for cell in table[name]], dtype="str") for name in ("path", "mask")}
    columns["pair"] = pd.Series([moved[str(cell)] for cell in table["pair"]], dtype="str")
    return table.reset_index(drop=True).assign(**columns)


def _write(path: Path, faces: list[_Face], out: Path) -> None:
    """A shard, whole: members have no time, owner or other trace of the machine."""
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as file:
                with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as archive:
                    for face in faces:
                        members = [(name, (out / loose).read_bytes()) for name, loose in face.loose]
                        for name, data in [*members, (f"{face.key}.json", face.about)]:
                            info = tarfile.TarInfo(name)
                            info.size, info.mode = len(data), 0o644
                            archive.addfile(info, io.BytesIO(data))
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        if is_full(error):
            raise FFDError(f"the disk is full: cannot write {path}. Free some space and run again.") from error
        raise FFDError(f"cannot write {path}: {error.strerror or error}.") from error


def _remove_empty(out: Path) -> None:
    """Folders that packing emptied."""
    for top in ("faces", "pictures", "masks"):
        for folder, _, _ in os.walk(out / top, topdown=False):
            if not os.listdir(folder):
                os.rmdir(folder)
