"""Hair of head and face as strands: rooted on the skull, combed, bent by weight, shaded as thin cylinders.

Shading follows Kajiya and Kay (SIGGRAPH 1989): diffuse light goes with the sine of the angle between strand and light,
the highlight with the mirror cone around the strand.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ffd_continual.scenarios.studio.fields import Field, Grid, ramp, unit
from ffd_continual.scenarios.studio.head import BACK, CROWN, Form
from ffd_continual.scenarios.studio.person import Person, Shot
from ffd_continual.scenarios.studio.skin import beard_region
from ffd_continual.scenarios.studio.view import View

_STEPS = 10


@dataclass(frozen=True)
class Style:
    """How a cut is grown: strands, length, combing (x away from the part, y, z), weight, distance from the skull."""

    count: int
    length: float
    comb: tuple[float, float, float]
    weight: float
    lift: float
    wave: float
    upright: float = 0.0

    @property
    def hanging(self) -> float:
        """1 for hair long enough to leave the skull under its own weight."""
        return float(self.weight > 0.3)


_STYLES = {
    "long": Style(1700, 3.0, (0.8, 0.3, -0.15), 0.9, 1.0, 0.03),
    "bob": Style(1600, 1.9, (0.8, 0.35, -0.05), 0.9, 1.2, 0.03),
    "updo": Style(1300, 0.9, (0.25, -0.35, -1.0), 0.0, 0.45, 0.02),
    "swept": Style(1500, 0.65, (1.0, -0.1, -0.25), 0.1, 1.0, 0.03, 0.25),
    "back": Style(1500, 0.75, (0.15, -0.4, -1.0), 0.0, 0.8, 0.03, 0.2),
    "short": Style(2300, 0.24, (0.4, -0.1, 0.25), 0.0, 0.8, 0.03, 0.6),
    "afro": Style(2600, 0.36, (0.0, 0.0, 0.0), 0.0, 3.0, 0.10, 1.0),
    "buzz": Style(3600, 0.05, (0.1, 0.2, 0.3), 0.0, 0.3, 0.0, 0.7),
    "bald": Style(700, 0.12, (0.2, 0.8, -0.6), 0.1, 0.3, 0.02, 0.2),
}


@dataclass(frozen=True)
class Strands:
    """Polylines (N, K, 3) in the head frame, outward normals (N, K, 3), layer 0 (inner) to 1, grey or not (N,)."""

    points: Field
    normals: Field
    layer: Field
    grey: Field


def hairline(person: Person, x: Field) -> Field:
    """y below which the front of the skull bears no hair, at x."""
    a = np.abs(x)
    temple = 0.10 * max(0.0, -person.hairline - 0.95) * 10 * np.exp(-0.5 * ((a - 0.5) / 0.16) ** 2)
    return person.hairline - 0.35 * temple + 1.2 * a**5


def scalp_cover(person: Person, grid: Grid, rng: np.random.Generator) -> Field:
    """How much of the skin the roots darken (H, W)."""
    jitter = 0.05 * rng.standard_normal(grid.shape, dtype=np.float32)
    over = hairline(person, grid.xs) - grid.ys + jitter
    cover = ramp(over, -0.02, 0.12) * np.clip(1.5 - ramp(np.abs(grid.xs), 0.98, 1.06) * ramp(grid.ys, -0.2, 0.1), 0, 1)
    full = {"bald": 0.0, "buzz": 0.6}.get(person.hair, 0.92)
    return np.asarray(np.clip(cover, 0, 1) * full, np.float32)


def grow_hair(person: Person, density: float, rng: np.random.Generator) -> Strands:
    """All strands of the head, `density` times as many as a 128 px picture needs.

    `rng` is the person's: the cut does not change from photograph to photograph.
    """
    style = _STYLES[person.hair]
    count = round(style.count * density)
    radii = np.array([person.forehead, CROWN[1], 1.4], np.float32)
    centre = np.array([0, CROWN[0], BACK], np.float32)
    away = unit(rng.standard_normal((count * 4, 3), dtype=np.float32))
    root = centre + radii * away
    line = np.where(root[:, 2] > 0.25, hairline(person, root[:, 0]), np.where(root[:, 2] > -0.1, 0.1, 0.6))
    keep = (root[:, 1] < line + 0.03 * rng.standard_normal(len(root))) & (root[:, 2] > -1.2)
    if person.hair == "bald":
        keep &= (root[:, 1] > -0.75) & (root[:, 2] < 0.5)
    away, root = away[keep][:count], root[keep][:count]
    count = len(root)
    layer = rng.random(count).astype(np.float32)
    reach = style.length * person.hair_length * rng.uniform(0.75, 1.05, count).astype(np.float32)
    side = np.where(root[:, 0] > person.part, 1.0, -1.0).astype(np.float32)
    comb = np.stack([side * style.comb[0], np.full(count, style.comb[1]), np.full(count, style.comb[2])], 1)
    comb = (comb + 0.16 * rng.standard_normal((count, 3))).astype(np.float32)
    phase = rng.uniform(0, 6.3, (count, 3)).astype(np.float32)
    lift = person.hair_volume * style.lift * (0.25 + 0.75 * layer)
    down = np.array([0, 1, 0], np.float32)
    points = [root]
    here = root
    for k in range(1, _STEPS):
        part = k / (_STEPS - 1)
        normal = unit((here - centre) / radii**2)
        way = unit(comb + style.upright * normal * (2.0 - 1.2 * part))
        inward = np.sum(way * normal, axis=1, keepdims=True)
        way = way - np.minimum(inward, 0) * normal
        low = ramp(here[:, 1:2], -1.3, -0.2)
        way = unit(way * (1 - 0.85 * low * min(1.0, style.weight)) + style.weight * (0.3 + 3.0 * low) * down)
        way[:, 0] -= np.sign(here[:, 0]) * 0.25 * style.weight * ramp(here[:, 1], 0.2, 1.2)
        wave = style.wave * (0.5 + 2.5 * person.curl) * np.sin(phase + (4 + 14 * person.curl) * part)
        here = here + way * (reach / (_STEPS - 1))[:, None] + wave * min(1.0, 3 * part) * 0.5
        # outside the skull, at this strand's distance
        shell = np.linalg.norm((here - centre) / radii, axis=1)
        least = 1.01 + lift * min(1.0, 2.5 * part)
        scale = least / np.maximum(shell, 1e-3)
        # combed hair lies on the skull down to the ears; below, and where it stands upright, it only keeps out of it
        lying = (1 - style.hanging * ramp(here[:, 1], -0.5, 0.1)) * (1 - style.upright) * 0.9
        here = centre + (here - centre) * np.maximum(1 + lying * (scale - 1), scale)[:, None]
        here = _off_the_face(here, layer)
        points.append(here)
    line3 = np.stack(points, axis=1)
    normals = unit((line3 - centre) / radii**2)
    return Strands(line3, normals, layer, rng.random(count) < person.grey)


def _off_the_face(here: Field, layer: Field) -> Field:
    """Strands that hang beside the face are pushed aside: nobody's eyes are covered."""
    x, y, z = here[:, 0], here[:, 1], here[:, 2]
    aside = (0.86 + 0.2 * layer) * ramp(y, -0.95, -0.1) * ramp(z, -0.35, 0.1)
    sign = np.where(x >= 0, 1.0, -1.0)
    return np.stack([sign * np.maximum(np.abs(x), aside), y, z], 1).astype(np.float32)


