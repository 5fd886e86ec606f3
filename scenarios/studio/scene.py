"""What is around the head: background, neck, shoulders and clothes. Linear RGB at the working resolution."""

from __future__ import annotations

import cv2
import numpy as np

from ffd_continual.scenarios.studio.fields import Field, blend, cloud, ramp
from ffd_continual.scenarios.studio.person import Person, Shot
from ffd_continual.scenarios.studio.view import View


def _colour(rng: np.random.Generator, value: tuple[float, float], chroma: float) -> Field:
    tint = np.exp(chroma * rng.standard_normal(3))
    return np.asarray(rng.uniform(*value) * tint / tint.mean(), np.float32)


def paint_background(side: int, rng: np.random.Generator) -> Field:
    """Studio paper, a mottled cloth, or a room far out of focus (S, S, 3)."""
    kind = rng.random()
    shape = (side, side)
    out = np.empty((*shape, 3), np.float32)
    if kind < 0.3:
        out[:] = _colour(rng, (0.35, 0.85), 0.03)
    elif kind < 0.65:
        hue = np.array([0.55, 0.95, 1.35]) if rng.random() < 0.6 else np.exp(0.25 * rng.standard_normal(3))
        out[:] = rng.uniform(0.06, 0.4) * hue
        out *= np.exp(0.14 * cloud(rng, shape, side / 3, 4, 0.7))[..., None]
    else:
        out[:] = _colour(rng, (0.03, 0.5), 0.12)
        for _ in range(int(rng.integers(4, 14))):
            x, y = rng.uniform(-0.2, 1.1, 2) * side
            w, h = rng.uniform(0.05, 0.5, 2) * side
            tone = tuple(float(v) for v in _colour(rng, (0.02, 0.8), 0.25))
            cv2.rectangle(out, (int(x), int(y)), (int(x + w), int(y + h)), tone, -1)
        out = np.asarray(cv2.GaussianBlur(out, (0, 0), float(rng.uniform(0.012, 0.08)) * side), np.float32)
    x = np.linspace(-1, 1, side, dtype=np.float32)
    lean = np.exp(rng.normal(0, 0.25) * x[None, :] + rng.normal(0, 0.25) * x[:, None])
    glow = 1 + rng.uniform(0, 0.5) * np.exp(-1.5 * (x[None, :] ** 2 + (x[:, None] + 0.2) ** 2))
    out *= (lean * glow * np.exp(0.012 * cloud(rng, shape, 2.0)))[..., None]
    return np.clip(out, 0.003, 1.2)


def paint_body(canvas: Field, person: Person, shot: Shot, view: View, rng: np.random.Generator) -> Field:
    """Neck and clothes over `canvas` (S, S, 3) in place; returns their depth (S, S), very far where there is none."""
    x, y = view.plane()
    first = int(np.argmax(y[:, 0] > 0.4))  # nothing of the body is above the lips
    y = y[first:]
    whole = np.full((view.side, view.side), -5, np.float32)
    canvas, depth = canvas[first:], whole[first:]
    lean = float(0.25 * view.turn[0, 2])
    x = x - lean
    half = 0.66 - 0.13 * person.feminine + 0.07 * person.fat
    neck_half = half + 0.10 * np.clip(y - 1.2, 0, 2) ** 2 + 0.35 * np.clip(y - 1.75, 0, 2) ** 1.5
    broad = 2.5 - 0.35 * person.feminine
    shoulder = 1.62 + 0.08 * rng.standard_normal() + 0.5 * np.clip(np.abs(x) / broad, 0, 1) ** 2.2
    soft = 1.0 / view.scale
    neck = np.clip((neck_half - np.abs(x)) / soft + 0.5, 0, 1)
    depth[:] = np.where(neck > 0.5, -0.5 + 0.6 * np.sqrt(np.clip(1 - (x / neck_half) ** 2, 0, 1)), -5)
    key, shape = shot.key, (len(y), view.side)
    skin = np.asarray(person.skin, np.float32) * np.array([0.97, 0.93, 0.92], np.float32)
    nx = np.clip(x / neck_half, -1, 1) * 0.95
    nz = np.sqrt(1 - nx * nx)
    lit = np.clip((nx * key[0] + nz * key[2] + 0.25) / 1.25, 0, 1)
    under = 0.22 + 0.78 * ramp(y + 0.15 * key[0] * x * np.ones(shape, np.float32), 1.45, 2.2)
    texture = np.exp(0.03 * cloud(rng, shape, 2.0, 2) + 0.05 * cloud(rng, shape, 0.2 * view.scale, 2))
    tendon = 1 + 0.10 * np.cos(x / half * 5) * ramp(y, 1.4, 1.9)
    light = (lit * under + (shot.ambient * 0.75 + 0.6 * shot.fill * nz) * (0.45 + 0.55 * under)) * texture * tendon
    tint = np.asarray(shot.key_colour, np.float32)
    blend(canvas, skin * tint * (light * shot.exposure)[..., None], neck)
    _clothes(canvas, person, shot, view, x, y, shoulder, rng, depth)
    return whole


