"""What the adapters for plain folders share: ROOT/real and ROOT/<forgery>, or ROOT/train/real, ROOT/valid/...

The person is what stands before the first "_" of a file's name, or of the outermost folder below the forgery's, as
where crops are read from plain folders (scenarios/folder.py).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ffd_continual.scenarios.datasets.listing import Item, Kind, Listing, Wanted
from ffd_continual.scenarios.datasets.names import unique
from ffd_continual.scenarios.datasets.tree import Tree, chosen, join
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.folder import IDENTITY_PATTERN

REAL = "real"
_SPLITS = {"train": "train", "valid": "valid", "val": "valid", "test": "test"}
_RESERVED = ("mask", "masks")
_PERSON = re.compile(IDENTITY_PATTERN)


@dataclass(frozen=True)
class Class:
    """The folder of one forgery, or of the real ones, in one split ("" where no folder tells it)."""

    folder: str
    forgery: str
    split: str


def classes(tree: Tree, wanted: Wanted) -> list[Class]:
    """The folders to read. Raises FFDError for a tree without ROOT/real, with masks, or with classes beside splits."""
    chosen(wanted.compressions, (), "compression", tree.title)
    names = tree.folders()
    splits = [name for name in names if name in _SPLITS]
    others = [name for name in names if name not in _SPLITS]
    if splits and others:
        raise FFDError(
            f"{tree.root} holds the split {splits[0]!r} beside {others[0]!r}. Move {others[0]!r} into the splits."
        )
    found = [
        Class(join(split, name), name, _SPLITS.get(split, ""))
        for split in splits or [""]
        for name in tree.folders(split)
    ]
    for one in found:
        if one.forgery.lower() in _RESERVED:
            raise FFDError(f"{tree.root}: the folder {one.folder!r} would be a forgery. Masks need a manifest.")
    known = sorted({one.forgery for one in found} - {REAL})
    if len(known) == len({one.forgery for one in found}):
        near = difflib.get_close_matches(REAL, [name.lower() for name in known], 1, 0.6)
        hint = f" Is it {near[0]!r}? Then rename it to 'real'." if near else ""
        raise FFDError(f"{tree.nothing('a folder real and one for each forgery')}{hint}")
    asked = chosen(wanted.forgeries, known, "forgery", tree.title)
    return [one for one in found if one.forgery == REAL or one.forgery in asked]


def person(path: str) -> str:
    """Who is seen, from a path without suffix below the forgery's folder."""
    found = _PERSON.search(path)
    return found.group(1) if found else ""


def listed(
    tree: Tree,
    wanted: Wanted,
    found_in: Callable[[str], Sequence[tuple[str, str, Kind]]],
    left_out: Callable[[str], int],
    *,
    lacks: str,
    remark: str,
) -> Listing:
    """The listing of all classes, folder by folder.

    ``found_in(folder)`` gives (path, video, kind) of its items, ``left_out(folder)`` how many files another adapter
    would read. FFDError that says what the tree ``lacks`` where there is no item.
    """
    items: list[Item] = []
    missing: list[str] = []
    others = 0
    for one in classes(tree, wanted):
        others += left_out(one.folder)
        here = found_in(one.folder)
        missing += [] if here else [f"{one.folder}/"]
        for path, video, kind in here:
            who = person(video.removeprefix(f"{one.folder}/"))
            items.append(Item(path, int(one.forgery != REAL), one.forgery, video, kind, one.split, who))
    if not items:
        raise tree.nothing(lacks)
    notes = (f"{others} {remark}",) if others else ()
    return Listing(tuple(unique(items)), tuple(missing), (*tree.notes, *notes))
