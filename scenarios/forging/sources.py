"""Whose face to put in: of the people offered, the one who fits by pose, skin and lighting."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from ffd_continual.scenarios.faces import Face, is_grey
from ffd_continual.scenarios.forging.geometry import align, face_width, move, similarity


def pose_distance(target: Face, other: Face) -> float:
    """Mean distance of landmarks, in face widths, after the best similarity map."""
    moved = move(other.landmarks, similarity(other.landmarks, target.landmarks))
    return float(np.linalg.norm(moved - target.landmarks, axis=1).mean()) / face_width(target.landmarks)


def look(face: Face) -> NDArray[np.float32]:
    """The aligned inner face as a Lab thumbnail (12, 12, 3): L in 0..100."""
    thumb = cv2.resize(align(face, 48)[0], (12, 12), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(thumb.astype(np.float32) / 255, cv2.COLOR_RGB2Lab), np.float32)


def pick_source(
    target: Face,
    others: Sequence[Face],
    rng: np.random.Generator,
    best: int = 3,
    limit: float = 0.085,
    shortlist: int = 12,
) -> Face | None:
    """One of the `best` fitting other people, drawn at random; None when nobody's pose is within `limit`.

    Only the `shortlist` nearest in pose are looked at. The score adds landmark distance and the thumbnails' distance,
    so glasses, beards and shadows count too.
    """
    ours, grey = look(target), is_grey(target.image)
    posed = [(pose_distance(target, one), index) for index, one in enumerate(others) if one.identity != target.identity]
    posed = [
        (pose, index) for pose, index in sorted(posed) if pose <= limit and (grey or not is_grey(others[index].image))
    ]
    scored: list[tuple[float, int]] = []
    for pose, index in posed[:shortlist]:
        theirs = look(others[index])
        apart = np.abs(theirs - ours)
        apart[..., 0] *= 0.6  # lightness is matched afterwards, hue hardly
        if grey:
            apart[..., 1:] = 0
        scored.append((pose * 200 + float(apart.mean()), index))
    if not scored:
        return None
    scored.sort()
    return others[scored[int(rng.integers(min(best, len(scored))))][1]]
