"""Cut and partly covered copies: the same photograph cropped by up to about 15 %, or under a logo, a bar or a patch.

The hashes of duplicates.py see whole pictures, and a cut of 2 % moves most of their bits. Here, from coarse to fine:

1. Candidates. Of each picture, also mirrored, *windows*: what a cut would leave (two sizes, nine places, and four
   one-sided cuts), and *parts* (quarters and the middle), of which a cover leaves some. Each is described by its lowest
   DCT frequencies; FAISS finds for a window the pictures, and for a part the same parts, that are most alike.
2. Registration. A window's affine map is refined by maximising the correlation (ECC: Evangelidis and Psarakis, TPAMI
   2008); a cover needs none.
3. Verification. Both are band-passed and compared block by block. A copy agrees in nearly all blocks that it shares
   with its original; two photographs, of one person or of two, hardly in any.

Of 300 of 1,083 real portraits each, among 15,162 with their forgeries, found by themselves or by a forgery of theirs:
96 % of square cuts of 3 to 15 %, 98 % of cuts of one side, 92 % of covered ones; no false pair in 115 million.
8.7 ms a face on a busy core.

Axes: n faces, m pairs, w windows of a picture, d = 35 frequencies. Looks are (SIDE, SIDE) uint8.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
from tqdm import tqdm

from ffd_continual.scenarios.duplicates import FLAT, groups_of, related_by

SIDE = 64
ORDER = 6  # frequencies across and down
CUTS = (0.88, 0.94)  # sides of the windows, shares of the picture's
NEAREST = 4  # candidates that a picture is given by each window or part
MOST = 256  # that FAISS is asked for, so that a face's own forgeries and frames do not use up its candidates
ALIKE = 0.955  # correlation of descriptors, below which a window is no candidate
TRIED, COMPARED = 3, 8  # candidates of a picture that are registered, and that are compared in place
BAND = (0.8, 3.0)  # sigmas of the band that blocks are compared in, pixels of SIDE
BLOCKS = 8  # across and down
AGREE, LEAST = 0.93, 12  # a block's correlation; blocks there must be
SHARE = {True: 0.6, False: 0.5}  # of blocks that agree, in a cut copy and in a covered one
STEPS = 25  # of the registration
Grey = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Box = tuple[float, float, float, float]  # left, top, right, bottom in shares of the side


class Copies(NamedTuple):
    """Positions (m,) of two faces, first < second, the share of comparable blocks that agree, whether one is mirrored,
    and whether one shows a cut of the other."""

    first: Ints
    second: Ints
    share: Floats
    mirrored: npt.NDArray[np.bool_]
    cut: npt.NDArray[np.bool_]


class _Found(NamedTuple):
    """Candidates (m,): `whole` may be what box number `box` of `scene` shows; -1: both show the same place."""

    scene: Ints
    whole: Ints
    box: Ints
    mirrored: npt.NDArray[np.bool_]
    alike: Floats


def cut_boxes() -> list[Box]:
    """The windows that a cut may leave: the whole, and per size nine places of a square and four one-sided cuts."""
    boxes: list[Box] = [(0.0, 0.0, 1.0, 1.0)]
    for side in CUTS:
        places = (0.0, (1 - side) / 2, 1 - side)
        boxes += [(x, y, x + side, y + side) for y in places for x in places]
    side = CUTS[0]
    return [*boxes, (0, 0, side, 1), (1 - side, 0, 1, 1), (0, 0, 1, side), (0, 1 - side, 1, 1)]


PARTS: tuple[Box, ...] = (
    (0, 0, 0.5, 0.5),
    (0.5, 0, 1, 0.5),
    (0, 0.5, 0.5, 1),
    (0.5, 0.5, 1, 1),
    (0.25, 0.25, 0.75, 0.75),
)


def small_look(picture: npt.NDArray[np.uint8]) -> Grey | None:
    """An RGB picture (H, W, 3) as grey (SIDE, SIDE); None for one of a single colour."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    small = np.asarray(cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)
    return None if float(small.std()) < FLAT else small


def _basis(box: Box) -> tuple[Floats, Floats]:
    """Matrices (ORDER, SIDE) whose products with a look's columns and rows give the box's DCT."""

    def one(low: float, high: float) -> Floats:
        at = ((np.arange(SIDE) + 0.5) / SIDE - low) / (high - low)
        inside = np.clip(np.minimum(at * SIDE * (high - low) + 0.5, (1 - at) * SIDE * (high - low) + 0.5), 0, 1)
        cosines = np.cos(np.pi * np.arange(ORDER)[:, None] * at[None]) * inside
        return np.asarray(cosines / inside.sum(), np.float32)

    return one(box[1], box[3]), one(box[0], box[2])


