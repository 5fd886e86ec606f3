"""DeepfakeBench: JSON files that name the frames of many data sets, cut out already, with labels and splits.

data set -> label -> split -> (compression ->) video -> {"label", "frames", perhaps "masks"}. The paths in them start at
some machine's root, with either slash: as much of their beginning is dropped as it takes to find them below ROOT.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from ffd_continual.scenarios.datasets.holdout import with_validation
from ffd_continual.scenarios.datasets.listing import About, Item, Listing, Wanted
from ffd_continual.scenarios.datasets.names import persons, unique
from ffd_continual.scenarios.datasets.tree import PICTURE_SUFFIXES, Tree, bad_list, chosen, order, unsafe

ABOUT = About(
    title="DeepfakeBench",
    citation="Yan et al., DeepfakeBench: A Comprehensive Benchmark of Deepfake Detection, NeurIPS 2023; "
    "Yan et al., DF40: Toward Next-Generation Deepfake Detection, NeurIPS 2024",
    terms="CC BY-NC 4.0 for the benchmark; each data set keeps the terms of its own authors.",
    url="https://github.com/SCLBD/DeepfakeBench",
    layout="""\
dataset_json/FaceForensics++.json, Celeb-DF-v2.json, simswap_ff.json, ...
    (also in preprocessing/dataset_json/, or beside the folders)
