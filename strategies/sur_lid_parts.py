"""SUR-LID's equations as pure functions, and its choice of exemplars (see sur_lid.py for the paper and the readings).

Axes: B faces, M candidates or stored features, D features, S pixels a side, C x C cells of a picture.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ffd_continual.replay.exemplars import ExemplarTable
from ffd_continual.replay.selection import in_order

Positions = NDArray[np.int64]


def grid_shuffle(images: Tensor, cells: int, orders: Tensor) -> Tensor:
    """Pictures (B, 3, S, S) cut into cells x cells pieces; piece i of the answer is piece orders[b, i] of the picture.

    orders (B, cells^2); pixels beyond the last whole piece stay where they are.
    """
    count, planes, side = len(images), images.shape[1], images.shape[-1] // cells
    inner = images[:, :, : side * cells, : side * cells]
    pieces = inner.reshape(count, planes, cells, side, cells, side).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    moved = pieces[torch.arange(count, device=images.device)[:, None], orders]
    shuffled = images.clone()
    whole = moved.reshape(count, cells, cells, planes, side, side).permute(0, 3, 1, 4, 2, 5)
    shuffled[:, :, : side * cells, : side * cells] = whole.reshape(inner.shape)
    return shuffled


def spread_order(n: int) -> list[int]:
    """0 .. n-1 so that any first part lies spread over the whole: by the bits of each number read backwards."""
    bits = max(1, (n - 1).bit_length())
    return sorted(range(n), key=lambda i: int(f"{i:0{bits}b}"[::-1], 2))


def stable_and_unlike(
    features: NDArray[Any],
    stability: NDArray[Any],
    n: int,
    groups: NDArray[Any] | None = None,
    cap: int | None = None,
) -> Positions:
    """Sparse uniform replay: positions of at most n of M faces, most worth keeping first.

    The faces, in the order of their distance to the centroid of features (M, D), are cut into n / 2 segments of equal
    count; each gives its most stable face (stability (M,)), and the one whose feature has the smallest cosine with that
    one's. No group gives more than `cap`: in a face's place comes the next stable one of its segment.
    """
    wide = features.astype(np.float64)
    n = min(n, len(wide))
    if n == 0:
        return np.zeros(0, np.int64)
    unit = wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)
    outwards = np.argsort(np.linalg.norm(wide - wide.mean(axis=0), axis=1), kind="stable")
    segments = np.array_split(outwards, -(-n // 2))
    ranked: list[list[int]] = []
    for members in segments:
        stable = members[np.argsort(-stability[members], kind="stable")].tolist()
        likeness = {face: float(unit[face] @ unit[stable[0]]) for face in stable[1:]}
        unlike = [min(likeness, key=lambda face: likeness[face])] if likeness else []
        ranked.append([stable[0], *unlike, *(face for face in stable[1:] if face not in unlike)])
    deepest = max(len(faces) for faces in ranked)
    order = [
        face
        for depth in range(0, deepest, 2)
        for place in spread_order(len(ranked))
        for face in ranked[place][depth : depth + 2]
    ]
    return in_order(order, n, groups, cap)


@dataclass
class StableAndUnlike:
    """`stable_and_unlike` on a cell's features; `stability` by row is set before candidates are offered."""

    needs_features: ClassVar[bool] = True
    stability: dict[int, float] = field(default_factory=dict)

    def __call__(self, cell: ExemplarTable, n: int, cap: int | None) -> Positions:
        """Positions, spread over the segments."""
        known = np.array([self.stability[int(row)] for row in cell.row])
        return stable_and_unlike(cell.feature, known, n, cell.group, cap)


def refill(stored: Tensor, groups: Tensor, first: Tensor, second: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """Distribution re-filling: beta (alpha f1 + (1 - alpha) f2) + (1 - beta) c, c the centroid of f1's group.

    stored (M, D) features with groups (M,); first, second (N,) positions of two of one group; alpha, beta (N,) in
    0..1. Returns (N, D).
    """
    same = (groups[first][:, None] == groups[None, :]).to(stored.dtype)
    centre = same @ stored / same.sum(1, keepdim=True)
    mixed = alpha[:, None] * stored[first] + (1.0 - alpha[:, None]) * stored[second]
    return beta[:, None] * mixed + (1.0 - beta[:, None]) * centre


def align(new: Tensor, old: Tensor, share: float) -> Tensor:
    """Incremental decision alignment: |new| times the unit vector of (1 - share) new / |new| + share old / |old|.

    new, old: weights of two heads, any one shape. The length of `new` stays; its angle to `old` shrinks.
    """
    length: Tensor = new.norm()
    turned = (1.0 - share) * new / length.clamp_min(1e-12) + share * old / old.norm().clamp_min(1e-12)
    aligned: Tensor = length * turned / turned.norm().clamp_min(1e-12)
    return aligned
