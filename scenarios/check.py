"""Every fault of a manifest, with its place: files, labels, and persons, videos or pictures on two sides of a split.

A fault makes results wrong or a run fail; a warning is worth knowing. Names count within their ``dataset``, as in
`ffd_continual.scenarios.splits`: person "001" of two data sets is two persons.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from ffd_continual.scenarios.copies import copy_faults
from ffd_continual.scenarios.duplicates import Look, look_at
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.faults import Fault, Rows
from ffd_continual.scenarios.manifest import Manifest
from ffd_continual.scenarios.manifest_cells import REAL, SPLITS
from ffd_continual.scenarios.partial import Grey, small_look
from ffd_continual.scenarios.pictures import read_picture
from ffd_continual.scenarios.shard_paths import file_exists, file_sha256
from ffd_continual.scenarios.splits import source_datasets

_LABELS = ("real", "forged")
_PORTION = 256
Named = list[tuple[str, str]]  # (column, name within its data set)
_APART = "\x1f"


@dataclass(frozen=True)
class _Seen:
    """What looking at one file gave: its bytes' hash, (height, width) or why it cannot be read."""

    exists: bool
    digest: str = ""
    size: tuple[int, int] | None = None
    error: str = ""
    look: Look | None = None
    small: Grey | None = None


def _look(path: str, decode: bool, hashed: bool, small: bool) -> _Seen:
    if not file_exists(path):
        return _Seen(False)
    if not decode:
        return _Seen(True)
    try:
        picture = read_picture(path)
        digest = file_sha256(path)
    except FFDError as error:
        return _Seen(True, error=str(error))
    except OSError as error:
        return _Seen(True, error=f"cannot read {path}: {error.strerror or error}")
    height, width = picture.shape[:2]
    look, reduced = look_at(picture) if hashed else None, small_look(picture) if small else None
    return _Seen(True, digest, (height, width), look=look, small=reduced)


def _look_at_all(rows: Rows, decode: bool, hashed: bool, small: bool, workers: int, progress: bool) -> dict[str, _Seen]:
    faces = set(rows.file["path"]) if hashed else set()
    paths = sorted({path for files in rows.file.values() for path in files if path})
    bar = tqdm(total=len(paths), desc="check", unit="file", disable=None if progress else True)
    seen: dict[str, _Seen] = {}
    with bar, ThreadPoolExecutor(max_workers=max(workers, 1)) as pool:
        # In portions, so that Ctrl-C has to wait for one only and a million files queue no million tasks.
        for begin in range(0, len(paths), _PORTION):
            part = paths[begin : begin + _PORTION]
            wanted = [path in faces for path in part]
            reduced = [small and one for one in wanted]
            answers = pool.map(_look, part, [decode] * len(part), wanted, reduced)
            for path, one in zip(part, answers, strict=True):
                seen[path] = one
                bar.update()
    return seen


def _file_faults(rows: Rows, seen: dict[str, _Seen]) -> Iterator[Fault]:
    for row in range(rows.count):
        main = seen[rows.file["path"][row]]
        for column in ("path", "pair", "mask"):
            name, path = rows.text[column][row], rows.file[column][row]
            if not path:
                continue
            one = seen[path]
            if not one.exists:
                kind = "missing-file" if column == "path" else f"missing-{column}"
                yield rows.fault(row, column, kind, f"{name} does not exist")
            elif one.error:
                yield rows.fault(row, column, "unreadable-picture", one.error)
            elif column != "path" and one.size and main.size and one.size != main.size:
                sizes = f"{one.size[1]} x {one.size[0]}, the face {main.size[1]} x {main.size[0]}"
                yield rows.fault(row, column, f"{column}-size", f"{name} is {sizes} pixels")
        stated = rows.text["sha256"][row]
        if stated and main.digest and stated != main.digest:
            yield rows.fault(row, "sha256", "sha256-mismatch", f"the file has {main.digest[:16]}..., not as stated")
        text = rows.text["landmarks"][row]
        if text and main.size:
            points = np.asarray(json.loads(text), dtype=np.float64)
            low, high = points.min(axis=0), points.max(axis=0)
            if high.min() < 0 or low[0] > main.size[1] or low[1] > main.size[0]:
                yield rows.fault(row, "landmarks", "landmarks-outside", "the landmarks lie outside the picture")


def _label_faults(rows: Rows) -> Iterator[Fault]:
    for row, (label, forgery) in enumerate(zip(rows.text["label"], rows.text["forgery"], strict=True)):
        if (label == 0) != (forgery == REAL):
            message = f"label {label} ({_LABELS[label]}) contradicts forgery {forgery!r}"
            yield rows.fault(row, "label", "contradictory-label", message)


def _same_thing_faults(rows: Rows, digests: list[str]) -> Iterator[Fault]:
    """Rows of the same file or of the same bytes: doubled, or labelled in two ways."""
    for column, keys in (("path", rows.file["path"]), ("sha256", digests)):
        groups: dict[str, list[int]] = defaultdict(list)
        for row, key in enumerate(keys):
            if key:
                groups[key].append(row)
        what = "file" if column == "path" else "content"
        for members in groups.values():
            first = members[0]
            for row in members[1:]:
                # The same path has the same bytes: said once, under "path".
                if column == "sha256" and rows.file["path"][row] == rows.file["path"][first]:
                    continue
                if column == "path":
                    yield rows.fault(row, column, "duplicate-row", f"the same file as {rows.at(first)}")
                elif rows.text["label"][row] == rows.text["label"][first]:
                    message = f"the same picture as {rows.at(first)} under another name"
                    yield Fault(int(rows.lines[row]), "path", "duplicate-picture", message, warning=True)
                if rows.text["label"][row] != rows.text["label"][first]:
                    message = f"the same {what} as {rows.at(first)}, where it is {_LABELS[rows.text['label'][first]]}"
                    yield rows.fault(row, "label", "contradictory-label", message)


