"""The faces of a lineage as rows: what each version brought, what is measured on, what is kept of the training faces.

A row is a face in a stream of an experience, as in a run's scenario; `manifest_row` numbers faces over the whole life
of a lineage and is never used twice, so that a face keeps its camera draw and its predictions can be paired. Streams:
train (named by their paths where they lie; read once, and again only by `ffd correct`), valid, test, unseen and kept
(copied into the lineage). *kept* faces stand in where a new data set brings no real faces, or none but real ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from ffd_continual.config import RunConfig
from ffd_continual.lineage.lineage import PATHS, Lineage
from ffd_continual.lineage.store import keep_picture
from ffd_continual.replay.stored import State
from ffd_continual.runs.checkpoint import Checkpoint
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.manifest_cells import COLUMNS
from ffd_continual.scenarios.streams import Scenario, check_profiles

ROW_COLUMNS = (*COLUMNS, "manifest_row", "person", "experience", "stream", "source")
WHOLE = ("label", "manifest_row")


def as_rows(table: pd.DataFrame) -> pd.DataFrame:
    """The columns of a lineage's rows, typed; missing ones are empty, `source` is where the picture was found."""
    made = {}
    for name in ROW_COLUMNS:
        if name in WHOLE:
            made[name] = table[name].astype("int64")
        elif name == "frame":
            made[name] = table[name].astype("Int64")
        elif name == "source" and name not in table:
            made[name] = table["path"].astype("str")
        else:
            made[name] = (table[name].fillna("") if name in table else pd.Series("", index=table.index)).astype("str")
    return pd.DataFrame(made).reset_index(drop=True)


def lot(rows: pd.DataFrame) -> NDArray[np.int64]:
    """A fixed lot (n,) for each face, by its number: the same face draws the same lot in every version."""
    drawn = {
        int(number): int.from_bytes(hashlib.sha256(f"lot {number}".encode()).digest()[:7], "big")
        for number in rows["manifest_row"].unique()
    }
    return np.array([drawn[int(number)] for number in rows["manifest_row"]], np.int64)


def some(rows: pd.DataFrame, count: int) -> pd.DataFrame:
    """At most `count` rows of each label, those with the lowest lots, in their own order."""
    ranked = rows.assign(lot=lot(rows)).sort_values("lot", kind="stable")
    chosen = ranked.groupby("label", sort=False).head(count).index
    return rows.loc[np.sort(chosen.to_numpy())].reset_index(drop=True)


def kept_of(train: pd.DataFrame, count: int) -> pd.DataFrame:
    """The training faces to keep: `count` real and `count` forged ones of each experience, in stream "kept"."""
    parts = [some(part, count) for _, part in train.groupby("experience", sort=False)]
    return pd.concat([train.iloc[:0], *parts], ignore_index=True).assign(stream="kept")


def copied(lineage: Lineage, rows: pd.DataFrame, words: str) -> pd.DataFrame:
    """The rows with their pictures, masks and pairs copied into the lineage, and paths there, relative to it.

    Raises FFDError that lists what cannot be read.
    """
    places: dict[str, str] = {}
    lost: list[str] = []
    wanted = sorted({str(cell) for name in PATHS for cell in rows[name]} - {""})
    for path in tqdm(wanted, desc=words, unit="file", leave=False):
        if Path(path).is_file():
            places[path] = keep_picture(lineage, path)
        else:
            lost.append(path)
    if lost:
        raise FFDError(
            f"{len(lost)} of {len(wanted)} pictures that the lineage has to keep are not there:\n  "
            + "\n  ".join(lost[:5])
            + ("\n  ..." if len(lost) > 5 else "")
            + "\nPut them back, then try again."
        )
    made = {name: pd.Series([places.get(c, "") for c in rows[name]], rows.index, dtype="str") for name in PATHS}
    return rows.assign(**made)


def inside(lineage: Lineage, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with paths inside the lineage relative to it, as its tables hold them."""
    root = lineage.path.resolve()

    def short(cell: str) -> str:
        return Path(cell).relative_to(root).as_posix() if cell and Path(cell).is_relative_to(root) else cell

    return rows.assign(**{n: pd.Series([short(c) for c in rows[n]], rows.index, dtype="str") for n in PATHS})


def brought(
    lineage: Lineage,
    number: int,
    streams: Sequence[str],
    unseen: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
) -> pd.DataFrame:
    """The rows in these streams that a version and all it grew from brought, oldest first, paths absolute.

    unseen: the forgeries that still count as unseen. columns: those wanted, "stream" among them; None: all.
    """
    wanted = None if columns is None else list(columns)
    parts = [pd.read_parquet(lineage.folder(n) / "faces.parquet", columns=wanted) for n in lineage.chain(number)]
    rows = lineage.absolute(pd.concat([part[part["stream"].isin(streams)] for part in parts], ignore_index=True))
    if unseen is not None:
        rows = rows[(rows["stream"] != "unseen") | rows["experience"].isin(unseen)].reset_index(drop=True)
    return rows


def capped(rows: pd.DataFrame, count: int) -> pd.DataFrame:
    """At most `count` faces of each test and unseen stream, real and forged in halves; 0: all. Always the same ones."""
    if count <= 0:
        return rows
    judged = rows["stream"].isin(("test", "unseen"))
    parts = [some(part, max(1, count // 2)) for _, part in rows[judged].groupby(["stream", "experience"], sort=False)]
    return pd.concat([rows[~judged], *parts], ignore_index=True)


def capped_stored(rows: pd.DataFrame, count: int) -> pd.DataFrame:
    """With a cap on what is measured, no more validation and test faces are stored either."""
    if count <= 0:
        return rows
    judged = rows["stream"].isin(("valid", "test"))
    parts = [some(part, max(1, count // 2)) for _, part in rows[judged].groupby("stream", sort=False)]
    return pd.concat([rows[~judged], *parts], ignore_index=True)


def scenario_of(rows: pd.DataFrame, experiences: Sequence[str], unseen: Sequence[str], config: RunConfig) -> Scenario:
    """Rows laid out already as a scenario; forgeries that no row names any more keep their place."""
    order = [part for name in experiences for part in name.split("+")]
    named = dict.fromkeys(["real", *order, *unseen, *rows["forgery"]])
    return Scenario(rows, tuple(experiences), tuple(unseen), tuple(named), check_profiles(config.scenario))


def strategy_state(checkpoint: Checkpoint) -> State:
    """What the strategy put into a checkpoint."""
    tensors = {k.removeprefix("strategy."): v for k, v in checkpoint.tensors.items() if k.startswith("strategy.")}
    return tensors, dict(checkpoint.meta["strategy"])


def with_strategy(checkpoint: Checkpoint, state: State) -> Checkpoint:
    """The checkpoint with another strategy's state."""
    own = {k: v for k, v in checkpoint.tensors.items() if not k.startswith("strategy.")}
    return Checkpoint(
        own | {f"strategy.{k}": v for k, v in state[0].items()}, {**checkpoint.meta, "strategy": state[1]}
    )
