"""Is growing cheaper than retraining, and as good? A lineage that learns one forgery after another, against a detector
trained from scratch on all of them at once, on the same faces.

Growing: seconds of learning of each addition, the reading of its faces included. Retraining: one experience that holds
the first k forgeries, with k times the steps of an addition, so that each forgery is given as much; seconds of its
steps alone, without the reading of faces, so that the ratio errs against growing. Quality: the mean AUC over all
forgeries, each against the real test faces of its own data; the difference with its interval by drawing persons.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from ffd_continual.config import RunConfig
from ffd_continual.lineage.add import Addition, begin
from ffd_continual.lineage.adopt import adopt
from ffd_continual.lineage.candidate import Rules
from ffd_continual.lineage.grow import grow
from ffd_continual.lineage.lineage import Lineage
from ffd_continual.lineage.store import writing
from ffd_continual.lineage.versions import last_predictions
from ffd_continual.measuring.matrix import resampling_groups
from ffd_continual.measuring.metrics import auc, batched_auc, draw_counts, percentile_interval, resample
from ffd_continual.run import start
from ffd_continual.runs.folder import RunFolder


@dataclass(frozen=True)
class Quality:
    """Mean AUC of the grown detector and of the retrained one; difference = grown - retrained, with its interval."""

    grown: float
    retrained: float
    difference: float
    low: float
    high: float
    persons: int


def grow_all(
    config: RunConfig, names: Sequence[str], data: dict[str, Path], folder: Path
) -> tuple[Lineage, pd.DataFrame]:
    """A lineage adopted from a run on the first name, to which the others are added one by one, whatever they cost.

    data: forgery -> its manifest or folder. The table has a row an addition: forgery, number, and seconds: train,
    measure, train_cpu.
    """
    first = replace(config.scenario, data=str(data[names[0]]), order=(names[0],), unseen=())
    start(replace(config, scenario=first, name="first"), folder / "first")
    adopt(folder / "first", folder / "grown")
    rows = []
    for name in names[1:]:
        with writing(folder / "grown") as lineage:
            begin(lineage, Addition(data[name], name, rules=Rules(anyway=True), any_picture=True))
            outcome = grow(lineage)
            seconds = lineage.about(outcome.number)["seconds"]
        rows.append({"forgery": name, "number": outcome.number, **seconds})
    return Lineage(folder / "grown"), pd.DataFrame(rows)


def retrain(config: RunConfig, names: Sequence[str], data: Path, folder: Path) -> tuple[float, float]:
    """Train on all these forgeries of one manifest at once, from scratch: seconds of its steps, and the processor's
    seconds of the whole run, measuring included."""
    spent = time.process_time()
    scenario = replace(config.scenario, data=str(data), order=("+".join(names),), unseen=())
    train = replace(config.train, steps=config.train.steps * len(names))
    start(replace(config, scenario=scenario, train=train, name=folder.name), folder)
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return float(summary["seconds"]["train"]), time.process_time() - spent


def sources_of(lineage: Lineage, number: int) -> pd.DataFrame:
    """row -> the path where a face was found before it was copied."""
    parts = [pd.read_parquet(lineage.folder(n) / "faces.parquet") for n in lineage.chain(number)]
    rows = pd.concat(parts, ignore_index=True)
    return rows[["manifest_row", "source"]].drop_duplicates("manifest_row")


def quality(lineage: Lineage, retrained: Path, names: Sequence[str], samples: int = 1000, seed: int = 0) -> Quality:
    """The version in use against the retrained run, on the faces that both judged, forgery by forgery."""
    number = lineage.promoted()
    mine = last_predictions(lineage, number)
    mine = mine.merge(sources_of(lineage, number), left_on="row", right_on="manifest_row")
    mine["own"] = mine["source"].map(lambda p: str(Path(p).resolve()))
    theirs = pd.read_parquet(RunFolder(retrained).predictions(0))
    theirs["own"] = theirs["path"].map(lambda p: str(Path(p).resolve()))
    theirs = theirs.drop_duplicates("own")
    both = mine[mine["on"].isin(names)].merge(theirs[["own", "z"]], on="own", suffixes=("", "_retrained"))
    both = both.reset_index(drop=True)
    _, groups, count = resampling_groups(both)
    counts = draw_counts(count, samples, np.random.default_rng(seed))
    gaps, grown, other = [], [], []
    for name in names:
        at = np.flatnonzero((both["on"] == name).to_numpy())
        labels = both["label"].to_numpy()[at].astype(bool)
        one, two = (both[column].to_numpy()[at] for column in ("z", "z_retrained"))
        grown.append(auc(labels, one))
        other.append(auc(labels, two))
        draws = [resample(batched_auc, labels, z, groups[at], counts) for z in (one, two)]
        gaps.append(draws[0] - draws[1])
    gap = float(np.mean(grown) - np.mean(other))
    low, high = percentile_interval(gap, np.mean(gaps, axis=0))[1:3]
    return Quality(float(np.mean(grown)), float(np.mean(other)), gap, low, high, count)
