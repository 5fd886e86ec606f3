"""Residual statistics: the face goes, the noise stays, and it is told where it lies."""

from __future__ import annotations

import numpy as np
import pytest

from ffd_continual.detecting.residual import FILTERS, SHIFTS, STATISTICS, channels, regions, residual_statistics

SIDE = 64
EACH = 6 + len(SHIFTS)  # statistics of one filter on one channel


def face(seed: int, spread: float = 4.0) -> np.ndarray:
    return np.clip(np.random.default_rng(seed).normal(128, spread, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)


def test_a_slope_of_light_is_no_residual() -> None:
    plain = face(0)
    lit = (plain.astype(int) + np.linspace(-30, 30, SIDE).astype(int)[None, :, None]).clip(0, 255).astype(np.uint8)
    told = residual_statistics([plain, lit, face(0, 8.0)])
    assert told.shape == (3, STATISTICS)
    assert np.abs(lit.astype(float) - plain).mean() > 10
    square = 5 * EACH  # the large kernel on brightness
    assert told[1, square] == pytest.approx(told[0, square], abs=0.05)
    assert told[2, square] - told[0, square] == pytest.approx(np.log(2), abs=0.05)  # twice the noise, whatever the face


def test_noise_in_the_face_is_told_from_noise_around() -> None:
    inner, outer = regions(SIDE)
    assert not (inner & outer).any()
    assert inner[SIDE // 2, SIDE // 2]
    assert outer[0, 0]
    quiet, loud = face(1, 2.0), face(2, 10.0)
    within, around = (np.where(where[..., None], loud, quiet).astype(np.uint8) for where in (inner, outer))
    told = residual_statistics([quiet, within, around])
    square = 4 * EACH
    assert told[1, square] - told[0, square] > 1.0
    assert told[2, square + 3] - told[0, square + 3] > 1.0
    assert abs(told[2, square] - told[0, square]) < 0.05


def test_moments_and_correlations_against_loops() -> None:
    picture = face(3)
    told = residual_statistics([picture])[0]
    plane, (inner, outer) = channels(picture)[0], regions(SIDE)
    left = np.zeros_like(plane)
    left[:, 1:] = plane[:, 1:] - plane[:, :-1]  # what OpenCV's anchor makes of the kernel [-1, 1]
    assert FILTERS[0].tolist() == [[-1.0, 1.0]]
    spread = np.sqrt((left[inner] ** 2).mean())
    assert told[0] == pytest.approx(np.log(spread + 1e-3), rel=1e-4)
    assert told[3] == pytest.approx(np.log(np.sqrt((left[outer][left[outer] != 0] ** 2).mean())), abs=0.1)
    pairs = [
        left[y, x] * left[y, x + 1] for y in range(SIDE) for x in range(SIDE - 1) if inner[y, x] and inner[y, x + 1]
    ]
    assert told[6] == pytest.approx(np.mean(pairs) / spread**2, abs=1e-3)
    assert told[6] == pytest.approx(-0.5, abs=0.05)  # differences of white noise
    assert residual_statistics([]).shape == (0, STATISTICS)
