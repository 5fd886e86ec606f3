"""Making a forged region shallowly like the pristine one, so that only the forgery separates real from forged.

A forgery that is merely blurred, sharper or tinted teaches a detector to measure blur, sharpness or tint. Here a new
layer gets the pristine face's colour statistics (Reinhard et al., IEEE CG&A 2001, in Lab) and its local energy in
frequency bands, by gains that go both ways; and what lies outside the changed region stays the same byte for byte.

Real tools do not match that well, so only a share of each mismatch, `strength`, is removed. At 1 nothing is left that a
detector could learn from some hundred people; at 0 the fine energy alone tells real from forged. The default leaves
low and middle frequencies that survive a camera, while no single shallow feature separates well.
Layers are float32 (H, W, 3) in 0..255, weights float32 (H, W) in 0..1.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ffd_continual.scenarios.faces import Picture, is_grey

Field = NDArray[np.float32]
BANDS = (0.5, 0.8, 1.4, 2.8)  # sigmas in pixels, finest first
PASSES = 3
STRENGTH = 0.5  # share of a mismatch in colour or band energy that is removed


def luminance(layer: Field | Picture) -> Field:
    """Rec. 601 luma (H, W) in 0..255."""
    return np.asarray(cv2.cvtColor(layer.astype(np.float32), cv2.COLOR_RGB2GRAY), np.float32)


def box_of(weight: Field, margin: int) -> tuple[slice, slice]:
    """Rows and columns of the non-zero part of a weight, with a margin: nothing outside needs computing."""
    x, y, w, h = cv2.boundingRect((weight > 0).astype(np.uint8))
    return slice(max(y - margin, 0), y + h + margin), slice(max(x - margin, 0), x + w + margin)


def match_colour(layer: Field, reference: Field | Picture, weight: Field, strength: float = STRENGTH) -> Field:
    """Mean and standard deviation of Lab inside `weight`, moved by `strength` from the layer's to the reference's.

    Only the weight's bounding box changes.
    """
    box = box_of(weight, 0)
    share = weight[box] / max(float(weight.sum()), 1e-3)
    ours = cv2.cvtColor(np.clip(layer[box], 0, 255).astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    theirs = cv2.cvtColor(reference[box].astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    mean, spread = _moments(np.asarray(ours, np.float32), share)
    goal, wanted = _moments(np.asarray(theirs, np.float32), share)
    gain = np.clip((wanted + 0.5) / (spread + 0.5), 0.6, 1.7)
    moved = ours + strength * (ours * (gain - 1) + (goal - mean * gain))
    result = layer.astype(np.float32, copy=True)
    result[box] = np.clip(cv2.cvtColor(moved.astype(np.float32), cv2.COLOR_Lab2RGB) * 255, 0, 255)
    return result


def _moments(lab: Field, share: Field) -> tuple[Field, Field]:
    """Weighted mean and standard deviation (3,) of (H, W, 3); `share` sums to 1."""
    flat, weights = lab.reshape(-1, 3), share.ravel()
    mean = weights @ flat
    return mean, np.sqrt(np.maximum(weights @ flat**2 - mean**2, 0))


def split_bands(layer: Field, sigmas: tuple[float, ...] = BANDS) -> list[Field]:
    """Differences of Gaussians, finest first, and the rest: they add up to the layer."""
    bands, rest = [], layer
    for sigma in sigmas:
        smooth = np.asarray(cv2.GaussianBlur(layer, (0, 0), sigma), np.float32)
        bands.append(rest - smooth)
        rest = smooth
    return [*bands, rest]


def match_bands(
    layer: Field,
    reference: Field | Picture,
    weight: Field,
    limits: tuple[float, float] = (0.4, 2.5),
    reach: float | None = None,
    strength: float = 1.0,
) -> Field:
    """Each band's local energy brought to the reference's, inside `weight`.

    Local means a Gaussian of sigma `reach` px, by default a 24th of the width.

    The gain is that of the luminance, the same for the three channels, and stays within `limits`;
    its `strength`-th power is applied, so that share of the mismatch (in decibels) goes.
    """
    ours, theirs = split_bands(layer), split_bands(reference.astype(np.float32))
    reach = layer.shape[1] / 24 if reach is None else reach
    inside = _spread(weight, reach) + 1e-4
    result = ours[-1].copy()
    for band, goal in zip(ours[:-1], theirs[:-1], strict=True):
        have = _spread(luminance(band) ** 2 * weight, reach) / inside
        want = _spread(luminance(goal) ** 2 * weight, reach) / inside
        gain = np.clip(np.sqrt((want + 0.05) / (have + 0.05)), *limits) ** strength
        result += band * gain[..., None]
    return np.asarray(result, np.float32)


def _spread(energy: Field, reach: float) -> Field:
    """A wide Gaussian of sigma `reach` px, computed at a quarter of the size."""
    height, width = energy.shape
    small = cv2.resize(energy, (max(width // 4, 1), max(height // 4, 1)), interpolation=cv2.INTER_AREA)
    wide = cv2.GaussianBlur(small, (0, 0), max(reach / 4, 0.3))
    return np.asarray(cv2.resize(wide, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)


def coarse(layer: Field, scale: float, sharpen: float = 0.0) -> Field:
    """The layer through a lower working resolution, `scale` of its own, as face generators work at 64 to 256 px.

    `sharpen` is the amount of the unsharp mask that follows enlargement: halos in place of the lost detail.
    """
    size = (max(round(layer.shape[1] * scale), 2), max(round(layer.shape[0] * scale), 2))
    small = cv2.resize(layer, size, interpolation=cv2.INTER_AREA)
    large = cv2.resize(small, layer.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    if sharpen:
        large = large + np.float32(sharpen) * (large - cv2.GaussianBlur(large, (0, 0), 0.8 / scale))
    return np.clip(np.asarray(large, np.float32), 0, 255)


def detail(reference: Picture, sigma: float) -> Field:
    """What a Gaussian of `sigma` px takes away from a picture: the layer of pores, hairs and grain."""
    exact = reference.astype(np.float32)
    return np.asarray(exact - cv2.GaussianBlur(exact, (0, 0), sigma), np.float32)


def compose(target: Picture, layer: Field, weight: Field, strength: float = STRENGTH) -> tuple[Picture, Picture]:
    """Lay `layer` over `target` with `weight`; returns the picture and the mask (255 where weight > 0).

    Pixels of weight 0 keep their bytes. Grey pictures stay grey. The *blended* result, which a seam or an
    average makes smoother than either, is brought by `strength` (0: not at all) to the pristine local band energies.
    """
    image, mask = target.copy(), (weight > 0).astype(np.uint8) * 255
    if not mask.any():
        return image, mask
    box = box_of(weight, 10)
    below, above, weight = target[box], layer[box], weight[box]
    support, alpha = weight > 0, weight[..., None]
    mixed = np.asarray(alpha * above + (1 - alpha) * below, np.float32)
    if strength > 0:
        edge = np.minimum(weight * 4, 1)[..., None]  # gains fade in over the seam, so they leave no step
        matched = mixed
        share = 1 - (1 - min(strength, 1.0)) ** (1 / PASSES)  # what each pass removes, so that all remove `strength`
        for _ in range(PASSES):  # neighbouring bands overlap: the later passes mend what the earlier gains moved
            matched = match_bands(
                matched, below, support.astype(np.float32), reach=target.shape[1] / 24, strength=share
            )
        mixed = np.asarray(edge * matched + (1 - edge) * mixed, np.float32)
    if is_grey(target):
        mixed = np.repeat(luminance(mixed)[..., None], 3, 2)
    image[box] = np.where(support[..., None], np.clip(np.rint(mixed), 0, 255), below).astype(np.uint8)
    return image, mask
