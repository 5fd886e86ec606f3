"""From the head to the picture: pose and projection, one ray a pixel into the height field, light on the surface.

Camera frame: like the head frame, turned by the pose about a point inside the skull. Perspective: a point at depth z is
enlarged by 1 / (1 - z / distance). Rays are then straight lines p(t) = a + t * b with t = z in the camera frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from ffd_continual.scenarios.studio.fields import Field, Grid, ramp, sample
from ffd_continual.scenarios.studio.head import BACK
from ffd_continual.scenarios.studio.person import Shot
from ffd_continual.scenarios.studio.skin import Surface

_PIVOT = np.array([0.0, 0.3, 0.2], np.float32)


@dataclass(frozen=True)
class View:
    """Pose `turn` (3, 3), head to camera; `scale` px a unit; `centre`, the pixel on the camera's axis; `side` px."""

    turn: Field
    distance: float
    scale: float
    centre: tuple[float, float]
    side: int

    def camera(self, points: Field) -> Field:
        """Head frame (..., 3) to camera frame."""
        return (points - _PIVOT) @ self.turn.T

    def project(self, points: Field) -> Field:
        """Head frame (..., 3) to (x px, y px, depth)."""
        seen = self.camera(points)
        enlarge = self.scale / (1 - seen[..., 2:] / self.distance)
        flat = seen[..., :2] * enlarge + np.asarray(self.centre)
        return np.concatenate([flat, seen[..., 2:]], axis=-1)

    def plane(self) -> tuple[Field, Field]:
        """Camera-frame x (1, side) and y (side, 1) of the pixels at depth 0."""
        index = np.arange(self.side, dtype=np.float32)
        x = (index - self.centre[0]) / self.scale
        y = (index - self.centre[1]) / self.scale
        return x[None, :].astype(np.float32), y[:, None].astype(np.float32)


def view_of(shot: Shot, landmarks: Field, side: int) -> View:
    """The view in which the hull of the landmarks (68, 3) takes half of `side`, framed as `faces.crop_face` does."""
    (cy, sy), (cp, sp), (cr, sr) = ((np.cos(a), np.sin(a)) for a in (shot.yaw, shot.pitch, shot.roll))
    yaw = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    pitch = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    roll = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    turn = (roll @ pitch @ yaw).astype(np.float32)
    flat = View(turn, shot.distance, 1.0, (0.0, 0.0), side).project(landmarks)[:, :2]
    low, high = flat.min(0), flat.max(0)
    extent = float((high - low).max())
    scale = side / (2 * extent)
    middle = (low + high) / 2 - np.array([0, 0.08 * extent])
    corner = side / 2 - 0.5 - middle * scale
    return View(turn, shot.distance, scale, (float(corner[0]), float(corner[1])), side)


def cast_rays(view: View, relief: Field, grid: Grid, steps: int = 26) -> tuple[Field, Field, Field, Field]:
    """Column and row in the grid, coverage (bool) and depth of the first surface point under each pixel, all (S, S).

    Marches from the front with equal steps at half resolution, then refines near the hit at full resolution.
    """
    front, behind = 2.1, -0.75
    step = (front - behind) / steps
    x, y = view.plane()
    turn, pivot = view.turn, _PIVOT

    def rays(x: Field, y: Field) -> tuple[Field, Field]:
        shape = (y.shape[0], x.shape[1])
        start, way = np.empty((3, *shape), np.float32), np.empty((3, *shape), np.float32)
        for axis, (factor, offset) in enumerate(((grid.scale, grid.left), (grid.scale, grid.top), (1.0, 0.0))):
            scale = np.float32(factor)
            np.add(x * (scale * turn[0, axis]), y * (scale * turn[1, axis]), out=start[axis])
            way[axis] = scale * turn[2, axis] - start[axis] / np.float32(view.distance)
            start[axis] += scale * (pivot[axis] - np.float32(offset))
        return start, way

    def over(start: Field, way: Field, t: Any) -> Any:
        column, row = start[0] + t * way[0], start[1] + t * way[1]
        ground = cv2.remap(relief, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=-9)
        return (start[2] + t * way[2]) - ground

    start, way = rays(x[:, ::2], y[::2])
    t: Any
    hit: Any = np.full(start.shape[1:], behind, np.float32)
    open_ = np.ones(hit.shape, bool)
    for i in range(1, steps + 1):
        t = np.float32(front - i * step)
        now = open_ & (over(start, way, t) <= 0)
        hit[now] = t
        open_ &= ~now
    # the nearest hit of the neighbours, plus a step: no thin front surface is jumped over
    size, ones = (view.side, view.side), np.ones((3, 3), np.uint8)
    deepest: Any = cv2.resize(cv2.erode(hit, ones), size, interpolation=cv2.INTER_NEAREST)
    hit = cv2.resize(cv2.dilate(hit, ones), size, interpolation=cv2.INTER_NEAREST)
    start, way = rays(x, y)
    high = hit + np.float32(step)
    low = np.full(hit.shape, behind, np.float32)
    found = np.zeros(hit.shape, bool)
    for i in range(1, 5):
        t = high - np.float32(step * i / 2)
        now = ~found & (over(start, way, t) <= 0)
        low[now] = t[now]
        found |= now
    # behind an edge (below the nose, at the jaw) the surface is far below its neighbours': these pixels march on
    rows, columns = np.nonzero(~found & (hit > behind))
    if len(rows):
        first, along = start[:, rows, columns], way[:, rows, columns]
        last = np.maximum(deepest[rows, columns] - step, behind)
        t = high[rows, columns] - np.float32(2 * step)
        lost = np.ones(len(rows), bool)
        while (lost & (t > last)).any():
            t = np.where(lost, t - np.float32(step / 2), t)
            at = first + t * along
            lost &= at[2] > sample(relief, at[0], at[1], -9.0)
        low[rows, columns] = t
        found[rows, columns] = ~lost
    t = low + np.float32(step / 2)
    half: Any = np.float32(step / 4)
    for _ in range(4):
        above = over(start, way, t) > 0
        t = np.where(above, t - half, t + half)
        half = half / 2
    column, row = start[0] + t * way[0], start[1] + t * way[1]
    ground = cv2.remap(relief, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=-9)
    return column, row, found & (ground > BACK - 0.1), t


