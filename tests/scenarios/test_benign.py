"""Harmless edits: each does what it is named for, on faces of any size, and leaves the face where it is."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from ffd_continual.scenarios.benign import EDITS, edits_named
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.studio.portrait import studio_faces

Picture = np.ndarray


@pytest.fixture(scope="module")
def face() -> Picture:
    return cv2.resize(studio_faces(1, 1, 0, 192, 1)[0].image, (96, 96), interpolation=cv2.INTER_AREA)


def grain(picture: Picture) -> float:
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return float(np.abs(grey - cv2.GaussianBlur(grey, (0, 0), 1.0)).mean())


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize("side", [33, 96, 160])
def test_an_edit_changes_a_face_a_little_and_always_alike(name: str, side: int, face: Picture) -> None:
    seen = np.asarray(cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA), np.uint8)
    before = seen.copy()
    made = EDITS[name].apply(seen)
    assert made.shape == seen.shape
    assert made.dtype == np.uint8
    assert np.array_equal(seen, before)
    assert np.array_equal(made, EDITS[name].apply(seen))
    assert 0.5 < np.abs(made.astype(float) - seen).mean() < 45
    # The face stays where it is: brightness still goes with the original's, pixel by pixel.
    grey, edited = (cv2.cvtColor(p, cv2.COLOR_RGB2GRAY).astype(float).ravel() for p in (seen, made))
    assert np.corrcoef(grey, edited)[0, 1] > 0.93


def test_each_does_what_it_is_named_for(face: Picture) -> None:
    warm = EDITS["warm"].apply(face).astype(float).mean((0, 1)) - face.mean((0, 1))
    assert warm[0] > 0 > warm[2]
    sepia = EDITS["sepia"].apply(face).astype(float).mean((0, 1))
    assert sepia[0] > sepia[1] > sepia[2]
    flat = np.full((96, 96, 3), 200, np.uint8)
    dark = EDITS["vignette"].apply(flat)
    assert dark[0, 0].max() < 110
    assert dark[48, 48].min() > 195
    skin = np.clip(flat + np.random.default_rng(0).normal(0, 6, flat.shape), 0, 255).astype(np.uint8)
    assert grain(EDITS["beauty"].apply(skin)) < 0.4 * grain(skin)
    assert EDITS["screenshot"].apply(face).mean() > face.mean() + 2  # a gamma below 1 lightens


def test_smoothing_keeps_edges() -> None:
    edge = np.full((96, 96, 3), 60, np.uint8)
    edge[:, 48:] = 190
    made = EDITS["beauty"].apply(edge).astype(int)
    assert made[48, 49, 0] - made[48, 46, 0] > 110
    blurred = cv2.GaussianBlur(edge, (0, 0), 4.5).astype(int)
    assert blurred[48, 49, 0] - blurred[48, 46, 0] < 60


def test_upscaling_loses_what_half_the_size_cannot_hold_and_overshoots() -> None:
    stripes = np.zeros((96, 96, 3), np.uint8)
    stripes[:, ::2] = 255
    assert EDITS["superres"].apply(stripes)[20:70, 20:70].std() < 20
    edge = np.full((96, 96, 3), 80, np.uint8)
    edge[:, 48:] = 170
    assert EDITS["superres"].apply(edge).max() > 175  # the halo of an unsharp mask


def test_the_second_compression_has_another_grid(face: Picture) -> None:
    from ffd_continual.scenarios.capture import CaptureProfile, apply_profile

    rng = np.random.default_rng(0)
    once = apply_profile(face, CaptureProfile("q", jpeg=65), rng)
    twice = EDITS["jpeg_twice"].apply(face)
    assert np.abs(twice.astype(float) - face).mean() > 0.9 * np.abs(once.astype(float) - face).mean()
    grey = cv2.cvtColor(twice, cv2.COLOR_RGB2GRAY).astype(float)
    steps = np.abs(np.diff(grey, axis=1)).mean(0)
    # The last grid is rolled by four pixels: its edges lie at 3, 11, 19, ... and not at 7, 15, ...
    assert steps[3::8].mean() > steps[7::8].mean()


def test_an_unknown_edit_is_named() -> None:
    assert [edit.name for edit in edits_named([])] == list(EDITS)
    assert [edit.name for edit in edits_named(["sepia", "warm", "sepia"])] == ["sepia", "warm"]
    with pytest.raises(FFDError, match="Did you mean 'sepia'"):
        edits_named(["sepa"])
