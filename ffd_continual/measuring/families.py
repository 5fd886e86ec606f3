"""How alike are the forgeries of a data set? A probe is taught one of them and tested on every other.

A continual scenario over families that one detector separates at once would measure nothing. The probe is logistic
regression on the statistics of all stages of a frozen ImageNet trunk (learners/trunk.py), taught on the people of
the splits train and valid, tested on those of the split test. Axes: N faces, F features.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.manifest import Manifest
from ffd_continual.scenarios.manifest_cells import REAL
from ffd_continual.scenarios.pictures import Picture, read_picture
from ffd_continual.scenarios.views import to_planes
from ffd_continual.strategies.learners.trunk import Trunk, TrunkConfig, level_statistics

STAGES = 7  # of lite0: stem and blocks 0 to 5


def _middle(image: Picture, size: int, crop: float) -> Picture:
    height, width = (max(1, round(side * crop)) for side in image.shape[:2])
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    inner = image[top : top + height, left : left + width]
    return np.asarray(cv2.resize(inner, (size, size), interpolation=cv2.INTER_AREA), np.uint8)


@torch.no_grad()
def frozen_statistics(manifest: Manifest, rows: pd.DataFrame, size: int, crop: float) -> NDArray[np.float32]:
    """Trunk statistics (N, F) of the central share `crop` of each picture, at `size` pixels a side."""
    trunk = Trunk(TrunkConfig(frozen_stages=STAGES)).eval()
    parts = []
    paths = [manifest.absolute(str(path)) for path in rows["path"]]
    for start in tqdm(range(0, len(paths), 64), desc="features", unit="x64", leave=False):
        faces = [_middle(read_picture(path), size, crop) for path in paths[start : start + 64]]
        parts.append(level_statistics(trunk.levels(torch.from_numpy(to_planes(faces)))).numpy())
    return np.concatenate(parts)


def family_matrix(
    features: NDArray[np.float32], forgery: Sequence[str], split: Sequence[str], strength: float = 0.01
) -> pd.DataFrame:
    """AUC of the probe taught on the row's forgery, tested on the column's; both against the real faces.

    `forgery` (N,) holds "real" for real faces, `split` (N,) one of train, valid, test; `strength` is scikit-learn's C.
    Raises FFDError when a split holds no real faces.
    """
    kinds, parts = np.asarray(forgery), np.asarray(split)
    teaching = np.isin(parts, ("train", "valid"))
    for word, chosen in (("train or valid", teaching), ("test", ~teaching)):
        if not (chosen & (kinds == REAL)).any():
            raise FFDError(f"families: the split {word} holds no real faces; give the manifest splits by person.")
    names = [str(k) for k in dict.fromkeys(kinds.tolist()) if k != REAL]
    matrix = pd.DataFrame(np.nan, index=names, columns=names)
    for taught in names:
        here = teaching & np.isin(kinds, (REAL, taught))
        if not (here & (kinds == taught)).any():
            continue
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000))
        probe.fit(features[here], kinds[here] == taught)
        for tested in names:
            there = ~teaching & np.isin(kinds, (REAL, tested))
            if (there & (kinds == tested)).any():
                score = probe.decision_function(features[there])
                matrix.loc[taught, tested] = roc_auc_score(kinds[there] == tested, score)
    return matrix


def print_families(matrix: pd.DataFrame) -> str:
    """The matrix in at most 80 columns, AUC in hundredths, and the most alike pair."""
    names = list(matrix.index)
    lines = ["taught on (row), tested on (column, by number): AUC x 100"]
    lines.append(f"{'':18s}" + "".join(f"{i + 1:>4d}" for i in range(len(names)))[: 80 - 18])
    for i, name in enumerate(names):
        cells = "".join(f"{'-' if np.isnan(v) else round(100 * v):>4}" for v in matrix.loc[name])
        lines.append((f"{i + 1:>2d} {name[:14]:15s}" + cells)[:80])
    others = matrix.where(~np.eye(len(names), dtype=bool)).stack()
    if len(others):
        row, column = others.idxmax()
        lines.append(f"most alike: taught on {row}, tested on {column}: {others.max():.3f}")
    return "\n".join(lines)
