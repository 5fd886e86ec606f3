"""Short real video clips from portraits, with forged counterparts, in the official layout of FaceForensics++.

A photograph is filmed by a hand-held camera that is simulated (clip_camera.py), forged frame by frame at the video's
own resolution, and encoded once as H.264, real and forged alike. Within a clip the source person, the generator's seed
and the size of the crop are the same in every frame, so that the forgery stays what it is while the camera moves.

What it is for: the path from official downloads to a run can be walked on real faces without any download. What it is
not: nobody speaks, blinks or turns, and the forgeries are `ffd forge`'s, not those of FaceForensics++.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tqdm import tqdm

from ffd_continual.scenarios.datasets.faceforensics import FORGERIES, SPLIT_FILES
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.faces import Picture, Points, resize_face
from ffd_continual.scenarios.forging.contract import Family, Forged, load_family
from ffd_continual.scenarios.forging.making import draw, fit_families
from ffd_continual.scenarios.forging.portraits import Portraits
from ffd_continual.scenarios.pictures import read_picture, write_bytes
from ffd_continual.scenarios.prepare.clip_camera import Camera, CameraConfig, cut_face, paste, side_of
from ffd_continual.scenarios.prepare.clip_people import Cast, Person, cast, one_thread
from ffd_continual.scenarios.prepare.clip_writer import MASK_FACTOR, factor_of, write_clips
from ffd_continual.scenarios.subgroups import FILE as PEOPLE
from ffd_continual.scenarios.subgroups import read_people, write_people
from ffd_continual.scenarios.workers import worker_pool

SETTINGS = "clips.json"
FAMILIES = (("deepfakes", "swap"), ("face2face", "warp"), ("faceswap", "parts"), ("neuraltextures", "fill"))

# Families that decide by what they see, which noise changes from frame to frame: the fillings of `inpaint` jumped by
# 5.6 grey levels where the others stay at 0.7 to 1.6, near the noise. They forge the photograph, the camera films that.
# `fill` jumped by no more than the real clip (0.9 of it, eight clips), but which patches it takes may still turn.
STEADY = frozenset({"inpaint", "fill"})


@dataclass(frozen=True)
class ClipsConfig:
    """What to make. `families`: name in FaceForensics++ -> family of `ffd forge`; `people` None: all there are."""

    families: tuple[tuple[str, str], ...] = FAMILIES
    compressions: tuple[str, ...] = ("c23", "c40")
    people: int | None = None
    seed: int = 0
    fractions: tuple[float, float, float] = (0.72, 0.14, 0.14)
    workers: int = 1
    progress: bool = True
    camera: CameraConfig = field(default_factory=CameraConfig)


@dataclass(frozen=True)
class ClipsMade:
    """Who is in it, how many videos were made now and before, and clips that a family declined, by its name."""

    cast: Cast
    made: int
    kept: int
    declined: dict[str, list[str]]


@dataclass(frozen=True)
class _Task:
    """One video in all its compressions: `method` is "" for the real one of `target`."""

    method: str
    target: str
    source: str


@dataclass(frozen=True)
class _Job:
    """What every task needs; it travels with each, so that processes keep no state."""

    out: Path
    config: ClipsConfig
    people: dict[str, Person]
    families: dict[str, Family]


def make_clips(sources: Sequence[Portraits], out: Path, config: ClipsConfig | None = None) -> ClipsMade:
    """Make the clips of the portraits of `sources` in the folder `out`; the same command goes on where it stopped.

    Raises FFDError for unknown families or compressions, too few people, or an `out` that holds other clips.
    """
    config = config or ClipsConfig()
    families = _families(config)
    if not config.compressions or len(set(config.compressions)) < len(config.compressions):
        raise FFDError("name each compression once, at least one: --compressions c23,c40")
    for compression in config.compressions:
        factor_of(compression)
    if not 64 <= config.camera.height <= 2160 or not 1 <= config.camera.frames <= 3000:
        raise FFDError("clips are 64 to 2160 pixels high and 1 to 3000 frames long")
    made_of = cast(sources, config.people, config.seed, config.fractions, config.workers, config.progress)
    _claim(sources, out, config, made_of)
    train = {video for pair in made_of.pairs["train"] for video in pair}
    faces = [person.face for person in made_of.people.values()]
    splits = ["train" if video in train else "test" for video in made_of.people]
    fit_families(list(families.values()), faces, splits, config.seed, config.progress)
    job = _Job(out, config, made_of.people, families)
    tasks = list(_tasks(made_of, [method for method, _ in config.families]))
    todo = [task for task in tasks if not all(path.is_file() for path, _, _ in _targets(job, task))]
    declined: dict[str, list[str]] = {}
    bar = tqdm(total=len(tasks), initial=len(tasks) - len(todo), desc="clips", unit="clip", disable=not config.progress)
    with bar:
        for task, done in zip(todo, _run_all(job, todo), strict=True):
            if not done:
                declined.setdefault(task.method, []).append(f"{task.target}_{task.source}")
            bar.update()
    refused = sum(map(len, declined.values()))
    return ClipsMade(made_of, len(todo) - refused, len(tasks) - len(todo), declined)


def _families(config: ClipsConfig) -> dict[str, Family]:
    names = [method for method, _ in config.families]
    if not names or len(set(names)) < len(names):
        raise FFDError("name each forgery once, at least one: --families deepfakes=swap,face2face=warp")
    for name in names:
        if name not in FORGERIES:
            raise FFDError(f"FaceForensics++ has no forgery {name!r}; it has {', '.join(FORGERIES)}")
    return {method: load_family(family) for method, family in config.families}


def _known(sources: Sequence[Portraits], made_of: Cast) -> dict[str, dict[str, str]]:
    """By video, what the folders' people.csv say of who is in it."""
    told: dict[str, Mapping[str, str]] = {}
    for source in sources:
        if (source.folder / PEOPLE).is_file():
            table = read_people(source.folder / PEOPLE)
            told |= {f"{source.dataset}-{who}": row for who, row in table.cells.items()}
    return {video: dict(told[one.identity]) for video, one in made_of.people.items() if one.identity in told}


