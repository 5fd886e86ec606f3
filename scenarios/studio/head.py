"""The head as a height field z(x, y) over the face plane, deformed by identity and expression, with its 68 landmarks.

A skull half-ellipsoid whose outline and profile are interpolated, plus smooth bumps for nose, brow ridge, sockets,
cheekbones, lips and chin. One value a point is enough within 25 degrees of the front view; the landmarks are the
surface points themselves, so they are exact after any projection.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ffd_continual.scenarios.studio.fields import Field, Grid, curve, ramp
from ffd_continual.scenarios.studio.person import Person, Shot

BACK = -0.25
"""z of the head's outline: what lies behind it is not part of the height field."""
CROWN = (-0.45, 1.24)
"""y of the skull ellipsoid's centre, and its half-height."""


@dataclass(frozen=True)
class Form:
    """Where things are on this face in this photograph (head frame); shared by geometry, paint and landmarks."""

    chin: float
    mouth_width: float
    corner_lift: float
    mouth_y: float
    upper_lip: float
    lower_lip: float
    gap_up: float
    gap_down: float
    nose_y: float
    nose_width: float
    brow_y: float
    lid_up: float
    lid_down: float

    def mouth_line(self, s: Field) -> Field:
        """y where the lips meet at s = x / mouth_width in [-1, 1]: corners rise with a smile."""
        return self.mouth_y + self.corner_lift * (0.35 - s * s)

    def lips(self, s: Field) -> tuple[Field, Field, Field, Field]:
        """y of the upper lip's upper and lower edge and of the lower lip's upper and lower edge at s."""
        inside = np.clip(1 - s * s, 0, 1)
        line = self.mouth_line(s)
        bow = np.clip(1 - np.abs(s) ** 1.7, 0, 1) * (1 - 0.22 * np.exp(-0.5 * (s / 0.13) ** 2))
        low = line + self.gap_down * inside**0.7
        high = line - self.gap_up * inside
        return high - self.upper_lip * bow, high, low, low + self.lower_lip * np.clip(1 - np.abs(s) ** 2.3, 0, 1)

    def lids(self, u: Field) -> tuple[Field, Field]:
        """Heights of the upper (negative) and lower lid's edge over the eye's axis; u = -1 inner, 1 outer corner."""
        shifted = np.clip(np.abs(u + 0.12 * (1 - u * u)), 0, 1)
        up = -self.lid_up * (1 - shifted**2.3) ** 0.75
        down = self.lid_down * np.clip(1 - np.abs(u - 0.1 * (1 - u * u)) ** 2.2, 0, 1) ** 0.8
        return up, down

    def brow(self, person: Person, u: Field) -> Field:
        """y of the brow's middle at u from 0 (inner end) to 1 (outer end)."""
        return self.brow_y + 0.05 - person.brow_arch * np.sin(np.pi * np.clip(u, 0, 1) ** 1.3) * 1.4 + 0.03 * u


def form_of(person: Person, shot: Shot) -> Form:
    """Expression applied to identity. A smile widens the mouth, lifts its corners, thins the lips, narrows the eyes."""
    smile, open_ = shot.smile, shot.open
    lid_up = person.eye_open * (1.25 - 0.18 * smile + 0.08 * shot.brow_raise) * (1 - 0.9 * shot.blink)
    return Form(
        chin=person.length + 0.16 * open_,
        mouth_width=person.mouth_width * (1 + 0.24 * smile - 0.08 * open_),
        corner_lift=0.09 * smile,
        mouth_y=person.mouth_y - 0.02 * smile,
        upper_lip=person.upper_lip * (1 - 0.3 * smile),
        lower_lip=person.lower_lip * (1 - 0.18 * smile),
        gap_up=0.05 * smile * min(1.0, 4 * open_),
        gap_down=0.24 * open_,
        nose_y=person.nose_length,
        nose_width=person.nose_width * (1 + 0.1 * smile),
        brow_y=person.brow_y - 0.035 * shot.brow_raise,
        lid_up=lid_up,
        lid_down=person.eye_open * (0.6 - 0.2 * smile),
    )


def outline(person: Person, form: Form, y: Field) -> Field:
    """Half-width of the head at height y (0 outside of it)."""
    top = person.forehead * np.sqrt(np.clip(1 - ((y - CROWN[0]) / CROWN[1]) ** 2, 0, 1))
    stretch = form.chin / 1.66
    knots = np.array([-0.6, -0.3, 0.0, 0.45, 0.9, 1.25, 1.5, 1.7])
    values = [
        person.forehead * 0.99,
        person.forehead * 0.985,
        1.03,
        0.985 * person.cheekbone + 0.015 * person.fat,
        (0.88 + 0.05 * person.fat) * person.jaw,
        (0.73 + 0.08 * person.fat) * person.jaw,
        0.56 * person.chin_width,
        0.44 * person.chin_width,
    ]
    knots[3:] *= stretch
    face = curve(knots, values, np.clip(y, -0.6, form.chin))
    face = face * np.sqrt(np.clip(1 - np.clip(y / form.chin, 0, 1) ** 8, 0, 1))
    mix = ramp(np.asarray(y), -0.6, -0.2)
    return np.asarray(top * (1 - mix) + face * mix, np.float32)


