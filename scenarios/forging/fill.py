"""Fill: a part of the face cut out and painted anew, as an in-painter does that has seen many faces.

After face hallucination (Liu, Shum and Freeman, IJCV 2007), applied to a hole: what lies around it fixes the
coefficients of a linear model of aligned faces (a Gaussian posterior, of which one sample is drawn), which gives the
hole's coarse content; its detail is quilted (Efros and Freeman, SIGGRAPH 2001) from the patches at the same place of
those people of the train split who agree best with the surroundings, and of the face's own other half. A membrane takes
the rest of the difference at the rim away. No pixel of the hole is looked at, and no single person lends it.

Axes: aligned faces are (S, S, 3) float32 in 0..255; D = 3 s^2 of the linear model's side s; K components; N people.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.faces import Face, Picture, Points
from ffd_continual.scenarios.forging.contract import Forged
from ffd_continual.scenarios.forging.eigenface import principal
from ffd_continual.scenarios.forging.geometry import Field, align, face_width, grow, move, soften, unalign
from ffd_continual.scenarios.forging.inpaint import membrane
from ffd_continual.scenarios.matching import compose

Array = NDArray[np.float32]
# Holes: landmarks whose hull is cut out, and by how many face widths it grows.
HOLES: dict[str, tuple[tuple[int, ...], float]] = {
    "mouth": (tuple(range(48, 60)), 0.10),
    "left_eye": ((17, 18, 19, 20, 21, *range(36, 42)), 0.05),
    "right_eye": ((22, 23, 24, 25, 26, *range(42, 48)), 0.05),
    "eyes": (tuple(range(36, 48)), 0.08),
    "nose": ((28, 29, 30, *range(31, 36)), 0.07),
    "left_cheek": ((3, 4, 31, 48, 40), 0.02),
    "right_cheek": ((12, 13, 35, 54, 47), 0.02),
}


@dataclass(frozen=True)
class FillConfig:
    """`holes` a face of `HOLES`; `side` of aligned faces and `model` of the linear model, pixels.

    `noise`: spread of what the model leaves unexplained, grey levels; `sample`: share of the posterior's spread that
    is drawn; `coarse`: sigma that parts coarse from fine; `patch` and `step`: of the quilt; `best`: people it is made
    of; `ragged`: how far a hole's outline wanders (face widths); `match`: share of the mismatch in band energy removed.
    """

    holes: tuple[int, int] = (1, 2)
    people: int = 400
    side: int = 96
    model: int = 48
    components: int = 96
    noise: float = 12.0
    sample: float = 0.6
    coarse: float = 3.0
    patch: int = 16
    step: int = 8
    best: int = 16
    ragged: float = 0.03
    match: float = 0.3


def conditional(
    mean: Array, parts: Array, spread: Array, values: Array, known: NDArray[np.bool_], noise: float
) -> tuple[Array, Array]:
    """Posterior mean (K,) and Cholesky factor (K, K) of the coefficients, given the `known` of `values` (D,).

    A prior N(0, spread^2) and independent noise: Bishop, Pattern Recognition (2006), eq. 2.116. `parts` (K, D) are
    orthonormal, so what the known pixels say is all less what the hidden ones do.
    """
    hidden = parts[:, ~known]
    precision = (np.eye(len(spread)) - hidden @ hidden.T) / noise**2 + np.diag(1 / np.maximum(spread, 1e-3) ** 2)
    covariance = np.linalg.inv(precision)
    middle = covariance @ (parts @ np.where(known, values - mean, 0)).astype(np.float64) / noise**2
    factor = np.linalg.cholesky((covariance + covariance.T) / 2 + 1e-9 * np.eye(len(spread)))
    return middle.astype(np.float32), factor.astype(np.float32)


def quilt(guess: Field, fine: Array, blurred: Array, usable: Array, size: int, step: int) -> Field:
    """Fine layer (H, W, 3): at each place the patch of `size` px that fits best, overlaps averaged.

    `fine` and `blurred` (N, H, W, 3): what the people offer, and what `guess` is compared with; `usable` (N, H, W): 0
    where a person's patch may not be taken from. Patches that agree with those already laid beside them are preferred.
    """
    total, weight = np.zeros_like(guess), np.zeros(guess.shape[:2], np.float32)
    ramp = np.minimum(np.arange(1, size + 1), np.arange(size, 0, -1)).astype(np.float32)
    window = np.minimum.outer(ramp, ramp) ** 2
    last_y, last_x = guess.shape[0] - size, guess.shape[1] - size
    for y in range(0, last_y + step, step):
        for x in range(0, last_x + step, step):
            y0, x0 = min(y, last_y), min(x, last_x)
            at = np.s_[y0 : y0 + size, x0 : x0 + size]
            wanted, offered = guess[at].reshape(-1), blurred[:, *at].reshape(len(fine), -1)
            apart = offered - wanted
            cost = np.square(apart - apart.mean(1, keepdims=True)).mean(1)
            laid = weight[at] > 0
            if laid.any():
                before = total[at][laid] / weight[at][laid][:, None]
                cost = cost + 2 * np.square(fine[:, *at][:, laid] - before).mean((1, 2))
            cost = cost + 1e6 * (usable[:, *at].min((1, 2)) < 1)
            total[at] += window[..., None] * fine[int(cost.argmin())][at]
            weight[at] += window
    return np.asarray(total / np.maximum(weight, 1e-6)[..., None], np.float32)


def cut_hole(landmarks: Points, name: str, size: tuple[int, int], ragged: float, rng: np.random.Generator) -> Picture:
    """Mask (H, W) of one of `HOLES`: its hull, grown, with an outline that wanders."""
    index, margin = HOLES[name]
    width = face_width(landmarks)
    points = landmarks[list(index)] + rng.normal(0, ragged * width, (len(index), 2)).astype(np.float32)
    mask = np.zeros(size, np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(np.round(points).astype(np.int32)), (255,))
    return grow(mask, margin * width)


def _thumb(aligned: Picture | Field) -> Array:
    """An aligned face or mask at a quarter of its size: what people are chosen by."""
    size = (aligned.shape[1] // 4, aligned.shape[0] // 4)
    return np.asarray(cv2.resize(aligned.astype(np.float32), size, interpolation=cv2.INTER_AREA), np.float32)


@dataclass
class Fill:
    """One or two parts of the face painted anew; must be fitted first."""

    config: FillConfig = field(default_factory=FillConfig)
    name: str = "fill"
    model: tuple[Array, ...] | None = None
    people: Picture | None = None
    thumbs: Array | None = None

    def fit(self, faces: Sequence[Face], rng: np.random.Generator) -> None:
        """The linear model of these faces, and at most `people` of them to quilt from."""
        config = self.config
        chosen = np.sort(rng.permutation(len(faces))[: 2 * config.people])
        aligned = np.stack([align(faces[int(i)], config.side)[0] for i in chosen])
        small = np.stack(
            [cv2.resize(one, (config.model,) * 2, interpolation=cv2.INTER_AREA).ravel() for one in aligned]
        )
        self.model = principal(small.astype(np.float32), config.components)
        self.people = aligned[: config.people]
        self.thumbs = np.stack([_thumb(one) for one in self.people])

    def paint(self, inner: Picture, hole: Picture, rng: np.random.Generator) -> Field:
        """The aligned face (S, S, 3) with its hole (S, S) painted; nothing under the hole is read."""
        if self.model is None or self.people is None or self.thumbs is None:
            raise FFDError("forgery family 'fill' has not been fitted: call fit(faces, rng) first")
        config, side = self.config, self.config.side
        mean, parts, spread = self.model
        wide = grow(hole, 2)
        small = cv2.resize(inner, (config.model,) * 2, interpolation=cv2.INTER_AREA).ravel().astype(np.float32)
        open_ = cv2.resize(wide, (config.model,) * 2, interpolation=cv2.INTER_AREA) > 0
        middle, factor = conditional(mean, parts, spread, small, np.repeat(~open_.ravel(), 3), config.noise)
        codes = middle + np.float32(config.sample) * (factor @ rng.standard_normal(len(middle)).astype(np.float32))
        guess = cv2.resize(
            (mean + codes @ parts).reshape(config.model, config.model, 3), (side, side), interpolation=cv2.INTER_CUBIC
        )
        guess = np.asarray(guess, np.float32)
        low = cv2.GaussianBlur(guess, (0, 0), config.coarse)
        # Who agrees with the surroundings near the hole and with the guess in it; the face's own other half competes.
        near = _thumb(grow(hole, side / 8)) > 0
        seen = np.where((wide > 0)[..., None], guess, inner.astype(np.float32))
        apart = self.thumbs[:, near] - _thumb(seen)[near]
        apart = np.square(apart - apart.mean(1, keepdims=True)).mean((1, 2))
        offered = np.concatenate([self.people[np.argsort(apart, kind="stable")[: config.best]], inner[None, :, ::-1]])
        usable = np.ones(offered.shape[:3], np.float32)
        usable[-1] = wide[:, ::-1] == 0
        x, y, w, h = cv2.boundingRect(grow(hole, 4))
        x0, y0 = max(min(x, side - config.patch), 0), max(min(y, side - config.patch), 0)
        x1, y1 = max(x + w, x0 + config.patch), max(y + h, y0 + config.patch)
        # People side by side as channels: one blur for all of them, over what is needed of them only.
        reach = int(3 * config.coarse)
        left, top = max(x0 - reach, 0), max(y0 - reach, 0)
        some = offered[:, top : y1 + reach, left : x1 + reach]
        stack = np.ascontiguousarray(some.transpose(1, 2, 0, 3).reshape(*some.shape[1:3], -1)).astype(np.float32)
        coarse, smooth = (cv2.GaussianBlur(stack, (0, 0), sigma) for sigma in (config.coarse, 1.0))
        at = np.s_[:, y0 - top : y1 - top, x0 - left : x1 - left]
        fine, blurred = (
            np.ascontiguousarray(one.reshape(*stack.shape[:2], -1, 3).transpose(2, 0, 1, 3)[at])
            for one in (stack - coarse, smooth - coarse)
        )
        box = np.s_[y0:y1, x0:x1]
        detail = np.zeros_like(low)
        detail[box] = quilt((guess - low)[box], fine, blurred, usable[:, *box], config.patch, config.step)
        layer = np.asarray(low + detail, np.float32)
        return np.asarray(layer + membrane(inner.astype(np.float32) - layer, wide), np.float32)

    def forge(self, target: Face, others: Sequence[Face], rng: np.random.Generator) -> Forged | None:
        """None where no hole lies in the picture; `others` are not used."""
        config, size, width = self.config, target.image.shape[:2], face_width(target.landmarks)
        image, changed = target.image, np.zeros(size, np.uint8)
        names = list(HOLES)
        count = int(rng.integers(config.holes[0], config.holes[1] + 1))
        for at in rng.permutation(len(names))[:count]:
            face = Face(image, target.landmarks, target.identity, target.name)
            inner, matrix = align(face, config.side)
            hole = cut_hole(move(target.landmarks, matrix), names[int(at)], inner.shape[:2], config.ragged, rng)
            layer = self.paint(inner, hole, rng)
            back, cover = unalign(np.clip(layer, 0, 255), matrix, size)
            inside, _ = unalign(hole.astype(np.float32), matrix, size)
            mask = ((inside > 127) & (cover > 0.99)).astype(np.uint8) * 255
            if not mask.any():
                continue
            image, touched = compose(image, back, soften(mask, 0.02 * width), config.match)
            changed = np.maximum(changed, touched)
        return Forged(image, changed) if changed.any() else None
