"""The stationary wavelet layer against loops, hand-worked numbers, PyWavelets, and what such a transform keeps."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from ffd_continual.scenarios.errors import FFDError
from ffd_continual.strategies.learners.swd import BANDS, SWD, WAVELETS, decompose, wavelet_taps

Plane = npt.NDArray[np.float64]

#: Published analysis filters, in units that make the low-pass sum 1; their first tap meets the sample F/2 ahead.
PUBLISHED = {
    "haar": ([1 / 2, 1 / 2], [-1 / 2, 1 / 2]),
    "rbio1.3": ([0, 0, 1 / 2, 1 / 2, 0, 0], [1 / 16, 1 / 16, -1 / 2, 1 / 2, -1 / 16, -1 / 16]),
    "rbio2.2": ([0, 0, 1 / 4, 1 / 2, 1 / 4, 0], [1 / 8, 1 / 4, -3 / 4, 1 / 4, 1 / 8, 0]),
    "rbio3.1": ([1 / 8, 3 / 8, 3 / 8, 1 / 8], [1 / 4, 3 / 4, -3 / 4, -1 / 4]),
}


def _slow_swd(plane: Plane, low: list[float], high: list[float], levels: int) -> dict[tuple[int, str], Plane]:
    """One picture plane, pixel by pixel, with the 2-D kernel spread by 2^(level - 1) and borders wrapped."""
    height, width = plane.shape
    half = len(low) // 2
    found = {}
    at = plane
    for level in range(1, levels + 1):
        spread = 2 ** (level - 1)
        for band in ("LL", "LH", "HL", "HH"):
            row_taps = low if band[0] == "L" else high  # along a row, from left to right
            column_taps = low if band[1] == "L" else high
            made = np.zeros((height, width))
            for y in range(height):
                for x in range(width):
                    total = 0.0
                    for i, p in enumerate(column_taps):
                        for j, q in enumerate(row_taps):
                            yy, xx = (y + (half - i) * spread) % height, (x + (half - j) * spread) % width
                            total += p * q * at[yy, xx]
                    made[y, x] = total
            found[level, band] = made
        at = found[level, "LL"]
    return found


def _layer(wavelet: str, planes: Plane, levels: int = 3) -> Plane:
    """(C, H, W) through the layer, as (levels, 4, C, H, W)."""
    made = SWD(wavelet, levels)(torch.from_numpy(planes)[None])
    return np.asarray(made[0].reshape(levels, 4, *planes.shape))


@pytest.mark.parametrize("wavelet", sorted(PUBLISHED))
def test_the_layer_is_the_loop_over_pixels(wavelet: str) -> None:
    planes = np.random.default_rng(0).normal(size=(2, 8, 16))
    made = _layer(wavelet, planes)
    for colour in range(2):
        slow = _slow_swd(planes[colour], *PUBLISHED[wavelet], levels=3)
        for (level, band), wanted in slow.items():
            found = made[level - 1, ["LL", "LH", "HL", "HH"].index(band), colour]
            np.testing.assert_allclose(found, wanted, atol=1e-12, err_msg=f"{level} {band}")


def test_haar_by_hand() -> None:
    """Rows 1 3 5 7: means with the right neighbour 2 4 6 4, half differences -1 -1 -1 3; two apart 4, -2 0 2 0."""
    made = _layer("haar", np.tile([1.0, 3.0, 5.0, 7.0], (1, 4, 1)), levels=2)[:, :, 0, 2]
    assert made[0].tolist() == [[2, 4, 6, 4], [0, 0, 0, 0], [-1, -1, -1, 3], [0, 0, 0, 0]]
    assert made[1].tolist() == [[4, 4, 4, 4], [0, 0, 0, 0], [-2, 0, 2, 0], [0, 0, 0, 0]]
    columns = _layer("haar", np.tile([[1.0], [3.0], [5.0], [7.0]], (1, 1, 4)), levels=1)[0, :, 0, :, 2]
    assert columns.tolist() == [[2, 4, 6, 4], [-1, -1, -1, 3], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_the_dilations_are_1_2_4_so_level_3_averages_8_neighbours() -> None:
    """With dilation 3 at level 3, as the paper's text has it, some of 7 neighbours would count twice."""
    point = np.zeros((1, 16, 16))
    point[0, 9, 12] = 64.0
    low = _layer("haar", point)[2, 0, 0]
    assert sorted(set(low.ravel().tolist())) == [0.0, 1.0]
    rows, columns = np.nonzero(low)
    assert (rows.min(), rows.max(), columns.min(), columns.max(), len(rows)) == (2, 9, 5, 12, 64)


@pytest.mark.parametrize("wavelet", WAVELETS)
def test_the_layer_is_pywavelets_swt2(wavelet: str) -> None:
    pywt: Any = pytest.importorskip("pywt")
    low, high = wavelet_taps(wavelet)
    bank = pywt.Wavelet(wavelet)
    np.testing.assert_allclose(low, bank.dec_lo, atol=1e-12)
    np.testing.assert_allclose(high, bank.dec_hi, atol=1e-12)
    plane = np.random.default_rng(1).normal(size=(24, 16))
    made = _layer(wavelet, plane[None])
    for level, (approximation, details) in enumerate(reversed(pywt.swt2(plane, wavelet, level=3)), start=1):
        wanted = np.stack([approximation, *details]) / 2**level
        np.testing.assert_allclose(made[level - 1, :, 0], wanted, atol=1e-12)
    if wavelet == "haar":
        scaled = list(reversed(pywt.swt2(plane, wavelet, level=3, norm=True)))
        for level, (approximation, details) in enumerate(scaled):
            np.testing.assert_allclose(made[level, :, 0], np.stack([approximation, *details]), atol=1e-12)


