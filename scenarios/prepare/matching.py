"""Which frames of a forgery show the same moment as the frames chosen from its real item.

Videos with equally many frames correspond frame by frame, whatever frame rate each file states. Otherwise frames of
the same time correspond, or, where the lengths in seconds differ but the counts hardly, again those of the same
position. Pictures in folders and archives correspond by the number in their names. `same` is claimed, and with it a
pair, only for the very same moment; a box may come from the nearest one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ffd_continual.scenarios.prepare.source import Source

NEAR = 0.02  # lengths and counts that differ by less than this share are taken for equal


@dataclass(frozen=True)
class Match:
    """A face of the real item, and whether the forged frame shows the same moment."""

    face: dict[str, Any]
    same: bool


def nearest(values: np.ndarray[Any, Any], wanted: float) -> int:
    """Index of the value nearest to `wanted` in ascending `values`; of two equally near ones the earlier."""
    at = int(np.searchsorted(values, wanted))
    if at == 0:
        return 0
    if at == len(values) or wanted - values[at - 1] <= values[at] - wanted:
        return at - 1
    return at


def _alike(a: float, b: float) -> bool:
    return abs(a - b) <= NEAR * max(abs(a), abs(b))


def _by_time(source: Source, real: dict[str, Any]) -> bool:
    if source.times is None or real["seconds"] is None or real["count"] == source.count:
        return False
    return _alike(real["seconds"], float(source.times[-1])) or not _alike(real["count"], source.count)


def matched(source: Source, real: dict[str, Any], kind: str) -> dict[int, list[Match]] | None:
    """{position in `source`: faces of the real item to look for there}; None where the two do not correspond."""
    faces = real["faces"]
    if kind == "picture":
        if real["count"] > 1:
            return None  # made from a video: which frame is not known
        return {0: [Match(face, True) for face in faces]}
    found: dict[int, list[Match]] = {}
    if _by_time(source, real) and source.times is not None:
        step = float(np.median(np.diff(source.times))) if source.count > 1 else 1.0
        finer = min(step, real["seconds"] / max(real["count"] - 1, 1)) if real["seconds"] else step
        for face in faces:
            at = nearest(source.times, face["seconds"])
            if face["seconds"] > source.times[-1] + step:
                continue  # the forgery ends earlier
            _take(found, at, face, abs(float(source.times[at]) - face["seconds"]) < 0.49 * finer)
        return found
    order = np.argsort(source.numbers, kind="stable")
    ascending = source.numbers[order]
    exact = 0
    for face in faces:
        near = nearest(ascending, face["number"])
        same = int(ascending[near]) == face["number"]
        exact += same
        _take(found, int(order[near]), face, same)
    return found if 2 * exact >= len(faces) else None


def _take(found: dict[int, list[Match]], at: int, face: dict[str, Any], same: bool) -> None:
    """At most one face of a track at a frame: the exact one, else the first that came."""
    held = found.setdefault(at, [])
    for place, match in enumerate(held):
        if match.face["track"] == face["track"]:
            if same and not match.same:
                held[place] = Match(face, same)
            return
    held.append(Match(face, same))