def height_field(person: Person, shot: Shot, form: Form, grid: Grid) -> Field:
    """z over the grid (H, W); outside the head's outline it falls steeply below `BACK`."""
    xs, ys = grid.xs, grid.ys
    old = max(0.0, (person.age - 35) / 45)
    column = ys[:, 0]
    wide = outline(person, form, column)
    skull = BACK + 1.4 * np.sqrt(np.clip(1 - ((column - CROWN[0]) / CROWN[1]) ** 2, 0, 1))
    knots = np.array([-0.45, 0.0, 0.5, 1.0, 1.25, 1.5, 1.8]) * np.array([1, 1, 1, *([form.chin / 1.66] * 4)])
    profile = curve(knots, (1.15, 1.13, 1.15, 1.17, 1.11, 1.13, 1.05), column)
    profile = profile * np.sqrt(np.clip(1 - np.clip(column / (form.chin + 0.01), 0, 1) ** 12, 0, 1))
    depth = np.where(column < CROWN[0], skull, profile).astype(np.float32)
    inverse = (1 / np.maximum(wide, 1e-3)).astype(np.float32)
    r = np.minimum(np.abs(xs) * inverse[:, None], 4)
    z = BACK + (depth - BACK)[:, None] * np.sqrt(np.clip(1 - r * r * np.sqrt(r), 0, 1))

    eye_x = person.eye_x
    z -= 0.115 * grid.twin(eye_x - 0.03, 0.0, 0.17, 0.13)
    z += 0.05 * grid.twin(eye_x, 0.01, 0.11, 0.075)
    z += person.brow_ridge * grid.twin(0.36, -0.27, 0.26, 0.085)
    z -= 0.05 * grid.bump(0, -0.1, 0.10, 0.08)
    z += (0.07 + 0.03 * shot.smile) * grid.twin(0.58, 0.36 - 0.05 * shot.smile, 0.19, 0.16)
    z -= (0.05 * (1 - person.fat)) * grid.twin(0.62, 0.85, 0.16, 0.22)
    z += 0.05 * person.fat * grid.twin(0.55, 1.1, 0.25, 0.25)
    z -= 0.03 * grid.twin(0.92, -0.25, 0.12, 0.25)
    z += _nose(person, form, grid)
    mouth = form.mouth_y
    z += 0.06 * grid.bump(0, mouth, 0.30, 0.22)
    z += 0.042 * grid.bump(0, mouth - 0.5 * form.upper_lip - form.gap_up, 0.20, 0.05)
    z += 0.055 * grid.bump(0, mouth + form.gap_down + 0.5 * form.lower_lip, 0.18, 0.055)
    z -= 0.05 * grid.bump(0, mouth + form.gap_down + form.lower_lip + 0.09, 0.20, 0.05)
    z += (0.07 + 0.03 * (1 - person.feminine)) * grid.bump(0, form.chin - 0.2, 0.2 * person.chin_width, 0.12)
    z -= 0.015 * grid.bump(0, 0.5 * (form.nose_y + 0.08 + mouth - form.upper_lip), 0.035, 0.07)

    # the fold from nostril to mouth corner, and the cheek that rises beside it
    fold_x = 0.27 + 0.27 * np.clip((ys - 0.52) / 0.5, 0, 1.3) ** 0.85 + 0.05 * shot.smile
    along = ramp(ys, 0.48, 0.68) * ramp(ys, 1.2, 0.95)
    away = (np.abs(xs) - fold_x) * along / 0.035
    strength = along * (0.006 + 0.018 * shot.smile + 0.018 * old)
    z += strength * (np.exp(-0.5 * (away / 2.6 - 0.9) ** 2) * 1.3 - np.exp(-0.5 * away**2))
    outside = np.maximum(np.abs(xs) - wide[:, None], 0) + np.maximum(ys - form.chin, 0)
    return np.asarray(np.maximum(z - 14 * outside, _auricles(person, grid, wide)), np.float32)


