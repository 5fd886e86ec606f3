"""Masks from pairs: slow loops, a case by hand, JPEG noise, and what a run's face table makes of them."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from ffd_continual.config import config_from
from ffd_continual.runs.assemble import assemble
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.manifest import read_manifest
from ffd_continual.scenarios.streams import ScenarioConfig, build_scenario
from ffd_continual.scenarios.table import FaceTable, prepare_table
from ffd_continual.scenarios.traces import difference_mask, ssim_mask


def _texture(side: int, seed: int = 0) -> np.ndarray:
    """Smooth in places, busy in others, as faces are."""
    rng = np.random.default_rng(seed)
    smooth = cv2.GaussianBlur(rng.uniform(0, 255, (side, side, 3)).astype(np.float32), (0, 0), 4)
    smooth = (smooth - smooth.mean()) * 3 + 128
    busy = rng.normal(0, 5, (side, side, 3)) * (np.arange(side) > side // 2)[None, :, None]
    return np.asarray(np.clip(smooth + busy, 0, 255).astype(np.uint8))


def _mirror(i: int, size: int) -> int:
    return -i - 1 if i < 0 else 2 * size - 1 - i if i >= size else i


def _slow_components(mask: list[list[int]], value: int, corners: bool) -> list[list[tuple[int, int]]]:
    height, width = len(mask), len(mask[0])
    near = [(0, 1), (1, 0), (0, -1), (-1, 0)] + ([(1, 1), (1, -1), (-1, 1), (-1, -1)] if corners else [])
    left = {(y, x) for y in range(height) for x in range(width) if mask[y][x] == value}
    found = []
    while left:
        part, edge = [], [left.pop()]
        while edge:
            y, x = edge.pop()
            part.append((y, x))
            for dy, dx in near:
                if (y + dy, x + dx) in left:
                    left.discard((y + dy, x + dx))
                    edge.append((y + dy, x + dx))
        found.append(part)
    return found


def _slow_mask(change: list[list[float]], least: float, multiple: float, most: float) -> np.ndarray:
    height, width = len(change), len(change[0])
    cut = max(least, min(multiple * median(v for line in change for v in line), most))
    mask = [[int(v > cut) for v in line] for line in change]
    grain = height * width // 256
    for part in _slow_components(mask, 0, corners=False):
        inside = all(0 < y < height - 1 and 0 < x < width - 1 for y, x in part)
        if inside and len(part) <= grain:
            for y, x in part:
                mask[y][x] = 1
    for part in _slow_components(mask, 1, corners=True):
        if len(part) < grain:
            for y, x in part:
                mask[y][x] = 0
    return np.array(mask, np.uint8) * 255


def _window(plane: np.ndarray, y: int, x: int) -> list[float]:
    height, width = plane.shape
    return [float(plane[_mirror(y + dy, height), _mirror(x + dx, width)]) for dy in range(-2, 3) for dx in range(-2, 3)]


def _slow_difference(image: np.ndarray, pair: np.ndarray) -> list[list[float]]:
    apart = np.array(
        [[max(abs(int(a) - int(b)) for a, b in zip(p, q, strict=True)) for p, q in zip(r, s, strict=True)]
         for r, s in zip(image, pair, strict=True)]
    )  # fmt: skip
    return [[sum(_window(apart, y, x)) / 25 for x in range(apart.shape[1])] for y in range(apart.shape[0])]


def _slow_ssim(image: np.ndarray, pair: np.ndarray) -> list[list[float]]:
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    lines = []
    for y in range(image.shape[0]):
        line = []
        for x in range(image.shape[1]):
            total = 0.0
            for c in range(3):
                a, b = _window(image[..., c], y, x), _window(pair[..., c], y, x)
                ma, mb = sum(a) / 25, sum(b) / 25
                va, vb = sum((v - ma) ** 2 for v in a) / 25, sum((v - mb) ** 2 for v in b) / 25
                ab = sum((v - ma) * (w - mb) for v, w in zip(a, b, strict=True)) / 25
                total += (2 * ma * mb + c1) * (2 * ab + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
            line.append(1 - total / 3)
        lines.append(line)
    return lines


def _forged(side: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A patch with a hole, a lone pixel, and grain everywhere."""
    pair = _texture(side, seed)
    rng = np.random.default_rng(seed + 1)
    change = rng.normal(0, 1.2, pair.shape)
    change[8:24, 6:26] += rng.normal(0, 30, (16, 20, 3))
    change[14:19, 13:18] = 0
    change[3, 33] += 60
    return np.clip(pair + change, 0, 255).astype(np.uint8), pair


