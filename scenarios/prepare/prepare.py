"""A data set as its authors ship it -> OUT/faces, OUT/pictures, OUT/masks, OUT/manifest.parquet, OUT/failed.csv.

Items without a counterpart come first, then the forgeries made from them, so that these find their boxes. What is
finished is noted in a journal (`ffd_continual.scenarios.prepare.journal`); the manifest is put together from it in the
order of the listing, so it has the same bytes for any number of processes and any interruption. An item is made again
when its file, or the record of its counterpart, has changed.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import pandas as pd
from tqdm import tqdm

from ffd_continual.scenarios.datasets.listing import Item, Listing
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.faces import FaceFinder, locate_model
from ffd_continual.scenarios.manifest import write_manifest
from ffd_continual.scenarios.pictures import write_bytes
from ffd_continual.scenarios.prepare.crew import Crew, Lost
from ffd_continual.scenarios.prepare.item import prepare_item
from ffd_continual.scenarios.prepare.journal import Journal, read_line
from ffd_continual.scenarios.prepare.masks import Record
from ffd_continual.scenarios.prepare.rows import rows_of
from ffd_continual.scenarios.prepare.settings import PrepareConfig, check_config
from ffd_continual.scenarios.prepare.shards import SHARD_BYTES, pack_shards
from ffd_continual.scenarios.prepare.source import inside
from ffd_continual.scenarios.prepare.validity import checked_items
from ffd_continual.scenarios.prepare.waves import Task, levels, tasks_of
from ffd_continual.scenarios.splits import assign_splits


@dataclass(frozen=True)
class Prepared:
    """`failed`: (path, cause, faces kept all the same); `made`: items that this call worked on, of `items`."""

    manifest: Path
    table: pd.DataFrame
    failed: tuple[tuple[str, str, int], ...]
    missing: tuple[str, ...]
    notes: tuple[str, ...]
    items: int
    made: int


def prepare_listing(
    listing: Listing,
    root: Path,
    out: Path,
    dataset: str,
    config: PrepareConfig | None = None,
    *,
    workers: int = 0,
    seed: int = 0,
    split_by: str = "identity",
    shard_bytes: int = SHARD_BYTES,
    progress: bool = True,
) -> Prepared:
    """Prepare every item of `listing` (paths below `root`) into `out`; deterministic, restartable.

    `workers`: processes, 0 works in this one; `seed`, `split_by`: how splits that the data set leaves empty are
    assigned. Raises FFDError for wrong settings or listings, when `out` holds other work, when no face is found at all,
    and when the disk is full (the same call then goes on).
    """
    config = config or PrepareConfig()
    check_config(config)
    items = checked_items(listing, dataset)
    if not root.is_dir():
        raise FFDError(f"there is no folder {root}. Give the folder that the data set was unpacked to.")
    true_root, true_out = os.path.realpath(root), os.path.realpath(out)
    if true_out == true_root or true_out.startswith(true_root.rstrip("/") + "/"):
        raise FFDError(f"--out {out} lies inside the data set {root}: choose a folder outside of it.")
    for kind in ("detector", "mesh"):
        locate_model(kind)
    journal = Journal(out, dataset, config)
    with closing(journal):
        if len(journal):
            _sweep(out)
        made = _make_all(items, root, out, config, journal, workers, progress)
        notes = list(listing.notes)
        stale = len(journal) - len(items)
        if stale > 0:
            notes.append(f"{stale} item(s) of an earlier, longer listing lie in {out} and are not in the manifest")
        rows, failed = _collected(items, journal)
        write_bytes(out / "failed.csv", _csv(("path", "cause", "kept"), failed))
        write_bytes(out / "missing.csv", _csv(("path",), [(path,) for path in listing.missing]))
        for path in listing.lists:
            write_bytes(out / "splits" / Path(path).name, inside(root, path).read_bytes())
        if not rows:
            raise FFDError(
                f"none of the {len(items)} items gave a face: {out / 'failed.csv'} says why. "
                f"First: {failed[0][0]!r}: {failed[0][1]}"
            )
        table = _with_splits(pd.DataFrame(rows), seed, split_by, notes)
        if config.form == "tar":
            table = pack_shards(table, out, journal, shard_bytes, progress)
        manifest = write_manifest(table, out / "manifest.parquet")
    return Prepared(
        out / "manifest.parquet", manifest.table, tuple(failed), listing.missing, tuple(notes), len(items), made
    )


def _csv(header: Sequence[str], rows: Sequence[Sequence[object]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode("utf-8", "backslashreplace")


def _sweep(out: Path) -> None:
    """Remove what a killed process was writing at that moment: `.<12 digits>.part`, as `write_bytes` names it."""
    for folder, _, names in os.walk(out):
        for name in names:
            if re.fullmatch(r"\.([0-9a-f]{12}|\d{6,}\.tar)\.part", name):
                Path(folder, name).unlink(missing_ok=True)


def _stamp(root: Path, path: str) -> list[int]:
    if not path or "\0" in path:
        return []
    try:
        stat = os.stat(root / path)
    except OSError:
        return [-1]
    return [stat.st_mtime_ns] if os.path.isdir(root / path) else [stat.st_size, stat.st_mtime_ns]


def _key(item: Item, root: Path, real: str) -> str:
    """Names what an item's crops depend on besides the settings. What only the manifest tells is left out."""
    facts = (item.path, item.kind, item.files, item.video, item.label, item.forgery, item.mask, item.cropped, real)
    stamps = _stamp(root, item.path), _stamp(root, item.mask)
    return hashlib.sha256(json.dumps([facts, stamps]).encode()).hexdigest()[:24]