def _claim(sources: Sequence[Portraits], out: Path, config: ClipsConfig, made_of: Cast) -> None:
    """Write settings, split files and the list of persons; refuse a folder that holds other things."""
    settings = asdict(config)
    for free in ("workers", "progress", "people"):
        settings.pop(free)
    persons = {video: {"picture": one.path.name, "person": one.identity} for video, one in made_of.people.items()}
    text = json.dumps({"settings": settings, "people": persons}, indent=1)
    path = out / SETTINGS
    try:
        if path.is_file():
            if path.read_text("utf-8") != text:
                raise FFDError(f"{out} holds clips of other people or settings: choose another folder for --out")
        elif out.is_dir() and any(out.iterdir()):
            raise FFDError(f"{out} is not empty and holds no clips: choose another folder for --out")
    except OSError as error:
        raise FFDError(f"cannot look into {out}: {error.strerror}; choose another folder for --out") from error
    write_bytes(path, text.encode())
    known = _known(sources, made_of)
    if known:
        columns = tuple(dict.fromkeys(name for row in known.values() for name in row))
        write_bytes(out / PEOPLE, write_people(columns, known))
    for split, file in SPLIT_FILES.items():
        write_bytes(out / "splits" / file, json.dumps(made_of.pairs[split], indent=1).encode())


def _tasks(made_of: Cast, methods: Sequence[str]) -> Iterator[_Task]:
    """Both directions of every pair: the real video, then its forgeries."""
    partner = made_of.partner
    for video in made_of.people:
        yield _Task("", video, partner[video])
        for method in methods:
            yield _Task(method, video, partner[video])


def _targets(job: _Job, task: _Task) -> list[tuple[Path, int, str]]:
    """The files of a task with their constant rate factors and comments; of a forged one the mask comes last."""
    levels = job.config.compressions
    if not task.method:
        base = job.out / "original_sequences" / "youtube"
        return [(base / one / "videos" / f"{task.target}.mp4", factor_of(one), "") for one in levels]
    base = job.out / "manipulated_sequences" / FORGERIES[task.method]
    name = f"{task.target}_{task.source}.mp4"
    mark = f"ffd_continual: forged ({task.method})"
    made = [(base / one / "videos" / name, factor_of(one), mark) for one in levels]
    return [*made, (base / "masks" / "videos" / name, MASK_FACTOR, mark)]


def _run_all(job: _Job, tasks: Sequence[_Task]) -> Iterator[bool]:
    if job.config.workers <= 1:
        one_thread()
        yield from (_run((job, task)) for task in tasks)
        return
    with worker_pool(job.config.workers, one_thread) as pool:
        yield from pool.map(_run, ((_reduced(job, task), task) for task in tasks))


def _reduced(job: _Job, task: _Task) -> _Job:
    """The job with the two persons and the family of one task, to send to a process."""
    people = {video: job.people[video] for video in (task.target, task.source)}
    families = {task.method: job.families[task.method]} if task.method else {}
    return _Job(job.out, job.config, people, families)


class _Declined(Exception):
    """The family does not forge this face."""


def _run(given: tuple[_Job, _Task]) -> bool:
    """Make the files of one task; False where the family declined, in which case none is written."""
    job, task = given
    try:
        write_clips(_frames(job, task), _targets(job, task), job.config.camera.rate)
    except _Declined:
        return False
    return True


def _frames(job: _Job, task: _Task) -> Iterator[list[Picture]]:
    """The pictures of every frame, one for each of `_targets`."""
    target = _film(job, task.target)
    levels, count = len(job.config.compressions), job.config.camera.frames
    if not task.method:
        for number in range(count):
            yield [target.shoot(number)[0]] * levels
        return
    source, family = _film(job, task.source), job.families[task.method]
    seed = job.config.seed
    if family.name in STEADY:
        side = side_of(target.marks)
        scene, mask = _forged(family, target.scene, target.marks, side, source.scene, source.marks, task, seed)
        for number in range(count):
            yield [*[target.shoot(number, scene)[0]] * levels, target.trace(number, mask)]
        return
    side = max(side_of(target.shoot(number)[1]) for number in (0, count // 2))
    for number in range(count):
        image, mask = _forged(family, *target.shoot(number), side, *source.shoot(number), task, seed)
        yield [*[image] * levels, mask]


def _forged(
    family: Family,
    frame: Picture,
    marks: Points,
    side: int,
    other: Picture,
    others: Points,
    task: _Task,
    seed: int,
) -> tuple[Picture, Picture]:
    """A frame of the target with its face forged, and the mask (H, W); `other`, `others`: the source's frame."""
    cut = cut_face(frame, marks, side, task.target, task.target)
    lent = cut_face(other, others, side_of(others), task.source, task.source).face
    # The same generator in every frame: what is drawn once a forgery is drawn once a clip.
    rng = draw(seed, "clip", family.name, task.target, task.source)
    forged: Forged | None = family.forge(cut.face, [resize_face(lent, side)], rng)
    if forged is None:
        raise _Declined
    return paste(frame, forged.image, forged.mask, cut)


def _film(job: _Job, video: str) -> Camera:
    person, config = job.people[video], job.config
    return Camera(read_picture(person.path), person.landmarks, video, config.seed, config.camera)
