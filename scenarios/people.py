"""Which people belong to which experience, when each has its own (as real data sets do).

*own*: a person's experience is a hash of the name, so that people added later move nobody. A forged face is placed by
the person it shows; whose face was put in (`source_identity`) may belong to another experience: this is counted and
said. *apart*: sources count too. A face whose source belongs elsewhere is left out, and people are placed so that few
are. Measured on 1,083 portraits (configs/portraits_domains.yaml: four experiences, two of which borrow faces): leaving
out alone would cost 336 of 927 forged faces of train and valid (36 %, three quarters of the two forgeries); uniting
people by source (union-find) puts all 673 of train into one group; growing groups along the sources, as below, costs
24 (3 %), and 234 in place of 711 where all four borrow. The price: places hang on the whole table, so people added
later may move others.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from ffd_continual.scenarios.splits import source_datasets

PEOPLE = ("shared", "own", "apart")
_SPLITS = ("train", "valid")  # test people are shared by all experiences
Person = str


def share_of(person: str, seed: int, shares: int) -> int:
    """Which of `shares` a person falls into: a hash, so that people added later move nobody."""
    return _hash(person, seed) % shares


def _hash(person: str, seed: int) -> int:
    digest = hashlib.sha256(f"{seed}|share|{person}".encode()).digest()
    return int.from_bytes(digest[:8], "big")


@dataclass(frozen=True)
class Placed:
    """The experience of every face (n,), which faces may be learnt from (n,), and remarks for the user."""

    share: npt.NDArray[np.int64]
    sound: npt.NDArray[np.bool_]
    notes: tuple[str, ...] = ()


def place_people(faces: pd.DataFrame, groups: Sequence[Sequence[str]], people: str, seed: int) -> Placed:
    """Place every face's person in one of the experiences, given as their forgeries.

    faces: columns forgery, split, dataset, identity, person, source_identity. `sound` is False only under "apart", for
    a forged face of train or valid whose source belongs to another experience than the face.
    """
    own = np.array([share_of(str(p), seed, len(groups)) for p in faces["person"]], np.int64)
    everyone = np.ones(len(faces), bool)
    experience = {forgery: number for number, group in enumerate(groups) for forgery in group}
    home = np.array([experience.get(str(f), -1) for f in faces["forgery"]], np.int64)
    split = faces["split"].to_numpy()
    sources = [str(s) if isinstance(s, str) else "" for s in faces["source_identity"]]
    tied = np.array([bool(s) for s in sources]) & (home >= 0) & np.isin(split, _SPLITS)
    if people == "shared" or not tied.any():
        return Placed(own, everyone)
    if people == "own":
        share = own
        source_share = np.array(
            [share_of(s, seed, len(groups)) if t else -1 for s, t in zip(sources, tied, strict=True)]
        )
    else:
        share, source_share = _apart(faces, sources, home, tied, len(groups), seed)
    shown = tied & (share == home)
    astray = shown & (source_share != share)
    forged = int(((home >= 0) & (share == home) & np.isin(split, _SPLITS)).sum())
    count = f"{int(astray.sum())} of {forged} forged faces of train and valid"
    if people == "own":
        text = f"{count} hold the face of a person of another experience; scenario.people=apart keeps these apart"
        return Placed(share, everyone, (text,) if astray.any() else ())
    text = f"{count} are left out: they hold the face of a person of another experience"
    return Placed(share, ~(tied & (source_share != share)), (text,) if astray.any() else ())


def _apart(
    faces: pd.DataFrame,
    sources: Sequence[str],
    home: npt.NDArray[np.int64],
    tied: npt.NDArray[np.bool_],
    count: int,
    seed: int,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Shares of the faces' own people and of their sources; people count within their data set."""
    datasets = [str(d) for d in faces["dataset"]]
    person = [f"{d}\x1f{p}" for d, p in zip(datasets, faces["person"], strict=True)]
    owners = source_datasets(datasets, [str(i) for i in faces["identity"]], sources)
    source = [f"{d}\x1f{s}" for d, s in zip(owners, sources, strict=True)]
    share, source_share = np.full(len(faces), -1, np.int64), np.full(len(faces), -1, np.int64)
    for split in _SPLITS:
        rows = np.flatnonzero((faces["split"] == split).to_numpy())
        lent: list[dict[Person, set[Person]]] = [defaultdict(set) for _ in range(count)]
        known: dict[Person, None] = {}
        for row in rows:
            known[person[row]] = None
            if tied[row]:
                known[source[row]] = None
                lent[home[row]][person[row]].add(source[row])
        placed = grow_groups(sorted(known, key=lambda p: (_hash(p, seed), p)), lent)
        for row in rows:
            share[row] = placed[person[row]]
            source_share[row] = placed[source[row]] if tied[row] else -1
    return share, source_share


