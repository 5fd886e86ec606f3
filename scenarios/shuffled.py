"""Control: training labels that say nothing. Whatever still tells real from forged afterwards is a leak, or luck.

The labels of each experience's training and validation faces are dealt out anew among its own faces. What the table
knows besides and what would betray the old label is taken away from training faces: which pixels were changed, the
pristine picture of the pair, and the landmarks that self-blended forgeries are made with (a learner that makes its own
forgeries knows their labels). Test and unseen faces keep all: every figure on them should be 0.5.

The deal is a permutation that keeps the numbers and is *even*: faces that were real and faces that were forged get the
same share of each new label, up to rounding. A free permutation of some hundred labels correlates with the old ones by
chance (about 1 / sqrt(faces)), and a detector learns that: in a simulation with 280 faces and logistic regression its
test AUC spreads three to four times as far around 0.5. Some luck of the deal is left, and all test faces share it, so
one run's interval over test persons does not hold it: read the interval over several seeds
(configs/grids/control_shuffled.yaml). Axes: N rows of the table, n rows of one experience's stream.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from ffd_continual.scenarios.manifest_cells import REAL
from ffd_continual.scenarios.table import FaceTable

LABELS = ("given", "shuffled")
#: Optional batch fields that no training face has under shuffled labels.
BETRAYING = frozenset({"mask", "pair", "pseudo"})


def deal_evenly(old: npt.NDArray[np.str_], rng: np.random.Generator) -> npt.NDArray[np.str_]:
    """A permutation of `old` (n,) in which every old value gets each new one in its overall share, up to rounding.

    Systematic sampling: each value's copies stand at equal distances on a line, from a random start; faces, sorted by
    their old value and at random within it, take what stands there in turn.
    """
    values, counts = np.unique(old, return_counts=True)
    places = [(np.arange(count) + rng.random()) / count for count in counts]
    dealt = np.repeat(values, counts)[np.argsort(np.concatenate(places), kind="stable")]
    new = np.empty_like(old)
    new[np.lexsort((rng.permutation(len(old)), old))] = dealt
    return new


def shuffle_labels(table: FaceTable, seed: int) -> FaceTable:
    """The table with labels dealt anew within each experience's train and valid stream; a pure function of the seed."""
    rows = table.rows.copy()
    forgery = rows["forgery"].to_numpy().astype(str)
    parts = rows.groupby(["stream", "experience"], sort=False).indices
    for (stream, experience), at in parts.items():
        if stream in ("train", "valid"):
            key = [seed, 707, *f"{stream}|{experience}".encode()]
            forgery[at] = deal_evenly(forgery[at], np.random.default_rng(key))
    rows["forgery"] = pd.Series(forgery, index=rows.index, dtype=rows["forgery"].dtype)
    rows["label"] = (rows["forgery"] != REAL).astype(rows["label"].dtype)
    taught = np.unique(table.slot[(rows["stream"] == "train").to_numpy()])
    mask_known, pair_known = np.array(table.mask_known), np.array(table.pair_known)
    landmarks, masks = np.array(table.landmarks), np.array(table.masks)
    mask_known[taught] = pair_known[taught] = False
    landmarks[taught] = np.nan
    if len(masks):
        masks[taught] = 0
    return replace(table, rows=rows, masks=masks, mask_known=mask_known, pair_known=pair_known, landmarks=landmarks)
