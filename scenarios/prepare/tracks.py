"""The same face over frames: detections joined by overlap, then by nearness, each track to at most one a frame.

A face may have moved by its own width; what decides is the sum over all pairs of a frame (Hungarian assignment), with
equal sums in the order from left to right. Where frames lie so far apart in time that places tell nothing, what is left
is joined in order of size: the largest face to the heaviest track. So a main track may change the person at a cut; no
face is recognised here. Boxes are (x, y, width, height), pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linear_sum_assignment

Box = tuple[float, float, float, float]

OVERLAP = 0.1  # least intersection over union that joins
REACH = 1.0  # or: centres nearer than this share of the mean side ...
GROWTH = 2.0  # ... and sides that differ by less than this factor
_NEVER = 1e6


def overlap(a: Box, b: Box) -> float:
    """Intersection over union, 0..1."""
    across = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    down = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(across, 0.0) * max(down, 0.0)
    union = a[2] * a[3] + b[2] * b[3] - shared
    return shared / union if union > 0 else 0.0


def _like(a: Box, b: Box) -> bool:
    """Whether the sides differ by less than `GROWTH`."""
    sides = max(a[2], a[3]), max(b[2], b[3])
    return min(sides) > 0 and max(sides) / min(sides) <= GROWTH


def _cost(a: Box, b: Box) -> float:
    """0 for the same box, below 2 for one that may be the same face, `_NEVER` otherwise."""
    shared = overlap(a, b)
    if shared >= OVERLAP:
        return 1 - shared
    if not _like(a, b):
        return _NEVER
    sides = max(a[2], a[3]), max(b[2], b[3])
    apart = float(np.hypot(a[0] + a[2] / 2 - b[0] - b[2] / 2, a[1] + a[3] / 2 - b[1] - b[3] / 2))
    near = apart / (sum(sides) / 2)
    return 1 + near / REACH if near < REACH else _NEVER


@dataclass
class Track:
    """One face: its `weight` is the sum of its boxes' areas, so size and length both count."""

    number: int
    last: Box
    weight: float = 0.0
    frames: list[int] = field(default_factory=list)

    def add(self, frame: int, box: Box) -> None:
        """Join a detection."""
        self.last = box
        self.weight += box[2] * box[3]
        self.frames.append(frame)


class Tracker:
    """Takes frames one after another and holds only each track's last box."""

    def __init__(self) -> None:
        self.tracks: list[Track] = []

    def join(self, frame: int, boxes: Sequence[Box], apart: bool = False) -> list[int]:
        """The track number of each box of a frame; a box that fits none begins a new track.

        `apart`: the frame before lies long ago, so what fits by place to none may still join by size.
        """
        order = sorted(range(len(boxes)), key=lambda at: boxes[at])
        found: dict[int, int] = {}
        if self.tracks and boxes:
            costs = np.array([[_cost(track.last, boxes[at]) for at in order] for track in self.tracks])
            for row, column in zip(*linear_sum_assignment(costs), strict=True):
                if costs[row, column] < _NEVER:
                    found[order[column]] = int(row)
        if apart:
            self._join_by_size(boxes, found)
        for at in order:
            if at not in found:
                found[at] = len(self.tracks)
                self.tracks.append(Track(found[at], boxes[at]))
            self.tracks[found[at]].add(frame, boxes[at])
        return [found[at] for at in range(len(boxes))]

    def _join_by_size(self, boxes: Sequence[Box], found: dict[int, int]) -> None:
        left = sorted(set(range(len(boxes))) - found.keys(), key=lambda at: (-boxes[at][2] * boxes[at][3], boxes[at]))
        taken = set(found.values())
        free = [track for track in self.tracks if track.number not in taken]
        free.sort(key=lambda track: (-track.weight, track.number))
        for at in left:
            fitting = next((track for track in free if _like(track.last, boxes[at])), None)
            if fitting is not None:
                free.remove(fitting)
                found[at] = fitting.number

    def main(self, number: int) -> dict[int, int]:
        """{track: rank} of the `number` heaviest tracks; the heaviest has rank 0, equal ones in order of appearance."""
        ranked = sorted(self.tracks, key=lambda track: (-track.weight, track.number))
        return {track.number: rank for rank, track in enumerate(ranked[:number])}
