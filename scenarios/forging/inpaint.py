"""In-painting: a region of the face cut out and filled with other parts of the same face.

Shift-map filling (Pritch et al., ICCV 2009; here one shift a region): of many displacements of the face onto itself,
plain or mirrored, the one whose surroundings agree best with the hole's, then a membrane that takes away the difference
at the rim. Holes too large for that are spanned by the membrane alone. Either way texture is lost, as in real fillings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from ffd_continual.scenarios.faces import Face, Picture, Points
from ffd_continual.scenarios.forging.contract import Forged
from ffd_continual.scenarios.forging.geometry import Field, face_outline, face_width, grow, part_mask, soften
from ffd_continual.scenarios.matching import compose

MIN_RIM = 24  # pixels of skin around a hole, below which no membrane can be spanned


@dataclass(frozen=True)
class InpaintConfig:
    """Holes a face and their half axes in face widths.

    `loss`: share of the filling's texture that is lost (finer than `reach` face widths); `match`: share of the mismatch
    in band energy that is removed.
    """

    holes: tuple[int, int] = (4, 7)
    radius: tuple[float, float] = (0.12, 0.22)
    loss: tuple[float, float] = (0.6, 0.95)
    reach: float = 0.04
    match: float = 0.2


def hole_centres(landmarks: Points) -> Points:
    """Where holes may lie, skin only: cheeks, under the eyes, beside the nose and the chin, chin, forehead; (9, 2)."""
    m = landmarks
    return np.stack(
        [
            (m[2] + m[31]) / 2,
            (m[14] + m[35]) / 2,
            (m[4] + m[48]) / 2,
            (m[12] + m[54]) / 2,
            m[40] * 0.6 + m[31] * 0.4,
            m[47] * 0.6 + m[35] * 0.4,
            (m[6] + m[59]) / 2,
            (m[10] + m[55]) / 2,
            m[27] + (m[27] - m[29]) * 1.6,
        ]
    ).astype(np.float32)


def membrane(difference: Field, hole: Picture) -> Field:
    """Smooth fill (H, W, 3) of a hole from its rim by pull and push over a pyramid (Gortler et al., SIGGRAPH 1996)."""
    known = (hole == 0).astype(np.float32)[..., None]
    values, weights = [difference * known], [known]
    while min(values[-1].shape[:2]) > 2:
        values.append(cv2.pyrDown(values[-1]))
        down = cv2.pyrDown(weights[-1])
        weights.append(down[..., None] if down.ndim == 2 else down)
    result = values[-1] / np.maximum(weights[-1], 1e-4)
    for value, weight in zip(values[-2::-1], weights[-2::-1], strict=True):
        up = cv2.resize(result, value.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        share = np.clip(weight, 0, 1)
        result = value + (1 - share) * up
    return np.asarray(result, np.float32)


def fill_hole(image: Picture, hole: Picture, allowed: Picture, rng: np.random.Generator) -> Field | None:
    """float32 (H, W, 3): the picture with its hole filled by a displaced, perhaps mirrored, part of `allowed`.

    Candidates are ranked by squared difference on a rim around the hole; one of the best three is drawn. None where
    nothing of that shape fits into `allowed` beside the hole.
    """
    rim = grow(hole, max(image.shape[0] * 0.025, 2))
    x, y, w, h = cv2.boundingRect(rim)
    # Where the rim lies on a lid or a lip it says nothing about the skin's tone: it is left out.
    around = (rim > 0) & (hole == 0) & (allowed > 0)
    if int(around.sum()) < MIN_RIM:
        return None
    ring = around[y : y + h, x : x + w].astype(np.float32)
    patch = image[y : y + h, x : x + w].astype(np.float32)
    candidates: list[tuple[float, int, int, int]] = []
    for mirrored in (0, 1):
        field_ = (image[:, ::-1] if mirrored else image).astype(np.float32)
        free = ((allowed > 0) & (rim == 0)).astype(np.float32)
        free = np.ascontiguousarray(free[:, ::-1] if mirrored else free)
        shape = (rim > 0)[y : y + h, x : x + w].astype(np.float32)
        cover = cv2.matchTemplate(free, shape, cv2.TM_CCORR) / max(float(shape.sum()), 1.0)
        cost = cv2.matchTemplate(
            np.ascontiguousarray(field_), patch, cv2.TM_SQDIFF, mask=np.repeat(ring[..., None], 3, 2)
        )
        cost = cost + (cover < 0.97) * 1e12
        for _ in range(3):
            left, top = cv2.minMaxLoc(cost)[2]
            if cost[top, left] >= 1e12:
                break
            candidates.append((float(cost[top, left]), mirrored, left, top))
            cost[max(top - 3, 0) : top + 4, max(left - 3, 0) : left + 4] = 1e12
    if not candidates:
        return None
    candidates.sort()
    _, mirrored, left, top = candidates[int(rng.integers(min(3, len(candidates))))]
    origin = image[:, ::-1] if mirrored else image
    layer = image.astype(np.float32)
    layer[y : y + h, x : x + w] = origin[top : top + h, left : left + w]
    offset = image.astype(np.float32) - layer
    offset[~around] = 0
    usable = np.where(around, 0, 255).astype(np.uint8)
    return np.asarray(np.clip(layer + membrane(offset, usable), 0, 255), np.float32)


@dataclass(frozen=True)
class Inpaint:
    """Four to seven elliptic holes in the skin, filled from elsewhere in it."""

    config: InpaintConfig = field(default_factory=InpaintConfig)
    name: str = "inpaint"

    def forge(self, target: Face, others: Sequence[Face], rng: np.random.Generator) -> Forged | None:
        """None where no hole could be filled; `others` are not used."""
        size, width, marks = target.image.shape[:2], face_width(target.landmarks), target.landmarks
        allowed = np.zeros(size, np.uint8)
        cv2.fillConvexPoly(allowed, cv2.convexHull(np.round(face_outline(marks, 0.12)).astype(np.int32)), (255,))
        allowed = grow(allowed, -0.04 * width)  # the jaw's landmarks touch the background
        for part in ("left_eye", "right_eye", "mouth", "nose"):  # skin for skin: a second eye in a cheek fools nobody
            allowed[part_mask(marks, part, size, 0.02) > 0] = 0
        image, changed = target.image, np.zeros(size, np.uint8)
        centres = hole_centres(marks)
        count = int(rng.integers(self.config.holes[0], self.config.holes[1] + 1))
        for index in rng.permutation(len(centres))[:count]:
            hole = np.zeros(size, np.uint8)
            axes = np.round(rng.uniform(*self.config.radius, 2) * width).astype(int)
            centre = np.round(centres[index] + rng.normal(0, 0.02 * width, 2)).astype(int)
            cv2.ellipse(hole, centre.tolist(), axes.tolist(), float(rng.uniform(0, 180)), 0, 360, (255,), -1)
            hole[allowed == 0] = 0
            if not hole.any():
                continue
            layer = fill_hole(image, hole, allowed, rng)
            if layer is None:  # nothing that large fits beside the hole: it is spanned smoothly
                skin = (allowed > 0) & (grow(hole, 0.02 * width) == 0)
                if int(skin.sum()) < MIN_RIM:
                    continue
                layer = membrane(image.astype(np.float32), np.where(skin, 0, 255).astype(np.uint8))
            blurred = cv2.GaussianBlur(layer, (0, 0), self.config.reach * width)
            layer = np.asarray(layer + np.float32(rng.uniform(*self.config.loss)) * (blurred - layer), np.float32)
            image, touched = compose(image, layer, soften(hole, 0.012 * width), self.config.match)
            changed = np.maximum(changed, touched)
        return Forged(image, changed) if changed.any() else None
