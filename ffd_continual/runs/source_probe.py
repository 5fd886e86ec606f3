"""Control: where does a face come from, and does that already say whether it is forged?

*Source probe*: a linear model on the statistics of a frozen ImageNet network, which no forgery ever trained, says of a
real face to which experience it belongs. Chance is one in K. High is no fault (data sets differ: that is what "types +
domains" is about), but a detector can then tell experiences apart without looking at any forgery, and what is called
forgetting is partly a change of camera. Where all experiences show the same real faces there is nothing to tell.

*Label by source*: what a judge reaches who knows of each face only its source (experience, data set and camera) and how
often training faces of that source are forged. Whatever guesses sources from pictures reaches no more by that alone.
Chance is 0.5; above it, part of the figures belongs to the sources. Axes: N faces, K experiences, F features.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ffd_continual.measuring.matrix import number
from ffd_continual.runs.assemble import Parts
from ffd_continual.scenarios.streams import Scenario
from ffd_continual.scenarios.views import to_planes
from ffd_continual.strategies.learners.trunk import Trunk, TrunkConfig, level_statistics

FACES = 400  # at most about so many real faces are asked
FROZEN = 6  # stages of the probe's network: of every run the same, whatever its learner looks through
BATCH = 64
Rows = NDArray[np.int64]


def asked_faces(rows: pd.DataFrame, slot: Rows, real: NDArray[np.bool_], limit: int = FACES, seed: int = 0) -> Rows:
    """Rows of the real faces to ask: pictures of one experience only, all of people drawn at random, up to `limit`.

    real: (N,), what a face is, whatever label training gives it.
    """
    at = np.flatnonzero(real & (rows["stream"] != "unseen").to_numpy())
    keys = pd.DataFrame({"slot": slot[at], "experience": rows["experience"].to_numpy()[at]}, index=at)
    keys = keys.drop_duplicates()
    alone = np.asarray(keys.index[~keys["slot"].duplicated(keep=False)], np.int64)
    if len(alone) <= limit:
        return alone
    people = rows["person"].to_numpy().astype(str)[alone]
    order = np.random.default_rng(seed).permutation(np.unique(people))
    count = pd.Series(people).value_counts().loc[order].to_numpy()
    chosen = order[: max(int(np.searchsorted(np.cumsum(count), limit)), 5)]
    return np.asarray(alone[np.isin(people, chosen)], np.int64)


def guess_sources(features: NDArray[np.float64], source: Rows, people: NDArray[np.str_]) -> float:
    """Share of faces (N, F) whose source (N,) logistic regression names, mean over sources: chance is 1 / K.

    Cross-validated by person in five parts. NaN where one source or fewer than five people are left.
    """
    known, groups = np.unique(source), len(set(people.tolist()))
    if len(known) < 2 or groups < 5:
        return float("nan")
    guessed = np.full(len(source), -1, np.int64)
    for train, test in GroupKFold(5).split(features, source, people):
        if len(np.unique(source[train])) < 2:
            return float("nan")
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=200, class_weight="balanced"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(features[train], source[train])
        guessed[test] = model.predict(features[test])
    return float(np.mean([(guessed[source == k] == k).mean() for k in known]))


def label_by_source(rows: pd.DataFrame, scenario: Scenario) -> dict[str, float | None]:
    """AUC, on each test stream and over "all" of them, of the forged share of a face's source among training faces.

    A source that no training face has says what training faces say on average. max(AUC, 1 - AUC) is not taken: a share
    that points the wrong way misleads, it does not help. Unseen streams: by data set and camera alone.
    """

    def source_of(part: pd.DataFrame, experience: str | None) -> pd.Series:
        name = part["experience"] if experience is None else pd.Series(experience, index=part.index)
        return name.astype(str) + "\x1f" + part["dataset"].astype(str) + "\x1f" + part["profile"].astype(str)

    train = rows[rows["stream"] == "train"]
    overall = float((train["label"] == 1).mean())
    shares = (train["label"] == 1).groupby(source_of(train, None)).mean()
    anywhere = (train["label"] == 1).groupby(source_of(train, "")).mean()
    found: dict[str, float | None] = {}
    for stream, names in (("test", scenario.experiences), ("unseen", scenario.unseen)):
        for name in names:
            part = rows.iloc[scenario.index(stream, name)]
            key, known = (source_of(part, None), shares) if stream == "test" else (source_of(part, ""), anywhere)
            found[name] = number(float(roc_auc_score(part["label"], key.map(known).fillna(overall))))
    test = rows[rows["stream"] == "test"]
    found["all"] = number(float(roc_auc_score(test["label"], source_of(test, None).map(shares).fillna(overall))))
    return found


@torch.no_grad()
def _features(parts: Parts, rows: Rows) -> NDArray[np.float64]:
    with torch.random.fork_rng(devices=[]):
        trunk = Trunk(TrunkConfig(frozen_stages=FROZEN)).to(parts.device).eval()
    table = parts.sources.table
    slots, place = np.unique(table.slot[rows], return_inverse=True)
    made = []
    for start in range(0, len(slots), BATCH):
        images = torch.from_numpy(to_planes([np.asarray(table.pictures[s]) for s in slots[start : start + BATCH]]))
        made.append(level_statistics(trunk.levels(images.to(parts.device))).double().cpu().numpy())
    return np.asarray(np.concatenate(made)[place], np.float64)


def source_probe(parts: Parts) -> dict[str, Any]:
    """{"accuracy", "chance", "faces", "label_by_source": {stream: AUC}}.

    accuracy is None where there is nothing to tell: real faces are shared, or one experience or few people are left.
    """
    table, scenario = parts.sources.table, parts.scenario
    truth = parts.manifest.table["label"].to_numpy()[table.rows["manifest_row"].to_numpy()]
    rows = asked_faces(table.rows, table.slot, truth == 0)
    source = parts.sources.experience[rows]
    accuracy = float("nan")
    if len(scenario.experiences) > 1 and len(np.unique(source)) == len(scenario.experiences):
        people = table.rows["person"].to_numpy().astype(str)[rows]
        accuracy = guess_sources(_features(parts, rows), source, people)
    return {
        "accuracy": number(accuracy),
        "chance": 1.0 / len(scenario.experiences),
        "faces": len(rows),
        "label_by_source": label_by_source(table.rows, scenario),
    }
