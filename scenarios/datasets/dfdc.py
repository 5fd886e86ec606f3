"""DeepFake Detection Challenge (DFDC), the full set and Kaggle's parts: labels and originals are in metadata.json.

Persons are not told. What is told is the video a fake was made from, so an original's name stands for its unknown
actor: a clip and all its fakes hang together.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ffd_continual.scenarios.datasets.listing import About, Item, Listing, Wanted
from ffd_continual.scenarios.datasets.tree import VIDEO_SUFFIXES, Tree, bad_list, chosen, join, order, stem, unsafe

ABOUT = About(
    title="DeepFake Detection Challenge (DFDC)",
    citation="Dolhansky et al., The DeepFake Detection Challenge (DFDC) Dataset, arXiv:2006.07397, 2020",
    terms="Rules of the Kaggle competition or of dfdc.ai, which you accept before the download.",
    url="https://ai.meta.com/datasets/dfdc/",
    layout="""\
dfdc_train_part_0/metadata.json, *.mp4      parts 0 to 49, here or in train/
train_sample_videos/metadata.json, *.mp4    Kaggle's sample
validation/labels.csv, *.mp4                or test_videos/, labelled later
test/labels.csv or test/metadata.json, *.mp4""",
    source="columns as on Kaggle's data page; folders as read in polimi-ispl/icpr2020dfdc (index_dfdc.py), "
    "SCLBD/DeepfakeBench (preprocessing/rearrange.py) and mapooon/SelfBlendedImages (data/datasets.md); validation/ "
    "and test/metadata.json as read in other code that indexes them, not verified against a download",
)
PARTS = tuple(f"dfdc_train_part_{number}" for number in range(50))
FORGERY = "dfdc"  # eight methods; which one made a video is not told
_SPLITS = {"train": "train", "validation": "valid", "test_videos": "valid", "test": "test"}
_DEPTH = 3  # folders above a metadata.json: train/dfdc_train_part_07/dfdc_train_part_7
_ADVICE = "Unpack that part again."


@dataclass(frozen=True)
class _Row:
    """A line of metadata.json or labels.csv; ``original`` is a stem, "" for none."""

    name: str
    label: int
    original: str = ""


def index(root: Path, wanted: Wanted) -> Listing:
    """What lies below ``root``. Raises FFDError where nothing of DFDC is there, or a list cannot be read."""
    tree = Tree(root, ABOUT.title)
    chosen(wanted.compressions, (), "compression", ABOUT.title)
    chosen(wanted.forgeries, (FORGERY,), "forgery", ABOUT.title)
    folders = _folders(tree)
    if not folders:
        raise tree.nothing("dfdc_train_part_N with a metadata.json, train_sample_videos, or test with a labels.csv")
    items: dict[str, Item] = {}
    missing: list[str] = []
    notes: list[str] = []
    twice = 0
    for folder, listed in folders:
        rows, named, remarks = _rows(tree, folder, listed)
        notes += remarks
        split = _split_of(folder)
        there = {stem(path): path for path in tree.files(folder, VIDEO_SUFFIXES)}
        there |= {stem(path): path for path in tree.files(join(folder, "videos"), VIDEO_SUFFIXES)}
        for name in sorted(there.keys() - named, key=order):
            tree.leave_out(there[name], f"a video that {join(folder, listed)} does not label")
        for row in rows:
            video = stem(row.name)
            if video not in there:
                missing.append(join(folder, row.name))
            elif video in items:
                twice += 1
            else:
                items[video] = _item(there[video], video, row, split)
    found = [_paired(item, items) for item in items.values()]
    missing += _absent_parts([folder for folder, _ in folders])
    if twice:
        notes.append(f"{twice} video(s) stand in two folders (the sample repeats some of part 0): taken once")
    if found and {item.split for item in found} == {"train"}:
        found = [replace(item, split="") for item in found]
        notes.append("only training parts are here: splits are assigned, an original with all its fakes to one side")
    return Listing(tuple(found), tuple(missing), (*tree.notes, *notes))


def _folders(tree: Tree) -> list[tuple[str, str]]:
    """(folder, its list) of every folder of DFDC at most `_DEPTH` below the root, the parts in order."""
    found: list[tuple[str, str]] = []
    level = [""]
    for _ in range(_DEPTH + 1):
        for folder in level:
            for listed in ("labels.csv", "metadata.json"):
                if tree.is_file(join(folder, listed)):
                    found.append((folder, listed))
                    break
        level = [join(folder, name) for folder in level for name in tree.folders(folder) if name != "videos"]
    return sorted(found, key=lambda one: ("sample" in one[0], order(one[0])))


def _split_of(folder: str) -> str:
    for name in reversed(folder.split("/")):
        if name in _SPLITS:
            return _SPLITS[name]
        if name.startswith(("dfdc_train_part", "train_sample")):
            return "train"
    return "test"  # labels.csv beside the videos: the test set, as several loaders want it laid out


def _rows(tree: Tree, folder: str, listed: str) -> tuple[list[_Row], set[str], list[str]]:
    """The labels of a folder, all its names without suffix, and remarks on the lines that are left out."""
    path = join(folder, listed)
    rows: list[_Row] = []
    notes: list[str] = []
    if listed == "labels.csv":
        pairs: list[tuple[str, Mapping[str, object]]] = [
            (row["filename"], {"is_fake": row["label"]}) for _, row in tree.table(path, ("filename", "label"))
        ]
    else:
        pairs = _metadata(tree, path)
    for name, entry in pairs:
        row, why = _row(name, entry)
        if row is None:
            notes.append(f"{path}: left out {ascii(name)}: {why}")
        else:
            rows.append(row)
    if pairs and not rows:
        raise bad_list(tree.root / path, None, f"no line can be used, first: {notes[0]}", _ADVICE)
    return rows, {stem(name) for name, _ in pairs}, notes


def _metadata(tree: Tree, path: str) -> list[tuple[str, Mapping[str, object]]]:
    # Tables written by pandas hold NaN where a real video has no original: that is for `_row` to judge, line by line.
    try:
        value: object = json.loads(tree.text(path))
    except json.JSONDecodeError as error:
        raise bad_list(tree.root / path, error.lineno, f"is no JSON ({error.msg})", _ADVICE) from error
    except (ValueError, RecursionError) as error:
        raise bad_list(tree.root / path, None, f"is no JSON that can be used ({error})", _ADVICE) from error
    if not isinstance(value, dict):
        raise bad_list(tree.root / path, None, "is no table from file names to labels", _ADVICE)
    return [(str(name), entry if isinstance(entry, dict) else {}) for name, entry in value.items()]


def _row(name: str, entry: Mapping[str, object]) -> tuple[_Row | None, str]:
    """A usable line, or why it is none."""
    if why := unsafe(name):
        return None, f"its name {why}"
    if "/" in name:
        return None, "its name holds a folder"
    told = entry.get("label", entry.get("is_fake"))
    if not isinstance(told, (str, int)):  # NaN is a float
        return None, f"its label is {told!r}, not REAL or FAKE"
    label = {"REAL": 0, "FAKE": 1, "0": 0, "1": 1}.get(str(int(told) if isinstance(told, bool) else told).upper())
    if label is None:
        return None, f"its label is {told!r}, not REAL or FAKE"
    original = entry.get("original")
    if original is None or original == "" or original != original:  # NaN differs from itself
        return _Row(name, label), ""
    if not isinstance(original, str) or unsafe(original):
        return None, f"its original is {original!r}, no file name"
    if label == 0:
        return None, f"it is REAL and made from {original!r}"
    return _Row(name, label, stem(original)), ""


def _item(path: str, video: str, row: _Row, split: str) -> Item:
    forgery = FORGERY if row.label else "real"
    person = row.original or (video if split == "train" and not row.label else "")
    return Item(path, row.label, forgery, video, split=split, identity=person, pair=row.original)


def _paired(item: Item, items: Mapping[str, Item]) -> Item:
    """The item, its pair cleared where that is not on the disk (or is itself a fake): the identity still links them."""
    real = items.get(item.pair)
    return item if real is not None and real.label == 0 else replace(item, pair="")


def _absent_parts(folders: list[str]) -> list[str]:
    numbers = {name.rpartition("_")[2].lstrip("0") or "0" for f in folders for name in f.split("/") if "_part_" in name}
    return [part for part in PARTS if part.rpartition("_")[2] not in numbers] if numbers else []
