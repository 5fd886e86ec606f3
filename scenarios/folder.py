"""Faces from plain folders: DIR/real and DIR/<forgery>, or DIR/train/real, DIR/valid/..., DIR/test/...

Below a forgery's folder the pictures may lie flat or nested; a nested sub-folder is a video. `open_faces` is the one
door for everything a user may name: a manifest, a folder that holds one, or such a tree of pictures.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.manifest import Manifest, make_manifest, read_manifest
from ffd_continual.scenarios.manifest_cells import REAL
from ffd_continual.scenarios.pictures import PICTURE_SUFFIXES, PathLike
from ffd_continual.scenarios.splits import assign_splits

__all__ = ["IDENTITY_PATTERN", "assign_splits", "index_folder", "open_faces"]

# What stands before the first "_" of the file's name, or of the outermost video folder's.
IDENTITY_PATTERN = r"^([^_/]+)"
_SPLIT_FOLDERS = {"train": "train", "valid": "valid", "val": "valid", "test": "test"}
_RESERVED = ("mask", "masks")
_DIGITS = re.compile(r"(\d+)\D*$")
_LAYOUT = "Lay the pictures out as DIR/real/... and DIR/<forgery>/..., or write a manifest"


def _shown(name: str) -> str:
    """A file's name in characters; bytes that are no UTF-8 become \\xNN."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _as_text(path: str) -> str:
    """The path, which a table is to hold. Raises `FFDError` where it is no text."""
    if _shown(path) != path:
        raise FFDError(f"the name {_shown(path)} is not in UTF-8, and tables hold nothing else. Rename it.")
    return path


