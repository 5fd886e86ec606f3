"""Train, valid and test parts in which no person, video or pair of pictures stands on two sides.

Rows that share a person (as identity or as source), a video, a pair or the very same file are united into groups, and
a group is placed as a whole. Its place is a hash of (seed, the group's first name), so people added later do not move
those who were there before; a row whose split is filled already keeps it, and its group follows.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
import numpy.typing as npt
import pandas as pd

from ffd_continual.scenarios.errors import DataWarning, FFDError
from ffd_continual.scenarios.linking import Links
from ffd_continual.scenarios.manifest_cells import SPLITS

Node = tuple[str, ...]
_WORDS = ("real", "forged")


@dataclass
class _Group:
    place: float  # in [0, 1), compared with the cumulated fractions
    classes: tuple[bool, bool]  # holds real faces, holds forged faces
    split: int = 0
    fixed: bool = False


def _column(table: pd.DataFrame, name: str) -> list[str]:
    return [str(cell) for cell in table[name]] if name in table else [""] * len(table)


def source_datasets(datasets: Sequence[str], identities: Sequence[str], sources: Sequence[str]) -> list[str]:
    """The data set in which each source person is known: the face's own, else the only other one with that name.

    Names count within their data set, but a face may be lent across: a forger who is given two data sets does so.
    """
    known: dict[str, set[str]] = {}
    for dataset, identity in zip(datasets, identities, strict=True):
        if identity:
            known.setdefault(identity, set()).add(dataset)
    found = []
    for dataset, source in zip(datasets, sources, strict=True):
        owners = known.get(source, ())
        found.append(next(iter(owners)) if dataset not in owners and len(owners) == 1 else dataset)
    return found


def _nodes(table: pd.DataFrame, by: str) -> tuple[list[list[Node]], int]:
    """What each row is linked by, the most telling node first; and how many rows have no person and no video."""
    names = ("dataset", "identity", "source_identity", "video", "path", "pair", "sha256")
    columns = [_column(table, n) for n in names]
    links: list[list[Node]] = []
    alone = 0
    for owner, (dataset, identity, source, video, path, pair, digest) in zip(
        source_datasets(*columns[:3]), zip(*columns, strict=True), strict=True
    ):
        people = [("identity", at, person) for at, person in ((dataset, identity), (owner, source)) if person]
        clip = [("video", dataset, video)] if video else []
        # A row without a video still has to stand somewhere: with its person.
        nodes: list[Node] = [*people, *clip] if by == "identity" else [*(clip or people)]
        if not nodes:
            alone += 1
            nodes.append(("stem", dataset, PurePath(path).stem))
        nodes.append(("path", os.path.normpath(path)))
        if pair:
            nodes.append(("path", os.path.normpath(pair)))
        if digest:
            nodes.append(("sha256", digest))
        links.append(nodes)
    return links, alone


def link_groups(table: pd.DataFrame, by: str = "identity") -> tuple[npt.NDArray[np.int64], list[Node], int]:
    """The group of each row (n,), each group's naming node, and the number of rows with neither person nor video.

    ``by="identity"`` links by identity, source_identity, video, pair and file; ``by="video"`` leaves persons out where
    a video is known. Names count within their ``dataset``: person "001" of two data sets is two persons.
    """
    if by not in ("identity", "video"):
        raise FFDError(f"faces are split by 'identity' or 'video', not by {by!r}.")
    links, alone = _nodes(table, by)
    linked = Links[Node]()
    for nodes in links:
        linked.find(nodes[0])
        for node in nodes[1:]:
            linked.join(nodes[0], node)
    # Persons name a group before videos, videos before files: more pictures of a person must not rename the group.
    rank = {kind: at for at, kind in enumerate(("identity", "video", "stem", "path", "sha256"))}
    name: dict[Node, Node] = {}
    for node in linked:
        root = linked.find(node)
        best = name.get(root)
        if best is None or (rank[node[0]], node) < (rank[best[0]], best):
            name[root] = node
    number = {root: at for at, root in enumerate(name)}
    member = np.array([number[linked.find(nodes[0])] for nodes in links], dtype=np.int64)
    return member, list(name.values()), alone


def _place(seed: int, node: Node) -> float:
    digest = hashlib.sha256("\x1f".join((str(seed), *node)).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def _counts(groups: Sequence[_Group]) -> npt.NDArray[np.int64]:
    """Groups with real and with forged faces in each split, (3, 2)."""
    counts = np.zeros((3, 2), dtype=np.int64)
    for group in groups:
        counts[group.split] += group.classes
    return counts


def _lacking(groups: Sequence[_Group], wanted: Sequence[int]) -> list[tuple[int, int]]:
    counts = _counts(groups)
    return [(split, label) for split in wanted for label in (0, 1) if counts[split, label] == 0]


def _repair(groups: Sequence[_Group], wanted: Sequence[int], bounds: npt.NDArray[np.float64]) -> None:
    """Move the groups nearest to a part that lacks a class into it, as long as their own part keeps both."""
    counts = _counts(groups)
    for split, label in _lacking(groups, wanted):
        low, high = (bounds[split - 1] if split else 0.0), bounds[split]
        able = [group for group in groups if group.classes[label] and not group.fixed]
        for group in sorted(able, key=lambda group: max(low - group.place, group.place - high)):
            if counts[split, label]:
                break
            left = counts[group.split] - group.classes
            if group.split not in wanted or (left[np.asarray(group.classes)] > 0).all():
                counts[group.split], counts[split] = left, counts[split] + group.classes
                group.split = split


def assign_splits(
    table: pd.DataFrame, seed: int, fractions: Sequence[float] = (0.7, 0.15, 0.15), by: str = "identity"
) -> pd.DataFrame:
    """A copy of the manifest's table with every empty ``split`` filled; filled ones stay and pull their group along.

    ``fractions``: expected shares of groups (not of faces) in train, valid and test, summing to 1. In small sets, where
    a part would lack real or forged faces, the groups nearest to it are moved there; such groups may move back when the
    data grow, so write the manifest to keep them. Warns when rows have neither person nor video (each then stands
    alone, joined only by the file's stem). Raises `FFDError` when a part would lack a class, or a group is split.
    """
    shares = np.asarray(fractions, dtype=np.float64)
    if shares.shape != (3,) or (shares < 0).any() or abs(float(shares.sum()) - 1) > 1e-6:
        raise FFDError(f"the fractions of train, valid and test must be three numbers >= 0 of sum 1, not {fractions}.")
    member, names, alone = link_groups(table, by)
    bounds = np.cumsum(shares)
    bounds[-1] = max(float(bounds[-1]), 1.0)
    labels = table["label"].to_numpy()
    given = np.array([SPLITS.index(cell) if cell else -1 for cell in _column(table, "split")], dtype=np.int64)
    classes = np.zeros((len(names), 2), dtype=bool)
    classes[member, labels] = True
    groups = []
    for node, (real, forged) in zip(names, classes.tolist(), strict=True):
        place = _place(seed, node)
        groups.append(_Group(place, (real, forged), int(np.searchsorted(bounds, place, side="right"))))
    for row in np.flatnonzero(given >= 0):
        group = groups[member[row]]
        if group.fixed and group.split != given[row]:
            named = " ".join(part for part in names[member[row]] if part)
            parts = f"{SPLITS[group.split]} and {SPLITS[given[row]]}"
            raise FFDError(f"the faces linked to {named!r} stand in {parts} already. Put them into one split.")
        group.split, group.fixed = int(given[row]), True
    wanted = [at for at in range(3) if shares[at] > 0]
    _repair(groups, wanted, bounds)
    missing = _lacking(groups, wanted)
    if missing:
        split, label = missing[0]
        counts = f"{len(groups)} group(s) of linked faces, {classes[:, 0].sum()} with real and {classes[:, 1].sum()}"
        raise FFDError(
            f"cannot split by {by}: the {SPLITS[split]} part would have no {_WORDS[label]} face. There are {counts} "
            "with forged ones, and a group is never divided. Add people, name them better (identity_pattern), or where "
            "persons link everything fill a manifest's split column by video (and set scenario.leaks=allow)."
        )
    if alone:
        warnings.warn(
            f"{alone} of {len(table)} faces have neither identity nor video: each is placed alone (equal file stems "
            "together), so one person may stand in train and in test. Fill the identity column.",
            DataWarning,
            stacklevel=2,
        )
    filled = [SPLITS[groups[at].split] for at in member]
    return table.assign(split=pd.Series(filled, index=table.index, dtype="str"))
