"""The order of work: each forgery after the real item it was made from, pictures a handful at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ffd_continual.scenarios.datasets.listing import Item
from ffd_continual.scenarios.prepare.journal import Journal

TOGETHER = 32  # pictures that a process takes at a time
Place = tuple[str, int, int]


@dataclass(frozen=True)
class Task:
    """What one process takes at a time: a video, or a handful of pictures."""

    items: tuple[Item, ...]
    reals: tuple[Place | None, ...]  # where the journal holds the record of each one's counterpart


def levels(items: Sequence[Item]) -> list[list[Item]]:
    """Items in waves: each one's counterpart stands in an earlier wave, if the listing has it. Circles are cut."""
    known = {item.video: item for item in items}
    depth: dict[str, int] = {}
    for item in items:
        chain, at = [item.video], item
        while at.pair in known and at.pair not in depth and at.pair not in chain:
            at = known[at.pair]
            chain.append(at.video)
        below = depth.get(at.pair, -1)
        for video in reversed(chain):
            below = depth.setdefault(video, below + 1)
    waves: list[list[Item]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for item in items:
        waves[depth[item.video]].append(item)
    return waves


def tasks_of(todo: Sequence[Item], earlier: set[str], journal: Journal) -> Iterator[Task]:
    """Videos one by one, pictures a handful at a time. `earlier`: names in earlier waves, whose records are there."""
    held: list[Item] = []

    def task(chosen: Sequence[Item]) -> Task:
        reals = tuple(journal.place(i.pair) if i.pair in earlier else None for i in chosen)
        return Task(tuple(chosen), reals)

    for item in todo:
        if item.kind != "picture":
            yield task([item])
            continue
        held.append(item)
        if len(held) == TOGETHER:
            yield task(held)
            held = []
    if held:
        yield task(held)