def describe(looks: Floats, box: Box) -> Floats:
    """Unit vectors (n, d) of the box's lowest frequencies but the mean, of looks (n, SIDE, SIDE)."""
    down, across = _basis(box)
    low = np.einsum("uy,nyx,vx->nuv", down, looks, across, optimize=True).reshape(len(looks), -1)[:, 1:]
    return np.ascontiguousarray(low / np.maximum(np.linalg.norm(low, axis=1, keepdims=True), 1e-6), np.float32)


def _band(look: Floats) -> Floats:
    return np.asarray(cv2.GaussianBlur(look, (0, 0), BAND[0]) - cv2.GaussianBlur(look, (0, 0), BAND[1]), np.float32)


def _blocks(picture: Floats) -> Floats:
    """(H, W) -> (BLOCKS^2, H W / BLOCKS^2)."""
    step = SIDE // BLOCKS
    return picture.reshape(BLOCKS, step, BLOCKS, step).transpose(0, 2, 1, 3).reshape(BLOCKS**2, -1)


def agreement(one: Floats, other: Floats, shared: Floats) -> tuple[float, int]:
    """(share of blocks that agree, blocks that could be compared) of two registered looks (SIDE, SIDE).

    `shared`: 1 where both show something. Blocks without structure in both say nothing and are left out.
    """
    a, b = _blocks(_band(one)), _blocks(_band(other))
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    energy_a, energy_b = np.square(a).mean(1), np.square(b).mean(1)
    usable = (_blocks(shared).min(1) > 0) & (np.maximum(energy_a, energy_b) > 4.0)
    count = int(usable.sum())
    if not count:
        return 0.0, 0
    cosine = (a * b).mean(1) / np.sqrt(np.maximum(energy_a * energy_b, 1e-6))
    return float((cosine[usable] >= AGREE).mean()), count