def test_other_sizes_are_mirrored_to_a_multiple_of_8_and_cut() -> None:
    pywt: Any = pytest.importorskip("pywt")
    plane = np.random.default_rng(2).normal(size=(13, 18))
    made = _layer("rbio2.2", plane[None])
    assert made.shape == (3, 4, 1, 13, 18)
    whole = np.pad(plane, ((0, 3), (0, 6)), mode="reflect")
    for level, (approximation, details) in enumerate(reversed(pywt.swt2(whole, "rbio2.2", level=3)), start=1):
        wanted = np.stack([approximation, *details])[:, :13, :18] / 2**level
        np.testing.assert_allclose(made[level - 1, :, 0], wanted, atol=1e-12)


def _joined(low: Plane, high: Plane, wavelet: str, spread: int) -> Plane:
    """The synthesis of one axis (the last), written out: x of its low-pass and high-pass halves."""

    def at(half: Plane, offset: int) -> Plane:
        return half[..., [(n + offset * spread) % half.shape[-1] for n in range(half.shape[-1])]]

    if wavelet == "haar":
        return low + high
    smooth = 0.75 * low + 0.25 * (at(low, 1) + at(low, -1)) - 0.125 * (at(low, 2) + at(low, -2))
    return smooth - 0.5 * at(high, -1) + 0.25 * (at(high, -2) + at(high, 0))


@pytest.mark.parametrize("wavelet", ["haar", "rbio2.2"])
def test_the_picture_comes_back_from_its_sub_bands(wavelet: str) -> None:
    plane = np.random.default_rng(3).normal(size=(16, 24))
    made = _layer(wavelet, plane[None])[:, :, 0]
    at = made[2, 0]
    for level in (3, 2, 1):
        spread = 2 ** (level - 1)
        _, low_high, high_low, high_high = made[level - 1]
        rows_low = _joined(at.T, low_high.T, wavelet, spread).T
        rows_high = _joined(high_low.T, high_high.T, wavelet, spread).T
        at = _joined(rows_low, rows_high, wavelet, spread)
    np.testing.assert_allclose(at, plane, atol=1e-10)


def test_haar_keeps_the_energy() -> None:
    plane = np.random.default_rng(4).normal(size=(16, 16))
    made = _layer("haar", plane[None])[:, :, 0]
    energies = (made**2).sum((2, 3))
    assert energies[0].sum() == pytest.approx((plane**2).sum())
    assert energies[1].sum() == pytest.approx(energies[0, 0])
    assert energies[2, 0] + energies[:, 1:].sum() == pytest.approx((plane**2).sum())


@pytest.mark.parametrize("wavelet", WAVELETS)
def test_a_constant_picture_has_no_details_and_keeps_its_value(wavelet: str) -> None:
    made = _layer(wavelet, np.full((3, 8, 16), 0.7))
    np.testing.assert_allclose(made[:, 0], 0.7, atol=1e-12)
    np.testing.assert_allclose(made[:, 1:], 0.0, atol=1e-12)


@pytest.mark.parametrize("wavelet", ["haar", "rbio1.3", "rbio3.5"])
def test_a_moved_picture_has_moved_sub_bands(wavelet: str) -> None:
    planes = np.random.default_rng(5).normal(size=(1, 16, 32))
    moved = _layer(wavelet, np.roll(planes, (3, 5), (1, 2)))
    np.testing.assert_allclose(moved, np.roll(_layer(wavelet, planes), (3, 5), (3, 4)), atol=1e-12)


def test_colours_stay_apart_and_channels_are_level_band_colour() -> None:
    assert BANDS == ("LL", "LH", "HL", "HH")
    images = torch.zeros(2, 3, 16, 16, dtype=torch.float64)
    images[1, 1] = torch.rand(16, 16, dtype=torch.float64)
    layer = SWD()
    made = layer(images)
    assert made.shape == (2, 3 * layer.bands_per_colour, 16, 16) == (2, 36, 16, 16)
    busy = [c for c in range(36) if bool(made[1, c].abs().sum() > 0)]
    assert busy == list(range(1, 36, 3))
    assert float(made[0].abs().sum()) == 0.0
    low, high = ([t / math.sqrt(2) for t in taps] for taps in wavelet_taps("haar"))
    direct = decompose(images, low, high, 3)
    assert torch.equal(made[:, 12 + 3 * 2 + 1], direct[:, 1, 2, 1])  # level 2, HL, green


def test_haar_is_the_first_of_the_splines_and_nothing_is_trained() -> None:
    assert wavelet_taps("haar") == wavelet_taps("rbio1.1")
    assert wavelet_taps("haar")[0] == pytest.approx([math.sqrt(0.5)] * 2)
    assert not list(SWD().parameters())


def test_unknown_wavelets_and_levels_are_named() -> None:
    with pytest.raises(FFDError, match=r"rbio1\.3.*'db2'"):
        SWD("db2")
    with pytest.raises(FFDError, match="1 to 5, not 0"):
        SWD("haar", 0)
