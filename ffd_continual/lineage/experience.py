"""The rows of a new experience: what came along, numbered, and the lineage's own faces where a class is missing."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ffd_continual.lineage.lineage import Lineage
from ffd_continual.lineage.rows import as_rows, brought
from ffd_continual.scenarios.errors import FFDError


def numbered(table: pd.DataFrame, name: str, first: int) -> pd.DataFrame:
    """New faces as rows of the experience `name`, numbered from `first` on."""
    person = table["identity"].where(table["identity"] != "", table["video"])
    person = person.where(person != "", table["path"])
    made = table.assign(
        manifest_row=np.arange(first, first + len(table)), person=person, experience=name, stream=table["split"]
    )
    return as_rows(made)


def borrowed(lineage: Lineage, parent: int, stream: str, name: str, label: int) -> pd.DataFrame:
    """The lineage's own faces of one class as rows of the new experience: kept ones for train, test ones for test."""
    rows = brought(lineage, parent, ("kept",) if stream == "train" else (stream,))
    rows = rows[rows["label"] == label].drop_duplicates(["path", "profile"])
    return rows.assign(experience=name, stream=stream).reset_index(drop=True)


def next_row(lineage: Lineage) -> int:
    """The first number that no face of any version has had."""
    return max(int(lineage.about(number)["next_row"]) for number in lineage.versions())


def new_experience(lineage: Lineage, parent: int, name: str, table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Rows of an experience from placed faces with forged ones; where real ones lack, the lineage's join."""
    rows, notes = numbered(table, name, next_row(lineage)), []
    parts = [rows]
    for stream in ("train", "test"):
        if not ((rows["stream"] == stream) & (rows["label"] == 0)).any():
            own = borrowed(lineage, parent, stream, name, 0)
            if own.empty:
                raise FFDError(
                    f"no real {stream} faces came with {name}, and {lineage.path} keeps none (it was adopted with "
                    "--keep 0): put real faces of the same cameras into DIR/real."
                )
            parts.append(own)
            notes.append(
                f"no real {stream} faces came with {name}: {len(own)} of the lineage's stand in. What else tells the "
                "two sources apart (camera, size, compression) is then learnt, and measured, as forgery"
            )
    count = int(((rows["stream"] == "train") & (rows["label"] == 1)).sum())
    if count < 100:
        notes.append(f"few-shot: {count} forged faces to learn from")
    return pd.concat(parts, ignore_index=True), notes
