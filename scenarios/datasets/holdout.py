"""A validation part for data sets whose authors name train and test only: some of train, by whole groups.

Settings and thresholds are chosen on `valid`, never on test, so a learner needs one. Whatever shares a person or a
source recording stays on one side; which side is a hash of the group's first name, so it depends on no order.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Collection, Sequence
from dataclasses import replace

from ffd_continual.scenarios.datasets.listing import Item
from ffd_continual.scenarios.linking import Links

SHARE = 0.15


def held_out(names: Sequence[Collection[str]], kinds: Sequence[str] = (), share: float = SHARE) -> list[bool]:
    """Which rows go to validation: rows are linked by the names they have in common, groups are never divided.

    With two groups or more neither side is empty; with one nothing can be kept apart and all are False. Rows without
    a name are never held out. ``kinds`` (a forgery or "real" a row): in small sets groups are added until each kind is
    on both sides, where that is possible.
    """
    linked = Links[str]()
    for row in filter(None, names):
        first_name, *others = sorted(row)
        linked.find(first_name)
        for other in others:
            linked.join(first_name, other)
    first: dict[str, str] = {}
    for name in linked:
        root = linked.find(name)
        first[root] = min(first.get(root, name), name)
    groups: dict[str, set[str]] = {}  # kind -> groups that hold it
    for row, kind in zip(names, kinds, strict=True) if kinds else ():
        if row:
            groups.setdefault(kind, set()).add(linked.find(next(iter(row))))
    place = {root: _place(name) for root, name in first.items()}
    # The only group of a kind stays in training, unless that is true of every group.
    lone = {root for held in groups.values() if len(held) == 1 for root in held}
    lone = set() if lone == place.keys() else lone
    ranked = sorted(place.keys() - lone, key=lambda root: (place[root], first[root]))
    count = min(max(sum(place[root] < share for root in ranked), 1), len(first) - 1, len(ranked))
    chosen = set(ranked[:count])
    for kind in sorted(groups):
        if groups[kind] & chosen:
            continue
        rest = (root for root in ranked if root in groups[kind])
        fits = (root for root in rest if all(held - chosen - {root} for held in groups.values() if root in held))
        chosen |= set(itertools.islice(fits, 1))
    return [bool(row) and linked.find(next(iter(row))) in chosen for row in names]


def with_validation(items: Sequence[Item], title: str) -> tuple[list[Item], list[str]]:
    """The items, some of split "train" moved to "valid", and the remark that says so.

    Groups are persons (identity and source), else pair and video. Nothing changes where a validation part is there or
    no training part is.
    """
    train = [at for at, item in enumerate(items) if item.split == "train"]
    if not train or any(item.split == "valid" for item in items):
        return list(items), []
    links = []
    for at in train:
        item = items[at]
        people = [f"{item.dataset}/{one}" for one in (item.identity, item.source_identity) if one]
        links.append(people or [f"video {one}" for one in (item.pair, item.video) if one])
    moved = {at for at, out in zip(train, held_out(links, [items[at].forgery for at in train]), strict=True) if out}
    if not moved:
        return list(items), [
            f"{title} names no validation part and all of its training part hangs together by persons: fill the "
            "manifest's column split yourself before training on it."
        ]
    result = [replace(item, split="valid") if at in moved else item for at, item in enumerate(items)]
    return result, [
        f"{title} names no validation part: {len(moved)} of {len(train)} training items are kept apart as one, "
        "whole groups by a hash of their names."
    ]


def _place(name: str) -> float:
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[:6], "big") / 2**48