def grow_beard(
    person: Person, form: Form, relief: Field, grid: Grid, density: float, rng: np.random.Generator
) -> Strands | None:
    """Beard and moustache, or None for a face without."""
    if max(person.beard, person.moustache) < 0.15:
        return None
    count = round(2900 * density)
    x = rng.uniform(-1.02, 1.02, count).astype(np.float32)
    y = rng.uniform(0.4, form.chin + 0.02, count).astype(np.float32)
    lip = (np.abs(x) < 0.5) & (y < form.mouth_y)
    chance = beard_region(x, y, form) * np.where(lip, person.moustache, person.beard) ** 0.5 * 1.3
    z = grid.lookup(relief, x, y)
    keep = (rng.random(count) < chance) & (z > BACK + 0.2)  # beside the jaw there is no skin to root in
    x, y, z, lip = x[keep], y[keep], z[keep], lip[keep]
    reach = np.where(lip, 0.075, 0.08 + 0.2 * person.beard) * rng.uniform(0.6, 1.1, len(x)) * (1 - 0.55 * np.abs(x))
    way = np.stack([np.where(lip, 0.5 * np.sign(x) + x, 0.25 * x), np.ones(len(x)), np.full(len(x), 0.35)], 1)
    way = unit(way + 0.3 * rng.standard_normal(way.shape))
    start = np.stack([x, y, z + 0.01], 1)
    bend = np.array([0, 0.4, -0.25])
    steps = np.linspace(0, 1, 4)[None, :, None]
    points = start[:, None] + reach[:, None, None] * (way[:, None] * steps + bend * steps**2)
    normals = np.broadcast_to(unit(np.stack([x, 0 * x, 0 * x + 0.8], 1))[:, None], points.shape)
    return Strands(
        points.astype(np.float32), normals, rng.uniform(0.35, 1.0, len(x)), rng.random(len(x)) < 0.9 * person.grey
    )


