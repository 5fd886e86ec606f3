"""The face table of a run: every row decoded, through its camera, at the learner's size; one copy, whoever reads it.

A row of this table is a face *in an experience*: one real portrait that two experiences see through two cameras is two
rows. Preparation is a pure function of (seed, manifest row, capture profile), so all epochs, all methods and all
processes see the same bytes. Prepared tables are cached on disk under a key of their content.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
from tqdm import tqdm

from ffd_continual.scenarios.capture import CaptureProfile, apply_profile
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.pictures import PictureError, read_picture
from ffd_continual.scenarios.prepared import read_new, table_key
from ffd_continual.scenarios.traces import difference_mask, ssim_mask
from ffd_continual.scenarios.views import keyed_generator

Bytes = npt.NDArray[np.uint8]
LANDMARKS = 68
MASKS = ("auto", "manifest", "difference", "ssim")  # where masks come from; auto: the manifest, else difference


@dataclass(frozen=True)
class FaceTable:
    """N rows over U prepared faces of S pixels a side."""

    rows: pd.DataFrame  # N rows: path, label, forgery, experience (name), stream, identity, video, manifest_row, ...
    slot: npt.NDArray[np.int64]  # (N,) where a row's picture lies: rows that show the same picture share it
    pictures: Bytes  # (U, S, S, 3) RGB
    masks: Bytes  # (U, S, S) 255 where forged, or (0,) when nobody needs masks
    mask_known: npt.NDArray[np.bool_]  # (U,)
    pairs: Bytes  # (U, S, S, 3) or (0,)
    pair_known: npt.NDArray[np.bool_]  # (U,)
    landmarks: npt.NDArray[np.float32]  # (U, 68, 2) pixels at size S; NaN where unknown
    names: tuple[str, ...]  # forgery names; the index is the forgery id, names[0] == "real"
    relabelled: int = 0  # forged training rows that became real for want of forged pixels

    @property
    def size(self) -> int:
        """S, pixels."""
        return int(self.pictures.shape[1])

    def ids(self, column: str) -> npt.NDArray[np.int64]:
        """A column as small integers: `forgery` by `names`, others by order of appearance."""
        if column == "forgery":
            known = {name: i for i, name in enumerate(self.names)}
            return np.array([known[f] for f in self.rows["forgery"]], np.int64)
        return np.asarray(pd.factorize(self.rows[column])[0], np.int64)


def _window(length: int, crop: float) -> tuple[int, int]:
    """Start and length of the central share `crop` of a side."""
    inner = max(1, round(length * crop))
    return (length - inner) // 2, inner


def fit_picture(image: Bytes, size: int, crop: float) -> Bytes:
    """The central share `crop` of a picture (H, W, 3) or mask (H, W) at the learner's size S: (S, S, ...)."""
    if crop < 1.0:
        (top, height), (left, width) = (_window(side, crop) for side in image.shape[:2])
        image = image[top : top + height, left : left + width]
    if image.shape[:2] == (size, size):
        return image
    shrink = image.shape[0] > size
    return np.asarray(
        cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_CUBIC), np.uint8
    )


