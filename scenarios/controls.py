"""Controls: what separates real from forged without seeing the forgery at all.

If sharpness, noise, compression or colour tell a data set's forged pictures, or its untouched border does, a detector's
figures on it mean little. Both probes are reported beside every run; chance is 0.5. All AUCs are max(AUC, 1 - AUC): a
control that separates the wrong way round separates.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.faces import Picture
from ffd_continual.scenarios.manifest import Manifest
from ffd_continual.scenarios.manifest_cells import REAL
from ffd_continual.scenarios.pictures import read_mask, read_picture

FEATURES = ("sharpness", "high_pass", "blockiness", "saturation")
REGIONS = ("picture", "centre")
Vector = NDArray[np.float64]


def blockiness(grey: NDArray[np.float32]) -> float:
    """Mean step across the 8-pixel grid over the mean step elsewhere, less 1: 0 without JPEG blocks."""
    steps = [np.abs(np.diff(grey, axis=1)).mean(0), np.abs(np.diff(grey, axis=0)).mean(1)]
    ratios = []
    for step in steps:
        on_grid = np.arange(len(step)) % 8 == 7
        ratios.append(float(step[on_grid].mean()) / max(float(step[~on_grid].mean()), 1e-3) if on_grid.any() else 1.0)
    return float(np.mean(ratios)) - 1


def _measure(image: Picture) -> dict[str, float]:
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    fine = grey - cv2.GaussianBlur(grey, (0, 0), 1.0)
    high, low = image.max(2).astype(np.float32), image.min(2).astype(np.float32)
    return {
        "sharpness": float(np.log(cv2.Laplacian(grey, cv2.CV_32F).var() + 1.0)),
        "high_pass": float(np.log((fine**2).mean() + 0.01)),
        "blockiness": blockiness(grey),
        "saturation": float(((high - low) / np.maximum(high, 1.0)).mean()),
    }


def shallow_features(image: Picture) -> dict[str, float]:
    """Sharpness (log variance of the Laplacian), log high-pass energy, JPEG blockiness and mean saturation.

    Of an RGB uint8 (H, W, 3): of the whole picture under the feature's name, and of its middle half, where the face
    is, with "_centre".
    """
    height, width = image.shape[:2]
    # The middle keeps the 8-pixel grid's phase, or blockiness would measure something else there.
    top, left = height // 4 // 8 * 8, width // 4 // 8 * 8
    centre = np.ascontiguousarray(image[top : height - top, left : width - left])
    return {**_measure(image), **{f"{name}_centre": value for name, value in _measure(centre).items()}}


def border_features(image: Picture, mask: NDArray[np.bool_], ring: float = 0.09) -> Vector:
    """Statistics (24,) of the outer ring's pixels that `mask` (True: changed) leaves: by side, mean, spread, fine
    energy of luminance and the mean of each channel."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    fine = np.abs(cv2.Laplacian(grey, cv2.CV_32F))
    # Two pixels' distance: the Laplacian and the compression of a changed pixel reach its neighbours.
    free = cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8)) == 0
    reach = max(int(round(ring * image.shape[0])), 2)
    values: list[float] = []
    for side in (np.s_[:reach], np.s_[-reach:], np.s_[:, :reach], np.s_[:, -reach:]):
        keep = free[side]
        if not keep.any():
            values += [0.0] * 6
            continue
        inside = grey[side][keep]
        colours = image[side][keep].astype(np.float32).mean(0)
        values += [float(inside.mean()), float(inside.std()), float(np.log(fine[side][keep].mean() + 0.1))]
        values += [float(v) for v in colours]
    return np.array(values)


def separation(features: NDArray[np.float64], labels: NDArray[np.int64], people: NDArray[np.str_]) -> float:
    """max(AUC, 1 - AUC) of logistic regression (N, F) -> label, cross-validated by person in five parts; nan when a
    class or the people do not suffice."""
    groups = len(set(people.tolist()))
    if groups < 4 or len(set(labels.tolist())) < 2:
        return float("nan")
    scores = np.zeros(len(labels))
    for train, test in GroupKFold(min(5, groups)).split(features, labels, people):
        if len(set(labels[train].tolist())) < 2:
            return float("nan")
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(features[train], labels[train])
        scores[test] = model.decision_function(features[test])
    auc = float(roc_auc_score(labels, scores))
    return max(auc, 1 - auc)