def light_surface(surface: Surface, relief: Field, grid: Grid, view: View, shot: Shot) -> Field:
    """Linear RGB (H, W, 3) of the face plane: wrapped diffuse (red furthest, as light under skin goes), sky, gloss.

    Shadows are cast by marching the height field towards the key light on a coarser copy.
    """
    z = (relief + surface.relief).astype(np.float32)
    dx = cv2.Sobel(z, cv2.CV_32F, 1, 0, ksize=3, scale=grid.scale / 8)
    dy = cv2.Sobel(z, cv2.CV_32F, 0, 1, ksize=3, scale=grid.scale / 8)
    inverse = 1 / np.sqrt(dx * dx + dy * dy + 1)
    nx, ny = -dx * inverse, -dy * inverse
    key = (np.asarray(shot.key) @ view.turn).astype(np.float32)
    down = (np.array([0.0, 1.0, 0.0]) @ view.turn).astype(np.float32)
    eye = view.turn[2]

    def facing(light: Field) -> Any:
        return nx * light[0] + ny * light[1] + inverse * light[2]

    toward = facing(key)
    shade = _cast_shadow(relief, grid, key)
    floor = np.maximum(relief, BACK)
    hollow: Any = cv2.GaussianBlur(floor, (0, 0), 0.13 * grid.scale) - floor
    hollow += 0.45 * (cv2.GaussianBlur(floor, (0, 0), 0.04 * grid.scale) - floor)
    cavity = np.exp(-3.2 * np.clip(hollow, -0.02, 0.22))
    sky = (0.72 - 0.28 * facing(down)) * cavity * shot.ambient
    side = np.array([-shot.key[0], 0.1 * shot.key[1], 0.8], np.float32)
    fill = np.clip(facing((side / np.linalg.norm(side)) @ view.turn), 0, 1) * cavity * shot.fill
    # what chest and collar throw back: undersides of nose, lip and brow are never black
    bounce = np.clip(ny, 0, 1) * (0.10 + 0.25 * shot.ambient)
    middle = key + eye
    shine = np.clip(facing(middle / np.linalg.norm(middle)), 0, 1)
    shine = surface.gloss * (0.10 * shine**22 + 0.10 * shine**70) * shade * ramp(inverse, 0.12, 0.4)
    out = np.empty((*grid.shape, 3), np.float32)
    for channel, wrap in enumerate((0.34, 0.20, 0.15)):
        lit = np.clip((toward + wrap) / (1 + wrap), 0, 1) * (shade + wrap * 0.4 * (1 - shade))
        colour = shot.key_colour[channel]
        light = lit * (colour * (0.35 + 0.65 * cavity)) + fill + sky + bounce
        out[..., channel] = surface.albedo[..., channel] * light + colour * (shine + surface.glint)
    return out * shot.exposure


def _cast_shadow(relief: Field, grid: Grid, key: Field) -> Field:
    height, width = grid.shape
    small = cv2.resize(relief, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    scale = grid.scale / 2
    above = np.full(small.shape, -1.0, np.float32)
    for distance in (0.05, 0.1, 0.16, 0.23, 0.31, 0.4, 0.5, 0.62):
        move = np.array([[1, 0, distance * key[0] * scale], [0, 1, distance * key[1] * scale]], np.float32)
        ahead = cv2.warpAffine(
            small,
            move,
            (small.shape[1], small.shape[0]),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=-9,
        )
        # soft edge: the lamp has a size, so the penumbra grows with the distance
        above = np.maximum(above, (ahead - small - np.float32(distance * key[2])) / np.float32(0.04 + 0.28 * distance))
    lit: Any = 1 - 0.75 * ramp(above, -0.4, 1.0)
    lit = cv2.GaussianBlur(lit, (0, 0), 0.02 * scale)
    return np.asarray(cv2.resize(lit, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