FaceForensics++/original_sequences/youtube/c23/frames/000/000.png
    (also in datasets/ or datasets/rgb/)""",
    source="JSON as written by SCLBD/DeepfakeBench (preprocessing/rearrange.py) and read by its "
    "training/dataset/abstract_dataset.py; labels in YZY-stack/DF40 (training/config/train_config.yaml)",
)
_JSON_FOLDERS = ("", "dataset_json", "preprocessing/dataset_json")
_BASES = ("", "datasets/", "datasets/rgb/")
_SPLITS = {"train": "train", "val": "valid", "test": "test"}
_FF = {"FF-DF": "deepfakes", "FF-F2F": "face2face", "FF-FS": "faceswap", "FF-NT": "neuraltextures"}
_FORGERIES = {
    **_FF,
    "FF-FH": "faceshifter",
    "FF-SH": "faceshifter",
    "DFDCP_FakeA": "method_a",
    "DFDCP_FakeB": "method_b",
}
_REAL = re.compile(r"(^|[-_])real$", re.IGNORECASE)
_FAKE = re.compile(r"(^|[-_])fake$", re.IGNORECASE)


@dataclass
class _Entry:
    """One video as a JSON file tells it; ``splits``: all in which it stands."""

    dataset: str
    name: str
    label: str
    compression: str
    frames: tuple[str, ...]
    masks: tuple[str, ...]
    splits: set[str] = field(default_factory=set)


def index(root: Path, wanted: Wanted) -> Listing:
    """What the JSON files below ``root`` name. Raises FFDError without one, or for one that is none of DeepfakeBench's.

    A video named by several files is taken once; one whose frames are not on the disk is missing.
    """
    tree = Tree(root, ABOUT.title)
    files = [path for folder in _JSON_FOLDERS for path in tree.files(folder, {".json"})]
    if not files:
        raise tree.nothing("a JSON file of DeepfakeBench, in dataset_json for example")
    notes: list[str] = []
    entries: dict[str, _Entry] = {}
    for path in files:
        for entry in _entries(tree, path, notes):
            first = entries.setdefault(entry.frames[0], entry)
            if bool(_REAL.search(first.label)) != bool(_REAL.search(entry.label)):
                wrong = f"{entry.name!r} is {entry.label} here and {first.label} elsewhere, with the same frames"
                raise bad_list(tree.root / path, None, wrong, "Take the official files.")
            first.splits |= entry.splits
    known = sorted({_forgery(entry) for entry in entries.values()} - {"real"})
    forgeries = chosen(wanted.forgeries, known, "forgery", ABOUT.title)
    levels = sorted({entry.compression for entry in entries.values()} - {""})
    compressions = chosen(wanted.compressions, levels, "compression", ABOUT.title)
    divided = _divided(list(entries.values()))
    where = _Finder(tree)
    found, missing = [], []
    for entry in entries.values():
        forgery = _forgery(entry)
        if (forgery != "real" and forgery not in forgeries) or (
            entry.compression and entry.compression not in compressions
        ):
            continue
        folder, names = where.frames(entry.frames)
        if not names:
            missing.append(f"{entry.dataset}: {entry.label} {entry.compression} {entry.name}".replace("  ", " "))
            continue
        split = _split(entry.splits, _domain(entry.dataset) in divided)
        masks = where.frames(entry.masks)[0] if entry.masks else ""
        found.append(_item(entry, forgery, folder, names, split, masks))
    if not found:
        raise tree.nothing(
            f"the frames that its {len(files)} JSON file(s) name, such as {next(iter(entries.values())).frames[0]}"
        )
    items, remarks = with_validation(_paired(found), ABOUT.title)
    return Listing(tuple(items), tuple(missing), (*tree.notes, *notes, *remarks))


def _entries(tree: Tree, path: str, notes: list[str]) -> Iterator[_Entry]:
    """The videos of one file; what is no video of the form is left out and told by name."""
    value = tree.json(path)
    if not isinstance(value, dict) or not all(isinstance(labels, dict) for labels in value.values()):
        raise bad_list(
            tree.root / path, None, "is no table of data sets", "Keep only DeepfakeBench's JSON files there."
        )
    count = 0
    for dataset, labels in value.items():
        for group, splits in labels.items():
            for split, videos in splits.items() if isinstance(splits, dict) else ():
                if split not in _SPLITS:
                    raise bad_list(
                        tree.root / path, None, f"{dataset}, {group}: {split!r} is no split", "Take the official file."
                    )
                for compression, name, told in _videos(videos):
                    entry, why = _entry(dataset, group, compression, name, told)
                    if entry is None:
                        notes.append(f"{path}: left out {ascii(f'{group} {split} {name}')}: {why}")
                        continue
                    entry.splits.add(_SPLITS[split])
                    count += 1
                    yield entry
    if not count:
        raise bad_list(tree.root / path, None, "names no video that can be used", "Take the official file.")


def _videos(videos: object) -> Iterator[tuple[str, str, object]]:
    """(compression or "", name, what is told) of every video of a split."""
    for name, told in videos.items() if isinstance(videos, dict) else ():
        if isinstance(told, dict) and told and "frames" not in told and all(isinstance(v, dict) for v in told.values()):
            for video, inner in told.items():
                yield str(name), str(video), inner
        else:
            yield "", str(name), told


def _entry(dataset: str, group: str, compression: str, name: str, told: object) -> tuple[_Entry | None, str]:
    if not isinstance(told, Mapping):
        return None, "it has no table of its own"
    label, frames, masks = told.get("label"), told.get("frames"), told.get("masks") or []
    if not isinstance(label, str) or not (_REAL.search(label) or _FAKE.search(label) or label in _FORGERIES):
        return None, f"its label is {label!r}, neither real nor fake"
    if bool(_REAL.search(label)) != bool(_REAL.search(group)):
        return None, f"its label {label!r} stands under {group!r}"
    if not isinstance(frames, list) or not frames:
        return None, "it names no frames"
    shown, marked = _plain(frames), _plain(masks if isinstance(masks, list) else [])
    if shown is None or marked is None:
        return None, "a frame's path is no safe path"
    return _Entry(dataset, name, label, compression, shown, marked), ""


def _plain(frames: list[object]) -> tuple[str, ...] | None:
    """The paths with "/" and without a beginning slash or dot, in order; None where one leads upwards."""
    found = []
    for frame in frames:
        path = str(frame).replace("\\", "/").removeprefix("./").lstrip("/") if isinstance(frame, str) else ""
        if unsafe(path):
            return None
        found.append(path)
    return tuple(sorted(found, key=order))


def _domain(dataset: str) -> str:
    """The data set, called as its own adapter calls it: persons' names count within it."""
    if dataset.startswith(("FF-", "FaceForensics++", "FaceShifter")) or dataset.endswith("_ff"):
        return "faceforensics"
    if dataset.startswith("Celeb-DF") or dataset.endswith("_cdf"):
        return "celebdf"
    return {"DeepFakeDetection": "dfd"}.get(dataset, dataset.lower())


