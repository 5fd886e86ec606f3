"""The look of a source of pictures: measured from unpaired pictures, and given to pictures of another source."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from ffd_continual.scenarios.capture import CaptureProfile, apply_profile
from ffd_continual.scenarios.faces import Picture, is_grey
from ffd_continual.scenarios.look import Change, Look, changed, fit_change, jpeg_tables, look_of
from ffd_continual.scenarios.matching import BANDS

NIGHT = CaptureProfile("night", blur=1.0, noise=9, cast=(1.15, 1.0, 0.85), contrast=0.8)
NOTHING = Change(np.ones(3), np.zeros(3), np.ones(len(BANDS)), np.zeros((len(BANDS), 3)), None)


def _pictures(seed: int, count: int = 12, side: int = 64) -> list[Picture]:
    """Smooth shading with edges and texture, no two alike."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        noise = rng.normal(128, 90, (side // 8, side // 8, 3)).astype(np.float32)
        smooth = cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC)
        texture = np.zeros((side, side, 3), np.float32)
        texture[: side // 2] = rng.normal(0, 14, (side // 2, side, 1))
        found.append(np.clip(smooth + texture, 0, 255).astype(np.uint8))
    return found


def _through(pictures: list[Picture]) -> list[Picture]:
    return [apply_profile(p, NIGHT, np.random.default_rng(i)) for i, p in enumerate(pictures)]


def _distance(one: Look, two: Look) -> dict[str, float]:
    """How far two looks are apart: grey levels of mean and spread, decibels of grain and detail."""
    decibels = {
        name: float(np.abs(10 * np.log10((getattr(one, name) + 0.5) / (getattr(two, name) + 0.5))).mean())
        for name in ("grain", "detail")
    }
    levels = {name: float(np.abs(getattr(one, name) - getattr(two, name)).mean()) for name in ("mean", "spread")}
    return decibels | levels


def test_pictures_get_the_look_of_other_pictures_through_a_camera() -> None:
    own, others = _pictures(0), _through(_pictures(1))
    goal = look_of(others)
    change = fit_change(own, goal, None, np.random.default_rng(0))
    made = [changed(p, change, np.random.default_rng(i)) for i, p in enumerate(own)]
    before, after = _distance(look_of(own), goal), _distance(look_of(made), goal)
    for name in before:
        assert after[name] < max(0.4 * before[name], 1.0), (name, before, after)
    assert before["grain"] > 3  # the camera does change what is compared
    assert change.sharpness.mean() < 1 < change.noise.max()


def test_the_own_look_changes_next_to_nothing() -> None:
    own = _pictures(2)
    change = fit_change(own, look_of(own), None, np.random.default_rng(0))
    for number, picture in enumerate(own):
        made = changed(picture, change, np.random.default_rng(number))
        assert np.abs(made.astype(int) - picture).mean() < 1.5
    assert np.array_equal(changed(own[0], NOTHING, np.random.default_rng(0)), own[0])


def test_a_change_is_drawn_from_its_generator_and_keeps_grey_grey() -> None:
    picture = _pictures(3, 1)[0]
    noisy = Change(np.ones(3), np.array([4.0, 0, -4]), np.ones(len(BANDS)), np.full((len(BANDS), 3), 3.0), None)
    first, again = (changed(picture, noisy, np.random.default_rng(5)) for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, changed(picture, noisy, np.random.default_rng(6)))
    assert not is_grey(first)
    grey = np.repeat(picture[..., :1], 3, axis=2)
    assert is_grey(changed(grey, noisy, np.random.default_rng(5)))


def test_jpeg_tables_are_those_most_files_have(tmp_path: Path) -> None:
    pictures = _pictures(4, 4)
    for number, (picture, quality) in enumerate(zip(pictures, (35, 35, 90, 35), strict=True)):
        Image.fromarray(picture).save(tmp_path / f"{number}.jpg", quality=quality, subsampling=2)
    cv2.imwrite(str(tmp_path / "4.png"), pictures[0])
    files = sorted(tmp_path.iterdir())
    tables = jpeg_tables([*files, tmp_path / "missing.jpg"])
    assert tables is not None
    with Image.open(files[0]) as opened:
        wanted = opened.quantization  # type: ignore[attr-defined]
    assert tables == (tuple(tuple(wanted[key]) for key in sorted(wanted)), 2)
    assert jpeg_tables([tmp_path / "4.png"]) is None
    assert jpeg_tables([]) is None
    coded = changed(pictures[0], replace(NOTHING, tables=tables), np.random.default_rng(0))
    with Image.open(files[0]) as opened:
        assert np.abs(coded.astype(int) - np.asarray(opened)).max() <= 2  # the same file, but for the decoder


def test_without_pictures_there_is_no_look() -> None:
    with pytest.raises(ValueError, match="there are none"):
        look_of([])
