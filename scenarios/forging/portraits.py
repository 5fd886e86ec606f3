"""Portraits on disk -> square face crops with landmarks, identity and name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
from tqdm import tqdm

from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.faces import Face, FaceFinder, crop_face, largest
from ffd_continual.scenarios.pictures import PictureError, read_picture
from ffd_continual.scenarios.workers import worker_pool

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
IDENTITY = r"^([^_]+)"


@dataclass(frozen=True)
class Portraits:
    """A folder of real portraits and the data set's name; each file's person is the first group of `identity`,
    searched in the file's stem, and stays apart from other data sets' people."""

    folder: Path
    dataset: str
    identity: str = IDENTITY


@dataclass(frozen=True)
class Portrait:
    """A face found in a file of a data set."""

    face: Face
    dataset: str


@dataclass(frozen=True)
class Collected:
    """Faces found, files that could not be read (with the reason), files without a face."""

    portraits: list[Portrait]
    unreadable: list[tuple[Path, str]]
    faceless: list[Path]


def parse_source(text: str) -> Portraits:
    """ "NAME=DIR" or "DIR" (the data set is then called like the folder)."""
    name, equals, folder = text.partition("=")
    path = Path(folder if equals else text)
    dataset = re.sub(r"[^A-Za-z0-9.-]+", "-", name if equals else path.resolve().name).strip("-")
    if not path.is_dir():
        raise FFDError(f"{path} is no folder: give a folder of portraits, or NAME=FOLDER")
    return Portraits(path, dataset or "portraits")


def _text(name: str) -> str:
    """A name that a manifest can hold: what is no UTF-8 in it is escaped."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def listed(source: Portraits) -> list[tuple[Path, str, str, str]]:
    """(path, dataset, identity, name) of every picture of a folder and its sub-folders, hidden ones left out."""
    try:
        pattern = re.compile(source.identity)
    except re.error as error:
        raise FFDError(f"the identity pattern {source.identity!r} is no regular expression: {error}") from error
    rows = []
    for path in sorted(source.folder.rglob("*")):
        inside = path.relative_to(source.folder)
        hidden = any(part.startswith(".") for part in inside.parts)
        if hidden or path.suffix.lower() not in SUFFIXES or not path.is_file():
            continue
        found = pattern.search(path.stem)
        person = (found.group(1) if found.re.groups else found.group(0)) if found else path.stem
        stem = "_".join((*inside.parts[:-1], path.stem))
        rows.append((path, source.dataset, _text(f"{source.dataset}-{person}"), _text(f"{source.dataset}-{stem}")))
    return rows


def _one_thread() -> None:
    cv2.setNumThreads(1)


@cache
def _finder() -> FaceFinder:
    """One a process, made at its first picture: loading the models takes longer than a picture."""
    _one_thread()
    return FaceFinder()


def _find(task: tuple[Path, str, str, str, int]) -> Face | str | None:
    """The crop of the largest face, a message for an unreadable file, or None without a face."""
    path, _, identity, name, size = task
    try:
        image = read_picture(path)
    except PictureError as error:
        return str(error)
    one = largest(_finder().faces(image))
    return None if one is None else crop_face(image, one.landmarks, size, identity=identity, name=name)


def collect_portraits(sources: Sequence[Portraits], size: int, workers: int = 1, progress: bool = True) -> Collected:
    """Crops of side `size` px of the largest face of every picture, in the order of data sets and file names.

    Raises FFDError when there is no picture at all, or two files would get the same name.
    """
    rows = [row for source in sources for row in listed(source)]
    if not rows:
        raise FFDError(
            f"no pictures in {', '.join(str(one.folder) for one in sources)} ({', '.join(sorted(SUFFIXES))})"
        )
    taken: dict[str, Path] = {}
    for path, _, _, name in rows:
        if name in taken:
            raise FFDError(f"{taken[name]} and {path} would both be called {name!r}: rename one, or use NAME=FOLDER")
        taken[name] = path
    result = Collected([], [], [])
    bar = tqdm(_results([(*row, size) for row in rows], workers), "finding faces", len(rows), disable=not progress)
    for (path, dataset, _, _), found in zip(rows, bar, strict=True):
        if isinstance(found, Face):
            result.portraits.append(Portrait(found, dataset))
        elif found is None:
            result.faceless.append(path)
        else:
            result.unreadable.append((path, found))
    return result


def _results(tasks: list[tuple[Path, str, str, str, int]], workers: int) -> Iterator[Face | str | None]:
    if workers <= 1:
        yield from map(_find, tasks)
        return
    with worker_pool(workers, _one_thread) as pool:
        yield from pool.map(_find, tasks, chunksize=8)