@pytest.mark.parametrize("seed", [0, 3])
def test_masks_are_those_of_slow_loops(seed: int) -> None:
    image, pair = _forged(40, seed)
    by_difference = _slow_mask(_slow_difference(image, pair), 1.5, 2.5, 12.0)
    by_ssim = _slow_mask(_slow_ssim(image, pair), 5 / 255, 3.0, 0.5)
    assert (difference_mask(image, pair) == by_difference).all()
    # float32 against float64: a pixel at the very threshold may fall on the other side
    assert ((ssim_mask(image, pair) != by_ssim).sum()) <= 2
    assert 200 < (by_difference > 0).sum() < 600
    assert by_difference.dtype == difference_mask(image, pair).dtype == np.uint8


def test_one_block_worked_by_hand() -> None:
    """A 4 x 4 block of grey 100 becomes 106. A window that covers n of its pixels has the mean difference 6 n / 25.

    That is above 1.5 from n = 7 on (6 * 7 / 25 = 1.68), so of the 8 x 8 windows that touch the block those with
    n = rows x columns >= 7 are marked; rows and columns run 1 2 3 4 4 3 2 1, so by rows: 1 none (1 x 4 = 4), 2 those
    with 4 columns, 3 with 3 or 4, 4 with 2, 3 or 4: 2 * (0 + 2 + 4 + 6) = 24 pixels. The SSIM of a whole window
    inside the block: luminance (2 * 100 * 106 + 6.5) / (100^2 + 106^2 + 6.5) = .9983, structure 1: nothing.
    """
    pair = np.full((48, 48, 3), 100, np.uint8)
    image = pair.copy()
    image[20:24, 20:24] = 106
    mask = difference_mask(image, pair)
    cover = [1, 2, 3, 4, 4, 3, 2, 1]
    wanted = np.zeros((48, 48), np.uint8)
    wanted[18:26, 18:26] = [[255 * (r * c >= 7) for c in cover] for r in cover]
    assert (wanted > 0).sum() == 24
    assert (mask == wanted).all()
    image = pair.copy()
    image[:] = 106
    assert not ssim_mask(image, pair).any()
    assert not difference_mask(image, pair).any()  # the same everywhere is noise: threshold min(2.5 * 6, 12) = 12
    image[:] = 113
    assert (difference_mask(image, pair) == 255).all()  # but not more than 12


def test_jpeg_noise_does_not_light_up() -> None:
    """Two files of one picture, compressed apart: hardly a pixel. With a forgery: its place, and little else."""
    pair = _texture(128, 5)
    image = pair.copy()
    image[40:80, 30:90] = _texture(128, 9)[40:80, 30:90]

    def jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
        _, code = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
        return np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR), np.uint8)

    for first, second in ((95, 95), (90, 75), (75, 50)):
        assert (difference_mask(jpeg(pair, first), jpeg(pair, second)) > 0).mean() < 0.02
        mask = difference_mask(jpeg(image, first), jpeg(pair, second)) > 0
        assert mask[42:78, 32:88].mean() > 0.9
        outside = mask.copy()
        outside[32:88, 22:98] = False
        assert outside.mean() < 0.02
    assert not ssim_mask(jpeg(pair, 95), jpeg(pair, 95)).any()


def test_masks_follow_mirroring_and_need_one_size() -> None:
    image, pair = _forged(40, 1)
    for measure in (difference_mask, ssim_mask):
        plain, turned = measure(image, pair), measure(image[:, ::-1].copy(), pair[:, ::-1].copy())
        assert (turned[:, ::-1] != plain).sum() <= 2
        assert not measure(pair, pair).any()
        with pytest.raises(FFDError, match="40 x 40 pixels, its pair 20 x 20"):
            measure(image, pair[:20, :20])


# In a run -----------------------------------------------------------------------------------------------------------


def _rows(manifest: Path, folder: Path, edit: Any) -> Path:
    """The tiny manifest with absolute paths, changed by `edit`."""
    table = pd.read_csv(manifest).fillna("")
    for column in ("path", "mask", "pair"):
        table[column] = [str(manifest.parent / p) if p else "" for p in table[column]]
    edit(table)
    path = folder / "manifest.csv"
    table.to_csv(path, index=False)
    return path


def _table(manifest: Path, cache: Path | None = None, **settings: Any) -> FaceTable:
    config = ScenarioConfig(data=str(manifest), order=("alpha", "beta"), unseen=("gamma",), **settings)
    scenario = build_scenario(read_manifest(manifest), config)
    return prepare_table(
        scenario.rows, scenario.names, 48, 0, {}, need_mask=True, cache=cache,
        masks=config.masks, relabel_below=config.relabel_below,
    )  # fmt: skip


