"""Who is in the clips: one photograph a person, and pairs of persons who resemble each other enough to be swapped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.faces import Face, FaceFinder, Points, crop_face, is_grey, largest
from ffd_continual.scenarios.forging.geometry import face_width
from ffd_continual.scenarios.forging.making import SPLITS, split_people
from ffd_continual.scenarios.forging.portraits import Portraits, listed
from ffd_continual.scenarios.forging.sources import look, pose_distance
from ffd_continual.scenarios.pictures import PictureError, read_picture
from ffd_continual.scenarios.workers import worker_pool

CROP = 160  # side in pixels of the faces that are compared, and that families which learn are shown
POSE = 0.075  # largest distance of a pair's landmarks, in face widths; families decline from 0.085 on
MOST = 1000  # FaceForensics++ counts its videos with three digits


@dataclass(frozen=True)
class Person:
    """One person's photograph: landmarks (68, 2) in it, and the face cut out at `CROP` px."""

    path: Path
    identity: str
    landmarks: Points
    face: Face


@dataclass(frozen=True)
class Cast:
    """Persons by their video's id, the pairs of ids by split, and what was left out."""

    people: dict[str, Person]
    pairs: dict[str, list[tuple[str, str]]]
    unreadable: list[tuple[Path, str]]
    faceless: list[Path]
    alone: list[str]

    @property
    def partner(self) -> dict[str, str]:
        """Both ids of every pair to each other."""
        return {one: two for pairs in self.pairs.values() for pair in pairs for one, two in (pair, pair[::-1])}


@cache
def _finder() -> FaceFinder:
    cv2.setNumThreads(1)
    return FaceFinder()


def one_thread() -> None:
    """What a process does before its work."""
    cv2.setNumThreads(1)


def _find(task: tuple[Path, str, str]) -> Person | str | None:
    """The largest face of a photograph, a message where it cannot be read, None without a face."""
    path, identity, name = task
    try:
        image = read_picture(path)
    except PictureError as error:
        return str(error)
    found = largest(_finder().faces(image))
    if found is None:
        return None
    face = crop_face(image, found.landmarks, CROP, identity=identity, name=name)
    return Person(path, identity, found.landmarks, face)


def cast(
    sources: Sequence[Portraits],
    count: int | None,
    seed: int,
    fractions: tuple[float, float, float],
    workers: int,
    progress: bool,
) -> Cast:
    """The first picture with a face of every person, `count` persons at most, paired and split by pairs.

    Raises FFDError when fewer than three pairs fit.
    """
    rows: dict[str, tuple[Path, str, str]] = {}
    for source in sources:
        for path, _, identity, name in listed(source):
            rows.setdefault(identity, (path, identity, name))
    tasks = [rows[identity] for identity in sorted(rows)][: count if count is not None else MOST]
    result = Cast({}, {}, [], [], [])
    people: list[Person] = []
    bar = tqdm(_results(tasks, workers), "finding faces", len(tasks), unit="picture", disable=not progress)
    for (path, _, _), found in zip(tasks, bar, strict=True):
        if isinstance(found, Person):
            people.append(found)
        elif found is None:
            result.faceless.append(path)
        else:
            result.unreadable.append((path, found))
    pairs = pair_up([person.face for person in people])
    if len(pairs) < 3:
        raise FFDError(
            f"{len(people)} person(s) with a face make {len(pairs)} pair(s) of similar pose, and train, val and test "
            "need one each: give more portraits, taken from the front."
        )
    inside = sorted(index for pair in pairs for index in pair)
    name_of = {index: f"{number:03}" for number, index in enumerate(inside)}
    result.people.update({name_of[index]: people[index] for index in inside})
    result.alone.extend(person.identity for index, person in enumerate(people) if index not in name_of)
    named = sorted((name_of[a], name_of[b]) for a, b in pairs)
    places = split_people([people[inside[int(a)]].identity for a, _ in named], seed, fractions)
    result.pairs.update({split: [p for p, s in zip(named, places, strict=True) if s == split] for split in SPLITS})
    return result


def _results(tasks: list[tuple[Path, str, str]], workers: int) -> Iterator[Person | str | None]:
    if workers <= 1:
        yield from map(_find, tasks)
        return
    with worker_pool(workers, one_thread) as pool:
        yield from pool.map(_find, tasks, chunksize=8)


def mouth_gap(landmarks: Points) -> float:
    """Height of the open mouth between the lips, in face widths."""
    return float(np.linalg.norm(landmarks[66] - landmarks[62])) / face_width(landmarks)


def pair_up(faces: Sequence[Face]) -> list[tuple[int, int]]:
    """Pairs of indices, the most alike first taken; nobody is in two, and the odd one out in none.

    Alike: by landmarks within `POSE`, then also by the aligned thumbnails' colours and by how far the mouths are open
    (closed lips stretched over a smile break); grey pictures go with grey ones.
    """
    looks = np.stack([look(face) for face in faces]) if faces else np.zeros((0, 12, 12, 3), np.float32)
    grey = [is_grey(face.image) for face in faces]
    gaps = [mouth_gap(face.landmarks) for face in faces]
    scored: list[tuple[float, int, int]] = []
    for a in range(len(faces)):
        apart = np.abs(looks[a + 1 :] - looks[a]).mean((1, 2, 3))
        for b, colour in enumerate(apart, a + 1):
            if grey[a] != grey[b]:
                continue
            pose = max(pose_distance(faces[a], faces[b]), pose_distance(faces[b], faces[a]))
            if pose <= POSE:
                scored.append((pose * 200 + float(colour) + abs(gaps[a] - gaps[b]) * 300, a, b))
    taken: set[int] = set()
    pairs = []
    for _, a, b in sorted(scored):
        if not {a, b} & taken:
            taken |= {a, b}
            pairs.append((a, b))
    return pairs
