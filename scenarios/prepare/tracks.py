"""The same face over frames: detections joined by overlap, then by nearness, each track to at most one a frame.

Frames lie up to seconds apart, so a face may have moved by its own width; what decides is the sum over all pairs of a
frame (Hungarian assignment), with equal sums in the order from left to right. Boxes are (x, y, width, height), pixels.
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


def _cost(a: Box, b: Box) -> float:
    """0 for the same box, below 2 for one that may be the same face, `_NEVER` otherwise."""
    shared = overlap(a, b)
    if shared >= OVERLAP:
        return 1 - shared
    sides = max(a[2], a[3]), max(b[2], b[3])
    if min(sides) <= 0 or max(sides) / min(sides) > GROWTH:
        return _NEVER
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

    def join(self, frame: int, boxes: Sequence[Box]) -> list[int]:
        """The track number of each box of a frame; a box that fits none begins a new track."""
        order = sorted(range(len(boxes)), key=lambda at: boxes[at])
        found: dict[int, int] = {}
        if self.tracks and boxes:
            costs = np.array([[_cost(track.last, boxes[at]) for at in order] for track in self.tracks])
            for row, column in zip(*linear_sum_assignment(costs), strict=True):
                if costs[row, column] < _NEVER:
                    found[order[column]] = int(row)
        for at in order:
            if at not in found:
                found[at] = len(self.tracks)
                self.tracks.append(Track(found[at], boxes[at]))
            self.tracks[found[at]].add(frame, boxes[at])
        return [found[at] for at in range(len(boxes))]

    def main(self, number: int) -> dict[int, int]:
        """{track: rank} of the `number` heaviest tracks; the heaviest has rank 0, equal ones in order of appearance."""
        ranked = sorted(self.tracks, key=lambda track: (-track.weight, track.number))
        return {track.number: rank for rank, track in enumerate(ranked[:number])}