def draw_strands(
    picture: Field, depth: Field, strands: Strands, person: Person, shot: Shot, view: View, thickness: int
) -> None:
    """Draw over `picture` (S, S, 3) uint8 RGB in place what the depth map (S, S) does not hide.

    Strokes are binned by layer and shade, so that a head takes a few dozen drawing calls.
    """
    flat = view.project(strands.points)
    seen = view.camera(strands.points)
    inside = np.clip(np.rint(flat[..., :2]), 0, view.side - 1).astype(np.int32)
    visible = flat[..., 2] > depth[inside[..., 1], inside[..., 0]] - 0.07
    show = visible[:, 1:] & visible[:, :-1]
    tangent = unit(np.diff(seen, axis=1))
    key, eye = np.asarray(shot.key, np.float32), np.array([0, 0, 1], np.float32)
    along, view_along = tangent @ key, tangent @ eye
    sine, view_sine = np.sqrt(np.clip(1 - along**2, 0, 1)), np.sqrt(np.clip(1 - view_along**2, 0, 1))
    normal = strands.normals[:, 1:] @ view.turn.T
    lit = np.clip(0.35 + 0.65 * (normal @ key), 0.04, 1)
    mirror = np.clip(sine * view_sine - along * view_along, 0, 1) ** 14 * lit
    cover = (0.35 + 0.65 * strands.layer[:, None]) * np.clip(0.75 + 0.25 * normal[..., 2], 0.3, 1)
    brightness = cover * (0.75 * sine * lit + 0.75 * shot.ambient + 0.35 * shot.fill)
    level = np.clip((brightness / 1.2 * 9).astype(np.int32), 0, 8)
    gloss = np.clip((mirror * 2.9 * cover).astype(np.int32), 0, 2)
    order = (strands.layer * 2.99).astype(np.int32)
    segments = np.stack([flat[:, :-1, :2], flat[:, 1:, :2]], axis=2)
    code = ((order[:, None] * 2 + strands.grey[:, None]) * 9 + level) * 3 + gloss
    code, segments = code[show], np.rint(segments[show] * 16).astype(np.int32)
    silver = np.array([0.40, 0.39, 0.38]) * (0.45 + 0.55 * person.grey)
    dark = np.asarray(person.hair_colour) * (1 - 0.55 * person.grey) + 0.55 * person.grey * silver
    order_now = np.argsort(code, kind="stable")
    values, starts = np.unique(code[order_now], return_index=True)
    for value, chosen in zip(values, np.split(order_now, starts[1:]), strict=True):
        base = silver if (value // 27) % 2 else dark
        linear = base * (0.06 + 1.2 * ((value // 3) % 9) / 8) + (value % 3) * (0.018 + 0.22 * base)
        colour = 255 * np.clip(linear * shot.exposure * np.asarray(shot.key_colour), 0, 1) ** (1 / 2.2)
        cv2.polylines(
            picture, list(segments[chosen]), False, tuple(float(c) for c in colour), thickness, cv2.LINE_AA, 4
        )
