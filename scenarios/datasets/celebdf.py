"""Celeb-DF v1 and v2 (Li et al., CVPR 2020): celebrities of YouTube, each swapped with others.

A forged clip id0_id1_0000 is made from id0_0000 and shows the face of id1: identity "id0", source_identity "id1".
List_of_testing_videos.txt writes 1 for REAL and 0 for forged videos, the other way round than here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ffd_continual.scenarios.datasets.holdout import held_out
from ffd_continual.scenarios.datasets.listing import About, Item, Listing, Wanted
from ffd_continual.scenarios.datasets.remarks import crossing, without_pair
from ffd_continual.scenarios.datasets.tree import Tree, bad_list, chosen, join
from ffd_continual.scenarios.errors import FFDError

ABOUT = About(
    title="Celeb-DF",
    citation="Y. Li, X. Yang, P. Sun, H. Qi, S. Lyu: Celeb-DF: A Large-scale Challenging Dataset for DeepFake "
    "Forensics. CVPR 2020.",
    terms="Terms to Use Celeb-DF, signed by the authors' form: research only.",
    url="https://github.com/yuezunli/celeb-deepfakeforensics",
    layout="""\
ROOT/           (Celeb-DF-v1 or Celeb-DF-v2: the name tells the version)
  Celeb-real/id0_0000.mp4
  Celeb-synthesis/id0_id1_0000.mp4
  YouTube-real/00000.mp4
  List_of_testing_videos.txt     (lines such as: 1 YouTube-real/00170.mp4)
or the clips in a folder `videos` of each of the three""",
    source="Celeb-DF-v1/README.md and Celeb-DF-v2/README.md of the authors' repository; names of clips and lines of "
    "the list as code that reads them has them, not verified against a download",
)
LIST = "List_of_testing_videos.txt"
LISTED_V2 = 518  # lines that the README of v2 gives its list
FORGERY = "celeb-synthesis"
_NAMES: Mapping[str, re.Pattern[str]] = {
    "Celeb-real": re.compile(r"(id[0-9]+)_([0-9]+)"),
    "YouTube-real": re.compile(r"([0-9]+)"),
    "Celeb-synthesis": re.compile(r"(id[0-9]+)_(id[0-9]+)_([0-9]+)"),
}
_LINE = re.compile(r"([01])\s+([A-Za-z-]+)/([^/]+)\.mp4")


def read_list(tree: Tree, path: str) -> dict[tuple[str, str], int]:
    """(folder, clip) -> line of the official list of test clips. Raises FFDError with the line that is not official."""
    listed: dict[tuple[str, str], int] = {}
    for line, text in tree.lines(path):
        where = tree.root / path
        found = _LINE.fullmatch(text)
        folder = _folder(found[2]) if found else ""
        if not found or not folder or not _NAMES[folder].fullmatch(found[3]):
            wrong = f"{ascii(text[:60])} is no line such as '1 YouTube-real/00170.mp4'"
            raise bad_list(where, line, wrong, f"Take {LIST} as it was downloaded.")
        real = folder != "Celeb-synthesis"
        if (found[1] == "1") != real:
            wrong = f"label {found[1]} for a clip of {folder}; in this list 1 is real and 0 is forged"
            raise bad_list(where, line, wrong, f"Take {LIST} as it was downloaded.")
        if (folder, found[3]) in listed:
            wrong = f"{folder}/{found[3]} stands in line {listed[folder, found[3]]} already"
            raise bad_list(where, line, wrong, f"Take {LIST} as it was downloaded.")
        listed[folder, found[3]] = line
    if not listed:
        raise bad_list(tree.root / path, None, "names no clip", f"Take {LIST} as it was downloaded.")
    return listed


def _folder(name: str) -> str:
    """The official spelling of one of the three folders, "" for another name."""
    return next((known for known in _NAMES if known.lower() == name.lower()), "")


def _home(tree: Tree) -> tuple[str, dict[str, str]]:
    """The folder of the data set and its three folders as they are spelt there."""
    homes = []
    for below in ("", *tree.folders()):
        spelt = {_folder(name): name for name in tree.folders(below) if _folder(name)}
        if spelt:
            homes.append((below, spelt))
    if not homes:
        raise tree.nothing("Celeb-real, Celeb-synthesis and YouTube-real")
    if len(homes) > 1:
        names = " and ".join(home or "." for home, _ in homes)
        raise FFDError(
            f"{tree.root} holds {names}: v1 and v2 share people and clips, so they cannot be one data set. Give one."
        )
    return homes[0]


def _dataset(tree: Tree, home: str, listed: int) -> str:
    for name in (home, tree.root.resolve().name):
        if version := re.search(r"[vV_-]\s*([12])\W*$", name):
            return f"celebdf-v{version[1]}"
    return "celebdf-v2" if listed == LISTED_V2 else "celebdf"


def index(root: Path, wanted: Wanted) -> Listing:
    """All clips. Listed clips are `test`; of the others, `train`, some recordings are kept apart as `valid`.

    Raises FFDError for a tree without the three folders, for v1 beside v2, and for a list that is not the official one.
    """
    tree = Tree(root, ABOUT.title)
    chosen(wanted.forgeries, (FORGERY,), "forgery", ABOUT.title)
    chosen(wanted.compressions, (), "compression", ABOUT.title)
    home, spelt = _home(tree)
    path = join(home, LIST)
    listed = read_list(tree, path) if tree.is_file(path) else {}
    dataset = _dataset(tree, home, len(listed))
    items: list[Item] = []
    missing: list[str] = []
    reals: set[str] = set()
    for folder, pattern in _NAMES.items():
        base = join(home, spelt.get(folder, folder))
        clips = tree.clips(base, join(base, "videos"))
        missing += [f"{base}/"] if not clips else []
        missing += [join(base, f"{name}.mp4") for of, name in listed if of == folder and clips and name not in clips]
        for name, clip in clips.items():
            who = pattern.fullmatch(name)
            if who is None:
                tree.leave_out(clip.path, f"no clip's name of {folder}")
                continue
            item = Item(clip.path, 0, "real", name, dataset=dataset, identity=who[1])
            if folder == "YouTube-real":  # each of its clips shows another person (README of v1)
                item = replace(item, video=f"youtube_{name}", identity=f"youtube_{name}")
            elif folder == "Celeb-synthesis":
                pair = f"{who[1]}_{who[3]}"
                item = replace(
                    item, label=1, forgery=FORGERY, source_identity=who[2], pair=pair if pair in reals else ""
                )
            reals.add(item.video)
            items.append(replace(item, split="test" if (folder, name) in listed else "train" if listed else ""))
    items = _with_valid(items)
    return Listing(tuple(items), tuple(missing), (*_notes(items), *tree.notes))


def _recording(item: Item) -> str:
    """What a clip is made from: id0_0000 for itself and for id0_id1_0000."""
    return item.identity + "_" + item.video.rpartition("_")[2]


def _with_valid(items: list[Item]) -> list[Item]:
    train = [item for item in items if item.split == "train"]
    out = held_out([[_recording(item)] for item in train])
    kept = {item.path for item, apart in zip(train, out, strict=True) if apart}
    return [replace(item, split="valid") if item.path in kept else item for item in items]


def _notes(items: list[Item]) -> list[str]:
    notes = []
    if not any(item.split for item in items):
        notes.append(f"no {LIST}: no official split")
    notes += crossing(items)
    if valid := sum(item.split == "valid" for item in items):
        notes.append(
            f"the authors name no validation part: {valid} clip(s) of train are kept apart as one, by recording "
            "(persons cross, as they do in the official list)"
        )
    return notes + without_pair(items)
