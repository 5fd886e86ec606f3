"""`ffd add --real`: real faces of a new camera or codec, without a forgery.

Real faces alone would teach "this camera is real", and forged faces from that camera would be missed from then on. So
each new real face is also shown self-blended (Shiohara and Yamasaki, CVPR 2022), as forged, through the same camera;
the forged faces that the lineage keeps join them. Their test stream sets the new real faces against the forged test
faces that the lineage knows, and against forged faces of the same source where some come along: those are only tested
on. What this costs on known forgeries is in every other stream; `told_apart` tells what it costs at the new source.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from ffd_continual.lineage.experience import borrowed, next_row, numbered
from ffd_continual.lineage.lineage import Lineage
from ffd_continual.lineage.rows import as_rows
from ffd_continual.measuring.metrics import auc
from ffd_continual.runs.folder import RunFolder
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.forging.selfblend import self_blend
from ffd_continual.scenarios.landmarks import fill_landmarks, models_installed
from ffd_continual.scenarios.pictures import encode_picture, read_picture, write_bytes
from ffd_continual.scenarios.views import keyed_generator

SELF = "selfblend"
_BLEND = 911


def _stored(lineage: Lineage, data: bytes) -> str:
    """A picture made here, among those that the lineage keeps; absolute."""
    digest = hashlib.sha256(data).hexdigest()
    place = lineage.faces / digest[:2] / f"{digest}.png"
    if not place.is_file():
        write_bytes(place, data)
    return str(place.resolve())


def blended(lineage: Lineage, rows: pd.DataFrame, name: str, first: int) -> pd.DataFrame:
    """A self-blended face of every real training row that has 68 landmarks, numbered from `first` on."""
    made: list[dict[str, Any]] = []
    for row in tqdm(rows.to_dict("records"), desc="blending", unit="face", leave=False):
        points = np.asarray(json.loads(row["landmarks"]) if row["landmarks"] else [], np.float32)
        if points.shape != (68, 2):
            continue
        rng = keyed_generator(_BLEND, int(row["manifest_row"]))
        image, mask = self_blend(read_picture(row["path"]), points, rng)
        path = _stored(lineage, encode_picture(image, ".png", forged=SELF))
        where = _stored(lineage, encode_picture(np.repeat(mask[..., None], 3, axis=2), ".png"))
        own = {"path": path, "mask": where, "pair": "", "label": 1, "forgery": SELF, "sha256": "", "source": path}
        made.append({str(k): v for k, v in row.items()} | own | {"manifest_row": first + len(made)})
    return as_rows(pd.DataFrame(made)) if made else rows.iloc[:0]


def tested_only(placed: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Of the forged faces that come with real ones: those of test people, to see whether they are still found."""
    forged = placed["label"] == 1
    kept = placed[~forged | (placed["split"] == "test")].reset_index(drop=True)
    if not forged.any():
        return kept, []
    count = int((kept["label"] == 1).sum())
    return kept, [
        f"--real learns from no forged face: of {int(forged.sum())} that came along, the {count} of test people "
        "are tested on"
    ]


def real_experience(lineage: Lineage, parent: int, name: str, table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Rows of an experience from placed real faces. Raises FFDError where nothing forged can be set against them."""
    table, notes = tested_only(table)
    rows = numbered(table, name, next_row(lineage))
    train = rows[rows["stream"] == "train"]
    if models_installed():
        train = fill_landmarks(train, lineage.path / ".cache")
    blends = blended(lineage, train, name, int(rows["manifest_row"].max()) + 1)
    kept = borrowed(lineage, parent, "train", name, 1)
    kept = kept[kept["forgery"] != SELF]
    if blends.empty:
        notes.append(
            "no landmarks are known of these faces, so none could be self-blended: forged faces of the same source "
            "may be missed from now on"
        )
        if kept.empty:
            raise FFDError(
                f"--real sets forged faces against the new real ones, and {lineage.path} keeps none (it was adopted "
                "with --keep 0) and the new faces have no landmarks to blend them by. `make install` brings the models "
                "that find landmarks; or adopt the run again with --keep 40."
            )
    tests = borrowed(lineage, parent, "test", name, 1)
    asked = int(((rows["stream"] == "test") & (rows["label"] == 0)).sum())
    notes.append(
        f"{len(train)} real faces, {len(blends)} of them also self-blended, and {len(kept)} kept forged ones to learn "
        f"from; its test sets {asked} new real faces against {len(tests)} forged ones "
        "of earlier tests"
    )
    others = rows[rows["stream"] != "train"]
    return pd.concat([train, others, blends, kept, tests], ignore_index=True), notes


@dataclass(frozen=True)
class ToldApart:
    """New real faces against one kind of forged ones: AUC before and after, and the share of each called forged."""

    against: str
    faces: int
    before: float
    after: float
    found_before: float
    found_after: float
    alarms_before: float
    alarms_after: float

    def costs_more(self, tolerance: float) -> bool:
        """AUC fell by more than the tolerance, or more forged faces went missing than false alarms were spared."""
        missed, spared = self.found_before - self.found_after, self.alarms_before - self.alarms_after
        return self.before - self.after > tolerance or missed > max(spared, tolerance)


def told_apart(lineage: Lineage, number: int) -> list[ToldApart]:
    """How well a version that learnt a source of real faces, and its parent, tell them from forged ones.

    Against forged faces that were known, and forged ones of the same source where some came along. Both judge with
    the threshold that each had.
    """
    about, folder = lineage.about(number), RunFolder(lineage.folder(number))
    last = len(about["experiences"]) - 1
    first = int(lineage.about(int(about["parent"]))["next_row"])
    tables = [pd.read_parquet(folder.predictions(after)) for after in (last - 1, last)]
    own = [t[(t["stream"] == "test") & (t["on"] == about["forgery"])].set_index("row").sort_index() for t in tables]
    before, after = own[0].loc[own[0].index.isin(own[1].index)], own[1].loc[own[1].index.isin(own[0].index)]
    forged, new = after["label"].to_numpy() == 1, after.index.to_numpy() >= first
    made = []
    for words, chosen in (("known forged faces", forged & ~new), ("forged faces of the same source", forged & new)):
        if not chosen.any() or forged.all():
            continue
        used = chosen | ~forged
        areas = [auc(forged[used], table["z"].to_numpy()[used]) for table in (before, after)]
        called = [(table["z"] >= table["threshold"]).to_numpy() for table in (before, after)]
        shares = [float(one[which].mean()) for which in (chosen, ~forged) for one in called]
        made.append(ToldApart(words, int(chosen.sum()), *areas, *shares))
    return made
