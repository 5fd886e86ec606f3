"""`ffd add --real`: real faces of a new camera or codec, without a forgery.

Real faces alone would teach "this camera is real", and forged faces from that camera would be missed from then on. So
the camera is to say nothing of the label: each new real face is also shown self-blended (Shiohara and Yamasaki, CVPR
2022), as forged; the faces that the lineage keeps, forged and real, are shown as they are and in the new source's look
(scenarios/look.py), real ones too, so that what a look lacks says nothing either. The test stream sets the new real
faces against the forged test faces that the lineage knows, in the new look, and against forged faces of the same source
where some come along: those are only tested on. As a look is an estimate, the stream is in no average. What the
addition costs on known forgeries is in every other stream; `told_apart` tells what it costs at the new source.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from ffd_continual.lineage.experience import borrowed, next_row, numbered
from ffd_continual.lineage.lineage import Lineage
from ffd_continual.lineage.rows import as_rows, some
from ffd_continual.lineage.store import digest_of
from ffd_continual.measuring.metrics import auc
from ffd_continual.runs.folder import RunFolder
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.faces import Picture
from ffd_continual.scenarios.forging.selfblend import self_blend
from ffd_continual.scenarios.landmarks import fill_landmarks, models_installed
from ffd_continual.scenarios.look import Change, changed, fit_change, jpeg_tables, look_of
from ffd_continual.scenarios.pictures import encode_picture, read_picture, write_bytes
from ffd_continual.scenarios.streams import check_profiles
from ffd_continual.scenarios.table import through_camera
from ffd_continual.scenarios.views import keyed_generator

SELF = "selfblend"
_BLEND, _LOOK, _FIT = 911, 912, 913  # keys of random draws
_MEASURED = 120  # real faces of each source that its look is measured on


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
        own = {"path": path, "mask": where, "pair": "", "label": 1, "forgery": SELF, "source": path}
        own["sha256"] = digest_of(Path(row["path"]))  # of what it was made from: `ffd forget` takes both
        made.append({str(k): v for k, v in row.items()} | own | {"manifest_row": first + len(made)})
    return as_rows(pd.DataFrame(made)) if made else rows.iloc[:0]


def _in_the_look(name: str) -> str:
    """The cell `compression` of faces that were given the look of a source."""
    return f"in the look of {name}"


class _Looks:
    """The lineage's faces as its version sees them, and in the look of a new source of real faces."""

    def __init__(self, lineage: Lineage, parent: int, name: str):
        config = RunFolder(lineage.run(parent)).read_config()
        self.lineage, self.name, self.seed = lineage, name, config.scenario.seed
        self.profiles = check_profiles(config.scenario)

    def seen(self, row: Mapping[str, Any]) -> Picture:
        """The picture, through its row's camera."""
        image = read_picture(row["path"])
        return through_camera(image, self.profiles.get(row["profile"]), int(row["manifest_row"]), self.seed)

    def change(self, new: pd.DataFrame, known: pd.DataFrame) -> Change:
        """From the look of known real faces to that of new ones."""
        goal = look_of([read_picture(path) for path in some(new, _MEASURED)["path"]])
        rows = some(known, _MEASURED).to_dict("records")
        tables = jpeg_tables(new["source"].tolist())
        return fit_change([self.seen(row) for row in rows], goal, tables, keyed_generator(_FIT, self.seed))

    def given(self, rows: pd.DataFrame, change: Change, first: int) -> pd.DataFrame:
        """Every row's face in the new look, numbered from `first` on; masks stay, as nothing moves."""
        made: list[dict[str, Any]] = []
        for row in tqdm(rows.to_dict("records"), desc="changing looks", unit="face", leave=False):
            image = changed(self.seen(row), change, keyed_generator(_LOOK, int(row["manifest_row"])))
            mark = str(row["forgery"]) if row["label"] else None
            path = _stored(self.lineage, encode_picture(image, ".png", forged=mark))
            own = {"path": path, "pair": "", "profile": "", "source": path, "compression": _in_the_look(self.name)}
            own["sha256"] = digest_of(Path(row["path"]))
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
    kept = kept[kept["forgery"] != SELF].reset_index(drop=True)
    reals = borrowed(lineage, parent, "train", name, 0)
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
    looked, shown = kept.iloc[:0], tests
    if reals.empty:
        notes.append("the lineage keeps no real faces (--keep 0): what the new source looks like is not told apart")
    else:
        looks = _Looks(lineage, parent, name)
        change = looks.change(train, reals)
        first = int(pd.concat([rows, blends])["manifest_row"].max()) + 1
        looked = looks.given(pd.concat([kept, reals], ignore_index=True), change, first)
        shown = looks.given(tests, change, first + len(looked))
    asked = int(((rows["stream"] == "test") & (rows["label"] == 0)).sum())
    notes.append(
        f"to learn from: {len(train)} new real faces, {len(blends)} of them also self-blended, {len(reals)} kept real "
        f"and {len(kept)} kept forged ones, {len(looked)} also in the new look; its test sets {asked} new "
        f"real faces against {len(shown)} forged ones of earlier tests{'' if reals.empty else ', in the new look'}"
    )
    others = rows[rows["stream"] != "train"]
    return pd.concat([train, others, blends, reals, kept, looked, shown], ignore_index=True), notes


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
    faces = pd.read_parquet(folder.path / "faces.parquet", columns=["manifest_row", "compression"])
    looked = faces.loc[faces["compression"] == _in_the_look(str(about["forgery"])), "manifest_row"]
    tables = [pd.read_parquet(folder.predictions(after)) for after in (last - 1, last)]
    own = [t[(t["stream"] == "test") & (t["on"] == about["forgery"])].set_index("row").sort_index() for t in tables]
    before, after = own[0].loc[own[0].index.isin(own[1].index)], own[1].loc[own[1].index.isin(own[0].index)]
    forged, estimated = after["label"].to_numpy() == 1, after.index.isin(looked)
    new = (after.index.to_numpy() >= first) & ~estimated
    made = []
    for words, chosen in (
        ("known forged faces", forged & ~new & ~estimated),
        ("known forged faces in its look", forged & estimated),
        ("forged faces of the same source", forged & new),
    ):
        if not chosen.any() or forged.all():
            continue
        used = chosen | ~forged
        areas = [auc(forged[used], table["z"].to_numpy()[used]) for table in (before, after)]
        called = [(table["z"] >= table["threshold"]).to_numpy() for table in (before, after)]
        shares = [float(one[which].mean()) for which in (chosen, ~forged) for one in called]
        made.append(ToldApart(words, int(chosen.sum()), *areas, *shares))
    return made
