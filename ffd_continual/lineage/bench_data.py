"""The faces of a growth benchmark: one manifest a forgery, and one of the first k together, out of any data set.

A forgery may come again through a camera of scenarios/capture.py, as NAME@CAMERA; it then has the name NAME-CAMERA, and
the real faces beside it went through the same camera, so that the camera tells nothing. Pictures through a camera are
written once, since additions number their faces anew, and a camera's noise is drawn by a face's number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from ffd_continual.scenarios.capture import PROFILES, apply_profile, named_profile
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.manifest import Manifest, write_manifest
from ffd_continual.scenarios.pictures import encode_picture, read_picture, write_bytes
from ffd_continual.scenarios.views import keyed_generator

_CAMERA = 717
SHARES = {"train": 1.0, "valid": 0.25, "test": 0.5}  # of --faces


@dataclass(frozen=True)
class Forgery:
    """One addition of the benchmark."""

    family: str  # as the manifest calls it
    camera: str = ""

    @property
    def name(self) -> str:
        """What the lineage calls it."""
        return f"{self.family}-{self.camera}" if self.camera else self.family


def wanted(words: Sequence[str], manifest: Manifest) -> list[Forgery]:
    """NAME or NAME@CAMERA each. Raises FFDError for what the manifest or the cameras do not have, and for doubles."""
    found = []
    for word in words:
        family, at, camera = word.partition("@")
        if family not in manifest.forgeries:
            raise FFDError(
                f"--forgeries {word}: {manifest.source} holds no {family!r}. It has {', '.join(manifest.forgeries)}."
            )
        if at:
            named_profile(camera)
        found.append(Forgery(family, camera))
    names = [one.name for one in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise FFDError(f"--forgeries names {', '.join(twice)} twice.")
    if len(found) < 3:
        raise FFDError("--forgeries: a benchmark needs three at least, the first of which version 1 learns.")
    return found


def some_people(table: pd.DataFrame, faces: int) -> pd.DataFrame:
    """At most `faces` training faces of each forgery and of the real ones, half as many to test, a quarter to validate:
    those of the persons with the lowest lots, the same for every forgery. 0: all."""
    if not faces:
        return table
    person = table["identity"].where(table["identity"] != "", table["video"])
    person = person.where(person != "", table["path"])
    lots = {name: hashlib.sha256(f"person {name}".encode()).hexdigest() for name in person.unique()}
    ranked = table.assign(lot=person.map(lots)).sort_values("lot", kind="stable")
    rank = ranked.groupby(["split", "forgery"]).cumcount()
    most = ranked["split"].map({split: max(4, round(faces * share)) for split, share in SHARES.items()})
    return table.loc[ranked.index[rank < most].sort_values()].reset_index(drop=True)


def _through(table: pd.DataFrame, camera: str, folder: Path) -> pd.DataFrame:
    """The rows with their pictures through a camera, written where they are not yet; their pairs no longer fit."""
    paths = []
    for path in tqdm(table["path"], desc=f"through {camera}", unit="face", leave=False):
        digest = hashlib.sha256(path.encode()).hexdigest()[:20]
        place = folder / camera / f"{digest}.png"
        if not place.is_file():
            place.parent.mkdir(parents=True, exist_ok=True)
            image = apply_profile(read_picture(path), PROFILES[camera], keyed_generator(_CAMERA, int(digest[:8], 16)))
            write_bytes(place, encode_picture(image, ".png"))
        paths.append(str(place))
    return table.assign(path=pd.Series(paths, table.index, dtype="str"), pair="", sha256="", compression=camera)


def make_data(
    manifest: Manifest, forgeries: Sequence[Forgery], faces: int, folder: Path, together: Sequence[int]
) -> dict[str, Path]:
    """Name of a forgery -> its manifest, with real faces; "first K" -> that of the first K, for each K of `together`.

    The manifest has its splits: people stand in the same part in every addition. FFDError where it names cameras.
    """
    table = manifest.table
    if (table["profile"] != "").any():
        raise FFDError(f"{manifest.source} passes faces through cameras (column profile): give pictures as they are.")
    table = some_people(table[table["forgery"].isin(["real", *(f.family for f in forgeries)])], faces)
    root, folder = manifest.root.resolve(), folder.resolve()
    table = table.assign(
        **{
            key: pd.Series([str(root / cell) if cell else "" for cell in table[key]], table.index, dtype="str")
            for key in ("path", "pair", "mask")
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    reals = dict.fromkeys(dict.fromkeys(f.camera for f in forgeries), table[table["forgery"] == "real"])
    reals = {camera: _through(rows, camera, folder) if camera else rows for camera, rows in reals.items()}
    made, places = [], {}
    for one in forgeries:
        rows = table[table["forgery"] == one.family]
        rows = _through(rows, one.camera, folder) if one.camera else rows
        made.append(rows.assign(forgery=pd.Series(one.name, rows.index, dtype="str")))
        places[one.name] = folder / f"{one.name}.parquet"
        write_manifest(pd.concat([reals[one.camera], made[-1]], ignore_index=True), places[one.name])
    for count in together:
        cameras = dict.fromkeys(f.camera for f in forgeries[:count])
        places[f"first {count}"] = folder / f"first-{count}.parquet"
        parts = [*(reals[camera] for camera in cameras), *made[:count]]
        write_manifest(pd.concat(parts, ignore_index=True), places[f"first {count}"])
    return places
