"""Perturbed faces: each does what its name says, more with each severity, and the same for the same face."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from ffd_continual.scenarios.capture import h264_frame
from ffd_continual.scenarios.controls import blockiness
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.perturb import PERTURBATIONS, RobustnessConfig, chosen
from ffd_continual.scenarios.studio.portrait import studio_faces

Picture = np.ndarray


@pytest.fixture(scope="module")
def face() -> Picture:
    return cv2.resize(studio_faces(1, 1, 0, 192, 1)[0].image, (96, 96), interpolation=cv2.INTER_AREA)


def fine(picture: Picture) -> float:
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return float(cv2.Laplacian(grey, cv2.CV_32F).std())


def spread(picture: Picture) -> float:
    return float(picture.astype(np.float32).std())


def colourfulness(picture: Picture) -> float:
    return float((picture.max(2).astype(int) - picture.min(2)).mean())


def covered(picture: Picture) -> float:
    return float((picture == 128).all(2).mean())


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_each_severity_is_further_from_the_clean_face(name: str, face: Picture) -> None:
    one = PERTURBATIONS[name]
    made = [one.apply(face, setting, 3, 17) for setting in one.settings]
    for picture in made:
        assert picture.dtype == np.uint8
        assert picture.shape == face.shape
    errors = [float(((picture.astype(float) - face) ** 2).mean()) for picture in made]
    assert all(a < b for a, b in zip([0.0, *errors], errors, strict=False)), errors
    assert np.array_equal(made[2], one.apply(face, one.settings[2], 3, 17))


@pytest.mark.parametrize(
    ("name", "measure", "grows"),
    [
        ("jpeg", lambda p: blockiness(cv2.cvtColor(p, cv2.COLOR_RGB2GRAY).astype(np.float32)), True),
        ("blur", fine, False),
        ("noise", fine, True),
        ("resize", fine, False),
        ("saturation", colourfulness, False),
        ("contrast", spread, False),
        ("cutout", covered, True),
    ],
)
def test_it_does_what_its_name_says(name: str, measure: Callable[[Picture], float], grows: bool, face: Picture) -> None:
    settings = PERTURBATIONS[name].settings
    mild, strong = (measure(PERTURBATIONS[name].apply(face, settings[i], 0, 5)) for i in (0, 4))
    assert (strong > mild) == grows
    assert (strong > measure(face)) == grows


def test_h264_is_the_real_encoder_at_the_crf(face: Picture) -> None:
    for crf in PERTURBATIONS["h264"].settings:
        assert np.array_equal(PERTURBATIONS["h264"].apply(face, crf, 0, 0), h264_frame(face, int(crf)))
    assert PERTURBATIONS["h264"].settings[0] == 23
    assert PERTURBATIONS["h264"].settings[-1] == 40


def test_the_square_has_its_size_lies_inside_and_hangs_on_the_row(face: Picture) -> None:
    cutout = PERTURBATIONS["cutout"]
    places = set()
    for row in range(20):
        changed = (cutout.apply(face, 0.3, 0, row) != face).any(2)
        down, across = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        assert down[-1] - down[0] < round(0.3 * 96) + 1
        assert across[-1] - across[0] < round(0.3 * 96) + 1
        assert covered(cutout.apply(face, 0.3, 0, row)) == pytest.approx((29 / 96) ** 2, abs=0.005)
        places.add((int(down[0]), int(across[0])))
    assert len(places) > 15
    assert (cutout.apply(face, 1.0, 0, 0) == 128).all()


def test_noise_is_a_function_of_seed_and_row_alone(face: Picture) -> None:
    noise = PERTURBATIONS["noise"]
    first = noise.apply(face, 10, 1, 2)
    assert np.array_equal(first, noise.apply(face, 10, 1, 2))
    assert not np.array_equal(first, noise.apply(face, 10, 1, 3))
    assert not np.array_equal(first, noise.apply(face, 10, 2, 2))
    # The same grain at every severity: what is added at 10 is about half of what is added at 20.
    mild, strong = (noise.apply(face, s, 1, 2).astype(float) - face for s in (10, 20))
    assert np.corrcoef(mild.ravel(), strong.ravel())[0, 1] > 0.95


def test_blur_grows_with_the_face(face: Picture) -> None:
    blur = PERTURBATIONS["blur"]
    large = np.asarray(cv2.resize(face, (192, 192), interpolation=cv2.INTER_CUBIC), np.uint8)
    small = blur.apply(face, 1.8, 0, 0)
    shrunk = cv2.resize(blur.apply(large, 1.8, 0, 0), (96, 96), interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(float) - shrunk).mean() < 0.1 * np.abs(small.astype(float) - face).mean()


def test_what_is_chosen_and_what_is_refused() -> None:
    assert [p.name for p, _ in chosen(RobustnessConfig())] == list(PERTURBATIONS)
    ((one, settings),) = chosen(RobustnessConfig(("jpeg",), {"jpeg": (95.0, 80.0, 60.0, 40.0, 20.0)}))
    assert (one.name, settings) == ("jpeg", (95.0, 80.0, 60.0, 40.0, 20.0))
    with pytest.raises(FFDError, match="Did you mean 'h264'"):
        chosen(RobustnessConfig(("h246",)))
    for wrong in ((1.0, 2.0), (90.0, 70.0, 50.0, 30.0, 0.0), (90.0, 70.0, 50.0, 30.0, float("nan"))):
        with pytest.raises(FFDError, match="5 numbers from 1 to 100"):
            chosen(RobustnessConfig(("jpeg",), {"jpeg": wrong}))
    with pytest.raises(FFDError, match="people"):
        chosen(RobustnessConfig(people=-1))
