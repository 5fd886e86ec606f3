"""Scalar fields on the face plane: the grid they live on, smooth noise, soft shapes, lines drawn as masks.

Head frame, used by the whole package: x to the right of the picture, y down, z towards the viewer; the unit is half the
breadth of the face (about 67 mm), the pupils' line is y = 0, the ears' plane about z = 0, the chin near y = 1.66.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Field = npt.NDArray[Any]


@dataclass(frozen=True)
class Grid:
    """Samples of the face plane: `scale` samples a unit, the first one at (left, top); fields are (height, width)."""

    scale: float
    left: float = -1.5
    top: float = -1.9
    right: float = 1.5
    bottom: float = 2.05

    @property
    def shape(self) -> tuple[int, int]:
        return round((self.bottom - self.top) * self.scale), round((self.right - self.left) * self.scale)

    @property
    def xs(self) -> Field:
        """(1, width) x of the columns."""
        return (self.left + np.arange(self.shape[1], dtype=np.float32) / np.float32(self.scale))[None, :]

    @property
    def ys(self) -> Field:
        """(height, 1) y of the rows."""
        return (self.top + np.arange(self.shape[0], dtype=np.float32) / np.float32(self.scale))[:, None]

    def window(self, x0: float, y0: float, x1: float, y1: float) -> tuple[slice, slice]:
        """Index of the rectangle, clipped to the grid: local shapes are computed on a window only."""
        height, width = self.shape
        rows = [round((y - self.top) * self.scale) for y in (y0, y1)]
        columns = [round((x - self.left) * self.scale) for x in (x0, x1)]
        return (
            slice(max(0, rows[0]), min(height, max(rows[1], 1))),
            slice(max(0, columns[0]), min(width, max(columns[1], 1))),
        )

    def bump(self, x: float, y: float, sx: float, sy: float) -> Any:
        """Gaussian of height 1 at (x, y); separable, so it costs one outer product."""
        return np.exp(-0.5 * ((self.ys - y) / sy) ** 2) * np.exp(-0.5 * ((self.xs - x) / sx) ** 2)

    def twin(self, x: float, y: float, sx: float, sy: float) -> Any:
        """The same bump on both sides of the face."""
        columns: Any = np.exp(-0.5 * ((self.xs - x) / sx) ** 2) + np.exp(-0.5 * ((self.xs + x) / sx) ** 2)
        return np.exp(-0.5 * ((self.ys - y) / sy) ** 2) * columns

    def lookup(self, field: Field, x: Field, y: Field) -> Field:
        """Bilinear samples of `field` at points x, y (N,) of the face plane."""
        column = (np.asarray(x, np.float32) - self.left) * np.float32(self.scale)
        row = (np.asarray(y, np.float32) - self.top) * np.float32(self.scale)
        return sample(field, column, row)

    def strokes(self, lines: Field, thickness: int = 1) -> Field:
        """Coverage in 0..1 of polylines (N, K, 2), each drawn anti-aliased, one over the other."""
        canvas = np.zeros(self.shape, np.uint8)
        points = (lines - np.array([self.left, self.top])) * self.scale * 16
        cv2.polylines(canvas, list(np.rint(points).astype(np.int32)), False, (255,), thickness, cv2.LINE_AA, 4)
        return canvas.astype(np.float32) / 255


def sample(field: Field, column: Field, row: Field, outside: float | None = None) -> Field:
    """Bilinear samples (N,) of `field` at fractional indices; beyond its border the border or `outside`."""
    wide = 8192  # remap takes at most 32767 columns, so the points are laid out in rows
    count = len(column)
    pad = -count % wide if count > wide else 0
    columns, rows = (
        (np.pad(v, (0, pad)) if pad else v).astype(np.float32).reshape(-1, min(wide, count + pad))
        for v in (column, row)
    )
    if outside is None:
        out = cv2.remap(field, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    else:
        out = cv2.remap(field, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=(outside,))
    return out.reshape(-1)[:count]


def cloud(rng: np.random.Generator, shape: tuple[int, int], cell: float, octaves: int = 1, gain: float = 0.6) -> Field:
    """Smooth noise with about unit variance: cubic interpolation of white noise every `cell` samples, then finer."""
    height, width = shape
    out = np.zeros(shape, np.float32)
    amplitude, power = 1.0, 0.0
    for _ in range(octaves):
        rows, columns = max(2, round(height / cell) + 2), max(2, round(width / cell) + 2)
        coarse = rng.standard_normal((rows, columns), dtype=np.float32)
        if cell > 1.2:
            # interpolation takes a quarter of the variance away
            out += amplitude * 1.17 * cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        else:
            out += amplitude * rng.standard_normal(shape, dtype=np.float32)
        power += amplitude**2
        amplitude, cell = amplitude * gain, cell / 2
    return out / np.float32(np.sqrt(power))


def curve(knots: Sequence[float] | Field, values: Sequence[float] | Field, at: Field) -> Field:
    """Smooth curve through (knots, values), read at `at`: cubic Hermite, slopes of the neighbours' chord, ends held."""
    x, v = np.asarray(knots, np.float64), np.asarray(values, np.float64)
    slope = np.gradient(v, x)
    at = np.clip(at, x[0], x[-1])
    i = np.clip(np.searchsorted(x, at, side="right") - 1, 0, len(x) - 2)
    width = x[i + 1] - x[i]
    t = (at - x[i]) / width
    rest = 1 - t
    ends = v[i] * (1 + 2 * t) * rest**2 + v[i + 1] * (3 - 2 * t) * t**2
    return np.asarray(ends + width * (slope[i] * t * rest**2 - slope[i + 1] * rest * t**2), np.float32)


def ramp(value: Field, start: Any, end: Any) -> Field:
    """Cubic step from 0 at `start` to 1 at `end` (either order)."""
    t: Field = np.clip((value - start) / (end - start), 0, 1)
    step: Field = t * t * (3 - 2 * t)
    return step


def blend(below: Field, above: Field | Sequence[float], alpha: Field) -> None:
    """Lay a colour (3,) or (H, W, 3) over `below` (H, W, 3) in place, with coverage `alpha` (H, W)."""
    rows = np.flatnonzero(alpha.any(axis=1))
    if not len(rows):
        return
    some = slice(rows[0], rows[-1] + 1)
    above = np.asarray(above, np.float32)
    change = (above[some] if above.ndim == 3 else above) - below[some]
    change *= alpha[some, :, None]
    below[some] += change


def unit(vectors: Field) -> Any:
    """Vectors of length 1 along the last axis."""
    square = np.einsum("...i,...i->...", vectors, vectors)
    length: Field = np.sqrt(np.maximum(square, 1e-12))[..., None]
    return vectors / length
