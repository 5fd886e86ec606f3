"""Groups among novel faces: clusters whose number nobody knows, with faces left over that fit nowhere.

Axes: N faces, F features; label -1 is a face without a group, groups are numbered from 0, the largest first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.cluster import DBSCAN, HDBSCAN, AgglomerativeClustering

from ffd_continual.scenarios.errors import FFDError

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
WAYS = ("agglomerative", "hdbscan", "dbscan")
DIRECTIONS = 8  # that are looked at
REACH = 0.45  # mean cosine distance within an agglomerative group; docs/detector.md has the choice


def reduced(features: Floats, directions: int = DIRECTIONS) -> Floats:
    """The directions of features (N, F) with the largest sums of squares, rows then of length 1: (N, at most
    `directions`). The origin stays where it is: faces of one new forgery alone share a direction from there, and
    without their mean would be told apart by their scenes."""
    _, _, rows = np.linalg.svd(features, full_matrices=False)
    made = features @ rows[:directions].T
    return np.asarray(made / np.maximum(np.linalg.norm(made, axis=1, keepdims=True), 1e-12))


def _ranked(labels: Labels, smallest: int) -> Labels:
    """Groups of fewer than `smallest` faces dissolved, the others numbered by size."""
    names, counts = np.unique(labels[labels >= 0], return_counts=True)
    order = [
        name
        for name, count in sorted(zip(names, counts, strict=True), key=lambda p: (-p[1], p[0]))
        if count >= smallest
    ]
    made = np.full(len(labels), -1, np.int64)
    for number, name in enumerate(order):
        made[labels == name] = number
    return made


def group_faces(features: Floats, way: str = "agglomerative", smallest: int = 5) -> Labels:
    """The group (N,) of each face. FFDError for a way that is not known, or groups of fewer than two faces."""
    if way not in WAYS:
        raise FFDError(f"no way of grouping is called {way!r}. Known: {', '.join(WAYS)}.")
    if smallest < 2:
        raise FFDError(f"a group has 2 faces or more, not {smallest}.")
    if len(features) < smallest:
        return np.full(len(features), -1, np.int64)
    made = reduced(features)
    if way == "hdbscan":
        found = HDBSCAN(min_cluster_size=smallest, min_samples=max(2, smallest // 2), copy=True).fit_predict(made)
    elif way == "dbscan":
        near = np.sort(1.0 - made @ made.T, axis=1)[:, min(smallest, len(made) - 1)]
        reach = max(float(np.median(near)), 1e-6)
        found = DBSCAN(eps=reach, min_samples=smallest, metric="cosine").fit_predict(made)
    else:
        tree = AgglomerativeClustering(None, metric="cosine", linkage="average", distance_threshold=REACH)
        found = tree.fit_predict(made)
    return _ranked(np.asarray(found, np.int64), smallest)


@dataclass(frozen=True)
class Grouping:
    """How well groups match forgeries."""

    groups: int
    grouped: float  # share of faces that are in a group
    purity: float  # share of grouped faces whose forgery is the commonest one of their group; NaN without groups
    chance: float  # what purity would be if all faces were one group


def measure_grouping(labels: Labels, forgeries: Sequence[str]) -> Grouping:
    """Groups (N,) against the faces' true forgeries."""
    names = np.array(forgeries)
    inside = labels >= 0
    right = sum(int(np.unique(names[labels == g], return_counts=True)[1].max()) for g in np.unique(labels[inside]))
    most = int(np.unique(names, return_counts=True)[1].max()) if len(names) else 0
    return Grouping(
        len(np.unique(labels[inside])),
        float(inside.mean()) if len(names) else float("nan"),
        right / int(inside.sum()) if inside.any() else float("nan"),
        most / len(names) if len(names) else float("nan"),
    )