def _clothes(
    canvas: Field,
    person: Person,
    shot: Shot,
    view: View,
    x: Field,
    y: Field,
    shoulder: Field,
    rng: np.random.Generator,
    depth: Field,
) -> None:
    """A T-shirt, an open neck, or a jacket with collar and tie."""
    shape, soft = (len(y), view.side), 1.0 / view.scale
    formal = rng.random() < 0.5 - 0.2 * person.feminine
    dip = float(rng.uniform(0.15, 0.85))
    base = 1.9 + 0.05 * rng.standard_normal()
    neckline = (
        base
        + dip * (1 - np.clip(np.abs(x) / 0.85, 0, 1) ** (1.1 if rng.random() < 0.5 else 2.0))
        - 0.25 * (np.clip(np.abs(x) / 0.85, 0, 1))
    )
    top = np.maximum(shoulder, neckline) if not formal else shoulder
    cover = np.clip((y - top) / soft + 0.5, 0, 1)
    fold = 1 + 0.14 * cloud(rng, shape, 0.35 * view.scale, 3) * rng.uniform(0.3, 1)
    weave = np.exp(0.05 * rng.standard_normal(shape, dtype=np.float32) + 0.04 * cloud(rng, shape, 2.0))
    light = (0.55 + 0.35 * shot.key[0] * x + 0.5 * shot.ambient) * fold * weave * shot.exposure
    light = light * ramp(y - top, -0.02, 0.12 + 0.02 * dip).clip(0.55, 1)
    bright = rng.random()
    span = (0.008, 0.05) if formal or bright < 0.35 else (0.05, 0.75)
    cloth = _colour(rng, span, 0.12 if formal else 0.4)
    if rng.random() < 0.25:
        period = rng.uniform(0.05, 0.2)
        stripe = np.sin((x if rng.random() < 0.6 else y) * 2 * np.pi / period) > rng.uniform(-0.3, 0.8)
        light = light * (1 + rng.uniform(-0.4, 0.5) * stripe)
    if not formal:
        blend(canvas, cloth * light[..., None], cover)
        depth[cover > 0.5] = -0.2
        return
    opening = np.clip((0.62 - 0.55 * (y - 1.75) - np.abs(x)) / soft + 0.5, 0, 1)
    collar_top = 1.64 + 0.35 * ramp(np.abs(x), 0.75, 0.1)
    linen = _colour(rng, (0.45, 0.85), 0.08)
    shirt = opening * np.clip((y - collar_top) / soft + 0.5, 0, 1)
    seam = 1 - 0.35 * np.exp(-0.5 * ((np.abs(x) - 0.12 - 0.9 * np.clip(y - 2.05, 0, 1)) / 0.02) ** 2) * (y > 1.95)
    blend(canvas, cloth * light[..., None], np.clip((y - shoulder + 0.1) / soft + 0.5, 0, 1))
    blend(canvas, linen * (light * seam)[..., None], shirt)
    lapel = 1 - 0.5 * np.exp(-0.5 * ((np.abs(x) - 0.62 + 0.55 * (y - 1.75)) / 0.02) ** 2)
    canvas *= np.where(shirt > 0.02, lapel, 1)[..., None]
    depth[(cover > 0.5) | (shirt > 0.5)] = -0.2
    if rng.random() < 0.75 - 0.6 * person.feminine:
        tie = np.clip((0.09 + 0.10 * np.clip(y - 2.12, 0, 1) - np.abs(x)) / soft + 0.5, 0, 1) * (y > 2.02)
        pattern = 1 + 0.5 * (np.sin((x + y) * rng.uniform(25, 70)) > rng.uniform(-0.5, 0.9))
        blend(canvas, _colour(rng, (0.03, 0.25), 0.6) * (light * pattern)[..., None], tie)
