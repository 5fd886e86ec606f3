"""Regions and displacements of a face, from its 68 landmarks.

Axes: maps are (H, W) float32; points (N, 2) float32, x then y, pixels. A *flow* (H, W, 2) says for every pixel of the
result from where it is fetched, relative to itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import Delaunay

from ffd_continual.scenarios.faces import Face, Picture, Points

Field = NDArray[np.float32]

LEFT_EYE, RIGHT_EYE = slice(36, 42), slice(42, 48)
PARTS: dict[str, tuple[int, ...]] = {
    "left_eye": (17, 18, 19, 20, 21, 27, *range(36, 42)),
    "right_eye": (22, 23, 24, 25, 26, 27, *range(42, 48)),
    "eyes": (*range(17, 28), *range(36, 48)),
    "nose": tuple(range(27, 36)),
    "mouth": tuple(range(48, 60)),
}
# Where the inner face lies in an aligned crop, in parts of its side: both eyes and the middle of the mouth.
ALIGNED = np.array([[0.30, 0.36], [0.70, 0.36], [0.50, 0.74]], np.float32)


def face_width(landmarks: Points) -> float:
    """Distance of the jaw's ends in pixels, never below 8: the yardstick of every other length."""
    return max(float(np.linalg.norm(landmarks[16] - landmarks[0])), 8.0)


def anchors(landmarks: Points) -> Points:
    """Left eye, right eye, mouth: (3, 2)."""
    return np.stack([landmarks[LEFT_EYE].mean(0), landmarks[RIGHT_EYE].mean(0), landmarks[48:60].mean(0)])


def face_outline(landmarks: Points, forehead: float = 0.12) -> Points:
    """Jaw and brows, the brows lifted away from the eyes by `forehead` face widths, as a closed outline (27, 2)."""
    up = anchors(landmarks)[:2].mean(0) - anchors(landmarks)[2]
    up = up / max(float(np.linalg.norm(up)), 1e-3)
    brows = landmarks[17:27] + up * forehead * face_width(landmarks)
    return np.concatenate([landmarks[:17], brows[::-1]]).astype(np.float32)


def fill(points: Points, size: tuple[int, int]) -> Picture:
    """Mask (H, W) of the convex hull of `points`: 255 inside."""
    mask = np.zeros(size, np.uint8)
    hull = cv2.convexHull(np.round(points).astype(np.int32))
    cv2.fillConvexPoly(mask, hull, (255,))
    return mask


def grow(mask: Picture, pixels: float) -> Picture:
    """Dilate (or erode, when negative) a mask by a round brush of that radius."""
    radius = int(round(abs(pixels)))
    if radius == 0:
        return mask
    brush = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    return np.asarray((cv2.dilate if pixels > 0 else cv2.erode)(mask, brush), np.uint8)


def soften(mask: Picture, sigma: float) -> Field:
    """Weight (H, W) in 0..1 that falls from the mask's middle to exactly 0 at its border, over about 2 sigma."""
    inner = grow(mask, -1.6 * sigma)
    soft = cv2.GaussianBlur(inner.astype(np.float32) / 255, (0, 0), max(sigma, 0.1))
    soft = np.clip((soft - 0.03) / 0.94, 0, 1)
    soft[mask == 0] = 0
    return np.asarray(soft, np.float32)


def part_mask(landmarks: Points, part: str, size: tuple[int, int], margin: float) -> Picture:
    """Mask of one of PARTS, its hull grown by `margin` face widths."""
    return grow(fill(landmarks[list(PARTS[part])], size), margin * face_width(landmarks))


def similarity(source: Points, target: Points) -> NDArray[np.float64]:
    """The 2x3 similarity (turn, scale, shift) that best maps source points onto target points (Umeyama 1991)."""
    a, b = source.mean(0), target.mean(0)
    p = (source - a).astype(np.float64) @ np.array([1, 1j])
    q = (target - b).astype(np.float64) @ np.array([1, 1j])
    factor = np.vdot(p, q) / max(float(np.vdot(p, p).real), 1e-9)
    turn = np.array([[factor.real, -factor.imag], [factor.imag, factor.real]])
    return np.concatenate([turn, (b - turn @ a)[:, None]], 1)


def move(points: Points, matrix: NDArray[np.float64]) -> Points:
    """Points after a 2x3 affine map."""
    return np.asarray(points @ matrix[:, :2].T + matrix[:, 2], np.float32)


