"""Every forgery family, on drawn faces."""

from __future__ import annotations

import dataclasses
from typing import Any

import cv2
import numpy as np
import pytest

from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.faces import Face
from ffd_continual.scenarios.forging.contract import FAMILIES, Family, Fitted, load_family
from ffd_continual.scenarios.forging.selfblend import self_blend
from ffd_continual.scenarios.forging.swap import warp_onto

SIDE = 96


def drawn_landmarks(rng: np.random.Generator, side: int = SIDE) -> np.ndarray:
    """68 points of a frontal face, every person and shot a little different; the hull is half the width."""
    turn = np.linspace(0.05 * np.pi, 0.95 * np.pi, 17)
    jaw = np.stack([-np.cos(turn) * 0.25, np.sin(turn) * 0.30 - 0.03], 1)
    brow = np.stack([np.linspace(-0.2, -0.05, 5), -0.13 - 0.02 * np.sin(np.linspace(0, np.pi, 5))], 1)
    nose = np.concatenate(
        [
            np.stack([np.zeros(4), np.linspace(-0.08, 0.04, 4)], 1),
            np.stack([np.linspace(-0.04, 0.04, 5), [0.06] * 5], 1),
        ]
    )
    angle = np.array([np.pi, 4 * np.pi / 3, 5 * np.pi / 3, 0, np.pi / 3, 2 * np.pi / 3])
    eye = np.stack([np.cos(angle) * 0.04 - 0.11, np.sin(angle) * 0.018 - 0.08], 1)
    right_eye = eye + [0.22, 0]
    ring = np.linspace(np.pi, 3 * np.pi, 13)[:-1]
    lips = np.stack([np.cos(ring) * 0.08, np.sin(ring) * 0.03 + 0.14], 1)
    inner = np.stack([np.cos(ring[::3].repeat(2)) * 0.06, np.sin(ring[::3].repeat(2)) * 0.01 + 0.14], 1)
    inner += np.linspace(-0.004, 0.004, 8)[:, None]
    points = np.concatenate([jaw, brow, -brow[::-1] * [1, -1], nose, eye, right_eye, lips, inner])
    points = points * (1 + rng.normal(0, 0.02, 2)) + rng.normal(0, 0.003, points.shape) + 0.5
    return (points * side).astype(np.float32)


def drawn_face(person: int, shot: int = 0, grey: bool = False, side: int = SIDE) -> Face:
    rng = np.random.default_rng([person, shot])
    marks = drawn_landmarks(rng, side)
    image = np.full((side, side, 3), rng.uniform(40, 200, 3), np.float32)
    skin = np.array([205, 160, 135], np.float32) + rng.normal(0, 12, 3)
    layer = image.copy()
    cv2.fillConvexPoly(layer, cv2.convexHull(marks.astype(np.int32)), skin.tolist())
    for points, shade in ((marks[36:42], 60), (marks[42:48], 60), (marks[48:60], 110)):
        cv2.fillConvexPoly(layer, cv2.convexHull(points.astype(np.int32)), (shade, shade * 0.7, shade * 0.7))
    for line in (marks[17:22], marks[22:27], marks[27:31]):
        cv2.polylines(layer, [line.astype(np.int32)], False, (80, 60, 50), 2)
    noisy = cv2.GaussianBlur(layer, (0, 0), 0.8) + rng.normal(0, 4, (side, side, 1))
    picture = np.clip(noisy, 0, 255).astype(np.uint8)
    if grey:
        picture = np.repeat(picture.mean(2, keepdims=True).astype(np.uint8), 3, 2)
    return Face(picture, marks, f"person-{person:03d}", f"person-{person:03d}_{shot}")


PEOPLE = tuple(drawn_face(person) for person in range(12))


def ready(name: str) -> Family:
    """A family fitted on the drawn people, training cut to a few steps."""
    family = load_family(name)
    if hasattr(family, "network"):
        trained: Any = family
        trained.config = dataclasses.replace(trained.config, steps=3)
    if isinstance(family, Fitted):
        family.fit(PEOPLE[:8], np.random.default_rng(5))
    return family


