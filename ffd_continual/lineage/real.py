"""`ffd add --real`: real faces of a new camera or codec, without a forgery.

Real faces alone would teach "this camera is real", and forged faces from that camera would be missed from then on. So
each new real face is also shown self-blended (Shiohara and Yamasaki, CVPR 2022), as forged, through the same camera;
the forged faces that the lineage keeps join them. Their test stream sets the new real faces against the forged test
faces that the lineage knows. What this costs on those is in every other stream.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from ffd_continual.lineage.candidate import borrowed, next_row, numbered
from ffd_continual.lineage.lineage import Lineage
from ffd_continual.lineage.rows import as_rows
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


def real_experience(lineage: Lineage, parent: int, name: str, table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Rows of an experience from placed real faces. Raises FFDError where nothing forged can be set against them."""
    rows, notes = numbered(table, name, next_row(lineage)), []
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
    notes.append(
        f"{len(train)} real faces, {len(blends)} of them also self-blended, and {len(kept)} kept forged ones to learn "
        f"from; its test sets {int((rows['stream'] == 'test').sum())} new real faces against {len(tests)} forged ones "
        "of earlier tests"
    )
    others = rows[rows["stream"] != "train"]
    return pd.concat([train, others, blends, kept, tests], ignore_index=True), notes
