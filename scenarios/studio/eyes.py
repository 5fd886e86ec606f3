"""Eyes: ball, iris, lids, lashes. Drawn on a window of the face plane, in each eye's own coordinates.

u runs from the inner (-1) to the outer corner (1), v is the height below the eye's axis in head units.
"""

from __future__ import annotations

import numpy as np

from ffd_continual.scenarios.studio.fields import Field, Grid, blend, cloud, ramp
from ffd_continual.scenarios.studio.head import Form
from ffd_continual.scenarios.studio.person import Person, Shot
from ffd_continual.scenarios.studio.skin import Surface

_IRIS_RADIUS = 0.088


def paint_eyes(surface: Surface, person: Person, shot: Shot, form: Form, grid: Grid, rng: np.random.Generator) -> None:
    """Both eyes look the same way; the lamp is mirrored at the same place in both."""
    lashes = []
    makeup = 0.6 * person.lipstick + 0.15 * person.feminine
    for side in (-1.0, 1.0):
        reach = 2.1 * person.eye_width
        left = side * person.eye_x
        at = grid.window(left - reach, -0.32, left + reach, 0.32)
        x, y = grid.xs[:, at[1]] - left, grid.ys[at[0]]
        u = side * x / person.eye_width
        v = y + person.eye_tilt * person.eye_width * u
        up, down = form.lids(u)
        soft = 1.3 / grid.scale
        near = np.clip((1.02 - np.abs(u)) * 9, 0, 1)
        opening = np.clip((v - up) / soft + 0.5, 0, 1) * np.clip((down - v) / soft + 0.5, 0, 1) * near
        albedo = surface.albedo[at]
        _shade_lids(albedo, person, u, v, up, down, near, makeup)
        ball, glint = _ball(person, shot, x, v, u, up, rng, albedo.shape[:2])
        blend(albedo, ball, opening)
        surface.glint[at] += glint * opening
        surface.gloss[at] *= 1 - 0.9 * opening
        surface.relief[at] *= 1 - opening
        surface.relief[at] += -0.02 * opening + 0.012 * np.exp(-0.5 * ((v - up + 0.02) / 0.02) ** 2) * near
        lashes.extend(_lashes(person, form, side, left, makeup, rng))
    cover = grid.strokes(np.concatenate(lashes))
    blend(surface.albedo, (0.012, 0.009, 0.008), np.clip((0.35 + 0.5 * makeup) * cover, 0, 1))


def _shade_lids(
    albedo: Field, person: Person, u: Field, v: Field, up: Field, down: Field, near: Field, makeup: float
) -> None:
    """The lid's fold, the dark line of the lashes' roots, the wet rim below, eye shadow."""
    edge = np.clip((1.12 - np.abs(u)) * 6, 0, 1)
    fold = up - person.crease * np.clip(1.05 - 0.5 * u * u, 0.2, 1)
    upper = np.exp(-0.5 * ((v - up + 0.004) / 0.013) ** 2) * np.clip((1.08 - np.abs(u + 0.05)) * 7, 0, 1)
    lower = np.exp(-0.5 * ((v - down) / 0.012) ** 2) * near
    crease = np.exp(-0.5 * ((v - fold) / 0.013) ** 2) * edge
    shadow = ramp(v, up - 0.2, up - 0.02) * ramp(v, up + 0.02, up - 0.01) * np.exp(-((u / 1.3) ** 4))
    log = (0.9 + 0.9 * makeup) * upper + (0.22 + 0.5 * makeup) * lower + 0.55 * crease + 0.5 * makeup * shadow
    albedo *= np.exp(-log[..., None] * np.array([0.85, 1.0, 1.0], np.float32))


def _ball(
    person: Person,
    shot: Shot,
    x: Field,
    v: Field,
    u: Field,
    up: Field,
    rng: np.random.Generator,
    shape: tuple[int, int],
) -> tuple[Field, Field]:
    """Albedo (h, w, 3) of the eyeball as if no lid covered it, and the lamp's mirror image on the cornea."""
    gaze = (0.055 * shot.gaze_x - 0.22 * shot.yaw * 0.3, 0.02 * shot.gaze_y - 0.012)
    dx, dy = x - gaze[0], v - gaze[1]
    radius = np.sqrt(dx * dx + dy * dy)
    veins = cloud(rng, shape, 3.0, 2)
    # a picture of dark skin is exposed longer, and conjunctiva carries pigment too
    white = (
        np.array([0.52, 0.475, 0.445], np.float32)
        * (1 - 0.38 * person.melanin)
        * (1 - 0.18 * np.clip(np.abs(u), 0, 1) ** 3)[..., None]
    )
    white = white * (1 + 0.03 * veins[..., None] * np.array([0.5, 1, 1], np.float32))
    inner = np.exp(-0.5 * ((u + 1.0) / 0.14) ** 2)
    blend(white, (0.42, 0.20, 0.17), 0.8 * inner * np.ones(shape, np.float32))
    angle = np.arctan2(dy, dx)
    spokes = cloud(rng, (1, 64), 1.5, 2)[0]
    streak = spokes[((angle + np.pi) / (2 * np.pi) * 63).astype(np.int32)]
    ring = radius / _IRIS_RADIUS
    tone = (1 + 0.22 * streak) * (1.15 - 0.25 * ring) * (1 - 0.65 * ramp(ring, 0.78, 1.0))
    # light falls from above through the cornea and gathers below
    tone = tone * (1 + 0.5 * np.clip(dy / _IRIS_RADIUS, -1, 1))
    iris = np.asarray(person.iris, np.float32) * np.clip(tone, 0.05, 3)[..., None]
    blend(white, iris, np.clip((1 - ring) * 7 + 0.5, 0, 1))
    blend(white, (0.004, 0.004, 0.004), np.clip((0.4 - ring) * 9 + 0.5, 0, 1))
    white *= (1 - 0.55 * np.exp(-np.clip(v - up, 0, None) / 0.035))[..., None]
    glint = 0.9 * np.exp(-0.5 * ((dx - 0.045 * shot.key[0]) ** 2 + (dy - 0.05 * shot.key[1]) ** 2) / 0.0135**2)
    return white, glint


def _lashes(
    person: Person, form: Form, side: float, left: float, makeup: float, rng: np.random.Generator
) -> list[Field]:
    """Polylines (N, 3, 2) on the face plane: upper lashes curl up and out, lower ones are sparse."""
    out = []
    for upper, count, long in ((True, 34, 0.05 + 0.05 * makeup), (False, 16, 0.025)):
        u = rng.uniform(-0.75, 1.0, count)
        edge = form.lids(u)[0 if upper else 1]
        root = np.stack([person.eye_width * u, edge - person.eye_tilt * person.eye_width * u], 1)
        length = long * rng.uniform(0.6, 1.1, count)
        lift = -1.0 if upper else 1.0
        tip = root + length[:, None] * np.stack([0.7 * u + 0.1, 0.75 * lift * np.ones(count)], 1)
        middle = 0.5 * (root + tip) + np.stack([0.15 * length, -0.15 * length * lift], 1)
        out.append(np.stack([root, middle, tip], 1) * (side, 1) + (left, 0))
    return out
