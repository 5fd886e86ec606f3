"""The family `fill`: its linear model against the definition, its quilt, and that no pixel of a hole is read."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from ffd_continual.scenarios.faces import Face
from ffd_continual.scenarios.forging.contract import Forged
from ffd_continual.scenarios.forging.fill import HOLES, Fill, conditional, cut_hole, quilt
from ffd_continual.scenarios.forging.geometry import align, move
from ffd_continual.scenarios.studio.portrait import studio_faces


@functools.cache
def faces() -> list[Face]:
    return studio_faces(10, 1, 3, 96, 1)


def fitted() -> Fill:
    family = Fill()
    family.fit(faces()[:8], np.random.default_rng(0))
    return family


def test_conditional_is_the_gaussian_posterior() -> None:
    rng = np.random.default_rng(1)
    parts = np.linalg.qr(rng.normal(size=(30, 4)))[0].T
    mean, spread, noise = rng.normal(size=30), rng.uniform(0.5, 3, 4), 0.7
    values, known = rng.normal(size=30), rng.random(30) < 0.6
    centre, axes, widths, seen32 = (a.astype(np.float32) for a in (mean, parts, spread, values))
    middle, factor = conditional(centre, axes, widths, seen32, known, noise)
    # The same by conditioning the joint normal of coefficients and known pixels.
    prior = np.diag(spread**2)
    seen = parts[:, known]
    pixels = seen.T @ prior @ seen + noise**2 * np.eye(int(known.sum()))
    gain = prior @ seen @ np.linalg.inv(pixels)
    np.testing.assert_allclose(middle, gain @ (values - mean)[known], atol=1e-3)
    np.testing.assert_allclose(factor @ factor.T, prior - gain @ seen.T @ prior, atol=1e-3)


def test_quilt_finds_the_one_who_fits_and_keeps_off_what_may_not_be_used() -> None:
    rng = np.random.default_rng(2)
    people = rng.normal(0, 10, (6, 20, 24, 3)).astype(np.float32)
    usable = np.ones((6, 20, 24), np.float32)
    np.testing.assert_allclose(quilt(people[4], people, people, usable, 8, 4), people[4], atol=1e-3)
    usable[4] = 0
    assert np.abs(quilt(people[4], people, people, usable, 8, 4) - people[4]).mean() > 5


def test_nothing_under_the_hole_is_read() -> None:
    family, target = fitted(), faces()[9]
    inner, matrix = align(target, family.config.side)
    marks = move(target.landmarks, matrix)
    for name in HOLES:
        hole = cut_hole(marks, name, inner.shape[:2], 0.03, np.random.default_rng(0))
        assert 0.005 < (hole > 0).mean() < 0.35
        scratched = inner.copy()
        scratched[hole > 0] = np.random.default_rng(3).integers(0, 256, (int((hole > 0).sum()), 3))
        one, two = (family.paint(picture, hole, np.random.default_rng(4))[hole > 0] for picture in (inner, scratched))
        np.testing.assert_array_equal(one, two)


def test_fills_have_the_tone_of_their_surroundings() -> None:
    family = fitted()
    for target in faces()[8:]:
        inner, matrix = align(target, family.config.side)
        hole = cut_hole(move(target.landmarks, matrix), "left_cheek", inner.shape[:2], 0.03, np.random.default_rng(0))
        painted = family.paint(inner, hole, np.random.default_rng(1))[hole > 0].mean(0)
        assert np.abs(painted - inner[hole > 0].mean(0)).max() < 22


def test_the_seed_decides() -> None:
    family, target = fitted(), faces()[8]

    def forged(face: Face, others: Sequence[Face], seed: int) -> Forged:
        one = family.forge(face, others, np.random.default_rng(seed))
        assert one is not None
        return one

    made = [forged(target, [], seed) for seed in (1, 1, 2)]
    assert all(one.source_identity == "" for one in made)
    np.testing.assert_array_equal(made[0].image, made[1].image)
    assert (made[0].image != made[2].image).any()
    other = Face(target.image, target.landmarks, "nobody", "nothing")
    np.testing.assert_array_equal(forged(other, faces(), 1).image, made[0].image)