def _crossing(rows: Rows, kind: str, names: Callable[[int], Named], word: str) -> Iterator[Fault]:
    """A fault for each row whose name is in another split than most rows of that name (ties: the earlier split)."""
    where: dict[str, dict[int, str]] = defaultdict(dict)
    splits = rows.text["split"]
    for row in range(rows.count):
        for column, name in names(row):
            if name and splits[row]:
                where[name].setdefault(row, column)
    for name, members in where.items():
        counts = Counter(splits[row] for row in members)
        if len(counts) < 2:
            continue
        home = max(counts, key=lambda split: (counts[split], -SPLITS.index(split)))
        first = next(row for row in members if splits[row] == home)
        shown = f"{word} {name.split(_APART)[1]!r}" if _APART in name else word
        for row, column in members.items():
            if splits[row] != home:
                message = f"{shown} is in {splits[row]} here and in {home} at {rows.at(first)} ({counts[home]} there)"
                yield rows.fault(row, column, kind, message)


def _split_faults(rows: Rows, digests: list[str]) -> Iterator[Fault]:
    text = rows.text
    owners = source_datasets(text["dataset"], text["identity"], text["source_identity"])

    def named(row: int, column: str, dataset: str) -> Named:
        return [(column, f"{dataset}{_APART}{text[column][row]}")] if text[column][row] else []

    def people(row: int) -> Named:
        return named(row, "identity", text["dataset"][row]) + named(row, "source_identity", owners[row])

    yield from _crossing(rows, "identity-in-two-splits", people, "person")
    yield from _crossing(rows, "video-in-two-splits", lambda row: named(row, "video", text["dataset"][row]), "video")
    content = [digest or path for digest, path in zip(digests, rows.file["path"], strict=True)]
    yield from _crossing(rows, "picture-in-two-splits", lambda row: [("path", content[row])], "the picture")
    split_of = dict(zip(rows.file["path"], text["split"], strict=True))
    for row, pair in enumerate(rows.file["pair"]):
        here, there = text["split"][row], split_of.get(pair, "")
        if here and there and here != there:
            message = f"the pair {text['pair'][row]} is in {there}, this face in {here}"
            yield rows.fault(row, "pair", "pair-in-two-splits", message)


def split_faults(manifest: Manifest) -> list[Fault]:
    """Rows whose person (also as source), video, picture or pair stands in another split, from the table alone.

    No file is opened: pictures count as the same by path or by a stated sha256. About two seconds for 100,000 rows.
    """
    rows = Rows(manifest)
    found = _split_faults(rows, rows.text["sha256"])
    return sorted(found, key=lambda fault: fault.row or 0)


def _warnings(rows: Rows) -> Iterator[Fault]:
    def warn(column: str, kind: str, message: str) -> Fault:
        return Fault(None, column, kind, message, warning=True)

    splits, labels, forgeries = rows.text["split"], rows.text["label"], rows.text["forgery"]
    counts = Counter(zip(splits, labels, strict=True))
    unassigned = sum(1 for split in splits if not split)
    if unassigned:
        yield warn("split", "unassigned", f"{unassigned} of {rows.count} faces have no split yet")
    if unassigned < rows.count:
        for split in SPLITS:
            absent = [word for label, word in enumerate(_LABELS) if not counts[split, label]]
            if len(absent) == 2:
                yield warn("split", "empty-split", f"the split {split} is empty")
            elif absent:
                yield warn("split", "one-class-split", f"the split {split} has no {absent[0]} face")
        stands = {(forgery, split) for forgery, split, label in zip(forgeries, splits, labels, strict=True) if label}
        for forgery in sorted({forgery for forgery, split in stands if split == "train"}):
            for split in ("valid", "test"):
                if (forgery, split) not in stands:
                    yield warn("forgery", "forgery-not-in-split", f"{forgery} is in train but not in {split}")
    unknown = sum(1 for cells in zip(rows.text["identity"], rows.text["video"], strict=True) if not any(cells))
    if unknown:
        message = f"{unknown} of {rows.count} faces have neither identity nor video: leaks between splits stay unseen"
        yield warn("identity", "unknown-person", message)


def check_manifest(
    manifest: Manifest,
    pictures: bool = True,
    workers: int = 1,
    progress: bool = True,
    duplicates: bool = True,
    partial: bool = False,
) -> list[Fault]:
    """Every fault of the manifest, then its warnings, each in the order of the file.

    ``pictures`` decodes every picture, pair and mask (compares sizes, content and hashes); without it only their being
    there is checked. ``workers``: threads that decode. ``progress``: a bar on a terminal. ``duplicates``: of decoded
    pictures also near-duplicates are sought (duplicates.py), with ``partial`` cut and covered ones, too (partial.py).
    """
    rows = Rows(manifest)
    hashed = pictures and duplicates
    seen = _look_at_all(rows, pictures, hashed, hashed and partial, workers, progress)
    digests = [seen[path].digest or stated for path, stated in zip(rows.file["path"], rows.text["sha256"], strict=True)]
    found = [*_file_faults(rows, seen), *_label_faults(rows), *_same_thing_faults(rows, digests)]
    found += [*_split_faults(rows, digests), *_warnings(rows)]
    if hashed:
        faces = [seen[path] for path in rows.file["path"]]
        small = [face.small for face in faces] if partial else None
        found += copy_faults(manifest, rows, [face.look for face in faces], digests, small, progress)
    return sorted(found, key=lambda fault: (fault.warning, fault.row or 0))