def grow_groups(ranked: Sequence[Person], lent: Sequence[Mapping[Person, set[Person]]]) -> dict[Person, int]:
    """Equal groups of people, one an experience, in which people and the sources of their faces stand together.

    ranked: all people, in the order in which ties are broken. lent[k]: person -> sources of the faces that experience
    k forged of that person. The experiences with sources take a person each in turn: one whose sources they all have,
    else a source that they lack, else the first by rank who loses no face by it, else the first by rank. The others
    share who is left.
    """
    groups = [_Group(sources, ranked) for sources in lent]
    room = [len(ranked) // len(lent) + (number < len(ranked) % len(lent)) for number in range(len(lent))]
    placed: dict[Person, int] = {}
    tied = [number for number, sources in enumerate(lent) if sources]
    while any(room[number] for number in tied):
        for number in tied:
            if room[number]:
                chosen = groups[number].choose(placed, number)
                placed[chosen] = number
                groups[number].take(chosen)
                room[number] -= 1
    left = [p for p in ranked if p not in placed]
    free = [number for number in range(len(lent)) if not lent[number]]
    for at, chosen in enumerate(left):
        placed[chosen] = free[at % len(free)]
    return placed


class _Group:
    """One experience's people while they are chosen; every list is walked once."""

    def __init__(self, sources: Mapping[Person, set[Person]], ranked: Sequence[Person]) -> None:
        self.sources, self.ranked = sources, ranked
        self.rank = {p: at for at, p in enumerate(ranked)}
        self.lacking = {p: len(lenders) for p, lenders in sources.items()}
        self.borrowers: dict[Person, list[Person]] = defaultdict(list)
        for p, lenders in sources.items():
            for lender in lenders:
                self.borrowers[lender].append(p)
        self.ready: list[int] = []  # ranks of people all of whose sources are here
        self.wanted: list[int] = []  # ranks of sources of people who are here
        self.lossless = self.any = 0  # how far `ranked` was walked

    def take(self, chosen: Person) -> None:
        for borrower in self.borrowers[chosen]:
            self.lacking[borrower] -= 1
            if self.lacking[borrower] == 0:
                heapq.heappush(self.ready, self.rank[borrower])
        for lender in self.sources.get(chosen, ()):
            heapq.heappush(self.wanted, self.rank[lender])

    def choose(self, placed: Mapping[Person, int], number: int) -> Person:
        for waiting in (self.wanted, self.ready):
            while waiting:
                chosen = self.ranked[heapq.heappop(waiting)]
                if chosen not in placed:
                    return chosen
        while self.lossless < len(self.ranked):
            chosen = self.ranked[self.lossless]
            # A source once placed elsewhere stays there: who is passed over here never becomes lossless again.
            if chosen not in placed and all(placed.get(s, number) == number for s in self.sources.get(chosen, ())):
                return chosen
            self.lossless += 1
        while self.ranked[self.any] in placed:
            self.any += 1
        return self.ranked[self.any]