def _whole(out: Path, record: Record) -> bool:
    """Whether all crops of a record lie there in full length."""
    try:
        return all(
            os.stat(out / face[name]).st_size == face[size]
            for face in record["faces"]
            for name, size in (("path", "bytes"), ("mask", "mask_bytes"))
            if face[name]
        )
    except OSError:
        return False


def _finished(video: str, key: str, out: Path, journal: Journal) -> bool:
    """Whether an item needs no work. Once packing has begun its crops lie in shards, and a lost item stays lost."""
    if journal.shards:
        return journal.key(video) in ((key, "") if video in journal else (key,))
    return journal.key(video) == key and _whole(out, journal.record(video))


def _begin(root: Path, out: Path, config: PrepareConfig) -> Callable[[Task], list[Record]]:
    """What one process needs: its own finder, one thread."""
    cv2.setNumThreads(1)
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)  # it remarks on every network that is loaded
    finder = FaceFinder(longest=config.longest)

    def work(task: Task) -> list[Record]:
        reals = [None if place is None else read_line(place) for place in task.reals]
        return [
            prepare_item(item, root, out, config, finder, real) for item, real in zip(task.items, reals, strict=True)
        ]

    return work


def _make_all(
    items: Sequence[Item],
    root: Path,
    out: Path,
    config: PrepareConfig,
    journal: Journal,
    workers: int,
    progress: bool,
) -> int:
    """Work on all that is not finished; how many items that were."""
    begin = partial(_begin, root, out, config)
    crew: Crew[Task, list[Record]] | None = None
    before = cv2.getNumThreads()
    made = 0
    earlier: set[str] = set()
    bar = tqdm(total=len(items), desc="preparing", unit="item", disable=None if progress else True, smoothing=0.05)
    try:
        for wave in levels(items):
            keys: dict[str, str] = {}
            todo: list[Item] = []
            for item in wave:
                real = journal.digest(item.pair) if item.pair in earlier else ""
                keys[item.video] = _key(item, root, real)
                if not _finished(item.video, keys[item.video], out, journal):
                    todo.append(item)
            bar.update(len(wave) - len(todo))
            if todo and journal.shards:
                raise FFDError(
                    f"{out} holds finished shards, and {todo[0].video} is new or has changed: choose another folder."
                )
            tasks = tasks_of(todo, earlier, journal)
            if todo and workers > 0 and crew is None:
                crew = Crew(workers, begin)
            work = begin() if todo and crew is None else None
            answers = crew.run(tasks) if crew else ((work(task) for task in tasks) if work else iter(()))
            for answer in _answers(answers, crew):
                for record in answer if isinstance(answer, list) else [_lost(answer.task.items[0], answer.code)]:
                    # A process that died may be luck: without a key the next call tries again.
                    journal.add(record, keys[str(record["video"])] if isinstance(answer, list) else "")
                    made += 1
                    bar.update()
            earlier.update(item.video for item in wave)
    finally:
        bar.close()
        cv2.setNumThreads(before)
        if crew is not None:
            crew.close()
    return made


def _answers(
    answers: Iterator[list[Record] | Lost[Task]], crew: Crew[Task, list[Record]] | None
) -> Iterator[list[Record] | Lost[Task]]:
    """Answers; of several pictures whose process died each is tried alone, so that one is to blame."""
    alone: list[Task] = []
    for answer in answers:
        if isinstance(answer, Lost) and len(answer.task.items) > 1:
            task = answer.task
            alone += [Task((item,), (real,)) for item, real in zip(task.items, task.reals, strict=True)]
        else:
            yield answer
    if alone and crew is not None:
        yield from crew.run(alone)


def _lost(item: Item, code: int | None) -> Record:
    cause = f"the process that worked on it died (exit code {code}); the same command tries it again"
    return {"video": item.video, "cause": cause, "count": 0, "seconds": None, "shape": None, "faces": [], "remarks": []}


def _collected(items: Sequence[Item], journal: Journal) -> tuple[list[dict[str, object]], list[tuple[str, str, int]]]:
    """The manifest's rows in the order of the listing, and what failed."""
    rows: list[dict[str, object]] = []
    failed: list[tuple[str, str, int]] = []
    for item in items:
        record = journal.record(item.video)
        rows += rows_of(item, record)
        if record["cause"]:
            failed.append((item.path, str(record["cause"]), 0))
        failed += [(str(path), str(cause), len(record["faces"])) for path, cause in record["remarks"]]
    return rows, failed


def _with_splits(table: pd.DataFrame, seed: int, by: str, notes: list[str]) -> pd.DataFrame:
    """Empty splits filled where that is possible; else they stay empty, and a run assigns or refuses them."""
    empty = int((table["split"] == "").sum())
    if not empty:
        return table
    if by == "test":
        notes.append(f"{empty} faces had no split: all are test")
        return table.assign(split=table["split"].where(table["split"] != "", "test"))
    try:
        filled = assign_splits(table, seed, by=by)
    except FFDError as error:
        notes.append(f"{empty} faces have no split, and none was assigned: {error}")
        return table
    notes.append(f"{empty} faces had no split: assigned by {by}, seed {seed}")
    return filled
