"""Views: the augmentations of a face, each a pure function of its generator.

Geometry is drawn once and applied to the picture, its mask and its pair alike; colour and codec act on pictures only
and use the same draw for the picture and its pair, so that a pair differs by the forgery and by nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]
Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ViewConfig:
    """Probabilities and ranges of one view; 0 switches an operation off."""

    flip: float = 0.5
    shift: float = 0.04  # of the side, each way
    zoom: float = 0.06  # relative, each way
    rotate: float = 4.0  # degrees, each way
    colour: float = 0.12  # gain of brightness, contrast and saturation, each way
    blur: float = 0.1  # probability; sigma 0.3 .. 0.9 pixels
    jpeg: float = 0.2  # probability; quality 50 .. 95
    noise: float = 0.1  # probability; sigma 1 .. 5 grey levels


@dataclass(frozen=True)
class View:
    """One draw of a view; `apply` gives the same answer for the same draw."""

    matrix: Matrix  # (2, 3) affine map, source to view, pixels
    gains: tuple[float, float, float]  # brightness, contrast, saturation
    blur: float  # sigma in pixels, 0 for none
    jpeg: int  # quality, 0 for none
    noise: float  # sigma in grey levels, 0 for none
    noise_seed: int

    def geometry(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Move a picture (S, S, 3) or a mask (S, S); borders are mirrored."""
        side = image.shape[0]
        moved = cv2.warpAffine(image, self.matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        return np.asarray(moved, dtype=np.uint8)

    def apply(self, image: Picture) -> Picture:
        """Picture (S, S, 3) to its view (S, S, 3)."""
        moved = self.geometry(image)
        brightness, contrast, saturation = self.gains
        if self.gains != (1.0, 1.0, 1.0):
            values = moved.astype(np.float32)
            grey = values @ np.array([0.299, 0.587, 0.114], np.float32)
            values = grey[..., None] + saturation * (values - grey[..., None])
            values = (values - grey.mean()) * contrast + grey.mean() * brightness
            moved = np.clip(values + 0.5, 0, 255).astype(np.uint8)
        if self.blur:
            moved = np.asarray(cv2.GaussianBlur(moved, (0, 0), self.blur), dtype=np.uint8)
        if self.noise:
            generator = np.random.Generator(np.random.SFC64(self.noise_seed))
            grain = generator.standard_normal(moved.shape, dtype=np.float32) * self.noise
            moved = np.clip(moved + grain + 0.5, 0, 255).astype(np.uint8)
        if self.jpeg:
            _, code = cv2.imencode(".jpg", moved, [cv2.IMWRITE_JPEG_QUALITY, self.jpeg])
            moved = np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR), dtype=np.uint8)
        return moved


def draw_view(config: ViewConfig, side: int, rng: np.random.Generator) -> View:
    """Draw one view for pictures of `side` pixels. The number of draws is fixed, whatever the probabilities are."""
    flip, blur, jpeg, noise = rng.random(4)
    dx, dy, zoom, angle, *gains = rng.uniform(-1.0, 1.0, 7)
    sigma, quality, grain = rng.random(3)
    seed = int(rng.integers(2**31))
    centre = (side - 1) / 2.0
    matrix = cv2.getRotationMatrix2D((centre, centre), float(angle) * config.rotate, 1.0 + float(zoom) * config.zoom)
    matrix[:, 2] = matrix[:, 2] + np.array([dx, dy]) * config.shift * side
    if flip < config.flip:
        matrix = matrix @ np.array([[-1.0, 0.0, side - 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    return View(
        matrix=matrix.astype(np.float32),
        gains=(
            1.0 + float(gains[0]) * config.colour,
            1.0 + float(gains[1]) * config.colour,
            1.0 + float(gains[2]) * config.colour,
        ),
        blur=0.3 + 0.6 * float(sigma) if blur < config.blur else 0.0,
        jpeg=int(50 + 45 * quality) if jpeg < config.jpeg else 0,
        noise=1.0 + 4.0 * float(grain) if noise < config.noise else 0.0,
        noise_seed=seed,
    )


def keyed_generator(*key: int) -> np.random.Generator:
    """A generator that is a pure function of its key, e.g. (seed, experience, step, slot, view)."""
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence([k & 0xFFFFFFFF for k in key])))


def to_planes(images: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
    """Stack (S, S, 3) or (S, S) bytes as (B, 3 or 1, S, S) float32 in 0..1."""
    stacked = np.stack([i if i.ndim == 3 else i[..., None] for i in images])
    return np.ascontiguousarray(stacked.transpose(0, 3, 1, 2), dtype=np.float32) / np.float32(255)