def align(face: Face, side: int) -> tuple[Picture, NDArray[np.float64]]:
    """The inner face (side, side, 3), eyes and mouth at ALIGNED, and the 2x3 map from the crop to it."""
    corners = (ALIGNED * side - 0.5).astype(np.float32)
    matrix = np.asarray(cv2.getAffineTransform(anchors(face.landmarks).astype(np.float32), corners), np.float64)
    shrink = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    image = face.image
    if shrink < 0.7:  # warpAffine has no area filter: blur first, or the aligned face is full of aliases
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), 0.35 / shrink), np.uint8)
    warped = cv2.warpAffine(image, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(warped, np.uint8), matrix


def unalign(layer: Field, matrix: NDArray[np.float64], size: tuple[int, int]) -> tuple[Field, Field]:
    """An aligned picture put back: float32 layer (H, W, 3) and the weight (H, W) of what it covers."""
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    back = cv2.warpAffine(layer, matrix, size[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)
    inside = np.zeros(layer.shape[:2], np.float32)
    inside[2:-2, 2:-2] = 1
    cover = cv2.warpAffine(inside, matrix, size[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    return np.asarray(back, np.float32), np.asarray(cover, np.float32)


def away_from_border(size: tuple[int, int], ring: float = 0.1) -> Field:
    """Weight (H, W): 0 in the outer `ring` (share of the height), 1 from twice as far in, a ramp between."""
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]].astype(np.float32)
    far = np.minimum(np.minimum(rows, size[0] - 1 - rows), np.minimum(columns, size[1] - 1 - columns))
    return np.asarray(np.clip(far / (ring * size[0]) - 1, 0, 1), np.float32)


def frame_points(size: tuple[int, int]) -> Points:
    """Eight points on the border of a picture: what a warp must leave in place."""
    bottom, right = size[0] - 1.0, size[1] - 1.0
    x, y = right / 2, bottom / 2
    grid = [(0, 0), (x, 0), (right, 0), (right, y), (right, bottom), (x, bottom), (0, bottom), (0, y)]
    return np.array(grid, np.float32)


def mesh_flow(target: Points, source: Points, size: tuple[int, int]) -> Field:
    """Piecewise-affine flow (H, W, 2) over the Delaunay mesh of `target`: fetches source[i] at target[i].

    0 outside the mesh's hull.
    """
    triangles = Delaunay(target).simplices
    label = np.full(size, -1, np.int32)
    for number, corners in enumerate(np.round(target[triangles] * 16).astype(np.int32)):
        cv2.fillConvexPoly(label, corners, (number,), shift=4)
    ones = np.ones((len(triangles), 3, 1))
    corners = np.concatenate([target[triangles], ones], 2).astype(np.float64)
    try:
        affine = np.linalg.solve(corners, (source - target)[triangles].astype(np.float64))
    except np.linalg.LinAlgError:  # a flat triangle: two landmarks coincide
        affine = np.linalg.pinv(corners) @ (source - target)[triangles].astype(np.float64)
    rows, columns = np.nonzero(label >= 0)
    grid = np.stack([columns, rows, np.ones_like(rows)], 1).astype(np.float64)
    flow = np.zeros((*size, 2), np.float32)
    flow[rows, columns] = np.einsum("nk,nkd->nd", grid, affine[label[rows, columns]])
    return flow


def smooth_flow(points: Points, shifts: Points, radius: float | Sequence[float], size: tuple[int, int]) -> Field:
    """Flow that moves each point by its shift, fading like a Gaussian of `radius` px; many points average.

    Computed on a grid four times coarser: the field is smooth.
    """
    step = 4
    rows, columns = np.mgrid[0 : size[0] + step : step, 0 : size[1] + step : step].astype(np.float32)
    reach = np.broadcast_to(np.asarray(radius, np.float32), (len(points),))
    distance = (columns[..., None] - points[:, 0]) ** 2 + (rows[..., None] - points[:, 1]) ** 2
    weight = np.exp(-distance / (2 * reach**2))
    # Divided by the total only where it exceeds 1: alone a point fades, in a crowd the shifts are averaged.
    coarse = (weight @ shifts / np.maximum(weight.sum(-1), 1.0)[..., None]).astype(np.float32)
    matrix = np.array([[step, 0, 0], [0, step, 0]], np.float64)
    dense = cv2.warpAffine(-coarse, matrix, size[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(dense, np.float32)


def fetch(image: Picture | Field, flow: Field) -> Field:
    """The picture seen through a flow, by cubic interpolation, float32 in the same range."""
    rows, columns = np.mgrid[0 : flow.shape[0], 0 : flow.shape[1]].astype(np.float32)
    x, y = columns + flow[..., 0], rows + flow[..., 1]
    warped = cv2.remap(image.astype(np.float32), x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
    return np.clip(np.asarray(warped, np.float32), 0, 255)
