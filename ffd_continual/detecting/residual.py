"""What a face's noise says once the face is taken out of it: statistics of high-pass residuals, in the face and around.

Pictures of two people differ far more than a forgery changes one; after a high-pass filter little of the person is
left, and the ring around the face, seen by the same camera, tells how much of the rest is the camera's. After the
residuals of spatial rich models (Fridrich and Kodovsky, IEEE TIFS 2012), summed up by moments and correlations of
neighbouring residuals instead of co-occurrences, which would need far more stored faces.
Axes: B faces, S pixels a side, R statistics.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Maps = npt.NDArray[np.float32]
SHIFTS = ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0))  # of neighbours whose residuals are correlated
FACE, AROUND = 0.75, 1.0  # radius of the face's ellipse, and from where on it is the ring; 1 touches the crop's border
WIDE = 0.84  # width of the ellipse over its height
SQUARE = [[-1, 2, -1], [2, -4, 2], [-1, 2, -1]]
LARGE = [[-1, 2, -2, 2, -1], [2, -6, 8, -6, 2], [-2, 8, -12, 8, -2], [2, -6, 8, -6, 2], [-1, 2, -2, 2, -1]]
KERNELS = (([[-1, 1]], 1), ([[-1], [1]], 1), ([[1, -2, 1]], 1), ([[1], [-2], [1]], 1), (SQUARE, 4), (LARGE, 12))
FILTERS = tuple(np.asarray(np.array(values) / over, np.float32) for values, over in KERNELS)
STATISTICS = 3 * len(FILTERS) * (6 + len(SHIFTS))


def regions(side: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """The face's ellipse and the ring around it, each (S, S)."""
    y, x = np.mgrid[:side, :side]
    radius = np.hypot((y + 0.5 - side / 2) / (side / 2), (x + 0.5 - side / 2) / (side / 2 * WIDE))
    return radius < FACE, radius > AROUND


def channels(face: npt.NDArray[np.uint8]) -> list[Maps]:
    """Brightness and two colour differences, each (S, S), of a face (S, S, 3) RGB."""
    wide = face.astype(np.float32)
    bright = wide @ np.array([0.299, 0.587, 0.114], np.float32)
    return [bright, wide[..., 2] - bright, wide[..., 0] - bright]


def _moments(values: Maps) -> list[float]:
    """Logarithms of the spread, and of what the mean size and the fourth moment are over it."""
    squares = values * values
    spread = float(np.sqrt(squares.mean())) + 1e-3
    sizes = float(np.log(np.abs(values).mean() + 1e-3) - np.log(spread))
    return [float(np.log(spread)), sizes, float(np.log((squares * squares).mean() / spread**4 + 1.0))]


def residual_statistics(faces: Sequence[npt.NDArray[np.uint8]]) -> Floats:
    """(B, R) of faces (S, S, 3) RGB; R is STATISTICS, whatever S."""
    made = np.zeros((len(faces), STATISTICS))
    if not len(faces):
        return made
    side = len(faces[0])
    inner, outer = regions(side)
    both = [inner[: side - dy, : side - dx] & inner[dy:, dx:] for dy, dx in SHIFTS]
    for row, face in zip(made, faces, strict=True):
        told: list[float] = []
        for plane in channels(face):
            for kernel in FILTERS:
                left = np.asarray(cv2.filter2D(plane, -1, kernel), np.float32)
                told += _moments(left[inner]) + _moments(left[outer])
                power = float((left[inner] ** 2).mean()) + 1e-3
                for (dy, dx), where in zip(SHIFTS, both, strict=True):
                    products = left[: side - dy, : side - dx] * left[dy:, dx:]
                    told.append(float(products[where].mean()) / power)
        row[:] = told
    return made