def register(scene: Floats, whole: Floats, box: Box) -> tuple[Floats, Floats] | None:
    """The part of `scene` that `whole` shows, and where it lies in the scene; None where nothing fits.

    Starts from `box`; both looks (SIDE, SIDE).
    """
    sx, sy = box[2] - box[0], box[3] - box[1]
    shift = ((sx - 1) / 2 + box[0] * SIDE, (sy - 1) / 2 + box[1] * SIDE)
    matrix = np.array([[sx, 0, shift[0]], [0, sy, shift[1]]], np.float32)
    stop = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, STEPS, 1e-4)
    try:
        _, found = cv2.findTransformECC(whole, scene, matrix, cv2.MOTION_AFFINE, stop, np.ones_like(whole, np.uint8), 5)
    except cv2.error:  # it does not converge: no copy
        return None
    matrix = np.asarray(found, np.float32)
    if abs(matrix[0, 1]) + abs(matrix[1, 0]) > 0.06 or not 0.75 < matrix[0, 0] < 1.1 or not 0.75 < matrix[1, 1] < 1.1:
        return None
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    seen = cv2.warpAffine(scene, matrix, (SIDE, SIDE), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    shared = cv2.warpAffine(np.ones_like(scene), matrix, (SIDE, SIDE), flags=flags)
    return np.asarray(seen, np.float32), np.asarray(shared > 0.99, np.float32)


def _search(
    asked: Floats, stored: Floats, codes: dict[str, Ints], most: int, box: int, mirrored: bool
) -> tuple[Ints, Ints, Ints, npt.NDArray[np.bool_], Floats]:
    """Unrelated pictures of `stored` (n, d) that are alike what is `asked` (n, d): `NEAREST` for each of `stored`."""
    import faiss  # takes a fifth of a second to import

    index = faiss.IndexFlatIP(asked.shape[1])
    index.add(stored)
    parts = []
    for start in range(0, len(asked), 4096):
        alike, found = index.search(asked[start : start + 4096], most)
        scene, at = np.nonzero((alike >= ALIKE) if box >= 0 else (found >= 0))
        parts.append((scene + start, found[scene, at].astype(np.int64), alike[scene, at]))
    scene, whole, alike = (np.concatenate(column) for column in zip(*parts, strict=True))
    keep = np.flatnonzero(scene != whole)
    keep = keep[~related_by(codes, scene[keep], whole[keep])]
    keep = _first(keep, whole[keep], alike[keep], NEAREST)
    scene, whole, alike = scene[keep], whole[keep], alike[keep]
    return scene, whole, np.full(len(scene), box, np.int64), np.full(len(scene), mirrored), alike


def _first(places: Ints, groups: Ints, alike: Floats, count: int) -> Ints:
    """Of `places`, the `count` most alike of every group."""
    order = np.lexsort((-alike, groups))
    sorted_ = groups[order]
    begin = np.flatnonzero(np.diff(sorted_, prepend=-1))
    rank = np.arange(len(order)) - np.repeat(begin, np.diff(np.append(begin, len(order))))
    return np.asarray(places[order[rank < count]], np.int64)


def candidates(looks: Floats, table: pd.DataFrame) -> _Found:
    """Pairs of unrelated rows worth verifying, of looks (n, SIDE, SIDE) of the table's n rows."""
    codes = {name: np.asarray(code) for name, code in groups_of(table).items()}
    sizes = [int(np.bincount(code[code >= 0]).max()) for code in codes.values() if (code >= 0).any()]
    most = min(len(looks), MOST, NEAREST + 2 * max(sizes, default=1))
    boxes, found = cut_boxes(), []
    full = describe(looks, boxes[0])
    parts = [describe(looks, box) for box in PARTS]
    for mirrored in (False, True):
        seen = np.ascontiguousarray(looks[:, :, ::-1]) if mirrored else looks
        for number, box in enumerate(boxes):
            found.append(_search(describe(seen, box), full, codes, most, number, mirrored))
        for part, box in zip(parts, PARTS, strict=True):
            found.append(_search(describe(seen, box), part, codes, most, -1, mirrored))
    return _Found(*(np.concatenate(column) for column in zip(*found, strict=True)))


def partial_copies(looks: Sequence[Grey | None], table: pd.DataFrame, progress: bool = False) -> Copies:
    """The pairs of unrelated rows of which one is cut or covered, as it is or mirrored, each once, first < second.

    looks (n) of the table's rows (`small_look`), None for unknown. `progress`: a bar on a terminal.
    """
    known = np.flatnonzero([look is not None for look in looks])
    there = [look for look in looks if look is not None]
    none = np.zeros(0, np.int64)
    empty = Copies(none, none, none.astype(np.float32), none.astype(bool), none.astype(bool))
    if len(there) < 2:
        return empty
    pictures = np.stack(there).astype(np.float32)
    found = candidates(pictures, table.iloc[known])
    windows = np.flatnonzero(found.box >= 0)
    # One candidate a pair, by its best window; of these the few most alike of each picture.
    pair = found.scene[windows] * len(there) + found.whole[windows]
    windows = _first(windows, pair, found.alike[windows], 1)
    windows = _first(windows, found.whole[windows], found.alike[windows], TRIED)
    places = np.flatnonzero(found.box < 0)
    low, high = np.minimum(found.scene, found.whole)[places], np.maximum(found.scene, found.whole)[places]
    places = _first(places, (low * len(there) + high) * 2 + found.mirrored[places], found.alike[places], 1)
    places = _first(places, found.whole[places], found.alike[places], COMPARED)
    boxes = cut_boxes()
    kept: dict[tuple[int, int], tuple[float, bool, bool]] = {}
    everywhere = np.ones((SIDE, SIDE), np.float32)
    todo = np.concatenate([places, windows])
    for at in tqdm(todo, "copies", unit="pair", disable=None if progress else True):
        scene, whole, turned = int(found.scene[at]), int(found.whole[at]), bool(found.mirrored[at])
        key = (min(scene, whole), max(scene, whole))
        if key in kept:
            continue
        shown = np.ascontiguousarray(pictures[scene][:, ::-1]) if turned else pictures[scene]
        cut = bool(found.box[at] >= 0)
        laid = register(shown, pictures[whole], boxes[found.box[at]]) if cut else (shown, everywhere)
        if laid is None:
            continue
        share, count = agreement(laid[0], pictures[whole], laid[1])
        if share >= SHARE[cut] and count >= LEAST:
            kept[key] = (share, turned, cut)
    if not kept:
        return empty
    first, second = (known[np.array(side, np.int64)] for side in zip(*sorted(kept), strict=True))
    values = np.array([kept[key] for key in sorted(kept)], np.float32)
    return Copies(first, second, values[:, 0], values[:, 1] > 0, values[:, 2] > 0)
