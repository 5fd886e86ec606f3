"""Views: one geometry for picture and mask, the same answer for the same draw."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ffd_continual.scenarios.views import ViewConfig, draw_view, keyed_generator, to_planes

OFF = ViewConfig(flip=0, shift=0, zoom=0, rotate=0, colour=0, blur=0, jpeg=0, noise=0)


def _square(side: int = 64) -> np.ndarray:
    mask = np.zeros((side, side), np.uint8)
    mask[10:30, 36:52] = 255
    return mask


def test_everything_off_is_the_identity() -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    view = draw_view(OFF, 32, np.random.default_rng(1))
    assert (view.apply(image) == image).all()
    assert (view.geometry(image[..., 0]) == image[..., 0]).all()


def test_the_mask_follows_the_picture() -> None:
    config = ViewConfig(flip=0.5, shift=0.1, zoom=0.2, rotate=20, colour=0, blur=0, jpeg=0, noise=0)
    mask = _square()
    moved = 0
    for seed in range(20):
        view = draw_view(config, 64, np.random.default_rng(seed))
        picture = view.apply(np.repeat(mask[..., None], 3, 2))
        assert (picture[..., 0] == view.geometry(mask)).all()
        moved += int((view.geometry(mask) != mask).any())
    assert moved == 20


def test_a_flip_mirrors_and_a_shift_shifts() -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    flipped = draw_view(dataclasses.replace(OFF, flip=1.0), 32, np.random.default_rng(1)).apply(image)
    assert (flipped == image[:, ::-1]).all()
    view = draw_view(dataclasses.replace(OFF, shift=0.25), 32, np.random.default_rng(1))
    dx, dy = view.matrix[:, 2]
    assert abs(dx) <= 8
    assert abs(dy) <= 8
    ys, xs = np.mgrid[0:32, 0:32].astype(float)
    moved = view.geometry((xs * 4).astype(np.uint8))  # a ramp tells how far it went
    assert np.median(moved[:, 12:20].astype(float) - xs[:, 12:20] * 4) == pytest.approx(-4 * dx, abs=1.0)


@pytest.mark.parametrize("seed", [0, 7])
def test_the_same_draw_gives_the_same_bytes(seed: int) -> None:
    config = ViewConfig(blur=1.0, jpeg=1.0, noise=1.0)
    image = np.random.default_rng(3).integers(0, 256, (48, 48, 3), np.uint8)
    view = draw_view(config, 48, keyed_generator(seed, 1))
    again = draw_view(config, 48, keyed_generator(seed, 1))
    assert view.apply(image).tobytes() == view.apply(image).tobytes() == again.apply(image).tobytes()
    assert draw_view(config, 48, keyed_generator(seed, 2)).apply(image).tobytes() != view.apply(image).tobytes()


def test_the_number_of_draws_is_fixed() -> None:
    after = []
    for config in (OFF, ViewConfig(), ViewConfig(flip=1, blur=1, jpeg=1, noise=1)):
        rng = np.random.default_rng(5)
        draw_view(config, 64, rng)
        after.append(rng.random())
    assert len(set(after)) == 1


def test_switches_and_ranges() -> None:
    views = [draw_view(ViewConfig(), 64, np.random.default_rng(s)) for s in range(400)]
    shares = {name: np.mean([getattr(v, name) > 0 for v in views]) for name in ("blur", "jpeg", "noise")}
    assert shares == pytest.approx({"blur": 0.1, "jpeg": 0.2, "noise": 0.1}, abs=0.06)
    assert all(0.3 <= v.blur <= 0.9 for v in views if v.blur)
    assert all(50 <= v.jpeg <= 95 for v in views if v.jpeg)
    assert all(1 <= v.noise <= 5 for v in views if v.noise)
    assert all(0.88 <= gain <= 1.12 for v in views for gain in v.gains)
    assert np.mean([np.linalg.det(v.matrix[:, :2]) < 0 for v in views]) == pytest.approx(0.5, abs=0.1)


def test_gains_move_mean_and_spread() -> None:
    image = np.random.default_rng(0).integers(80, 160, (32, 32, 3), np.uint8)
    neutral = draw_view(OFF, 32, np.random.default_rng(0))
    bright = dataclasses.replace(neutral, gains=(1.2, 1.0, 1.0)).apply(image)
    assert bright.mean() == pytest.approx(1.2 * image.mean(), rel=0.01)
    flat = dataclasses.replace(neutral, gains=(1.0, 0.5, 1.0)).apply(image)
    assert flat.std() == pytest.approx(0.5 * image.std(), rel=0.05)
    grey = dataclasses.replace(neutral, gains=(1.0, 1.0, 0.0)).apply(image)
    assert (np.ptp(grey, axis=2) <= 1).all()


def test_keys_tell_streams_apart() -> None:
    drawn = {keyed_generator(*key).random() for key in [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (-1, 0), (0, -1)]}
    assert len(drawn) == 7
    assert keyed_generator(3, 4).random() == keyed_generator(3, 4).random()


def test_planes() -> None:
    images = [np.full((2, 2, 3), value, np.uint8) for value in (0, 255)]
    images[0][0, 1] = (51, 102, 255)
    planes = to_planes(images)
    assert planes.shape == (2, 3, 2, 2)
    assert planes.dtype == np.float32
    assert planes[0, :, 0, 1].tolist() == pytest.approx([0.2, 0.4, 1.0])
    assert to_planes([_square(), _square()]).shape == (2, 1, 64, 64)
