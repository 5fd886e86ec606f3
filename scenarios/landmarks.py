"""Landmarks for manifests that have none: found once on the real training faces, which self-blending needs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.faces import FaceFinder, largest, locate_model
from ffd_continual.scenarios.pictures import PictureError, read_picture
from ffd_continual.scenarios.shard_paths import file_stamp


def models_installed() -> bool:
    """Whether the detector and the mesh are there (`make install` brings both)."""
    try:
        return all(locate_model(kind) for kind in ("detector", "mesh"))
    except FFDError:
        return False


def fill_landmarks(rows: pd.DataFrame, cache: Path) -> pd.DataFrame:
    """The rows with landmarks found on every real training face that lacks them; "" where no face is found.

    Answers are kept in `cache` under the file's path, size and time of change.
    """
    missing = (rows["stream"] == "train") & (rows["label"] == 0) & (rows["landmarks"] == "")
    paths = sorted(set(rows.loc[missing, "path"]))
    if not paths:
        return rows
    store = cache / "landmarks.json"
    known: dict[str, str] = json.loads(store.read_text(encoding="utf-8")) if store.is_file() else {}
    finder = FaceFinder()
    found: dict[str, str] = {}
    for path in tqdm(paths, desc="finding landmarks", unit="face", leave=False):
        try:
            size, changed = file_stamp(path)
        except OSError:
            continue
        key = f"{path}|{size}|{changed}"
        if key not in known:
            known[key] = _landmarks(finder, path)
        found[path] = known[key]
    cache.mkdir(parents=True, exist_ok=True)
    part = store.with_name(f"landmarks.{os.getpid()}.part")
    part.write_text(json.dumps(known), encoding="utf-8")
    part.replace(store)
    filled = rows["landmarks"].where(~missing, [found.get(p, "") for p in rows["path"]])
    return rows.assign(landmarks=filled)


def _landmarks(finder: FaceFinder, path: str) -> str:
    """The manifest's JSON text, or "" without a face; an unreadable picture is reported where the table is read."""
    try:
        face = largest(finder.faces(read_picture(path)))
    except PictureError:
        return ""
    return "" if face is None else json.dumps(np.round(face.landmarks.astype(float), 2).tolist())