def _nose(person: Person, form: Form, grid: Grid) -> Field:
    xs, ys = grid.xs, grid.ys
    tip, height = form.nose_y - 0.06, person.nose_height
    along = np.clip((ys + 0.12) / (tip + 0.12), 0, 1)
    ridge = 0.06 * ramp(ys, -0.22, 0.0) + (height - 0.06) * along**1.5 + person.nose_hump * np.sin(np.pi * along)
    # round under the tip, so that no edge is seen there
    ridge = ridge * ramp(ys, tip + 0.15, tip - 0.07)
    half = 0.080 + (0.30 * form.nose_width - 0.03) * along**2
    nose: Field = ridge * np.exp(-0.5 * (xs / half) ** 2)
    nose += 0.11 * grid.bump(0, tip + 0.01, 0.45 * form.nose_width, 0.085)
    nose += 0.15 * grid.twin(0.76 * form.nose_width, form.nose_y - 0.005, 0.26 * form.nose_width, 0.07)
    nose -= 0.035 * grid.twin(1.2 * form.nose_width, form.nose_y - 0.01, 0.04, 0.07)
    nose -= 0.03 * grid.twin(0.55 * form.nose_width, form.nose_y - 0.08, 0.035, 0.05)
    return np.asarray(cv2.GaussianBlur(nose, (0, 0), 0.04 * grid.scale), np.float32)  # cartilage has no edges


def _auricles(person: Person, grid: Grid, wide: Field) -> Field:
    """Ears: thin shells beside the outline, with a hollow; far below the field everywhere else."""
    xs, ys = grid.xs, grid.ys
    base = float(np.interp(0.15, grid.ys[:, 0], wide))
    u = (np.abs(xs) - base - 0.005 - 0.05 * (0.2 - ys)) / (0.125 * person.ear)
    v = (ys - 0.17) / (0.42 * person.ear)
    inside = u * u + v * v
    rim = np.exp(-0.5 * ((inside - 0.72) / 0.2) ** 2)
    shell = -0.08 + 0.10 * rim + 0.10 * u - 0.04 * np.exp(-6 * inside)
    return np.asarray(np.where(inside < 1, shell, -3.0), np.float32)


def landmarks_3d(person: Person, form: Form, relief: Field, grid: Grid) -> Field:
    """(68, 3) surface points in iBUG order, image-left first (see the landmark contract in `faces.Face`)."""
    y = np.linspace(-0.08, form.chin - 0.003, 200)
    edge = np.stack([outline(person, form, y) * 0.985, y], 1)
    edge[-1] = (0, form.chin - 0.015)
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(edge, axis=0), axis=1))])
    even = np.linspace(0, length[-1], 9)
    half = np.stack([np.interp(even, length, edge[:, axis]) for axis in range(2)], 1)
    jaw = np.concatenate([half * (-1, 1), half[-2::-1]])
    brow_u = np.array([1.0, 0.75, 0.5, 0.25, 0.0])
    brow = np.stack([0.18 + 0.60 * brow_u, form.brow(person, brow_u)], 1)
    bridge = np.stack([np.zeros(4), np.linspace(-0.02, form.nose_y - 0.06, 4)], 1)
    nw, ny = form.nose_width, form.nose_y
    nostrils = np.array([(-0.8 * nw, ny + 0.03), (-0.4 * nw, ny + 0.06), (0, ny + 0.09)])
    nostrils = np.concatenate([nostrils, nostrils[1::-1] * (-1, 1)])
    # image-left eye: outer corner, upper lid outer and inner, inner corner, lower lid inner and outer
    u = np.array([1.0, 0.36, -0.36, -1.0, -0.36, 0.36])
    up, down = form.lids(u)
    lid = np.where(np.arange(6) < 3, up, down) * np.array([0, 1, 1, 0, 1, 1])
    eye = np.stack([person.eye_x + person.eye_width * u, lid - person.eye_tilt * person.eye_width * u], 1)
    order = np.array([3, 2, 1, 0, 5, 4])
    s = np.array([-1, -0.62, -0.22, 0, 0.22, 0.62, 1, 0.62, 0.22, 0, -0.22, -0.62])
    edges = form.lips(s)
    outer = np.stack([s * form.mouth_width, np.where(np.arange(12) < 7, edges[0], edges[3])], 1)
    s = np.array([-0.86, -0.3, 0, 0.3, 0.86, 0.3, 0, -0.3])
    edges = form.lips(s)
    inner = np.stack([s * form.mouth_width, np.where(np.arange(8) < 5, edges[1], edges[2])], 1)
    flip = np.array([-1, 1])
    flat = np.concatenate([jaw, brow * flip, brow[::-1], bridge, nostrils, eye * flip, eye[order], outer, inner])
    z = np.maximum(grid.lookup(relief, flat[:, 0], flat[:, 1]), BACK)
    return np.concatenate([flat, z[:, None]], axis=1)
