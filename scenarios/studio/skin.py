"""What the face is painted with: skin (pigment, blood, pores, wrinkles), lips and mouth, brows, beard shadow.

Skin colour works in log reflectance, where pigments add up: melanin darkens blue most, blood darkens green most (the
two-chromophore view of Tsumura et al., SIGGRAPH 2003). Colours are linear RGB.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ffd_continual.scenarios.studio.fields import Field, Grid, blend, cloud, ramp
from ffd_continual.scenarios.studio.head import Form
from ffd_continual.scenarios.studio.person import Person, Shot


@dataclass
class Surface:
    """The painted face plane: albedo (H, W, 3), gloss 0..1, relief to add to z, emission (reflected lamps)."""

    albedo: Field
    gloss: Field
    relief: Field
    glint: Field


def paint_skin(person: Person, shot: Shot, form: Form, grid: Grid, rng: np.random.Generator) -> Surface:
    """Skin alone; `rng` must be the person's, so that every mole comes back in the next photograph."""
    shape, scale = grid.shape, grid.scale
    old = max(0.0, (person.age - 30) / 48)
    broad = cloud(rng, shape, 0.42 * scale, 3)
    patches = cloud(rng, shape, 0.10 * scale, 3, 0.8)
    fine = cloud(rng, shape, 3.0, 2, 0.9)
    pores = rng.standard_normal(shape, dtype=np.float32)
    melanin = 0.05 * broad + (0.024 + 0.035 * old) * patches + 0.05 * fine + 0.035 * pores
    blood = 0.05 * broad[::-1] + 0.05 * cloud(rng, shape, 0.06 * scale, 3, 0.8)
    flush = 0.12 + 0.18 * person.blood
    blood += flush * (0.8 * grid.twin(0.6, 0.45, 0.24, 0.22) + 0.7 * grid.bump(0, form.nose_y - 0.08, 0.17, 0.13))
    blood += 0.25 * (grid.twin(person.eye_x - 0.05, 0.1, 0.2, 0.1) + grid.bump(0, form.chin - 0.2, 0.2, 0.14))
    blood += flush * ramp(np.abs(grid.xs), 1.0, 1.12)
    melanin += (0.05 + 0.12 * old) * grid.twin(person.eye_x, 0.13, 0.2, 0.06)
    melanin += 0.05 * ramp(grid.ys, form.chin - 0.1, form.chin)
    spots = np.zeros(shape, np.uint8)
    count = int(420 * person.freckles + 14 + 40 * old)
    where = rng.uniform((-1.0, -1.0), (1.0, 1.6), (count, 2))
    where[: count // 2] = rng.normal((0, 0.3), (0.45, 0.2), (count // 2, 2))
    for (x, y), size, depth in zip(where, rng.gamma(2.0, 0.006, count), rng.uniform(60, 255, count), strict=True):
        at = (round((x - grid.left) * scale * 16), round((y - grid.top) * scale * 16))
        cv2.circle(spots, at, max(6, round(size * scale * 16)), (int(depth),), -1, cv2.LINE_AA, 4)
    melanin += 0.32 * (0.4 + 0.6 * person.freckles) * cv2.GaussianBlur(spots, (0, 0), 0.7).astype(np.float32) / 255
    log = melanin[..., None] * np.array([0.75, 1.0, 1.25], np.float32)
    log += blood[..., None] * np.array([0.10, 0.62, 0.48], np.float32) * (1 - 0.55 * person.melanin)
    _beard_shadow(person, grid, form, rng, log)
    albedo = np.asarray(person.skin, np.float32) * np.exp(-log)
    relief = 0.0018 * fine + 0.0014 * pores + 0.0008 * patches + _wrinkles(person, shot, form, grid, rng)
    oil = grid.bump(0, -0.6, 0.45, 0.25) + 1.2 * grid.bump(0, 0.3, 0.12, 0.3) + grid.twin(0.55, 0.35, 0.2, 0.15)
    gloss = np.clip(0.28 + 0.45 * oil + 0.12 * fine + 0.04 * patches, 0.02, 1.2)
    return Surface(albedo, gloss, np.asarray(relief, np.float32), np.zeros(shape, np.float32))


def _wrinkles(person: Person, shot: Shot, form: Form, grid: Grid, rng: np.random.Generator) -> Field:
    """Forehead lines, frown lines, crow's feet and bags under the eyes, deeper with age and expression."""
    old = float(np.clip((person.age - 32) / 40, 0, 1.2))
    xs, ys = grid.xs, grid.ys
    warp = cloud(rng, grid.shape, 0.35 * grid.scale, 2)
    depth = 0.010 * old * (0.5 + max(0.0, shot.brow_raise)) + 0.002 * max(0.0, shot.brow_raise)
    forehead = ramp(ys, -1.0, -0.8) * ramp(ys, -0.42, -0.55) * np.exp(-((xs / 0.55) ** 4))
    phase = (ys + 0.05 * xs * xs + 0.022 * warp) * (2 * np.pi / 0.115)
    lines: Field = depth * forehead * (np.abs(np.sin(phase)) ** 0.5 - 0.7)
    feet = grid.twin(person.eye_x + 0.36, 0.03, 0.09, 0.13)
    fan = np.sin((ys - 0.03) / (np.abs(xs) - person.eye_x - 0.08 + 1e-3).clip(0.08) * 14 + 0.8 * warp)
    lines += (0.007 * old + 0.005 * shot.smile * (0.3 + old)) * feet * fan
    bag_y = 0.115 + 0.45 * (1 - (np.abs(np.abs(xs) - person.eye_x) / 0.3).clip(0, 1) ** 2) * 0.1
    bag = (np.abs(ys - bag_y) < 0.2) * np.exp(-0.5 * ((ys - bag_y - 0.05) / 0.022) ** 2)
    lines -= (0.006 + 0.016 * old) * bag * grid.twin(person.eye_x - 0.03, 0.17, 0.17, 0.1)
    lines -= 0.012 * old * grid.twin(0.075, -0.27, 0.013, 0.08)
    return lines


def _beard_shadow(person: Person, grid: Grid, form: Form, rng: np.random.Generator, log: Field) -> None:
    """Shaven beard: a bluish shade with one dark dot a hair."""
    if person.stubble <= 0.05:
        return
    region = beard_region(grid.xs, grid.ys, form)
    count = int(2600 * person.stubble)
    x, y = rng.uniform(-1.0, 1.0, count), rng.uniform(0.5, form.chin, count)
    ends = np.stack([x, y], 1)[:, None] + np.stack([np.zeros((count, 2)), rng.normal(0, 0.012, (count, 2))], 1)
    hairs = grid.strokes(ends) * region
    dark = (0.5 - 0.3 * person.grey) * person.stubble * (0.4 + 0.6 * min(1.0, 0.05 / sum(person.hair_colour)))
    log += (hairs * dark + 0.5 * dark * region)[..., None] * np.array([1.0, 0.92, 0.8], np.float32)


def beard_region(x: Field, y: Field, form: Form) -> Field:
    """Where beards grow, 0..1: upper lip, chin, jaw and the cheek's lower part; not the lips."""
    cheek = ramp(y - 0.95 + 0.65 * np.abs(x) ** 2.2, 0.0, 0.25) * ramp(y, 0.35, 0.6)
    lip = ramp(y, form.nose_y + 0.07, form.nose_y + 0.16) * ramp(np.abs(x), 0.5, 0.36)
    s = np.clip(x / (form.mouth_width * 1.05), -1, 1)
    edges = form.lips(s)
    mouth = ramp(y, edges[0] - 0.03, edges[0]) * ramp(y, edges[3] + 0.03, edges[3]) * (np.abs(s) < 1)
    return np.asarray(np.maximum(cheek, lip) * (1 - mouth), np.float32)


def paint_mouth(surface: Surface, person: Person, shot: Shot, form: Form, grid: Grid, rng: np.random.Generator) -> None:
    """Lips over the skin, then teeth and the dark behind them where the mouth is open."""
    wide = form.mouth_width * 1.1
    at = grid.window(-wide, form.mouth_y - 0.4, wide, form.mouth_y + 0.6)
    x, y = grid.xs[:, at[1]], grid.ys[at[0]]
    s = np.clip(x / form.mouth_width, -1, 1)
    top, high, low, bottom = form.lips(s)
    soft = 1.6 / grid.scale

    def between(start: Field, end: Field, width: float) -> Field:
        return np.clip((y - start) / width + 0.5, 0, 1) * np.clip((end - y) / width + 0.5, 0, 1)

    inside = np.clip((1 - np.abs(x / form.mouth_width)) * 12, 0, 1)
    lips = between(top, bottom, 3.2 * soft) * inside
    skin = np.asarray(person.skin, np.float32)
    colour = skin * np.array([0.72, 0.40, 0.43], np.float32)
    rouge = np.array([0.42, 0.045, 0.06], np.float32) * (0.55 + 0.5 * rng.random())
    colour = colour + 0.75 * person.lipstick * (rouge - colour)
    shape = lips.shape
    folds = cloud(rng, (1, shape[1]), 3.0, 2)[0] * np.ones(shape, np.float32) + 0.6 * cloud(rng, shape, 2.5, 2)
    tone = 1 + 0.10 * folds + 0.10 * cloud(rng, shape, 0.12 * grid.scale)
    tone = tone * (1 - 0.28 * between(top, high, soft))
    albedo, gloss, relief = surface.albedo[at], surface.gloss[at], surface.relief[at]
    blend(albedo, colour * np.clip(tone, 0.4, 1.6)[..., None], 0.88 * lips)
    gloss += lips * (0.45 + 0.5 * person.lipstick) * np.clip(0.6 + 0.5 * folds, 0, 2)
    relief += 0.006 * folds * lips
    corner = np.exp(-0.5 * ((np.abs(x) - form.mouth_width) / 0.03) ** 2) * np.exp(
        -0.5 * ((y - form.mouth_line(s)) / 0.02) ** 2
    )
    line = np.exp(-0.5 * ((y - form.mouth_line(s)) / 0.016) ** 2) * inside * float(form.gap_down + form.gap_up < 0.03)
    albedo *= (1 - 0.75 * np.maximum(corner, 1.2 * line).clip(0, 1))[..., None]
    hole = between(high, low, soft) * inside
    if form.gap_down + form.gap_up < 0.01:
        return
    depth = np.array([0.075, 0.018, 0.016], np.float32) * (0.35 + 0.3 * person.skin[0])
    blend(albedo, depth, hole)
    teeth_low = form.mouth_line(s * 0) - form.gap_up + 0.135 - 0.05 * s * s
    position = np.abs(x) / 0.105
    gaps = np.exp(-0.5 * ((position - np.round(position)) / 0.07) ** 2)
    edge = teeth_low - 0.018 * np.abs(np.sin(np.pi * position)) * 0 - 0.012 * gaps
    teeth = hole * np.clip((edge - y) / soft + 0.5, 0, 1) * ramp(np.abs(s), 0.98, 0.75) * (1 if shot.open > 0.02 else 0)
    enamel = np.array([0.70, 0.63, 0.50], np.float32) * (
        (1 + 0.08 * person.feminine - 0.004 * (person.age - 30)) * (1 - 0.25 * person.melanin)
    )
    shade = (1 - 0.55 * s * s) * (1 - 0.28 * gaps) * (0.9 + 0.05 * cloud(rng, shape, 3.0))
    shade = shade * ramp(y, high - 0.02, high + 0.05)
    blend(albedo, enamel * shade[..., None], 0.95 * teeth)
    relief *= 1 - hole
    gloss *= 1 - 0.6 * hole


def paint_brows(surface: Surface, person: Person, form: Form, grid: Grid, rng: np.random.Generator) -> None:
    """Each brow some 170 hairs, rising at the inner end and lying outward at the other."""
    count = int(110 + 80 * person.brow_weight)
    lines = []
    for side in (-1.0, 1.0):
        u = rng.beta(1.15, 1.3, count)
        height = 0.05 * person.brow_weight * (1 - 0.72 * u**1.6) * np.clip(0.55 + 3 * u, 0, 1)
        y = form.brow(person, u) + height * rng.uniform(-1, 1, count)
        x = 0.16 + 0.62 * u
        angle = np.radians(72 - 78 * np.clip(u * 1.25, 0, 1) + rng.normal(0, 11, count))
        length = (0.075 + 0.03 * rng.random(count)) * (0.7 + 0.3 * person.brow_weight)
        step = np.stack([np.cos(angle), -np.sin(angle)], 1) * length[:, None]
        root = np.stack([x, y], 1)
        bend = np.stack([0.15 * length, 0.3 * length], 1)
        line = np.stack([root - 0.5 * step, root + 0.1 * step, root + 0.5 * step + bend], 1)
        lines.append(line * (side, 1))
    cover = grid.strokes(np.concatenate(lines))
    cover = 0.75 * cover + 0.3 * cv2.GaussianBlur(cover, (0, 0), 1.5)
    grey = np.asarray(person.hair_colour) * (1 - 0.7 * person.grey) + 0.30 * 0.7 * person.grey
    blend(surface.albedo, np.minimum(grey * 0.8, person.skin).astype(np.float32), np.clip(0.75 * cover, 0, 1))
    surface.gloss *= 1 - 0.8 * cover