def test_masks_come_from_where_the_scenario_says(tiny_faces: Path, tmp_path: Path) -> None:
    def without_alpha(table: pd.DataFrame) -> None:
        table.loc[table["forgery"] == "alpha", "mask"] = ""
        table.loc[table["forgery"] == "gamma", ["mask", "pair"]] = ""

    manifest = _rows(tiny_faces, tmp_path, without_alpha)
    tables = {source: _table(manifest, tmp_path, masks=source) for source in ("auto", "manifest", "difference", "ssim")}
    rows = {name: np.flatnonzero(tables["auto"].rows["forgery"] == name) for name in ("real", "alpha", "beta", "gamma")}

    def known(source: str, name: str) -> set[bool]:
        return set(tables[source].mask_known[tables[source].slot[rows[name]]].tolist())

    def masks(source: str, name: str) -> np.ndarray:
        return np.asarray(tables[source].masks[tables[source].slot[rows[name]]])

    for source, table in tables.items():
        assert known(source, "real") == {True}
        assert not masks(source, "real").any()
        assert known(source, "gamma") == {False}
        assert known(source, "beta") == {True}
        assert known(source, "alpha") == {source != "manifest"}
        assert table.pairs.shape == (0,)
    first = rows["alpha"][0]
    files = [tables["auto"].rows[c].iloc[first] for c in ("path", "pair")]
    image, pair = (np.asarray(cv2.imread(file), np.uint8)[..., ::-1] for file in files)
    assert (masks("auto", "alpha")[0] == difference_mask(image, pair)).all()
    assert (masks("ssim", "alpha")[0] == ssim_mask(image, pair)).all()
    assert (masks("auto", "beta") == masks("manifest", "beta")).all()
    assert (masks("difference", "beta") != masks("manifest", "beta")).any()
    assert (masks("ssim", "beta") != masks("difference", "beta")).any()
    true = masks("manifest", "beta") > 0  # the stripe lies inside what the difference finds
    assert (masks("difference", "beta") > 0)[true].mean() > 0.95
    with pytest.raises(FFDError, match=r"scenario\.masks must be one of auto, manifest, difference, ssim, not 'none'"):
        _table(manifest, masks="none")


def test_nearly_empty_masks_make_training_faces_real(tiny_faces: Path, tmp_path: Path) -> None:
    """p000 (train) and p015 (valid) of alpha have 6 forged pixels, p001 has 8: below 8 is one training face."""

    def few(table: pd.DataFrame) -> None:
        for person, count in (("p000", 6), ("p015", 6), ("p001", 8)):
            mask = np.zeros((48, 48), np.uint8)
            mask[20, 10 : 10 + count] = 255
            cv2.imwrite(str(tmp_path / f"{person}.png"), mask)
            hit = (table["identity"] == person) & (table["forgery"] == "alpha")
            table.loc[hit, "mask"] = str(tmp_path / f"{person}.png")

    manifest = _rows(tiny_faces, tmp_path, few)
    plain = _table(manifest, tmp_path)
    for _ in range(2):  # the second time from the cache
        table = _table(manifest, tmp_path, relabel_below=8)
        changed = np.flatnonzero(table.rows["label"] != plain.rows["label"])
        assert table.relabelled == len(changed) == 1
        row = table.rows.iloc[changed[0]]
        assert (row["identity"], row["stream"], row["forgery"]) == ("p000", "train", "real")
        assert not table.masks[table.slot[changed[0]]].any()
        assert table.mask_known[table.slot[changed[0]]]
        assert table.ids("forgery")[changed[0]] == 0
        valid = (table.rows["identity"] == "p015") & (table.rows["forgery"] == "alpha")
        assert (np.count_nonzero(table.masks[table.slot[np.flatnonzero(valid)[0]]])) == 6
    assert plain.relabelled == 0


def test_a_run_tells_what_it_made_of_pairs(
    tiny_config: dict[str, Any], tiny_faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def without_masks(table: pd.DataFrame) -> None:
        table["mask"] = ""
        cv2.imwrite(str(tmp_path / "small.png"), np.zeros((24, 24, 3), np.uint8))
        hit = table.index[(table["forgery"] == "alpha") & (table["split"] == "train")][0]
        table.loc[hit, "pair"] = str(tmp_path / "small.png")

    tiny_config["scenario"] |= {"data": str(_rows(tiny_faces, tmp_path, without_masks)), "relabel_below": 8}
    tiny_config["learner"] = {"name": "plain", "trunk": {"backbone": "test_efficientnet", "weights": "none"}}
    parts = assemble(config_from(tiny_config), tmp_path, lambda rows: None)
    told = " ".join(capsys.readouterr().out.split())
    assert "masks of 54 forged faces were made from their pairs by difference; 1 pairs have another size" in told
    assert "0 forged training faces have fewer than 8 forged pixels and count as real" in told
    assert parts.sources.table.mask_known.sum() == len(parts.sources.table.mask_known) - 1
    tiny_config["scenario"] |= {"relabel_below": 48 * 48}
    with pytest.raises(FFDError, match="train stream of 'beta' has no forged face"):
        assemble(config_from(tiny_config), tmp_path, lambda rows: None)
