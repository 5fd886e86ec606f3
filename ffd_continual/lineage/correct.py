"""`ffd correct`: wrong labels of the version in use, mended; it is learnt again from its parent."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ffd_continual.lineage.adopt import KEPT
from ffd_continual.lineage.candidate import Plan, Rules, prepare
from ffd_continual.lineage.lineage import Lineage
from ffd_continual.lineage.store import append_log
from ffd_continual.lineage.upkeep import none_under_way
from ffd_continual.runs.folder import RunFolder
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.manifest_cells import REAL

KEYS = ("sha256", "path")
LABELS = {"0": 0, "1": 1, "real": 0, "forged": 1}


def read_labels(path: Path) -> pd.DataFrame:
    """A CSV file with `label` (0 / real, 1 / forged) and `path` or `sha256`, as text. FFDError on anything else."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        raise FFDError(
            f"cannot read {path}: {error}. Give a CSV file with the columns path (or sha256) and label."
        ) from error
    key = next((name for name in KEYS if name in table), None)
    if key is None or "label" not in table:
        raise FFDError(f"{path} needs the columns label and path (or sha256); it has {', '.join(table.columns)}.")
    wrong = sorted(set(table["label"].str.lower().str.strip()) - set(LABELS))
    if wrong:
        raise FFDError(f"{path}: the label {wrong[0]!r} is neither 0 / real nor 1 / forged.")
    if table.empty:
        raise FFDError(f"{path} holds no row: there is nothing to correct.")
    return pd.DataFrame({"key": table[key], "label": table["label"].str.lower().str.strip().map(LABELS), "by": key})


def _match(rows: pd.DataFrame, key: str, by: str) -> list[int]:
    if by == "sha256":
        stem = rows["path"].map(lambda p: Path(p).stem)
        return [int(i) for i in rows.index[(rows["sha256"] == key.lower()) | (stem == key.lower())]]
    full = str(Path(key).resolve())
    same = rows["source"] == full
    if not same.any():
        same = rows["source"].str.endswith("/" + key.lstrip("/"))
    return [int(i) for i in rows.index[same]]


def relabelled(rows: pd.DataFrame, fixes: pd.DataFrame, name: str, source: str) -> tuple[pd.DataFrame, int]:
    """The rows with their labels mended, and how many faces changed. FFDError for faces that are not among them."""
    made, changed, lost = rows.copy(), set(), []
    for key, label, by in zip(fixes["key"], fixes["label"], fixes["by"], strict=True):
        at = _match(rows, key, by)
        if not at:
            lost.append(key)
        elif rows.loc[at, "source"].nunique() > 1:
            raise FFDError(
                f"{source}: {key!r} means {len(at)} faces, such as {rows.loc[at[0], 'source']}. Give more of the path."
            )
        else:
            for row in at:
                if int(made.at[row, "label"]) != label:
                    made.loc[row, ["label", "forgery"]] = [label, name if label else REAL]
                    if not label:
                        made.loc[row, ["mask", "pair", "source_identity"]] = ""
                    changed.add(int(made.at[row, "manifest_row"]))
    if lost:
        raise FFDError(
            f"{source}: {len(lost)} of {len(fixes)} faces are not among those that the version in use brought, such as "
            f"{lost[0]!r}. Labels of an earlier version: `ffd rollback` to it, correct, and add the later ones again."
        )
    if not changed:
        raise FFDError(
            f"{source}: all {len(fixes)} labels are what the lineage has already: there is nothing to correct."
        )
    return made, len(changed)


def begin_correction(
    lineage: Lineage, labels: Path, rules: Rules, steps: int | None = None, sets: Sequence[str] = ()
) -> Plan:
    """Make the candidate that replaces the version in use. Raises FFDError on all that is wrong with the labels."""
    none_under_way(lineage)
    number = lineage.promoted()
    about = lineage.about(number)
    if about["parent"] is None:
        raise FFDError(
            f"version {number} was adopted from a run: correct the labels of that run's data, run it again, and adopt "
            "that."
        )
    name = str(about["forgery"])
    rows = lineage.table(number, "faces.parquet")
    rows = rows[rows["stream"] != "kept"].reset_index(drop=True)
    rows, changed = relabelled(rows, read_labels(labels), name, str(labels))
    gone = [p for p in rows["path"] if not os.path.isfile(p)]
    if gone:
        raise FFDError(
            f"{len(gone)} faces that version {number} was taught on are gone, such as {gone[0]}. Put them back: the "
            "lineage keeps no copies of training faces."
        )
    for stream in ("train", "test"):
        for label, word in ((0, "real"), (1, "forged")):
            if not ((rows["stream"] == stream) & (rows["label"] == label)).any():
                raise FFDError(f"{labels}: with these labels {name} would have no {word} {stream} face left.")
    notes = (f"{changed} labels of version {number} are corrected; it is learnt again from version {about['parent']}",)
    plan = Plan(
        "correct", name, int(about["parent"]), tuple(about["experiences"]), tuple(about["unseen"]),
        int(about["next_row"]), KEPT, rules, notes,
    )  # fmt: skip
    own = RunFolder(lineage.folder(number)).read_config().train.steps
    prepare(lineage, plan, rows, own if steps is None else steps, sets)
    append_log(lineage, "begin correction", number, labels=changed)
    return plan
