"""Who is portrayed and how: the numbers that fix an identity, and the numbers that fix one photograph of it.

Lengths are in the head frame's unit (half the breadth of the face). Their means and spreads follow adult anthropometry
(interpupillary 62 mm, palpebral fissure 29 mm, nose breadth 34 mm, mouth 50 mm, nasion to chin 118 mm, breadth of the
face 135 mm; spreads of 4-9 %).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Colour = tuple[float, float, float]

# Linear-light hair colours, from black to red, and what age adds.
_HAIR: tuple[tuple[float, Colour], ...] = (
    (0.26, (0.012, 0.010, 0.009)),
    (0.26, (0.035, 0.022, 0.015)),
    (0.20, (0.085, 0.048, 0.028)),
    (0.11, (0.20, 0.120, 0.060)),
    (0.11, (0.42, 0.290, 0.150)),
    (0.06, (0.22, 0.075, 0.028)),
)
_IRIS: tuple[Colour, ...] = (
    (0.045, 0.022, 0.012),
    (0.090, 0.045, 0.020),
    (0.130, 0.095, 0.040),
    (0.110, 0.150, 0.130),
    (0.120, 0.190, 0.280),
)
_CUTS_F = (("long", 0.38), ("bob", 0.24), ("updo", 0.14), ("afro", 0.05), ("short", 0.07), ("swept", 0.12))
_CUTS_M = (
    ("short", 0.3),
    ("swept", 0.3),
    ("back", 0.13),
    ("afro", 0.05),
    ("buzz", 0.1),
    ("bald", 0.08),
    ("long", 0.04),
)
# log of linear reflectance taken away by melanin at light, medium and dark skin (red, green, blue)
_MELANIN = ((0.0, 0.0, 0.0), (0.42, 0.66, 0.88), (2.30, 2.72, 2.95))
_PALE = (0.80, 0.545, 0.425)


@dataclass(frozen=True)
class Person:
    """An identity; `seed` also fixes its skin's texture and every hair's root."""

    seed: int
    age: float
    feminine: float
    skin: Colour
    melanin: float
    blood: float
    freckles: float
    jaw: float
    chin_width: float
    length: float
    cheekbone: float
    forehead: float
    fat: float
    eye_x: float
    eye_width: float
    eye_open: float
    eye_tilt: float
    crease: float
    iris: Colour
    brow_y: float
    brow_arch: float
    brow_weight: float
    brow_ridge: float
    nose_width: float
    nose_length: float
    nose_height: float
    nose_hump: float
    mouth_y: float
    mouth_width: float
    upper_lip: float
    lower_lip: float
    lipstick: float
    hair: str
    hair_colour: Colour
    grey: float
    hairline: float
    hair_length: float
    hair_volume: float
    curl: float
    part: float
    beard: float
    moustache: float
    stubble: float
    glasses: float
    glasses_round: float
    ear: float


@dataclass(frozen=True)
class Shot:
    """One photograph of a person: pose in radians, expression in 0..1, light, and seeds of what lies around."""

    seed: int
    yaw: float
    pitch: float
    roll: float
    distance: float
    smile: float
    open: float
    gaze_x: float
    gaze_y: float
    blink: float
    brow_raise: float
    key: Colour
    key_colour: Colour
    fill: float
    ambient: float
    exposure: float


def skin_colour(melanin: float, undertone: float, blood: float) -> Colour:
    """Linear RGB reflectance of skin: melanin 0 (palest) to 1 (darkest), undertone -1 (rosy) to 1 (olive)."""
    taken = [float(np.interp(melanin, (0.0, 0.35, 1.0), [row[c] for row in _MELANIN])) for c in range(3)]
    shift = (0.03 * undertone, -0.05 * undertone + 0.25 * blood, 0.10 * undertone + 0.18 * blood)
    red, green, blue = (
        base * float(np.exp(-gone - moved)) for base, gone, moved in zip(_PALE, taken, shift, strict=True)
    )
    return red, green, blue


def draw_person(seed: int) -> Person:
    """The identity of this seed. Traits that go together in people (age and grey hair, skin and eyes) do so here."""
    rng = np.random.default_rng([seed, 11])

    def near(mean: float, spread: float) -> float:
        return float(mean + spread * np.clip(rng.standard_normal(), -2.2, 2.2))

    feminine = float(np.clip(rng.random() * 1.6 - 0.3, 0, 1))
    woman = feminine > 0.5
    age = float(20 + 58 * rng.beta(1.4, 1.7))
    old = max(0.0, (age - 30) / 48)
    melanin = float(rng.beta(1.0, 1.9))
    pale = melanin < 0.3
    blood = float(rng.random())
    weights = np.array([w for w, _ in _HAIR]) * (
        np.array([0.5, 1, 1.2, 1.5, 1.5, 1.5]) if pale else [4, 1, 0.2, 0, 0, 0]
    )
    hair_colour = _HAIR[int(rng.choice(len(_HAIR), p=weights / weights.sum()))][1]
    iris = _IRIS[int(rng.choice(5, p=[0.2, 0.2, 0.2, 0.2, 0.2] if pale else [0.7, 0.27, 0.03, 0, 0]))]
    cuts = _CUTS_F if woman else _CUTS_M
    odds = np.array([p * (3.0 if cut in ("afro", "buzz") and melanin > 0.6 else 1.0) for cut, p in cuts])
    hair = cuts[int(rng.choice(len(cuts), p=odds / odds.sum()))][0]
    bearded = not woman and rng.random() < 0.3
    return Person(
        seed=seed,
        age=age,
        feminine=feminine,
        skin=skin_colour(melanin, near(0, 0.6), 0.5 * blood),
        melanin=melanin,
        blood=blood,
        freckles=float(rng.random() ** 4) if melanin < 0.35 else 0.06 * float(rng.random()),
        jaw=near(1.02 - 0.09 * feminine, 0.05),
        chin_width=near(1.06 - 0.18 * feminine, 0.09),
        length=near(1.66 - 0.07 * feminine, 0.06),
        cheekbone=near(1.0, 0.03),
        forehead=near(1.06, 0.03),
        fat=float(np.clip(near(0.35, 0.3), 0, 1)),
        eye_x=near(0.465, 0.017),
        eye_width=near(0.215, 0.010),
        eye_open=near(0.085 + 0.012 * feminine - 0.012 * old, 0.009),
        eye_tilt=near(0.06 + 0.04 * feminine - 0.05 * old, 0.05),
        crease=float(np.clip(near(0.065 - 0.03 * old, 0.02), 0.012, 0.11)),
        iris=iris,
        brow_y=near(-0.325 - 0.03 * feminine, 0.03),
        brow_arch=near(0.055 + 0.03 * feminine, 0.02),
        brow_weight=near(1.15 - 0.4 * feminine, 0.22),
        brow_ridge=near(0.075 - 0.05 * feminine, 0.02),
        nose_width=near(0.25 - 0.02 * feminine + 0.045 * melanin, 0.02),
        nose_length=near(0.60 - 0.03 * feminine + 0.03 * old, 0.035),
        nose_height=near(0.44 - 0.04 * feminine - 0.06 * melanin, 0.05),
        nose_hump=near(0.0, 0.03),
        mouth_y=near(0.985, 0.03),
        mouth_width=near(0.375, 0.024),
        upper_lip=max(0.03, near(0.085 + 0.02 * feminine + 0.04 * melanin - 0.03 * old, 0.016)),
        lower_lip=max(0.05, near(0.125 + 0.02 * feminine + 0.04 * melanin - 0.03 * old, 0.018)),
        lipstick=float(rng.random() ** 1.3) if woman else 0.0,
        hair=hair,
        hair_colour=hair_colour,
        grey=float(np.clip(near(1.5 * old - 0.45, 0.3), 0, 1)) if not woman or rng.random() < 0.5 else 0.0,
        hairline=near(-0.98 - (0.22 * old if not woman else 0.0), 0.06),
        hair_length=near(1.0, 0.2),
        hair_volume=float(np.clip(near(0.12, 0.05), 0.03, 0.3)),
        curl=float(rng.random() ** 2) if melanin < 0.6 else float(rng.random()),
        part=near(0, 0.4),
        beard=float(rng.random()) if bearded else 0.0,
        moustache=float(rng.random()) if bearded or (not woman and rng.random() < 0.08) else 0.0,
        stubble=0.0 if woman else float(rng.random()),
        glasses=float(rng.random() < 0.16 + 0.2 * old) * float(0.3 + 0.7 * rng.random()),
        glasses_round=float(rng.random()),
        ear=near(1.0, 0.08),
    )


def draw_shot(person: Person, seed: int) -> Shot:
    """One photograph's numbers; the same (person, seed) gives the same photograph."""
    rng = np.random.default_rng([person.seed, seed, 12])

    def spread(sigma: float, limit: float) -> float:
        return float(np.clip(sigma * rng.standard_normal(), -limit, limit))

    smile = float(np.clip(rng.random() * 1.5 - 0.4, 0, 1))
    side = -1.0 if rng.random() < 0.5 else 1.0
    azimuth, height = side * np.radians(rng.uniform(5, 62)), np.radians(rng.uniform(8, 50))
    key = (
        float(np.sin(azimuth) * np.cos(height)),
        float(-np.sin(height)),
        float(np.cos(azimuth) * np.cos(height)),
    )
    warm = spread(0.10, 0.25)
    return Shot(
        seed=seed,
        yaw=spread(0.16, 0.42),
        pitch=spread(0.08, 0.28),
        roll=spread(0.05, 0.2),
        distance=float(rng.uniform(9, 22)),
        smile=smile,
        open=float(rng.random() ** 3 * 0.8) if smile < 0.5 else float(rng.random() * 0.75),
        gaze_x=spread(0.25, 0.8),
        gaze_y=spread(0.2, 0.6),
        blink=float(rng.random() < 0.03) * 0.9 + 0.15 * float(rng.random()),
        brow_raise=spread(0.4, 1.0),
        key=key,
        key_colour=(1 + warm, 1.0, 1 - 1.2 * warm),
        fill=float(rng.uniform(0.1, 0.5)),
        ambient=float(rng.uniform(0.18, 0.5)),
        exposure=float(np.exp(spread(0.14, 0.35)) * 1.08 * (0.35 / person.skin[1]) ** 0.22),
    )
