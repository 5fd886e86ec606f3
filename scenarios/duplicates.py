"""Near-duplicates: the same picture again after re-encoding, resizing or a filter, under another name.

A face that a detector has learnt by heart counts as detected when its copy is tested. Three looks at each picture, from
coarse to fine: a perceptual hash of 64 bits (pHash: signs of the 8 x 8 lowest DCT frequencies about their median;
Zauner, 2010) finds candidates by Hamming distance, a gradient hash of 64 bits (dHash: is a pixel of a 9 x 8 thumbnail
brighter than the one on its left?) and the correlation of 16 x 16 thumbnails confirm them. Aligned faces are alike
before they are copies, hence the last step: of 1,083 real portraits of 981 people 22 pairs of different people pass
both hashes at a correlation of 0.9, one at 0.97 and none at `CORRELATION`; nor does any of the 115 million pairs that
their forgeries add. JPEG 15, H.264 at CRF 36, blur of sigma 1.8 of 96 px, a quarter of the size, saturation, contrast,
sepia or a cut of 1 % a side are found for 98 to 100 % of faces.

Every picture is compared with the others mirrored, too. Of those portraits 19 such pairs of different people reach 0.9
and none 0.97, nor does any of their forgeries reach `CORRELATION`: it adds no false pair. Mirrored copies after JPEG
15, blur, a quarter of the size, saturation, sepia or a cut of 1 % are found for all 1,083 faces. Not found: vignettes,
covered faces and other crops (a cut of 2 %: 7 %); the last two are partial.py's.

15,162 faces of 128 pixels take 4.5 s for the looks and 1.1 s for the search on one busy core, 100,000 hashes 11 s.

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
SIGNS = np.array([1, -1] * 4, np.float32)  # of the frequencies across, once a picture is mirrored
Picture = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Look:
    """Of one picture: both hashes, each as it is and mirrored, and the thumbnail (256,) float16 of mean 0, spread 1."""

    phash: tuple[int, int]
    dhash: tuple[int, int]
    thumb: npt.NDArray[np.float16]


class Pairs(NamedTuple):
    """Positions (m,) of two faces, how alike they are (bits between the hashes, correlation), and whether they are so
    with one of them mirrored."""

    first: Ints
    second: Ints
    bits: Ints
    correlation: npt.NDArray[np.float64]
    mirrored: npt.NDArray[np.bool_]


def _as_number(bits: npt.NDArray[np.bool_]) -> int:
    return int.from_bytes(np.packbits(bits.ravel()).tobytes(), "big")


def dhashes(grey: Picture) -> tuple[int, int]:
    """64 bits of a grey picture (H, W), as it is and mirrored: the comparisons of neighbours in a row of its 9 x 8
    thumbnail."""
    small = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA).astype(np.int64)
    back = small[:, ::-1]
    return _as_number(small[:, 1:] > small[:, :-1]), _as_number(back[:, 1:] > back[:, :-1])


def phashes(grey: Picture) -> tuple[int, int]:
    """64 bits of a grey picture (H, W), as it is and mirrored: which of its 8 x 8 lowest DCT frequencies (of 32 x 32)
    exceed their median.

    The mean brightness takes no part in the median, so that a lighter copy keeps its hash. Mirrored it has the same
    frequencies, but those that are odd across change their sign.
    """
    small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = np.asarray(cv2.dct(small))[:8, :8]
    as_is, mirrored = low.ravel(), (low * SIGNS).ravel()
    return _as_number(as_is > np.median(as_is[1:])), _as_number(mirrored > np.median(mirrored[1:]))


def look_at(picture: Picture) -> Look | None:
    """Of an RGB picture (H, W, 3); None for one of a single colour."""
    grey = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.uint8)
    thumb = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float64)
    spread = float(thumb.std())
    if spread < FLAT:
        return None
    flat = ((thumb - thumb.mean()) / spread).ravel().astype(np.float16)
    return Look(phashes(grey), dhashes(grey), flat)


def _near(hashes: Hashes, radius: int, among: Hashes | None = None) -> Iterator[tuple[Ints, Ints]]:
    """Pairs (i < j) whose hashes (n,) differ in at most `radius` bits, a portion of queries at a time.

    among: other hashes (n,) of the same pictures, j's; then i may also be the later one.
    """
    others = hashes if among is None else among
    if len(hashes) < BRUTE_BELOW:
        for start in range(0, len(hashes), 512):
            part = hashes[start : start + 512]
            i, j = np.nonzero(np.bitwise_count(part[:, None] ^ others[None]) <= radius)
            keep = i + start < j if among is None else i + start != j
            yield (i[keep] + start).astype(np.int64), j[keep].astype(np.int64)
        return
    import faiss  # takes a fifth of a second to import, and small sets need none of it

    asked, stored = (np.ascontiguousarray(h.astype(">u8").view(np.uint8).reshape(-1, 8)) for h in (hashes, others))
    index = faiss.IndexBinaryFlat(64)
    index.add(stored)
    for start in range(0, len(hashes), QUERIES):
        # FAISS gives what is nearer than the radius, not what is as near.
        ends, _, found = index.range_search(asked[start : start + QUERIES], radius + 1)
        bounds = np.asarray(ends, np.int64)
        i = np.repeat(np.arange(start, start + len(bounds) - 1), bounds[1:] - bounds[:-1])
        keep = i < found if among is None else i != found
        order = np.lexsort((found[keep], i[keep]))
        yield i[keep][order].astype(np.int64), found[keep][order].astype(np.int64)


def groups_of(table: pd.DataFrame) -> dict[str, Ints]:
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
    return related_by(groups_of(table), first, second)


def related_by(codes: dict[str, Ints], first: Ints, second: Ints) -> npt.NDArray[np.bool_]:
    """`related` by the numbers that `groups_of` gave."""
    found = np.zeros(len(first), bool)
    for kind in ("person", "video", "file"):
        columns = [codes[name] for name in codes if name.startswith(kind)]
        for mine in columns:
            for theirs in columns:
                found |= (mine[first] == theirs[second]) & (mine[first] >= 0)
    return found


def near_duplicates(looks: Sequence[Look | None], table: pd.DataFrame) -> Pairs:
    """The pairs of unrelated rows that are nearly the same picture, as it is or mirrored, each once, first < second.

    looks (n) of the table's rows, None for unknown.
    """
    known = np.flatnonzero([look is not None for look in looks])
    there = [look for look in looks if look is not None]
    none = np.zeros(0, np.int64)
    if len(there) < 2:
        return Pairs(none, none, none, np.zeros(0), np.zeros(0, bool))

    p, d = (np.array([getattr(look, name) for look in there], np.uint64).T.copy() for name in ("phash", "dhash"))
    thumbs = np.stack([look.thumb for look in there])
    parts = []
    for turned in (False, True):
        p0, d0, p1, d1 = p[0], d[0], p[int(turned)], d[int(turned)]
        side = thumbs.reshape(-1, SIDE, SIDE)[:, :, ::-1].reshape(len(thumbs), -1) if turned else thumbs
        for i, j in _near(p0, PHASH, p1 if turned else None):
            keep = np.bitwise_count(d0[i] ^ d1[j]) <= DHASH
            i, j = i[keep], j[keep]
            keep = ~related(table, known[i], known[j]) if len(i) else keep[keep]
            i, j = i[keep], j[keep]
            alike = (thumbs[i].astype(np.float32) * side[j]).mean(1) if len(i) else np.zeros(0)
            keep = alike >= CORRELATION
            i, j = i[keep], j[keep]
            bits = np.bitwise_count(p0[i] ^ p1[j]).astype(np.int64)
            both = np.sort([known[i], known[j]], axis=0)
            parts.append(Pairs(both[0], both[1], bits, alike[keep].astype(np.float64), np.full(len(i), turned)))
    found = Pairs(*(np.concatenate([getattr(part, name) for part in parts]) for name in Pairs._fields))
    # A pair may be found both ways round, and a symmetric face as it is and mirrored: the more alike one stays.
    order = np.lexsort((-found.correlation, found.second, found.first))
    place = found.first[order] * len(looks) + found.second[order]
    kept = order[np.flatnonzero(np.diff(place, prepend=-1))]
    return Pairs(*(getattr(found, name)[kept] for name in Pairs._fields))
