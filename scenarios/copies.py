"""Copies of a picture under another name, as faults of a manifest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ffd_continual.scenarios.duplicates import Look, near_duplicates
from ffd_continual.scenarios.faults import Fault, Rows
from ffd_continual.scenarios.manifest import Manifest
from ffd_continual.scenarios.manifest_cells import SPLITS
from ffd_continual.scenarios.partial import Grey, partial_copies

Told = tuple[int, int, str, str]  # two rows, what the second is to the first, and how that was seen


def _near(manifest: Manifest, looks: Sequence[Look | None]) -> list[Told]:
    pairs = near_duplicates(looks, manifest.table)
    order = np.argsort(-pairs.correlation, kind="stable")  # of several, the nearest is named
    return [
        (
            int(pairs.first[at]),
            int(pairs.second[at]),
            "nearly the same picture as",
            f"({'mirrored, ' if pairs.mirrored[at] else ''}{pairs.bits[at]} of 64 hash bits differ)",
        )
        for at in order
    ]


def _partial(manifest: Manifest, small: Sequence[Grey | None], progress: bool) -> list[Told]:
    pairs = partial_copies(small, manifest.table, progress)
    order = np.argsort(-pairs.share, kind="stable")
    return [
        (
            int(pairs.first[at]),
            int(pairs.second[at]),
            "in part the same picture as",
            f"({'mirrored, ' if pairs.mirrored[at] else ''}{'cut' if pairs.cut[at] else 'covered'}: "
            f"{100 * float(pairs.share[at]):.0f} % of what both show agrees)",
        )
        for at in order
    ]


def copy_faults(
    manifest: Manifest,
    rows: Rows,
    looks: Sequence[Look | None],
    digests: Sequence[str],
    small: Sequence[Grey | None] | None = None,
    progress: bool = False,
) -> Iterator[Fault]:
    """Nearly the same picture, perhaps mirrored, under another name: in another split, with another label; counted
    within a split.

    Rows that share a person, video or pair are left to the other faults, pictures of the same bytes, too. Of every row
    `looks` and, where cut and covered copies are sought as well, `small`.
    """
    splits, labels = rows.text["split"], rows.text["label"]
    pairs = _near(manifest, looks)
    if small is not None:
        known = {frozenset(one[:2]) for one in pairs}
        pairs += [one for one in _partial(manifest, small, progress) if frozenset(one[:2]) not in known]
    told: set[tuple[int, str]] = set()
    within: set[int] = set()
    for i, j, word, how in pairs:
        if digests[i] and digests[i] == digests[j]:
            continue
        if splits[i] and splits[j] and splits[i] != splits[j]:
            # What is measured on comes from what was learnt, not the other way round: the later split is named.
            late, early = sorted((i, j), key=lambda row: SPLITS.index(splits[row]), reverse=True)
            if (late, "split") not in told:
                told.add((late, "split"))
                message = f"{word} {rows.at(early)} of another name, which is in {splits[early]}"
                message = f"{message}, this one in {splits[late]} {how}"
                yield rows.fault(late, "path", "near-duplicate-in-two-splits", message)
        else:
            within |= {i, j}
        if labels[i] != labels[j]:
            forged, real = (i, j) if labels[i] else (j, i)
            if (forged, "label") not in told:
                told.add((forged, "label"))
                message = f"{word} {rows.at(real)}, which is real and not its pair {how}"
                yield rows.fault(forged, "label", "near-duplicate-label", message)
    if within:
        message = f"{len(within)} faces are nearly the same picture as one of another name in their split"
        yield Fault(None, "path", "near-duplicate", message, warning=True)