def _folders(where: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(where) if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise FFDError(f"cannot look into the folder {where}: {error.strerror or error}.") from error


def _pictures(where: Path, ignored: list[str]) -> list[str]:
    """Picture files below ``where``, as sorted paths with "/" relative to it; the names of others go to ``ignored``."""
    found: list[str] = []
    seen: set[str] = set()

    def stop(error: OSError) -> None:
        raise FFDError(f"cannot look into the folder {error.filename}: {error.strerror or error}.") from error

    for folder, below, files in os.walk(where, followlinks=True, onerror=stop):
        # Links to folders are followed, so a link to a folder above would go round for ever.
        true = os.path.realpath(folder)
        if true in seen:
            below.clear()
            continue
        seen.add(true)
        below[:] = sorted(name for name in below if not name.startswith("."))
        for name in sorted(files):
            if name.startswith(".") or os.path.splitext(name)[1].lower() not in PICTURE_SUFFIXES:
                ignored.append(_shown(name))
            else:
                found.append(Path(folder, name).relative_to(where).as_posix())
    return sorted(found)


def _class_folders(root: Path) -> list[tuple[str, str, Path]]:
    """(split or "", forgery, folder) of each class. Raises `FFDError` for a tree that is laid out otherwise."""
    names = _folders(root)
    splits = [name for name in names if name in _SPLIT_FOLDERS]
    others = [name for name in names if name not in _SPLIT_FOLDERS]
    if splits and others:
        raise FFDError(
            f"{root} holds the split {splits[0]!r} beside {others[0]!r}. Move {others[0]!r} into the splits."
        )
    classes: list[tuple[str, str, Path]] = []
    for split in splits or [""]:
        base = root / split
        classes += [(_SPLIT_FOLDERS.get(split, ""), name, base / name) for name in _folders(base)]
    found = sorted({name for _, name, _ in classes})
    for name in found:
        if name.lower() in _RESERVED:
            raise FFDError(f"{root}: the folder {name!r} would be a forgery. Name masks in a manifest's mask column.")
    if REAL not in found:
        lower = {name.lower(): name for name in found}
        near = difflib.get_close_matches(REAL, lower, 1, 0.6)
        hint = f" (is {lower[near[0]]!r} it? Rename it to 'real')" if near else ""
        has = ", ".join(found[:8]) or "no folder"
        raise FFDError(f"{root} holds no folder 'real'{hint}; it holds {has}. {_LAYOUT}.")
    if found == [REAL]:
        raise FFDError(f"{root} holds real faces only, no forgery's folder. {_LAYOUT}.")
    return classes


def _ignored_note(ignored: Sequence[str]) -> list[str]:
    if not ignored:
        return []
    shown = ", ".join(sorted(set(ignored))[:3])
    return [f"ignored {len(ignored)} file(s) that are hidden or no pictures, such as {shown}"]


def index_folder(folder: PathLike, identity_pattern: str = IDENTITY_PATTERN, videos: bool = True) -> Manifest:
    """The manifest of a tree of pictures; its paths start at ``folder`` and no file is written.

    ``identity_pattern``: regular expression searched in each picture's path below its forgery's folder, without suffix
    ("clip3/0012", "anna_02"); its group ``identity`` (or the first) is the person, a group ``source`` whose face was
    put in. ``videos``: a sub-folder below a forgery's folder is a video and the last number of a file's name its frame.
    Splits are empty unless the tree has train / valid / test folders; `open_faces` fills them.
    Raises `FFDError` for a missing folder, no real faces, an empty class or a bad pattern.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FFDError(f"there is no folder {root}. {_LAYOUT}.")
    try:
        pattern = re.compile(identity_pattern)
    except re.error as error:
        raise FFDError(f"identity_pattern {identity_pattern!r} is no regular expression: {error}.") from error
    if pattern.groups < 1:
        raise FFDError(f"identity_pattern {identity_pattern!r} needs a group in parentheses: the person's name.")
    dataset = Path(_as_text(str(root.resolve()))).name
    group: str | int = "identity" if "identity" in pattern.groupindex else 1
    ignored = [_shown(entry.name) for entry in os.scandir(root) if entry.is_file()]
    rows: list[dict[str, object]] = []
    nameless = 0
    for split, forgery, base in _class_folders(root):
        pictures = _pictures(base, ignored)
        if not pictures:
            raise FFDError(f"the folder {base} holds no pictures. Fill it, or remove it.")
        for picture in pictures:
            plain = os.path.splitext(picture)[0]
            video, _, stem = plain.rpartition("/")
            found = pattern.search(plain)
            nameless += found is None
            number = _DIGITS.search(stem)
            rows.append(
                {
                    "path": _as_text((base.relative_to(root) / picture).as_posix()),
                    "label": int(forgery != REAL),
                    "forgery": forgery,
                    "dataset": dataset,
                    "split": split,
                    "video": video if videos else "",
                    "frame": int(number.group(1)) if videos and video and number else None,
                    "identity": (found.group(group) or "") if found else "",
                    "source_identity": (found.group("source") or "")
                    if found and "source" in pattern.groupindex
                    else "",
                }
            )
    if nameless == len(rows):
        raise FFDError(
            f"identity_pattern {identity_pattern!r} matches no picture, such as {rows[0]['path']!r}: nobody is known. "
            "Name files <person>_<anything>, or give a pattern that finds the person in them (in a run: "
            "--set scenario.identity_pattern=...)."
        )
    notes = _ignored_note(ignored)
    if nameless:
        notes.append(f"identity_pattern matches no name in {nameless} of {len(rows)} pictures")
    return make_manifest(pd.DataFrame(rows), root, str(root), notes=notes)


def _assigned(manifest: Manifest, seed: int, fractions: Sequence[float], by: str) -> Manifest:
    if not (manifest.table["split"] == "").any():
        return manifest
    try:
        return replace(manifest, table=assign_splits(manifest.table, seed, fractions, by))
    except FFDError as error:
        raise FFDError(f"{manifest.source}: {error}") from error


def open_faces(
    path: PathLike,
    seed: int = 0,
    identity_pattern: str = IDENTITY_PATTERN,
    fractions: Sequence[float] = (0.7, 0.15, 0.15),
    by: str = "identity",
    videos: bool = True,
    assign: bool = True,
) -> Manifest:
    """Open a manifest file, a folder with manifest.parquet or manifest.csv (in this order), or a tree of pictures.

    Empty splits are filled by `assign_splits` with ``seed``, ``fractions`` and ``by`` (``assign=False`` leaves them);
    ``identity_pattern`` and ``videos`` are `index_folder`'s. Raises `FFDError` as these three do.
    """
    where = Path(path)
    if where.is_dir():
        for name in ("manifest.parquet", "manifest.csv"):
            if (where / name).is_file():
                where = where / name
                break
        else:
            manifest = index_folder(where, identity_pattern, videos)
            return _assigned(manifest, seed, fractions, by) if assign else manifest
    elif not where.exists():
        raise FFDError(f"there is nothing at {where}. Give a manifest (.csv, .parquet) or a folder of pictures.")
    manifest = read_manifest(where)
    return _assigned(manifest, seed, fractions, by) if assign else manifest
