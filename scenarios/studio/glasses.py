"""Spectacles: rims, bridge and temples as curves in space before the face, lenses with a lamp's reflection."""

from __future__ import annotations

import cv2
import numpy as np

from ffd_continual.scenarios.studio.fields import Field
from ffd_continual.scenarios.studio.person import Person, Shot
from ffd_continual.scenarios.studio.view import View


def draw_glasses(
    picture: Field, person: Person, shot: Shot, view: View, landmarks: Field, rng: np.random.Generator
) -> None:
    """Draw over `picture` (S, S, 3) uint8 RGB in place; `landmarks` (68, 3) say where the eyes and the nose are."""
    frame = np.random.default_rng([person.seed, 16])
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    power = 2.0 + 2.2 * (1 - person.glasses_round)
    rx, ry = frame.uniform(0.31, 0.36), frame.uniform(0.2, 0.29)
    bend = np.abs(np.cos(angle)) ** (2 / power) * np.sign(np.cos(angle))
    rise = np.abs(np.sin(angle)) ** (2 / power) * np.sign(np.sin(angle))
    front = float(landmarks[27, 2]) + 0.06
    metal = frame.random() < 0.5
    tone = np.asarray(frame.uniform(60, 150) * np.ones(3) if metal else frame.uniform(5, 60, 3))
    thick = max(1, round((0.020 if metal else 0.045) * frame.uniform(0.8, 1.3) * view.scale))
    gain = float(np.clip(shot.exposure, 0.5, 1.3))
    colour = tuple(float(c * gain) for c in tone)

    def curve(points: Field) -> Field:
        flat = view.project(np.asarray(points, np.float32))[..., :2]
        return np.asarray(np.rint(flat * 16), np.int32)

    for side in (-1.0, 1.0):
        x = side * person.eye_x + rx * bend
        rim = np.stack([x, 0.04 + ry * rise, front - 0.16 * x * x], 1)
        outline = curve(rim)
        lens = np.zeros(picture.shape[:2], np.uint8)
        cv2.fillPoly(lens, [outline], (255,), cv2.LINE_AA, 4)
        alpha = lens.astype(np.float32) / 255
        rows, columns = np.nonzero(lens)
        if len(rows):
            streak = (columns - columns.mean() + 0.6 * (rows - rows.mean())) / view.scale
            place = rng.uniform(-0.25, 0.25)
            glare = rng.uniform(0, 0.22) * np.exp(-0.5 * ((streak - place) / 0.08) ** 2) + 0.02
            glow = np.zeros(alpha.shape, np.float32)
            glow[rows, columns] = glare
            mixed = picture * (1 - 0.06 * alpha[..., None])
            mixed += (255 - mixed) * (glow * alpha)[..., None] * (0.4 + 0.6 * shot.ambient)
            picture[:] = np.rint(mixed).astype(np.uint8)
        shadow = outline + np.array([0, round(0.035 * view.scale * 16)])
        dim = picture.copy()
        cv2.polylines(dim, [shadow.astype(np.int32)], True, (30, 20, 15), thick, cv2.LINE_AA, 4)
        cv2.addWeighted(picture, 0.75, dim, 0.25, 0, dst=picture)
        cv2.polylines(picture, [outline], True, colour, thick, cv2.LINE_AA, 4)
        corner = np.array([side * (person.eye_x + rx), -0.04, front - 0.16 * (person.eye_x + rx) ** 2])
        ear = np.array([side * 1.07, -0.08, 0.1])
        hinge = view.project(np.asarray([corner, ear], np.float32))
        # the temple is seen only where it stands outside the cheek, and long hair lies over it
        if side * (hinge[1, 0] - hinge[0, 0]) > 0 and person.hair not in ("long", "bob"):
            cv2.polylines(picture, [curve(np.stack([corner, ear]))], False, colour, thick, cv2.LINE_AA, 4)
    inner = person.eye_x - rx
    t = np.linspace(-1, 1, 9)
    bridge = np.stack([t * inner, -0.02 - 0.05 * (1 - t * t), np.full(9, front + 0.02)], 1)
    cv2.polylines(picture, [curve(bridge)], False, colour, thick, cv2.LINE_AA, 4)
