"""Who people are: a table of persons beside a data set (skin, age, sex, ...), joined to its listing.

people.csv: a column `identity` (or `video`: the item's name, or its last part without suffix), and any columns beyond
the manifest's own, one line a person. What it says becomes columns of the manifest, which `ffd benign --by` groups by.
"""

from __future__ import annotations

import csv
import difflib
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ffd_continual.scenarios.datasets.listing import Item, Listing
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.manifest_cells import COLUMNS

KEYS = ("identity", "video")
FILE = "people.csv"
_OWN = frozenset(COLUMNS)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,40}")


@dataclass(frozen=True)
class People:
    """What is known of each person: `key` says whether `cells` are found by identity or by video."""

    path: Path
    key: str
    columns: tuple[str, ...]
    cells: Mapping[str, Mapping[str, str]]


def read_people(path: Path) -> People:
    """The table at `path`. Raises FFDError with the line for one that cannot be joined."""
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise FFDError(f"cannot read the table of people {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise FFDError(f"{path} is no UTF-8 text: save the table of people as CSV in UTF-8") from error
    try:
        lines = [line for line in csv.reader(io.StringIO(text, newline=""), strict=True) if line]
    except csv.Error as error:
        raise FFDError(f"{path} is no CSV table: {error}") from error
    names = [name.strip() for name in lines[0]] if lines else []
    keys = [name for name in KEYS if name in names]
    if len(keys) != 1 or len(names) < 2 or len(set(names)) < len(names):
        raise FFDError(
            f"{path}: the first line must name a column identity (or video) and at least one of what is known of them, "
            f"each once, such as identity,skin,age,sex; it is {','.join(names)[:80] or 'empty'}"
        )
    columns = tuple(name for name in names if name != keys[0])
    for name in columns:
        if name in _OWN or not _NAME.fullmatch(name):
            raise FFDError(
                f"{path}: the column {name!r} cannot be added: choose a plain word that is none of the "
                f"manifest's own columns ({', '.join(sorted(_OWN))})"
            )
    cells: dict[str, dict[str, str]] = {}
    for number, line in enumerate(lines[1:], 2):
        if len(line) != len(names):
            raise FFDError(f"{path}, line {number}: {len(line)} cells, the first line has {len(names)}")
        row = dict(zip(names, (cell.strip() for cell in line), strict=True))
        who = row.pop(keys[0])
        if not who or cells.get(who, row) != row:
            raise FFDError(f"{path}, line {number}: {f'{who!r} is told twice, differently' if who else 'no name'}")
        cells[who] = row
    return People(path, keys[0], columns, cells)


def write_people(columns: tuple[str, ...], cells: Mapping[str, Mapping[str, str]]) -> bytes:
    """The bytes of a table by identity, in the order of `cells`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("identity", *columns))
    writer.writerows((who, *(row.get(name, "") for name in columns)) for who, row in cells.items())
    return text.getvalue().encode()


def _names(item: Item, key: str) -> tuple[str, ...]:
    return (item.identity,) if key == "identity" else (item.video, re.sub(r"\.\w+$", "", item.video.split("/")[-1]))


def join_people(listing: Listing, people: People) -> Listing:
    """The listing with the table's columns, empty for who is not in it; a note says how many that are.

    Raises FFDError where the data set has such a column already, or none of its people is in the table.
    """
    taken = sorted({name for item in listing.items for name in item.extra} & set(people.columns))
    if taken:
        raise FFDError(f"{people.path}: the data set itself tells {', '.join(taken)}: leave out or rename the column")
    empty, items, found = dict.fromkeys(people.columns, ""), [], set[str]()
    for item in listing.items:
        name = next((name for name in _names(item, people.key) if name in people.cells), None)
        found |= {name} if name is not None else set()
        items.append(replace(item, extra={**item.extra, **(people.cells[name] if name is not None else empty)}))
    if not found:
        ours = sorted({name for item in listing.items for name in _names(item, people.key) if name})
        first = next(iter(people.cells), "")
        near = difflib.get_close_matches(first, ours, 1) or ours[:1]
        raise FFDError(
            f"{people.path}: no {people.key} of it is in the data set; it says {first!r}, "
            f"the data set for instance {near[0] if near else ''!r}"
        )
    known = sum(1 for item in items if any(item.extra[name] for name in people.columns))
    notes = [f"{known} of {len(items)} items are of people in {people.path}: {', '.join(people.columns)}"]
    if len(people.cells) > len(found):
        notes.append(f"{len(people.cells) - len(found)} lines of {people.path} are of nobody in the data set")
    return replace(listing, items=tuple(items), notes=(*listing.notes, *notes))