def _profile_key(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")


def through_camera(image: Bytes, profile: CaptureProfile | None, manifest_row: int, seed: int) -> Bytes:
    """The picture as its row's camera delivers it: the same draw for a face wherever it is read."""
    if profile is None:
        return image
    return apply_profile(image, profile, keyed_generator(seed, manifest_row, _profile_key(profile.name)))


@dataclass(frozen=True)
class _Prepared:
    picture: Bytes
    mask: Bytes | None
    pair: Bytes | None
    shape: tuple[int, int]


class _Preparer:
    """Reads one row: picture, mask and pair, each through the row's own camera draw."""

    def __init__(
        self,
        size: int,
        crop: float,
        seed: int,
        profiles: dict[str, CaptureProfile],
        need_mask: bool,
        need_pair: bool,
        masks: str,
    ):
        self.size, self.crop, self.seed, self.profiles = size, crop, seed, profiles
        self.need_mask, self.need_pair, self.masks = need_mask, need_pair, masks

    def _through_camera(self, image: Bytes, row: pd.Series) -> Bytes:
        seen = through_camera(image, self.profiles.get(row["profile"]), int(row["manifest_row"]), self.seed)
        return fit_picture(seen, self.size, self.crop)

    def _mask(self, row: pd.Series, image: Bytes, pair: Bytes | None) -> Bytes | None:
        """What the forgery changed, told from the files themselves, before any camera; None where it is not known."""
        if self.masks in ("auto", "manifest") and row["mask"]:
            return read_picture(row["mask"])[..., 0]
        if self.masks == "manifest" or not row["label"] or pair is None or pair.shape != image.shape:
            return None
        return ssim_mask(image, pair) if self.masks == "ssim" else difference_mask(image, pair)

    def __call__(self, row: pd.Series) -> _Prepared:
        image = read_picture(row["path"])
        from_pair = self.masks in ("difference", "ssim") or (self.masks == "auto" and not row["mask"])
        used = row["pair"] and (self.need_pair or (self.need_mask and from_pair))
        pair = read_picture(row["pair"]) if used else None
        mask = self._mask(row, image, pair) if self.need_mask else None
        if mask is not None:
            mask = np.where(fit_picture(mask, self.size, self.crop) >= 128, 255, 0).astype(np.uint8)
        shown = self._through_camera(pair, row) if pair is not None and self.need_pair else None
        return _Prepared(self._through_camera(image, row), mask, shown, (image.shape[0], image.shape[1]))


def _parse_landmarks(text: object, shape: tuple[int, int], size: int, crop: float) -> npt.NDArray[np.float32]:
    """68 points at the prepared size, or NaN when the row has none (a hull of other length counts as none)."""
    missing = np.full((LANDMARKS, 2), np.nan, np.float32)
    if not isinstance(text, str) or not text:
        return missing
    points = np.asarray(json.loads(text), np.float32)
    if points.shape != (LANDMARKS, 2):
        return missing
    (top, height), (left, width) = (_window(side, crop) for side in shape)
    return (points - np.array([left, top], np.float32)) * np.array([size / width, size / height], np.float32)


def prepare_table(
    rows: pd.DataFrame,
    names: tuple[str, ...],
    size: int,
    seed: int,
    profiles: dict[str, CaptureProfile],
    *,
    crop: float = 1.0,
    need_mask: bool = False,
    need_pair: bool = False,
    masks: str = "auto",
    relabel_below: int = 0,
    skip_unreadable: bool = False,
    cache: Path | None = None,
    threads: int = 1,
    report_skipped: Callable[[pd.DataFrame], None] | None = None,
    store: Path | None = None,
) -> FaceTable:
    """Decode all rows. Unreadable pictures end the run, listed by name; with `skip_unreadable` they are dropped.

    masks: one of `MASKS`. relabel_below: forged *training* rows whose known mask has fewer pixels at size S become
    real (Jia et al., IEEE TBIOM 2021: the wrong face of a frame was cropped); what is measured on is never touched.
    cache: whole tables are kept there. store: single faces are, instead, for tables that share most of theirs.
    """
    slot = np.asarray(rows.groupby(["manifest_row", "profile"], sort=False).ngroup(), np.int64)
    distinct = rows.iloc[np.unique(slot, return_index=True)[1]].reset_index(drop=True)
    needs, folder = f"{need_mask}{need_pair}{crop}{masks}", None
    if cache is not None and store is None:
        folder = cache / f"faces-{table_key(distinct, size, seed, profiles, needs)}"
        if (folder / "done.json").exists():
            arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in _ARRAYS}
            return _relabel(FaceTable(rows=rows, slot=slot, names=names, relabelled=0, **arrays), relabel_below)
    preparer = _Preparer(size, crop, seed, profiles, need_mask, need_pair, masks)
    if store is None:
        arrays, bad = _read_all(distinct, preparer, threads)
    else:
        how = f"{size}|{seed}|{needs}|{sorted((k, repr(v)) for k, v in profiles.items())!r}"
        arrays, bad, entry = read_new(distinct, how, store, lambda rows: _read_all(rows, preparer, threads))
        slot = entry[slot]
    if bad:
        dropped = distinct.iloc[sorted(bad)].assign(cause=[bad[i] for i in sorted(bad)])
        if not skip_unreadable:
            listed = "".join(f"\n  {cause}" for cause in dropped["cause"])  # each names its file
            raise FFDError(
                f"{len(bad)} of {len(distinct)} pictures cannot be read:{listed[:4000]}\n"
                "Mend or remove them (`ffd check` lists all), or set scenario.unreadable=skip to leave them out."
            )
        if report_skipped is not None:
            report_skipped(dropped)
        keep = ~np.isin(slot, sorted(bad))
        rows, slot = rows[keep].reset_index(drop=True), slot[keep]
    elif folder is not None:
        _store_cached(folder, arrays)
    return _relabel(FaceTable(rows=rows, slot=slot, names=names, relabelled=0, **arrays), relabel_below)


