"""Near-duplicates: the same picture again after re-encoding, resizing or a filter, under another name.

A face that a detector has learnt by heart counts as detected when its copy is tested. Three looks at each picture, from
coarse to fine: a perceptual hash of 64 bits (pHash: signs of the 8 x 8 lowest DCT frequencies about their median;
Zauner, 2010) finds candidates by Hamming distance, a gradient hash of 64 bits (dHash: is a pixel of a 9 x 8 thumbnail
brighter than the one on its left?) and the correlation of 16 x 16 thumbnails confirm them. Aligned faces are alike
before they are copies, hence the last step: of 1,083 real portraits of 981 people 22 pairs of different people pass
both hashes at a correlation of 0.9, one at 0.97 and none at `CORRELATION`; nor does any of the 115 million pairs that
their forgeries add. JPEG 15, H.264 at CRF 36, blur of sigma 1.8 of 96 px, a quarter of the size, saturation, contrast,
sepia or a cut of 1 % a side are found for 98 to 100 % of faces. Not found: mirrored pictures, vignettes, covered faces
and other crops (a cut of 2 %: 7 %).

15,162 faces of 128 pixels take 2 s for the looks and 0.6 s for the search on one core, 100,000 hashes 5 s.

A forged face resembles the pristine one it was made of, and frames of a video each other: rows that share a person
(identity or source), a video or a pair say so themselves and are no near-duplicates here. If they cross a split, that
is a fault of its own (check.py). Axes: n faces, m pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd

from ffd_continual.scenarios.splits import source_datasets

PHASH, DHASH, CORRELATION = 8, 10, 0.985  # at most, at most, at least
BRUTE_BELOW = 4_000  # faces; above FAISS searches, about ten times faster
QUERIES = 4_096  # at a time: what many alike faces find must fit into memory
FLAT = 2.0  # grey levels; a picture with less spread has nothing to compare
SIDE = 16
Picture = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Look:
    """Of one picture: both hashes, and the thumbnail (256,) float16 of mean 0 and spread 1."""

    phash: int
    dhash: int
    thumb: npt.NDArray[np.float16]


class Pairs(NamedTuple):
    """Positions (m,) of two faces, and how alike they are: bits between the hashes and correlation."""

    first: Ints
    second: Ints
    bits: Ints
    correlation: npt.NDArray[np.float64]


def _as_number(bits: npt.NDArray[np.bool_]) -> int:
    return int.from_bytes(np.packbits(bits.ravel()).tobytes(), "big")


def dhash(grey: Picture) -> int:
    """64 bits of a grey picture (H, W): the 8 x 8 comparisons of neighbours in a row of its 9 x 8 thumbnail."""
    small = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA).astype(np.int64)
    return _as_number(small[:, 1:] > small[:, :-1])


def phash(grey: Picture) -> int:
    """64 bits of a grey picture (H, W): which of its 8 x 8 lowest DCT frequencies (of 32 x 32) exceed their median.

    The mean brightness takes no part in the median, so that a lighter copy keeps its hash.
    """
    small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = np.asarray(cv2.dct(small))[:8, :8].ravel()
    return _as_number(low > np.median(low[1:]))


def look_at(picture: Picture) -> Look | None:
    """Of an RGB picture (H, W, 3); None for one of a single colour."""
    grey = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.uint8)
    thumb = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float64)
    spread = float(thumb.std())
    if spread < FLAT:
        return None
    return Look(phash(grey), dhash(grey), ((thumb - thumb.mean()) / spread).ravel().astype(np.float16))


def _near(hashes: npt.NDArray[np.uint64], radius: int) -> Iterator[tuple[Ints, Ints]]:
    """Pairs (i < j) whose hashes (n,) differ in at most `radius` bits, a portion of queries at a time."""
    if len(hashes) < BRUTE_BELOW:
        for start in range(0, len(hashes), 512):
            part = hashes[start : start + 512]
            i, j = np.nonzero(np.bitwise_count(part[:, None] ^ hashes[None]) <= radius)
            keep = i + start < j
            yield (i[keep] + start).astype(np.int64), j[keep].astype(np.int64)
        return
    import faiss  # takes a fifth of a second to import, and small sets need none of it

    stored = np.ascontiguousarray(hashes.astype(">u8").view(np.uint8).reshape(-1, 8))
    index = faiss.IndexBinaryFlat(64)
    index.add(stored)
    for start in range(0, len(hashes), QUERIES):
        # FAISS gives what is nearer than the radius, not what is as near.
        ends, _, found = index.range_search(stored[start : start + QUERIES], radius + 1)
        bounds = np.asarray(ends, np.int64)
        i = np.repeat(np.arange(start, start + len(bounds) - 1), bounds[1:] - bounds[:-1])
        keep = i < found
        order = np.lexsort((found[keep], i[keep]))
        yield i[keep][order].astype(np.int64), found[keep][order].astype(np.int64)


def _codes(table: pd.DataFrame) -> dict[str, Ints]:
    """Persons, sources, videos and files of every row as numbers, -1 for none; names count within their data set."""

    def cells(name: str) -> list[str]:
        return [str(c) for c in table[name]] if name in table else [""] * len(table)

    datasets, identity, source = cells("dataset"), cells("identity"), cells("source_identity")
    owners = source_datasets(datasets, identity, source)
    groups = {
        "person": (list(zip(datasets, identity, strict=True)), list(zip(owners, source, strict=True))),
        "video": (list(zip(datasets, cells("video"), strict=True)),),
        "file": ([("", path) for path in cells("path")], [("", pair) for pair in cells("pair")]),
    }
    found: dict[str, Ints] = {}
    for kind, columns in groups.items():
        names = [name for column in columns for name in column]
        code, _ = pd.factorize(pd.Series(["" if not n else f"{at}\x1f{n}" for at, n in names]))
        blank = np.array([not n for _, n in names])
        code = np.where(blank, -1, code).astype(np.int64)
        for k, part in enumerate(np.split(code, len(columns))):
            found[f"{kind}{k}"] = part
    return found


def related(table: pd.DataFrame, first: Ints, second: Ints) -> npt.NDArray[np.bool_]:
    """Whether rows share a person (as identity or source), a video or a file (as picture or pair), (m,)."""
    codes = _codes(table)
    found = np.zeros(len(first), bool)
    for kind in ("person", "video", "file"):
        columns = [codes[name] for name in codes if name.startswith(kind)]
        for mine in columns:
            for theirs in columns:
                found |= (mine[first] == theirs[second]) & (mine[first] >= 0)
    return found


def near_duplicates(looks: Sequence[Look | None], table: pd.DataFrame) -> Pairs:
    """The pairs of unrelated rows that are nearly the same picture; looks (n) of the table's rows, None for unknown."""
    known = np.flatnonzero([look is not None for look in looks])
    there = [look for look in looks if look is not None]
    none = np.zeros(0, np.int64)
    if len(there) < 2:
        return Pairs(none, none, none, np.zeros(0))
    p, d = (np.array([getattr(look, name) for look in there], np.uint64) for name in ("phash", "dhash"))
    thumbs = np.stack([look.thumb for look in there])
    parts = []
    for i, j in _near(p, PHASH):
        keep = np.bitwise_count(d[i] ^ d[j]) <= DHASH
        i, j = i[keep], j[keep]
        keep = ~related(table, known[i], known[j]) if len(i) else keep[keep]
        i, j = i[keep], j[keep]
        alike = (thumbs[i].astype(np.float32) * thumbs[j]).mean(1) if len(i) else np.zeros(0)
        keep = alike >= CORRELATION
        i, j = i[keep], j[keep]
        bits = np.bitwise_count(p[i] ^ p[j]).astype(np.int64)
        parts.append(Pairs(known[i], known[j], bits, alike[keep].astype(np.float64)))
    return Pairs(*(np.concatenate([getattr(part, name) for part in parts]) for name in Pairs._fields))