def _forgery(entry: _Entry) -> str:
    if _REAL.search(entry.label):
        return "real"
    if entry.label in _FORGERIES:
        return _FORGERIES[entry.label]
    name = _FAKE.sub("", entry.label)
    # DF40's first files label several methods "roop_Fake": there the file's own name tells the method.
    if name.lower() in ("", "roop"):
        name = re.sub(r"_(ff|cdf)$", "", entry.dataset)
    return name.lower()


def _divided(entries: list[_Entry]) -> set[str]:
    """Data sets whose JSON really tells test from the rest: some files put every video into all three splits."""
    return {_domain(entry.dataset) for entry in entries if "test" not in entry.splits}


def _split(splits: set[str], divided: bool) -> str:
    """One split of a video that stands in several: test wins, as in Celeb-DF's list; else none is told."""
    if "test" in splits:
        return "test" if divided or splits == {"test"} else ""
    return "train" if "train" in splits else "valid"


def _item(entry: _Entry, forgery: str, folder: str, names: tuple[str, ...], split: str, masks: str) -> Item:
    identity, source, _ = persons(entry.name)
    video = "/".join(part for part in (_domain(entry.dataset), forgery, entry.compression, entry.name) if part)
    return Item(
        folder, int(forgery != "real"), forgery, video, "frames", split, identity, source,
        mask=masks, compression=entry.compression, dataset=_domain(entry.dataset), cropped=True, files=names,
    )  # fmt: skip


def _paired(items: list[Item]) -> list[Item]:
    """Forged items with the real one they were made from, where that is there; doubled names made unique."""
    named = unique(items)
    real: dict[tuple[str, str], list[Item]] = {}
    for item in named:
        if not item.label:
            real.setdefault((item.dataset, item.video.rpartition("/")[2]), []).append(item)
    result = []
    for item in named:
        able = real.get((item.dataset, persons(item.video.rpartition("/")[2])[2]), []) if item.label else []
        # A method of DF40 names no compression; its originals have one.
        best = next((one for one in able if one.compression == item.compression), able[0] if able else None)
        result.append(replace(item, pair=best.video) if best else item)
    return result


class _Finder:
    """Finds frames below the root, whatever their paths began with on the machine that wrote them."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self._cuts: dict[str, tuple[str, int]] = {}  # first two folders of a path -> (base, folders to drop)
        self._last: tuple[str | None, frozenset[str]] = (None, frozenset())

    def frames(self, paths: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
        """(folder, file names in it that are there); ("", ()) where none is."""
        told = paths[0].rpartition("/")[0]
        folder = self._folder(told)
        if folder is None:
            return "", ()
        if self._last[0] != folder:  # pictures without a video are entries of one frame in one large folder
            names = (path.rpartition("/")[2] for path in self.tree.files(folder, PICTURE_SUFFIXES))
            self._last = folder, frozenset(names)
        split = (path.rpartition("/") for path in paths)
        return folder, tuple(name for at, _, name in split if at == told and name in self._last[1])

    def _folder(self, told: str) -> str | None:
        parts = told.split("/")
        key = "/".join(parts[:2])
        # At least two folders must agree, not a bare "000" somewhere.
        tries = [(base, cut) for cut in range(max(len(parts) - 1, 1)) for base in _BASES]
        if key in self._cuts:
            tries.insert(0, self._cuts[key])
        for base, cut in tries:
            folder = base + "/".join(parts[cut:])
            if cut < len(parts) and self.tree.is_folder(folder):
                self._cuts[key] = (base, cut)
                return folder
        return None
