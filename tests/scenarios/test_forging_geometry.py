"""Maps, flows, matching and the linear face model against slow or known results."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ffd_continual.scenarios.forging.eigenface import principal
from ffd_continual.scenarios.forging.geometry import (
    fetch,
    frame_points,
    mesh_flow,
    move,
    similarity,
    smooth_flow,
    soften,
)
from ffd_continual.scenarios.forging.inpaint import membrane
from ffd_continual.scenarios.matching import coarse, compose, luminance, match_bands, match_colour, split_bands


def texture(seed: int, size: int = 96, colour: bool = True) -> np.ndarray:
    rng = np.random.default_rng(seed)
    layers = rng.normal(0, 1, (size, size, 3 if colour else 1)).cumsum(0)
    layers = layers + rng.normal(0, 4, layers.shape)
    layers = 128 + 40 * (layers - layers.mean()) / layers.std()
    return np.asarray(np.clip(np.broadcast_to(layers, (size, size, 3)), 0, 255).astype(np.uint8))


def disc(size: int = 96, radius: int = 30) -> np.ndarray:
    y, x = np.mgrid[:size, :size] - size // 2
    return soften(((x**2 + y**2) < radius**2).astype(np.uint8) * 255, 3.0)


def test_similarity_recovers_turn_scale_and_shift() -> None:
    points = np.random.default_rng(0).uniform(0, 50, (10, 2)).astype(np.float32)
    angle, scale = 0.4, 1.7
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    wanted = np.concatenate([turn, [[5.0], [-3.0]]], 1)
    np.testing.assert_allclose(similarity(points, move(points, wanted)), wanted, atol=1e-4)


def test_mesh_flow_is_exact_at_corners_and_affine_between() -> None:
    size, rng = (80, 80), np.random.default_rng(1)
    inner = rng.integers(20, 60, (6, 2)).astype(np.float32)
    target = np.concatenate([np.unique(inner, axis=0), frame_points(size)])
    source = target + np.concatenate([rng.normal(0, 3, (len(target) - 8, 2)), np.zeros((8, 2))]).astype(np.float32)
    flow = mesh_flow(target, source, size)
    for (x, y), moved in zip(target.astype(int), source - target, strict=True):
        np.testing.assert_allclose(flow[y, x], moved, atol=0.35)  # a corner's pixel may belong to any triangle beside
    ramp = np.repeat(np.mgrid[:80, :80][1].astype(np.float32)[..., None], 3, 2)
    shifted = fetch(ramp, flow)[30:50, 30:50, 0]
    np.testing.assert_allclose(shifted, (ramp[..., 0] + flow[..., 0])[30:50, 30:50], atol=0.1)


def test_affine_mesh_flow_equals_the_affine_map() -> None:
    size = (60, 60)
    target = np.concatenate([np.array([[20, 20], [40, 25], [30, 45]], np.float32), frame_points(size)])
    matrix = np.array([[1.1, 0.05, -2.0], [-0.04, 0.95, 3.0]])
    flow = mesh_flow(target, move(target, matrix), size)
    grid = np.stack(list(np.mgrid[:60, :60][::-1]), 2).reshape(-1, 2).astype(np.float32)
    expected = (move(grid, matrix) - grid).reshape(60, 60, 2)
    np.testing.assert_allclose(flow, expected, atol=1e-3)


def test_smooth_flow_moves_a_point_and_leaves_the_distance() -> None:
    flow = smooth_flow(np.array([[40.0, 40.0]], np.float32), np.array([[4.0, -2.0]], np.float32), 6.0, (96, 96))
    np.testing.assert_allclose(flow[40, 40], [-4, 2], atol=0.3)
    assert np.abs(flow[80, 80]).max() < 1e-3


def test_membrane_of_a_constant_is_that_constant() -> None:
    hole = np.zeros((64, 64), np.uint8)
    hole[20:44, 18:40] = 255
    filled = membrane(np.full((64, 64, 3), 7.0, np.float32), hole)
    np.testing.assert_allclose(filled, 7.0, atol=0.7)


def test_match_colour_moves_mean_and_spread() -> None:
    weight = disc()

    def mean_of(layer: NDArray[np.float32]) -> float:
        return float((luminance(layer) * weight).sum() / weight.sum())

    reference = np.clip(texture(1).astype(np.float32) * 0.75 + 40, 0, 255)
    layer = texture(2).astype(np.float32)
    matched = match_colour(layer, reference, weight, 1.0)
    before, after = abs(mean_of(layer) - mean_of(reference)), abs(mean_of(matched) - mean_of(reference))
    assert after < 1.0 < before
    inside = weight > 0.9
    ratio = luminance(matched)[inside].std() / luminance(reference)[inside].std()
    assert 0.85 < ratio < 1.15


def test_bands_add_up_and_are_matched_both_ways() -> None:
    sharp = texture(3).astype(np.float32)
    assert np.abs(sum(split_bands(sharp)) - sharp).max() < 1e-3
    weight = np.ones((96, 96), np.float32)

    def fine(layer: NDArray[np.float32]) -> float:
        return float((luminance(split_bands(layer)[0]) ** 2).mean())

    dull = sharp - 0.6 * sum(split_bands(sharp)[:3])
    assert abs(fine(match_bands(dull, sharp, weight)) / fine(sharp) - 1) < 0.2
    assert abs(fine(match_bands(sharp, dull, weight)) / fine(dull) - 1) < 0.2
    assert fine(dull) / fine(sharp) < 0.4


def test_strength_is_the_share_of_the_mismatch_that_goes() -> None:
    """In decibels of fine energy for bands, in grey levels for colour."""
    target, weight = texture(8), disc()
    soft = target - 0.5 * sum(split_bands(target.astype(np.float32))[:3])
    inside = weight > 0.9

    def mismatch(strength: float) -> float:
        image, _ = compose(target, np.asarray(soft, np.float32), weight, strength)
        fine = [split_bands(one.astype(np.float32))[0][inside] for one in (image, target)]
        return float(np.log((fine[0] ** 2).mean() / (fine[1] ** 2).mean()))

    none, half, full = (mismatch(strength) for strength in (0.0, 0.5, 1.0))
    assert none < -0.8
    assert 0.35 < half / none < 0.65
    assert abs(full / none) < 0.15
    dark = np.asarray(target * 0.6, np.float32)

    def gap(strength: float) -> float:
        return float((target - match_colour(dark, target, weight, strength))[inside].mean())

    assert abs(gap(0.5) / gap(0.0) - 0.5) < 0.12
    assert abs(gap(1.0)) < 0.15 * gap(0.0)


def test_coarse_loses_fine_detail_and_keeps_the_rest() -> None:
    layer = texture(9).astype(np.float32)

    def fine(one: NDArray[np.float32]) -> float:
        return float((split_bands(one)[0] ** 2).mean())

    soft, sharp = coarse(layer, 0.4), coarse(layer, 0.4, 1.0)
    assert fine(soft) < 0.2 * fine(layer)
    assert fine(sharp) > 1.5 * fine(soft)
    assert abs(soft.mean() - layer.mean()) < 0.5
    flat = np.full((40, 50, 3), 90.0, np.float32)
    np.testing.assert_allclose(coarse(flat, 0.37, 0.8), flat, atol=1e-3)


def test_compose_leaves_bytes_outside_and_keeps_grey_grey() -> None:
    weight = disc()
    target, layer = texture(4), texture(5).astype(np.float32)
    image, mask = compose(target, layer, weight)
    assert (image[mask == 0] == target[mask == 0]).all()
    assert (image[mask > 0] != target[mask > 0]).any()
    np.testing.assert_array_equal(mask > 0, weight > 0)
    grey, _ = compose(texture(6, colour=False), layer, weight)
    assert (np.ptp(grey.astype(int), axis=2) == 0).all()


def test_principal_components_agree_with_svd() -> None:
    data = np.random.default_rng(7).normal(0, 1, (12, 40)).astype(np.float32) * np.linspace(3, 0.5, 40)
    mean, parts, spread = principal(data.astype(np.float32), 5)
    _, values, vectors = np.linalg.svd(data - data.mean(0), full_matrices=False)
    np.testing.assert_allclose(mean, data.mean(0), atol=1e-5)
    np.testing.assert_allclose(spread, values[:5] / np.sqrt(12), rtol=1e-3)
    np.testing.assert_allclose(np.abs((parts * vectors[:5]).sum(1)), 1, atol=1e-3)
