"""A detector measured on a manifest or a folder of face crops that it need not have been taught on.

Crops are judged as they are, framed as the run's data; no camera is put in between. Frame level and video level (by the
run's own rule), each measure with a 95 % interval over persons (videos or files, where nobody is named). Axes: n faces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from ffd_continual.detecting.opened import Opened
from ffd_continual.measuring.metrics import (
    METRICS,
    Bools,
    Floats,
    Interval,
    as_labels_and_scores,
    batched_acc,
    batched_auc,
    cluster_bootstrap,
    draw_counts,
    percentile_interval,
    resample,
)
from ffd_continual.measuring.video_level import told_apart, video_level
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.folder import IDENTITY_PATTERN, open_faces
from ffd_continual.scenarios.manifest import Manifest
from ffd_continual.scenarios.pictures import PictureError, read_picture

SPLITS = ("test", "valid", "train", "all")


@dataclass(frozen=True)
class Evaluation:
    """Measures by name (auc, acc, eer, ap, tpr10, tpr1, ece), each with its interval; NaN where one does not exist."""

    frame: Mapping[str, Interval]
    video: Mapping[str, Interval] | None  # None where no video has two faces
    forgeries: Mapping[str, Interval]  # AUC of each forgery's faces against all real ones, frame level
    means: Mapping[str, Interval]  # of these AUCs: "learnt", over what the detector was taught, and "never learnt"
    decided: Mapping[str, Interval]  # shares at the detector's own threshold: "found" of forged, "alarms" of real faces
    faces: pd.DataFrame  # one row a face: path, label, forgery, person, video, z, score, decision, attribution, novelty
    unreadable: tuple[str, ...]  # what was left out, with the cause


def judge_manifest(detector: Opened, manifest: Manifest, progress: bool = True) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The manifest's rows with z, score, decision, attribution and novelty; and what could not be read."""
    rows, bad = manifest.table.reset_index(drop=True), []
    crops, places, answers = [], [], []
    for at, path in enumerate(tqdm(rows["path"], "judging", unit="face", leave=False, disable=not progress)):
        try:
            crops.append(detector.fit(read_picture(manifest.absolute(str(path)))))
            places.append(at)
        except PictureError as error:
            bad.append(str(error))
        if len(crops) == detector.config.train.eval_batch or at == len(rows) - 1:
            answers += [verdict.record() for verdict in detector.ask(crops, maps=False)]
            crops = []
    if not answers:
        raise FFDError(f"{manifest.source}: none of its {len(rows)} pictures can be read, e.g. {bad[0]}")
    found = pd.DataFrame(answers)[["z", "score", "decision", "attribution", "novelty"]]
    judged = rows.iloc[places].reset_index(drop=True)
    judged["path"] = [str(manifest.absolute(str(path))) for path in judged["path"]]
    return pd.concat([judged, found], axis=1), tuple(bad)


def _persons(rows: pd.DataFrame) -> np.ndarray[tuple[int], np.dtype[np.str_]]:
    person = rows["identity"].where(rows["identity"] != "", rows["video"])
    names = told_apart(person.to_numpy(str), rows["dataset"].to_numpy(str))
    return np.where(names != "", names, rows["path"].to_numpy(str))


