"""The look of a source of pictures (its tone, sharpness, grain and JPEG tables), and pictures of another source in it.

Two sets of faces that differ in their label and in their camera teach the camera. Where one class is missing from a
source, pictures of another source are given its look, so that the camera says less of the label. A look is what can be
told from unpaired pictures of other people: mean and spread of each channel; in each frequency band the energy of the
smoothest tenth of all blocks (grain) and of the median block (detail); the JPEG tables. It is an estimate: what else a
camera does (its demosaicking, a codec inside a video, light) stays as it was.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import get_sampling

from ffd_continual.scenarios.faces import Picture, is_grey
from ffd_continual.scenarios.matching import BANDS, Field, split_bands

Floats = NDArray[np.float64]
Tables = tuple[tuple[tuple[int, ...], ...], int]  # quantisation tables, chroma subsampling as Pillow counts it
BLOCK = 8  # px, side of the blocks whose energies are compared
GRAIN, DETAIL = 0.1, 0.5  # quantiles of the blocks' energies
ROUNDS = 6
SAMPLE = 48  # pictures that a change is fitted on
_FLOOR = 0.02  # energy in squared grey levels below which two bands count as equal


@dataclass(frozen=True)
class Look:
    """What a source's pictures have in common. mean, spread: (3,); grain, detail: (bands, 3), squared grey levels."""

    mean: Floats
    spread: Floats
    grain: Floats
    detail: Floats


@dataclass(frozen=True)
class Change:
    """From one look to another: channels times `gain` plus `offset`, bands times `sharpness`, `noise` added in bands
    (standard deviation before the band filter), at last JPEG with the other source's tables."""

    gain: Floats
    offset: Floats
    sharpness: Floats  # (bands,)
    noise: Floats  # (bands, 3)
    tables: Tables | None


def _block_energies(band: Field) -> Floats:
    """Mean square of each channel in blocks: (blocks, 3)."""
    size = (max(band.shape[1] // BLOCK, 1), max(band.shape[0] // BLOCK, 1))
    mean: Field = np.asarray(cv2.resize(band**2, size, interpolation=cv2.INTER_AREA), np.float32)
    return mean.reshape(-1, 3).astype(np.float64)


def look_of(pictures: Sequence[Picture]) -> Look:
    """The look of uint8 RGB pictures (H, W, 3), medians over the pictures. Raises ValueError without any."""
    if not pictures:
        raise ValueError("a look is measured on pictures, and there are none")
    mean, spread, grain, detail = [], [], [], []
    for picture in pictures:
        flat = picture.reshape(-1, 3).astype(np.float64)
        mean.append(flat.mean(axis=0))
        spread.append(flat.std(axis=0))
        energies = [_block_energies(band) for band in split_bands(picture.astype(np.float32))[:-1]]
        grain.append([np.quantile(energy, GRAIN, axis=0) for energy in energies])
        detail.append([np.quantile(energy, DETAIL, axis=0) for energy in energies])
    return Look(*(np.median(np.asarray(values), axis=0) for values in (mean, spread, grain, detail)))


def jpeg_tables(paths: Sequence[str | Path]) -> Tables | None:
    """The JPEG tables most of the files have; None where most are no JPEG files of their own (members of archives)."""
    found: Counter[Tables | None] = Counter()
    for path in paths:
        tables: Tables | None = None
        with suppress(OSError, UnidentifiedImageError), Image.open(path) as opened:
            read: dict[int, list[int]] = getattr(opened, "quantization", None) or {}
            sampling = get_sampling(opened) if read else -1
            if sampling >= 0:
                tables = (tuple(tuple(read[key]) for key in sorted(read)), sampling)
        found[tables] += 1
    return found.most_common(1)[0][0] if found else None


def _filtered(noise: Field, band: int) -> Field:
    """White noise in one of the bands, scaled back to its own variance."""
    layer = split_bands(noise, BANDS[: band + 1])[band]
    return np.asarray(layer / max(float(layer.std()), 1e-6), np.float32)


def changed(image: Picture, change: Change, rng: np.random.Generator) -> Picture:
    """The picture in another look: same size, uint8 RGB. A grey picture stays grey."""
    grey = is_grey(image)
    light = image.astype(np.float32)
    gain, offset = change.gain, change.offset
    if grey:
        gain, offset = np.full(3, gain.mean()), np.full(3, offset.mean())
    bands = split_bands(np.asarray(light * gain + offset, np.float32))
    made = bands[-1].copy()
    for number, band in enumerate(bands[:-1]):
        made += band * np.float32(change.sharpness[number])
        sigma = change.noise[number]
        if sigma.max() > 0:
            drawn = rng.standard_normal((*image.shape[:2], 1 if grey else 3), dtype=np.float32)
            drawn = np.repeat(drawn, 3, axis=2) if grey else drawn
            made += _filtered(drawn, number) * (np.full(3, sigma.mean()) if grey else sigma).astype(np.float32)
    out: Picture = np.clip(np.rint(made), 0, 255).astype(np.uint8)
    if change.tables is not None:
        out = _encoded(out, change.tables)
    if grey:
        out = np.repeat(cv2.cvtColor(out, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    return out


def _encoded(image: Picture, tables: Tables) -> Picture:
    quantisation, sampling = tables
    buffer = io.BytesIO()
    if len(quantisation) == 1:  # a grey source: its luma table for all
        quantisation, sampling = (quantisation[0], quantisation[0]), 0
    kept = [list(table) for table in quantisation[:2]]
    Image.fromarray(image).save(buffer, "JPEG", qtables=kept, subsampling=sampling)
    with Image.open(buffer) as opened:
        return np.asarray(opened.convert("RGB"), np.uint8)


def fit_change(pictures: Sequence[Picture], goal: Look, tables: Tables | None, rng: np.random.Generator) -> Change:
    """The change that gives pictures of one source the look `goal`, as their medians tell.

    Fitted by rounds of applying and measuring, as bands overlap and JPEG removes some of what is added. At most
    `SAMPLE` pictures, evenly taken, are looked at. Raises ValueError without any.
    """
    some = [pictures[i] for i in np.unique(np.linspace(0, len(pictures) - 1, min(len(pictures), SAMPLE)).astype(int))]
    own = look_of(some)
    gain = np.clip(goal.spread / np.maximum(own.spread, 1e-3), 0.4, 2.5)
    change = Change(gain, goal.mean - gain * own.mean, np.ones(len(BANDS)), np.zeros((len(BANDS), 3)), tables)
    seed = int(rng.integers(2**32))
    for _ in range(ROUNDS):
        have = look_of([changed(p, change, np.random.default_rng((seed, i))) for i, p in enumerate(some)])
        gain = change.gain * np.clip(goal.spread / np.maximum(have.spread, 1e-3), 0.8, 1.25)
        offset = gain / change.gain * (change.offset - have.mean) + goal.mean
        above = np.maximum(goal.detail - goal.grain, _FLOOR).mean(axis=1)
        there = np.maximum(have.detail - have.grain, _FLOOR).mean(axis=1)
        sharpness = np.clip(change.sharpness * np.clip(np.sqrt(above / there), 0.6, 1.6), 0.02, 3.0)
        missing = (goal.grain - have.grain) / 2
        noise = np.sqrt(np.maximum(change.noise**2 + missing, 0))
        change = replace(change, gain=gain, offset=offset, sharpness=sharpness, noise=noise)
    return change
