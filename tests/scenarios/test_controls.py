"""The controls find what they are made for, and nothing where there is nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from ffd_continual.scenarios.controls import (
    blockiness,
    border_probe,
    sample_people,
    separation,
    shallow_baselines,
    shallow_features,
)
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.manifest import Manifest, write_manifest
from ffd_continual.scenarios.pictures import write_mask, write_picture


def picture(seed: int, size: int = 64) -> np.ndarray:
    rng = np.random.default_rng(seed)
    base = cv2.resize(rng.uniform(0, 255, (5, 5, 3)).astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
    return np.clip(base + rng.normal(0, rng.uniform(5, 9), (size, size, 1)), 0, 255).astype(np.uint8)


def dataset(folder: Path, forge: Callable[[np.ndarray], np.ndarray], people: int = 40) -> Manifest:
    rows = []
    mask = np.zeros((64, 64), np.uint8)
    mask[20:44, 20:44] = 255
    write_mask(folder / "mask.png", mask)
    for person in range(people):
        image = picture(person)
        for forgery, shown in (("real", image), ("thing", forge(image.copy()))):
            path = f"{forgery}/{person}.png"
            write_picture(folder / path, shown)
            named = {"path": path, "label": int(forgery != "real"), "forgery": forgery, "identity": f"p{person}"}
            rows.append({**named, "mask": "mask.png" if forgery != "real" else ""})
    return write_manifest(pd.DataFrame(rows), folder / "manifest.csv")


def patch(image: np.ndarray) -> np.ndarray:
    """A forgery that leaves all statistics: the middle turned by half."""
    image[20:44, 20:44] = image[20:44, 20:44][::-1, ::-1]
    return image


def mirror(image: np.ndarray) -> np.ndarray:
    """Changes every pixel, and no statistic of the picture."""
    return np.ascontiguousarray(image[:, ::-1])


def blur(image: np.ndarray) -> np.ndarray:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), 1.5))


def tinted_edge(image: np.ndarray) -> np.ndarray:
    image[:6] = np.clip(image[:6].astype(int) + [90, -60, 0], 0, 255)
    return image


def test_blocks_raise_blockiness_and_only_on_their_grid() -> None:
    smooth = picture(0)
    grey = cv2.imdecode(cv2.imencode(".jpg", blur(smooth), [cv2.IMWRITE_JPEG_QUALITY, 8])[1], 0)
    assert grey is not None
    coded = grey.astype(np.float32)
    assert blockiness(coded) > 0.5
    assert blockiness(np.roll(coded, 4, (0, 1))) < 0
    assert abs(blockiness(smooth[..., 0].astype(np.float32))) < 0.15


def test_features_follow_blur_and_colour() -> None:
    image = picture(1)
    grey = np.repeat(np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)[..., None], 3, 2)
    sharp, soft, pale = (shallow_features(one) for one in (image, blur(image), grey))
    assert soft["sharpness"] < sharp["sharpness"] - 1
    assert soft["high_pass_centre"] < sharp["high_pass_centre"] - 1
    assert pale["saturation"] == pale["saturation_centre"] == 0 < sharp["saturation"]


def test_blurred_forgeries_are_found_and_honest_ones_are_not(tmp_path: Path) -> None:
    found = shallow_baselines(dataset(tmp_path / "blur", blur)).set_index(["feature", "region"])["auc"]
    assert found["sharpness", "picture"] > 0.95
    assert found["joint", "both"] > 0.95
    honest = shallow_baselines(dataset(tmp_path / "mirror", mirror)).set_index(["feature", "region"])["auc"]
    assert 0.5 <= honest.min() <= honest.max() < 0.7


def test_border_probe_sees_the_border_only(tmp_path: Path) -> None:
    assert border_probe(dataset(tmp_path / "edge", tinted_edge))["thing"] > 0.95
    assert border_probe(dataset(tmp_path / "patch", patch))["thing"] < 0.65


def test_separation_is_by_person_and_survives_few_people() -> None:
    rng = np.random.default_rng(0)
    people = np.repeat([f"p{i}" for i in range(20)], 4)
    labels = np.tile([0, 1], 40)
    leak = np.repeat(rng.normal(0, 1, (20, 1)), 4, 0)  # knows the person, not the label
    assert separation(leak, labels, people) < 0.65
    assert separation(-labels[:, None] + rng.normal(0, 0.1, (80, 1)), labels, people) > 0.99
    assert np.isnan(separation(leak[:8], labels[:8], people[:8]))


def test_subsample_takes_whole_people(tmp_path: Path) -> None:
    manifest = dataset(tmp_path, patch)
    rows = sample_people(manifest, 30)
    assert 20 <= len(rows) <= 32
    assert set(rows["person"].value_counts()) == {2}
    assert sample_people(manifest, 30, seed=1)["person"].tolist() != rows["person"].tolist()


def test_without_forged_faces_there_is_nothing_to_control(tmp_path: Path) -> None:
    manifest = dataset(tmp_path, patch, people=4)
    table = manifest.table[manifest.table["label"] == 0]
    with pytest.raises(FFDError, match="real and forged"):
        shallow_baselines(write_manifest(table, tmp_path / "only.csv"))
