"""Forging many faces in memory: splits by person, families fitted on the train split, any number of processes.

Every forged face is a pure function of (seed, family, face's name, the people of its split): neither the number of
workers nor the order matters. Photographs and rendered portraits take the same way.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections import deque
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.faces import Face, Picture, resize_face
from ffd_continual.scenarios.forging.contract import FAMILIES, Family, Fitted, Forged, load_family
from ffd_continual.scenarios.workers import worker_pool

SPLITS = ("train", "valid", "test")
# Forging happens at half as many pixels again as the result has: the common reduction afterwards takes the blur of
# interpolation with it, for real and forged alike.
WORKING = 1.5
CANDIDATES = 32
CHUNK = 32
EARLY = 2048


@dataclass(frozen=True)
class Made:
    """What became of faces[index] under a family: `forged` at the final size, or None where the family declined."""

    index: int
    forgery: str
    forged: Forged | None


def draw(seed: int, *names: str) -> np.random.Generator:
    """A generator for exactly this purpose: the same names and seed give the same stream everywhere."""
    digest = hashlib.sha256("\x1f".join((str(seed), *names)).encode()).digest()
    return np.random.default_rng(np.frombuffer(digest, np.uint32))


def split_people(
    identities: Sequence[str], seed: int, fractions: tuple[float, float, float] = (0.7, 0.15, 0.15)
) -> list[str]:
    """ "train", "valid" or "test" for each face, the same for all faces of a person, by a hash of (seed, person).

    From 60 people on each person's place is their own, so adding people moves nobody; fewer are ranked by the hash and
    cut, with at least one person a split. Raises FFDError below three people or when the fractions do not sum to 1.
    """
    if abs(sum(fractions) - 1) > 1e-6 or min(fractions) < 0:
        raise FFDError(f"split fractions must be three shares that sum to 1, not {fractions}")
    people = sorted(set(identities), key=lambda one: (draw(seed, "split", one).random(), one))
    if len(people) < 3:
        raise FFDError(f"{len(people)} different people cannot fill train, valid and test: give pictures of 3 or more")
    bounds = np.cumsum(fractions)[:2]
    if len(people) >= 60:
        places = [draw(seed, "split", one).random() for one in people]
    else:
        places = [(rank + 0.5) / len(people) for rank in range(len(people))]
        cuts = np.clip(np.round(bounds * len(people)), [1, 2], [len(people) - 2, len(people) - 1])
        bounds = np.maximum(cuts, [1, cuts[0] + 1]) / len(people)
    where = {one: SPLITS[int(np.searchsorted(bounds, place))] for one, place in zip(people, places, strict=True)}
    return [where[one] for one in identities]


def working_size(size: int) -> int:
    """Side in pixels at which faces of final side `size` are forged."""
    return int(round(size * WORKING))


def finish_picture(image: Picture, size: int) -> Picture:
    """The one final reduction that real and forged crops share: (W, W, 3) -> (size, size, 3), area filter."""
    return np.asarray(cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA), np.uint8)


def finish_forged(forged: Forged, size: int) -> Forged:
    """Picture and mask at the final size; a pixel is in the mask as soon as any changed pixel falls into it."""
    mask = cv2.resize((forged.mask > 0).astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)
    image = finish_picture(forged.image, size)
    return Forged(image, (mask > 0).astype(np.uint8) * 255, forged.source_identity)


def finish_face(face: Face, size: int) -> Face:
    """A real face as `forge_faces` leaves it: through the same working size, landmarks moved along."""
    return resize_face(resize_face(face, working_size(size)), size)


@dataclass(frozen=True)
class _Job:
    """All a process needs; the pictures lie in a file that every process maps."""

    pictures: Path
    landmarks: np.ndarray
    identities: tuple[str, ...]
    names: tuple[str, ...]
    splits: tuple[str, ...]
    families: tuple[Family, ...]
    seed: int
    size: int


class _Worker:
    """Forges single tasks (face index, family index)."""

    def __init__(self, job: _Job) -> None:
        self.job = job
        self.pictures = np.load(job.pictures, mmap_mode="r")
        groups = {name: np.array([i for i, s in enumerate(job.splits) if s == name]) for name in set(job.splits)}
        self.groups = groups

    def face(self, index: int) -> Face:
        job = self.job
        image = np.asarray(self.pictures[index])  # a view of the file: most candidates are never looked at
        return Face(image, job.landmarks[index], job.identities[index], job.names[index])

    def __call__(self, task: tuple[int, int]) -> Made:
        index, number = task
        job, family = self.job, self.job.families[number]
        rng = draw(job.seed, "forge", family.name, job.names[index])
        group = self.groups[job.splits[index]]
        drawn = rng.permutation(len(group))[: CANDIDATES + 8]
        chosen = [int(group[i]) for i in drawn if job.identities[group[i]] != job.identities[index]][:CANDIDATES]
        forged = family.forge(self.face(index), [self.face(i) for i in chosen], rng)
        return Made(index, family.name, finish_forged(forged, job.size) if forged else None)


def _start() -> None:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def _run(chunk: tuple[_Job, list[tuple[int, int]]]) -> list[Made]:
    job, tasks = chunk
    return list(map(_Worker(job), tasks))


def plan(names: Sequence[str], families: Sequence[str], seed: int, per_family: int | None) -> list[tuple[int, int]]:
    """(face, family) indices in a fixed order; `per_family` keeps the faces of smallest hash for each family."""
    tasks: list[tuple[int, int]] = []
    for number, family in enumerate(families):
        order = sorted(range(len(names)), key=lambda i: (draw(seed, "plan", family, names[i]).random(), names[i]))
        tasks.extend((index, number) for index in sorted(order[:per_family]))
    return tasks


def forge_faces(
    faces: Sequence[Face],
    splits: Sequence[str],
    families: Sequence[str | Family] = FAMILIES,
    *,
    seed: int = 0,
    size: int = 128,
    workers: int = 1,
    per_family: int | None = None,
    done: Collection[tuple[str, str]] = (),
    progress: bool = True,
) -> Generator[Made]:
    """Forge every face by every family (or `per_family` faces each); yields in a fixed order.

    `splits[i]` is faces[i]'s split; people lend their faces within their own split only, and families that learn are
    fitted on "train" faces only. `done` holds (forgery, face name) pairs to leave out. Names of faces must differ.
    Raises FFDError for unknown families, repeated names or a missing train split.
    """
    names = [face.name for face in faces]
    if len(set(names)) != len(names):
        raise FFDError("two faces have the same name: names must differ, each names a file and seeds its forgeries")
    loaded = [load_family(one) if isinstance(one, str) else one for one in families]
    tasks = plan(names, [one.name for one in loaded], seed, per_family)
    tasks = [(index, number) for index, number in tasks if (loaded[number].name, names[index]) not in done]
    if not tasks:
        return
    work = working_size(size)
    sized = [resize_face(face, work) for face in faces]
    own = any(type(one).__module__ == "__main__" for one in loaded)  # a family that the running script defines
    with (
        tempfile.TemporaryDirectory(prefix="ffd_forge_") as folder,
        worker_pool(workers, _start, script=own) if workers > 1 else nullcontext() as pool,
    ):
        path = Path(folder) / "faces.npy"
        np.save(path, np.stack([face.image for face in sized]))
        marks = np.stack([face.landmarks for face in sized])
        people = tuple(face.identity for face in sized)
        job = _Job(path, marks, people, tuple(names), tuple(splits), tuple(loaded), seed, size)
        forged = _in_order(job, tasks, progress) if pool is None else _side_by_side(job, tasks, pool, progress)
        yield from tqdm(forged, total=len(tasks), desc="forging", unit="face", disable=not progress)


def _in_order(job: _Job, tasks: Sequence[tuple[int, int]], progress: bool) -> Iterator[Made]:
    learning = _learning(job, tasks)
    job = _with_fitted(job, learning, (_fit((job, number)) for number in learning), progress)
    return map(_Worker(job), tasks)


def _side_by_side(
    job: _Job, tasks: Sequence[tuple[int, int]], pool: ProcessPoolExecutor, progress: bool
) -> Iterator[Made]:
    """In the order of `tasks`. While families are fitted, idle processes forge by those that need no fitting: `EARLY`
    faces at most, as they wait in memory."""
    learning = _learning(job, tasks)
    fits = [pool.submit(_fit, (job, number)) for number in learning]
    by_family = [list(group) for _, group in groupby(tasks, key=itemgetter(1))]
    chunks = [group[at : at + CHUNK] for group in by_family for at in range(0, len(group), CHUNK)]
    ready = [at for at, chunk in enumerate(chunks) if chunk[0][1] not in learning]
    # The job travels with every chunk (some MB): processes keep no state.
    early = {at: pool.submit(_run, (job, chunks[at])) for at in ready[: EARLY // CHUNK]}
    job = _with_fitted(job, learning, (fit.result() for fit in fits), progress)
    begun = {at: one for at, one in early.items() if not one.cancel()}
    forged = deque(begun.get(at) or pool.submit(_run, (job, chunk)) for at, chunk in enumerate(chunks))
    while forged:
        yield from forged.popleft().result()


def _fit(task: tuple[_Job, int]) -> Family:
    """The family of that number, fitted on the job's train faces. Without a bar: tqdm makes a lock of its own in a
    process, which that process, ended by its pool, would leave behind."""
    job, number = task
    worker, family = _Worker(job), job.families[number]
    _fit_one(family, _train([worker.face(i) for i in range(len(job.names))], job.splits), job.seed)
    return family


def _learning(job: _Job, tasks: Sequence[tuple[int, int]]) -> list[int]:
    return [number for number in sorted({number for _, number in tasks}) if isinstance(job.families[number], Fitted)]


def _with_fitted(job: _Job, numbers: Sequence[int], fitted: Iterable[Family], progress: bool) -> _Job:
    bar = tqdm(fitted, total=len(numbers), desc="fitting", unit="family", disable=not progress or not numbers)
    families = dict(enumerate(job.families)) | dict(zip(numbers, bar, strict=True))
    return replace(job, families=tuple(families.values()))


def fit_families(
    families: Sequence[Family], faces: Sequence[Face], splits: Sequence[str], seed: int, progress: bool = True
) -> None:
    """Fit every family that learns, on the train faces alone."""
    learning = [one for one in families if isinstance(one, Fitted)]
    train = _train(faces, splits) if learning else []
    for family in tqdm(learning, desc="fitting", unit="family", disable=not progress or not learning):
        _fit_one(family, train, seed)


def _train(faces: Sequence[Face], splits: Sequence[str]) -> list[Face]:
    train = [face for face, split in zip(faces, splits, strict=True) if split == "train"]
    if len(train) < 2:
        raise FFDError("families that learn need at least two faces of the train split")
    return train


def _fit_one(family: Family, train: list[Face], seed: int) -> None:
    assert isinstance(family, Fitted)
    family.fit(train, draw(seed, "fit", str(getattr(family, "name", ""))))
