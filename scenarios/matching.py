"""Making a forged region shallowly like the pristine one, so that only the forgery separates real from forged.

A forgery that is merely blurred, sharper or tinted teaches a detector to measure blur, sharpness or tint. Here a new
layer gets the pristine face's colour statistics (Reinhard et al., IEEE CG&A 2001, in Lab) and its local energy in
frequency bands, by gains that go both ways; and what lies outside the changed region stays the same byte for byte.
Layers are float32 (H, W, 3) in 0..255, weights float32 (H, W) in 0..1.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ffd_continual.scenarios.faces import Picture, is_grey

Field = NDArray[np.float32]


def luminance(layer: Field | Picture) -> Field:
    """Rec. 601 luma (H, W) in 0..255."""
    return np.asarray(layer.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32), np.float32)


def match_colour(layer: Field, reference: Field | Picture, weight: Field, strength: float = 1.0) -> Field:
    """Mean and standard deviation of Lab inside `weight`, moved from the layer's to the reference's."""
    total = max(float(weight.sum()), 1e-3)
    ours = cv2.cvtColor(np.clip(layer, 0, 255).astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    theirs = cv2.cvtColor(reference.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    shares = weight[..., None] / total
    mean, goal = (ours * shares).sum((0, 1)), (theirs * shares).sum((0, 1))
    spread = np.sqrt((((ours - mean) ** 2) * shares).sum((0, 1)))
    wanted = np.sqrt((((theirs - goal) ** 2) * shares).sum((0, 1)))
    gain = np.clip((wanted + 0.5) / (spread + 0.5), 0.6, 1.7)
    moved = ours + strength * ((ours - mean) * gain + goal - ours)
    return np.clip(np.asarray(cv2.cvtColor(moved.astype(np.float32), cv2.COLOR_Lab2RGB), np.float32) * 255, 0, 255)


def split_bands(layer: Field, sigmas: tuple[float, ...] = (0.7, 1.4, 2.8)) -> list[Field]:
    """Differences of Gaussians, finest first, and the rest: they add up to the layer."""
    bands, rest = [], layer
    for sigma in sigmas:
        smooth = cv2.GaussianBlur(layer, (0, 0), sigma)
        bands.append(rest - smooth)
        rest = smooth
    return [*bands, rest]


def match_bands(
    layer: Field, reference: Field | Picture, weight: Field, limits: tuple[float, float] = (0.4, 2.5)
) -> Field:
    """Each band's local energy (over about a twelfth of the width) brought to the reference's, inside `weight`.

    The gain is that of the luminance, the same for the three channels, and stays within `limits`.
    """
    ours, theirs = split_bands(layer), split_bands(reference.astype(np.float32))
    reach = layer.shape[1] / 24
    inside = cv2.GaussianBlur(weight, (0, 0), reach) + 1e-4
    result = ours[-1].copy()
    for band, goal in zip(ours[:-1], theirs[:-1], strict=True):
        have = cv2.GaussianBlur(luminance(band) ** 2 * weight, (0, 0), reach) / inside
        want = cv2.GaussianBlur(luminance(goal) ** 2 * weight, (0, 0), reach) / inside
        gain = np.clip(np.sqrt((want + 0.05) / (have + 0.05)), *limits)
        result += band * gain[..., None]
    return np.asarray(result, np.float32)


def detail(reference: Picture, sigma: float) -> Field:
    """What a Gaussian of `sigma` px takes away from a picture: the layer of pores, hairs and grain."""
    exact = reference.astype(np.float32)
    return np.asarray(exact - cv2.GaussianBlur(exact, (0, 0), sigma), np.float32)


def compose(target: Picture, layer: Field, weight: Field, bands: bool = True) -> tuple[Picture, Picture]:
    """Lay `layer` over `target` with `weight`; returns the picture and the mask (255 where weight > 0).

    Pixels of weight 0 keep their bytes. Grey pictures stay grey. With `bands` the *blended* result, which a seam or
    an average makes smoother than either, is brought to the pristine picture's local band energies.
    """
    support = weight > 0
    alpha = weight[..., None]
    mixed = alpha * layer + (1 - alpha) * target
    if bands:
        edge = np.minimum(weight * 4, 1)[..., None]  # gains fade in over the seam, so they leave no step
        matched = match_bands(np.asarray(mixed, np.float32), target, support.astype(np.float32))
        mixed = edge * matched + (1 - edge) * mixed
    if is_grey(target):
        mixed = np.repeat(luminance(np.asarray(mixed, np.float32))[..., None], 3, 2)
    image = np.where(support[..., None], np.clip(np.rint(mixed), 0, 255), target).astype(np.uint8)
    return image, support.astype(np.uint8) * 255