@pytest.mark.parametrize("name", FAMILIES)
def test_family_changes_the_mask_and_nothing_else(name: str) -> None:
    family, changed = ready(name), 0
    for person in (0, 3):
        target = PEOPLE[person]
        before = target.image.copy()
        forged = family.forge(target, PEOPLE, np.random.default_rng(person))
        assert forged is not None
        again = family.forge(target, PEOPLE, np.random.default_rng(person))
        assert again is not None
        np.testing.assert_array_equal(forged.image, again.image)
        assert forged.image.dtype == np.uint8
        assert forged.image.shape == target.image.shape
        assert set(np.unique(forged.mask)) == {0, 255}
        outside = forged.mask == 0
        assert outside.mean() > 0.3
        np.testing.assert_array_equal(forged.image[outside], target.image[outside])
        np.testing.assert_array_equal(target.image, before)
        assert forged.source_identity != target.identity
        changed += int((np.abs(forged.image.astype(int) - target.image).max(2) > 2).sum())
    assert changed > 60, "the forgery is no forgery: next to nothing changed"


@pytest.mark.parametrize("name", FAMILIES)
def test_grey_stays_grey(name: str) -> None:
    forged = ready(name).forge(drawn_face(40, grey=True), PEOPLE, np.random.default_rng(1))
    assert forged is not None
    assert (np.ptp(forged.image.astype(int), axis=2) == 0).all()


@pytest.mark.parametrize("name", ["swap", "morph", "parts", "resynthesis"])
def test_nobody_lends_his_face_to_himself(name: str) -> None:
    alone = [drawn_face(0, shot) for shot in range(4)]
    assert ready(name).forge(PEOPLE[0], alone, np.random.default_rng(0)) is None


def test_unfitted_family_says_so() -> None:
    for name in ("resynthesis", "upsampling", "superres", "eigenface"):
        with pytest.raises(FFDError, match="not been fitted"):
            load_family(name).forge(PEOPLE[0], PEOPLE, np.random.default_rng(0))


def test_families_are_found_by_name_and_typos_are_met() -> None:
    assert [load_family(name).name for name in FAMILIES] == list(FAMILIES)
    with pytest.raises(FFDError, match="did you mean morph"):
        load_family("morf")
    with pytest.raises(FFDError, match="no module"):
        load_family("nowhere.at_all:Thing")


def test_fitted_weights_depend_on_the_seed_only() -> None:
    one, two, other = (load_family("upsampling") for _ in range(3))
    for family, seed in ((one, 1), (two, 1), (other, 2)):
        family.config = dataclasses.replace(family.config, steps=2)  # type: ignore[attr-defined]
        family.fit(PEOPLE[:4], np.random.default_rng(seed))  # type: ignore[attr-defined]
    made = [f.forge(PEOPLE[0], PEOPLE, np.random.default_rng(0)).image for f in (one, two, other)]  # type: ignore[union-attr]
    np.testing.assert_array_equal(made[0], made[1])
    assert (made[0] != made[2]).any()


def fine_energy(image: np.ndarray, inside: np.ndarray) -> float:
    """Mean square of second differences across and down at once: next to Nyquist, over the pixels `inside`."""
    grey = image.astype(np.float64).mean(2)
    across = 2 * grey - np.roll(grey, 1, 1) - np.roll(grey, -1, 1)
    both = 2 * across - np.roll(across, 1, 0) - np.roll(across, -1, 0)
    return float((both[inside] ** 2).mean())


@pytest.mark.parametrize("name", ["swap", "reshape"])
def test_a_single_warp_keeps_the_fine_grain(name: str) -> None:
    """Without this a measure of sharpness in the face's middle tells the family from real faces (decision 0006)."""
    family, decibels = ready(name), []
    for person in range(8):
        target = PEOPLE[person]
        forged = family.forge(target, PEOPLE, np.random.default_rng(person))
        assert forged is not None
        inside = cv2.erode(forged.mask, np.ones((5, 5), np.uint8)) > 0
        ratio = fine_energy(forged.image, inside) / fine_energy(target.image, inside)
        decibels.append(10 * float(np.log10(ratio)))
    # Cubic interpolation alone costs 2 to 3 dB next to Nyquist; a detour through half the resolution costs 13.
    assert -5.0 < np.mean(decibels) < 2.0, decibels


def test_a_face_warped_onto_its_own_landmarks_is_the_same_picture() -> None:
    face = PEOPLE[1]
    again = warp_onto(face, face)
    np.testing.assert_allclose(again, face.image.astype(np.float32), atol=0.5)


def test_self_blend_is_pure_and_varied() -> None:
    face = PEOPLE[2]
    masks = []
    for seed in range(12):
        image, mask = self_blend(face.image, face.landmarks, np.random.default_rng(seed))
        again, _ = self_blend(face.image, face.landmarks, np.random.default_rng(seed))
        np.testing.assert_array_equal(image, again)
        assert (image[mask == 0] == face.image[mask == 0]).all()
        masks.append(float((mask > 0).mean()))
    assert max(masks) > 2 * min(masks) > 0
