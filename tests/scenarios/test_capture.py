from __future__ import annotations

import time
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from ffd_continual.config import read_yaml
from ffd_continual.scenarios.capture import (
    PROFILES,
    CaptureProfile,
    apply_profile,
    h264_frame,
    named_profile,
    profile_from_mapping,
    randomised,
)
from ffd_continual.scenarios.errors import FFDError


def picture(height: int = 128, width: int = 128, grey: bool = False) -> NDArray[np.uint8]:
    rng = np.random.default_rng(5)
    coarse = rng.uniform(20, 235, (height // 4 + 1, width // 4 + 1, 3)).astype(np.float32)
    image = np.clip(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), 0, 255).astype(np.uint8)
    if grey:
        image[...] = image[..., :1]
    return image


@pytest.mark.parametrize("name", list(PROFILES))
def test_every_camera_is_deterministic_keeps_size_and_changes_the_picture(name: str) -> None:
    image = picture(96, 81)
    before = image.copy()
    one = apply_profile(image, PROFILES[name], np.random.default_rng(3))
    two = apply_profile(image, PROFILES[name], np.random.default_rng(3))
    assert one.shape == image.shape
    assert one.dtype == np.uint8
    assert np.array_equal(one, two)
    assert not np.array_equal(one, image)
    assert np.array_equal(image, before)


@pytest.mark.parametrize("name", list(PROFILES))
def test_grey_pictures_stay_grey(name: str) -> None:
    out = apply_profile(picture(grey=True), PROFILES[name], np.random.default_rng(0))
    assert np.array_equal(out[..., 0], out[..., 1])
    assert np.array_equal(out[..., 1], out[..., 2])


def test_the_empty_profile_is_the_identity_and_copies() -> None:
    image = picture()
    out = apply_profile(image, CaptureProfile("none"), np.random.default_rng(0))
    assert np.array_equal(out, image)
    assert out is not image


def test_each_parameter_does_what_its_name_says() -> None:
    image = picture()
    flat = np.full((64, 64, 3), 128, np.uint8)

    def apply(source: NDArray[np.uint8], **values: Any) -> NDArray[np.float64]:
        return apply_profile(source, CaptureProfile("x", **values), np.random.default_rng(1)).astype(float)

    def sharpness(a: NDArray[np.float64]) -> float:
        return float(cv2.Laplacian(a.mean(axis=2), cv2.CV_64F).var())

    assert sharpness(apply(image, blur=1.5)) < 0.5 * sharpness(image.astype(float))
    assert sharpness(apply(image, resolution=24)) < 0.5 * sharpness(image.astype(float))
    assert apply(flat, noise=8).std() == pytest.approx(8, rel=0.05)
    tinted = flat.copy()
    tinted[..., 0] = 100
    assert apply(tinted, cast=(1.2, 1.0, 0.8))[0, 0] == pytest.approx([120, 128, 102], abs=1)
    assert apply(flat, gamma=2.0)[0, 0, 0] == pytest.approx(255 * (128 / 255) ** 2, abs=1)
    assert apply(image, contrast=0.5).std() == pytest.approx(0.5 * image.std(), rel=0.05)
    assert np.ptp(apply(image, saturation=0.0), axis=2).max() <= 1
    coarse = np.abs(apply(image, jpeg=10) - image).mean()
    assert coarse > np.abs(apply(image, jpeg=95) - image).mean() > 0


def test_noise_grows_with_the_light() -> None:
    profile = CaptureProfile("x", noise=6)
    dark, bright = (
        apply_profile(np.full((64, 64, 3), level, np.uint8), profile, np.random.default_rng(0)).std()
        for level in (40, 210)
    )
    assert bright > 1.3 * dark


def test_h264_loses_more_at_a_higher_crf_and_handles_odd_sides() -> None:
    image = picture(65, 51)
    fine, coarse = (np.abs(h264_frame(image, crf).astype(float) - image).mean() for crf in (10, 45))
    assert h264_frame(image, 30).shape == image.shape
    assert fine < coarse
    assert fine < 20


def test_jitter_makes_a_camera_a_distribution_centred_on_it() -> None:
    base = CaptureProfile("x", blur=1.0, noise=5, jpeg=60, resolution=64, crf=30, gamma=1.2, jitter=0.2)
    rng = np.random.default_rng(0)
    drawn = [randomised(base, rng) for _ in range(300)]
    assert len({p.noise for p in drawn}) > 200
    assert np.median([p.noise for p in drawn]) == pytest.approx(5, rel=0.1)
    assert np.median([p.jpeg for p in drawn]) == pytest.approx(60, abs=3)
    assert np.std([np.log(p.blur) for p in drawn]) == pytest.approx(0.2, rel=0.2)
    assert {p.jitter for p in drawn} == {0.0}
    off = randomised(CaptureProfile("off", jitter=0.3), rng)
    assert (off.resolution, off.blur, off.noise, off.jpeg, off.crf) == (0, 0, 0, 0, None)


def test_profiles_are_immutable_and_include_the_four_benchmark_cameras() -> None:
    assert len(PROFILES) >= 8
    assert {"camera1", "camera2", "camera3", "camera4"} <= set(PROFILES)
    assert len({tuple(vars(p).values())[1:] for p in PROFILES.values()}) == len(PROFILES)
    with pytest.raises(TypeError):
        PROFILES["new"] = CaptureProfile("new")  # type: ignore[index]


def test_mappings_are_strict_and_teach() -> None:
    made = profile_from_mapping("mine", {"like": "camera3", "jpeg": 50, "cast": [1.0, 1, 0.9], "jitter": 0.1})
    assert (made.name, made.resolution, made.jpeg, made.cast) == ("mine", 72, 50, (1.0, 1.0, 0.9))
    with pytest.raises(FFDError, match="Did you mean 'noise'"):
        profile_from_mapping("mine", {"nois": 3})
    with pytest.raises(FFDError, match="whole number"):
        profile_from_mapping("mine", {"jpeg": 50.5})
    with pytest.raises(FFDError, match="three gains"):
        profile_from_mapping("mine", {"cast": [1, 2]})
    with pytest.raises(FFDError, match="not a number"):
        profile_from_mapping("mine", {"blur": True})
    with pytest.raises(FFDError, match="outside 0 to 100"):
        profile_from_mapping("mine", {"jpeg": 101})
    with pytest.raises(FFDError, match="Did you mean 'camera1'"):
        named_profile("camera11")
    with pytest.raises(FFDError, match="uint8"):
        apply_profile(np.zeros((4, 4), np.uint8), CaptureProfile("x"), np.random.default_rng(0))


def test_a_camera_without_video_is_fast() -> None:
    image, rng = picture(), np.random.default_rng(0)
    apply_profile(image, PROFILES["camera4"], rng)
    times = []
    for _ in range(15):
        start = time.perf_counter()
        apply_profile(image, PROFILES["camera2"], rng)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.010


def test_the_cameras_configuration_has_h264_and_jpeg_domains() -> None:
    """One camera a forgery, at least one of each codec, and unseen faces through all of them."""
    scenario = read_yaml("portraits_cameras")["scenario"]
    cameras = [named_profile(scenario["profiles"][name]) for name in scenario["order"]]
    assert len({camera.name for camera in cameras}) == len(scenario["order"]) == 4
    assert any(camera.crf is not None for camera in cameras)
    assert any(camera.jpeg for camera in cameras)
    assert scenario["profiles"]["*"] == "mixed"


def test_a_webcam_loses_detail_but_not_the_face() -> None:
    """Discs 10 px wide, as eyes are in a crop of 128 px, stay dark, and the whole stays near what it was."""
    image = np.full((128, 128, 3), 190, np.uint8)
    for x in (40, 60, 80):
        cv2.circle(image, (x, 56), 5, (60, 50, 50), -1)
    seen = apply_profile(image, named_profile("webcam"), np.random.default_rng(0)).astype(float)
    assert seen[50:62, 36:45].mean() < seen[20:40, 20:108].mean() - 60
    assert 0.5 < np.abs(seen - image).mean() < 20