def _relabel(table: FaceTable, below: int) -> FaceTable:
    """Forged training rows with fewer than `below` forged pixels as real ones, whose mask is empty."""
    forged = ((table.rows["stream"] == "train") & (table.rows["label"] == 1)).to_numpy()
    at = np.flatnonzero(forged & table.mask_known[table.slot]) if below > 0 and len(table.masks) else np.zeros(0, int)
    few = np.array([np.count_nonzero(table.masks[slot]) < below for slot in table.slot[at]], bool)
    if not few.any():
        return table
    at = at[few]
    rows, masks = table.rows.copy(), np.array(table.masks)
    rows.loc[rows.index[at], ["label", "forgery"]] = [0, "real"]
    masks[table.slot[at]] = 0
    return replace(table, rows=rows, masks=masks, relabelled=len(at))


def _read_all(
    rows: pd.DataFrame, preparer: _Preparer, threads: int
) -> tuple[dict[str, npt.NDArray[Any]], dict[int, str]]:
    """The arrays of a table, and why row i could not be read."""
    count, size = len(rows), preparer.size
    arrays: dict[str, npt.NDArray[Any]] = {
        "pictures": np.zeros((count, size, size, 3), np.uint8),
        "masks": np.zeros((count, size, size) if preparer.need_mask else (0,), np.uint8),
        "pairs": np.zeros((count, size, size, 3) if preparer.need_pair else (0,), np.uint8),
        "mask_known": np.asarray(rows["label"].to_numpy() == 0),
        "pair_known": np.zeros(count, bool),
        "landmarks": np.full((count, LANDMARKS, 2), np.nan, np.float32),
    }
    bad: dict[int, str] = {}
    records = [row for _, row in rows.iterrows()]

    def fill(i: int) -> None:
        try:
            prepared = preparer(records[i])
        except PictureError as error:
            bad[i] = str(error)
            return
        arrays["pictures"][i] = prepared.picture
        arrays["landmarks"][i] = _parse_landmarks(records[i]["landmarks"], prepared.shape, size, preparer.crop)
        if prepared.mask is not None:
            arrays["masks"][i], arrays["mask_known"][i] = prepared.mask, True
        if prepared.pair is not None:
            arrays["pairs"][i], arrays["pair_known"][i] = prepared.pair, True

    with ThreadPoolExecutor(threads) as pool:
        for _ in tqdm(pool.map(fill, range(count)), total=count, desc="reading faces", unit="face", leave=False):
            pass
    return arrays, bad


_ARRAYS = ("pictures", "masks", "mask_known", "pairs", "pair_known", "landmarks")


def _store_cached(folder: Path, arrays: dict[str, npt.NDArray[Any]]) -> None:
    part = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    try:
        part.mkdir(parents=True, exist_ok=True)
        for name, values in arrays.items():
            np.save(part / f"{name}.npy", values)
        (part / "done.json").write_text(json.dumps({"faces": len(arrays["pictures"])}))
        part.rename(folder)
    except OSError:
        # A cache is a convenience: a full disk, or another process that was first, must not end the run.
        shutil.rmtree(part, ignore_errors=True)
