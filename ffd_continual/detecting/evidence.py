"""Neighbours as evidence: the stored faces that a suspect face resembles most, in the learner's own feature space.

Which faces are at hand depends on what the detector still has: a lineage's exemplars and the training faces that it
keeps; a run's exemplars, or without any training faces of its data, found by the manifest and spread over forgeries.
Features are taken when asked for and nothing of them is stored: a face that was erased is no neighbour any more.
Axes: N stored faces, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from ffd_continual.detecting.opened import Opened, Picture
from ffd_continual.detecting.verdict import Neighbour, Verdict
from ffd_continual.lineage.lineage import open_lineage
from ffd_continual.lineage.rows import brought
from ffd_continual.replay.neighbours import Metric, NeighbourIndex, build_neighbours
from ffd_continual.runs.assemble import open_data
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.streams import build_scenario, check_profiles
from ffd_continual.scenarios.table import prepare_table

EACH = 100  # at most so many training faces of each experience and label, where there are no exemplars
EXEMPLARS, KEPT, TRAINING = "exemplars", "kept training faces", "training faces"
BOTH = f"{EXEMPLARS} and {KEPT}"


@dataclass(frozen=True)
class Evidence:
    """The stored faces of a detector, ready to be compared with."""

    kind: str  # EXEMPLARS, KEPT, BOTH or TRAINING
    paths: tuple[str, ...]  # (N,)
    forgeries: tuple[str, ...]  # (N,) "real" for real faces
    features: np.ndarray[tuple[int, int], np.dtype[np.float32]]  # (N, D)
    index: NeighbourIndex
    lost: int  # faces whose files are gone

    def nearest(self, verdicts: Sequence[Verdict], count: int) -> list[tuple[Neighbour, ...]]:
        """The `count` nearest stored faces of each judged one, the nearest first; fewer where fewer are stored."""
        if not verdicts:
            return []
        features = torch.from_numpy(np.stack([verdict.feature for verdict in verdicts]))
        similarity, found = self.index.search(features, count)
        return [
            tuple(
                Neighbour(self.paths[i], self.forgeries[i], max(0.0, 1.0 - near))
                for i, near in zip(places, values, strict=True)
                if i >= 0
            )
            for places, values in zip(found.tolist(), similarity.tolist(), strict=True)
        ]


def spread_rows(rows: pd.DataFrame, each: int = EACH) -> pd.DataFrame:
    """At most `each` faces of each experience and label, evenly over their order; a file counts once for a forgery."""
    once = rows.drop_duplicates(["path", "experience"])
    parts = []
    for _, part in once.groupby(["experience", "label"], sort=False):
        parts.append(part.iloc[np.unique(np.linspace(0, len(part) - 1, min(each, len(part))).astype(int))])
    return pd.concat([once.iloc[:0], *parts])


def run_rows(detector: Opened) -> pd.DataFrame:
    """The rows of a run's scenario as its strategy numbers them, unreadable ones left out. Needs the run's data."""
    folder, config = detector.folder, detector.config
    rows = build_scenario(open_data(config, folder.cache), config.scenario).rows
    skipped = folder.path / "skipped.csv"
    if skipped.is_file():
        rows = rows[~rows["path"].isin(set(pd.read_csv(skipped)["path"]))].reset_index(drop=True)
    return rows


def stored_rows(detector: Opened, each: int = EACH) -> tuple[pd.DataFrame, str]:
    """Rows of the faces to compare with (of training faces at most `each` of an experience and label), and what they
    are. Raises FFDError where the data are gone."""
    if detector.lineage is not None and detector.number is not None:
        lineage = open_lineage(detector.lineage)
        stored = lineage.table(detector.number, "exemplars.parquet")
        kept = brought(lineage, detector.number, ("kept",))
        if stored.empty:
            return kept, KEPT
        both = pd.concat([stored, kept], ignore_index=True).drop_duplicates(["path", "forgery"], ignore_index=True)
        return both, EXEMPLARS if len(both) == len(stored) else BOTH
    rows, stored = run_rows(detector), detector.keeper.remembered()
    if len(stored) and int(stored.max()) >= len(rows):
        raise FFDError(
            f"{detector.folder.path} remembers faces that its data no longer hold: {detector.config.scenario.data} has "
            "changed. Restore it, or ask without neighbours."
        )
    if len(stored):
        return rows.iloc[stored], EXEMPLARS
    return spread_rows(rows[rows["stream"] == "train"], each), TRAINING


def read_rows(detector: Opened, rows: pd.DataFrame) -> tuple[pd.DataFrame, list[Picture]]:
    """Faces of scenario rows as the learner sees them, each through its camera: the rows that can be read, and their
    pictures (S, S, 3)."""
    scenario = detector.config.scenario
    table = prepare_table(
        rows.reset_index(drop=True).assign(mask="", pair="", landmarks=""),
        ("real",),
        detector.size,
        scenario.seed,
        check_profiles(scenario),
        crop=scenario.crop,
        skip_unreadable=True,
    )
    return table.rows, [np.asarray(table.pictures[slot]) for slot in table.slot]


def class_names(rows: pd.DataFrame) -> tuple[str, ...]:
    """The forgery of each row, "real" for real ones."""
    return tuple(str(name) if label else "real" for name, label in zip(rows["forgery"], rows["label"], strict=True))


def gather(detector: Opened) -> Evidence:
    """Read the stored faces and index their features. Raises FFDError where no stored face can be read."""
    rows, kind = stored_rows(detector)
    if rows.empty:
        raise FFDError(f"{detector.version} keeps no faces, so there are no neighbours to show.")
    kept, faces = read_rows(detector, rows)
    if kept.empty:
        raise FFDError(
            f"none of the {len(rows)} {kind} of {detector.version} can be read, e.g. {rows['path'].iloc[0]}. Put the "
            "files back, or ask without neighbours."
        )
    features = np.stack([verdict.feature for verdict in detector.ask(faces, maps=False)])
    index = build_neighbours(torch.from_numpy(features), Metric.COSINE)
    return Evidence(kind, tuple(map(str, kept["path"])), class_names(kept), features, index, len(rows) - len(kept))