def evaluate_faces(
    detector: Opened,
    data: Manifest | Path | str,
    split: str = "test",
    identity_pattern: str = IDENTITY_PATTERN,
    samples: int = 1000,
    seed: int = 0,
    progress: bool = True,
    only: Sequence[str] = (),
) -> Evaluation:
    """Measure a detector on a manifest's faces, or a folder's (DIR/real, DIR/<forgery>).

    split: its faces only, where the data have splits; "all" takes everything, also what the detector may have been
    taught on. only: these forgeries, beside all real faces; default: all. samples: bootstrap resamples. Raises FFDError
    without faces of both classes.
    """
    if split not in SPLITS:
        raise FFDError(f"split must be one of {', '.join(SPLITS)}, not {split!r}.")
    manifest = data if isinstance(data, Manifest) else open_faces(data, identity_pattern=identity_pattern, assign=False)
    if only:
        manifest = _some(manifest, only)
    if split != "all" and (manifest.table["split"] != "").any():
        manifest = manifest.subset((manifest.table["split"] == split).to_numpy())
    labels = set(manifest.table["label"].tolist())
    if labels != {0, 1}:
        has = {0: "real", 1: "forged"}
        lacks = ", ".join(has[label] for label in sorted({0, 1} - labels))
        raise FFDError(f"{manifest.source}: no {lacks} face in split {split!r}. Both classes are needed to measure.")
    rows, bad = judge_manifest(detector, manifest, progress)
    rows = rows.assign(person=_persons(rows))
    flags, z = as_labels_and_scores(rows["label"], rows["z"])
    scores = {"z": z, "margin": z - detector.facts.threshold, "p": rows["score"].to_numpy()}
    people = rows["person"].to_numpy(str)
    videos = told_apart(rows["video"].to_numpy(str), rows["dataset"].to_numpy(str))
    frame = {n: cluster_bootstrap(flags, scores[c], people, m, samples, seed) for n, (m, c) in METRICS.items()}
    video = None
    if pd.Series(videos[videos != ""]).duplicated().any():
        whole = video_level(flags, scores, videos, detector.config.evaluation.video_rule)
        groups, columns = people[whole["first"]], {c for c in scores if c in whole}
        video = {
            n: cluster_bootstrap(whole["label"], whole[c], groups, m, samples, seed)
            for n, (m, c) in METRICS.items()
            if c in columns
        }
    each, means = _forgeries(detector, rows, flags, z, samples, seed)
    decided = {
        word: cluster_bootstrap(
            np.ones(part.sum(), int), scores["margin"][part], people[part], batched_acc, samples, seed
        )
        for word, part in (("found", flags), ("alarms", ~flags))
    }
    return Evaluation(frame, video, each, means, decided, rows, bad)


def _some(manifest: Manifest, only: Sequence[str]) -> Manifest:
    """Its real faces and these forgeries. FFDError names what it has instead."""
    names = manifest.table["forgery"].where(manifest.table["label"] == 1, "")
    known = sorted(set(names) - {""})
    absent = [name for name in only if name not in known]
    if absent:
        raise FFDError(f"{manifest.source} has no forgery {', '.join(absent)}; it has {', '.join(known) or 'none'}.")
    return manifest.subset(names.isin(["", *only]).to_numpy())


def _forgeries(
    detector: Opened, rows: pd.DataFrame, flags: Bools, z: Floats, samples: int, seed: int
) -> tuple[dict[str, Interval], dict[str, Interval]]:
    """The AUC of each forgery and their means; one draw of persons serves all of them."""
    names, groups = np.unique(rows["person"].to_numpy(str), return_inverse=True)
    count = len(names)
    counts = draw_counts(count, samples, np.random.default_rng(seed)) if count > 1 else np.zeros((0, count))
    counts = np.vstack([np.ones((1, count)), counts])  # first the faces themselves
    forgery, drawn = rows["forgery"].to_numpy(str), {}
    for name in sorted(set(forgery[flags])):
        part = ~flags | (forgery == name)
        drawn[str(name)] = resample(batched_auc, flags[part], z[part], groups[part].astype(np.int64), counts)
    each = {name: percentile_interval(float(draws[0]), draws[1:]) for name, draws in drawn.items()}
    means = {}
    for word, taught in (("learnt", True), ("never learnt", False)):
        own = [draws for name, draws in drawn.items() if (name in detector.known) == taught]
        if own:
            mean = np.mean(np.stack(own), axis=0)
            means[word] = percentile_interval(float(mean[0]), mean[1:])
    return each, means