def sample_people(manifest: Manifest, limit: int, seed: int = 0) -> pd.DataFrame:
    """At most about `limit` rows: all rows of people drawn at random, until the rows are used up."""
    table = manifest.table
    people = np.where(table["identity"] != "", table["identity"], table["path"])
    if len(table) <= limit:
        return table.assign(person=people)
    order = np.random.default_rng(seed).permutation(np.unique(people.astype(str)))
    count = pd.Series(people).value_counts()
    running = np.cumsum(count.loc[order].to_numpy())
    chosen = order[: max(int(np.searchsorted(running, limit)), 4)]
    return table.assign(person=people)[np.isin(people.astype(str), chosen)]


def _rows_of(
    manifest: Manifest, limit: int, seed: int, threads: int, extract: Callable[[pd.Series], Vector]
) -> tuple[pd.DataFrame, NDArray[np.float64]]:
    rows = sample_people(manifest, limit, seed)
    if not (rows["forgery"] == REAL).any() or (rows["forgery"] == REAL).all():
        raise FFDError(f"{manifest.source}: controls need real and forged faces, and people who have both")
    with ThreadPoolExecutor(threads) as pool:
        return rows, np.stack(list(pool.map(extract, (row for _, row in rows.iterrows()))))


def shallow_baselines(manifest: Manifest, limit: int = 3000, seed: int = 0, threads: int = 1) -> pd.DataFrame:
    """AUC of each shallow feature, and of all in one logistic regression ("joint"), for each forgery against real.

    Columns: forgery, feature, region ("picture" or "centre"; "both" for all eight features together), auc. `threads`
    read the pictures; their number changes no figure. Raises FFDError without real or forged faces, PictureError for a
    picture that cannot be read.
    """

    def extract(row: pd.Series) -> Vector:
        values = shallow_features(read_picture(manifest.absolute(str(row["path"]))))
        return np.array(list(values.values()))

    rows, values = _rows_of(manifest, limit, seed, threads, extract)
    count = len(FEATURES)
    sets = {(name, REGIONS[at // count]): [at] for at, name in enumerate(FEATURES * 2)}
    sets |= {("joint", "picture"): list(range(count)), ("joint", "centre"): list(range(count, 2 * count))}
    sets |= {("joint", "both"): list(range(2 * count))}
    result = []
    for forgery, (labels, people, chosen) in _against_real(rows).items():
        for (name, region), columns in sets.items():
            some = values[chosen][:, columns]
            if len(columns) == 1:  # one feature needs no model: its rank is the score
                auc = float(roc_auc_score(labels, some[:, 0])) if len(set(labels.tolist())) == 2 else float("nan")
                auc = max(auc, 1 - auc)
            else:
                auc = separation(some, labels, people)
            result.append({"forgery": forgery, "feature": name, "region": region, "auc": auc})
    return pd.DataFrame(result)


def border_probe(manifest: Manifest, limit: int = 3000, seed: int = 0, threads: int = 1) -> dict[str, float]:
    """AUC, for each forgery, of a logistic regression that sees the untouched outer ring only; chance is 0.5.

    A forged row's mask (the whole ring, where it has none) is left out on both sides: real rows of the same person
    are measured under every pixel, so a mask that reaches the border shows too.
    """

    def extract(row: pd.Series) -> Vector:
        image = read_picture(manifest.absolute(str(row["path"])))
        mask = np.zeros(image.shape[:2], bool)
        if row["mask"]:
            mask = read_mask(manifest.absolute(str(row["mask"]))) > 127
        return border_features(image, mask)

    rows, values = _rows_of(manifest, limit, seed, threads, extract)
    return {
        forgery: separation(values[chosen], labels, people)
        for forgery, (labels, people, chosen) in _against_real(rows).items()
    }


def _against_real(
    rows: pd.DataFrame,
) -> dict[str, tuple[NDArray[np.int64], NDArray[np.str_], NDArray[np.int64]]]:
    """Labels, people and row positions of each forgery together with all real rows."""
    forgery = rows["forgery"].to_numpy().astype(str)
    people = rows["person"].to_numpy().astype(str)
    result = {}
    for name in dict.fromkeys(forgery[forgery != REAL].tolist()):
        chosen = np.flatnonzero((forgery == name) | (forgery == REAL))
        result[name] = ((forgery[chosen] == name).astype(np.int64), people[chosen], chosen)
    return result
