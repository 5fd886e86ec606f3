"""`ffd forget`: a person's (or one picture's) faces leave a lineage, and every file is searched for what remains.

Removed: the pictures, their rows in faces.parquet and exemplars.parquet, their places in the memories inside
checkpoints, their predictions, sample pictures of reports, caches. Not removable: what weights, prototypes and feature
queues took from faces that were trained on; this is said, with the versions and the number of faces.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ffd_continual.lineage.lineage import Lineage
from ffd_continual.lineage.rows import strategy_state, with_strategy
from ffd_continual.lineage.store import append_log, digest_of, subject_of, sweep_faces
from ffd_continual.lineage.upkeep import none_under_way
from ffd_continual.replay.stored import choose_stored, stored_rows
from ffd_continual.reporting.report import write_report
from ffd_continual.runs.checkpoint import load_checkpoint, save_checkpoint
from ffd_continual.runs.folder import RunFolder, write_table, write_text
from ffd_continual.scenarios.errors import FFDError

TEXT = {".json", ".jsonl", ".csv", ".html", ".yaml", ".txt", ".md"}


@dataclass
class Forgotten:
    """What was removed, and what remains."""

    rows: set[int] = field(default_factory=set)  # numbers of the faces
    taught: dict[int, int] = field(default_factory=dict)  # version -> how many of them it was trained on
    pictures: int = 0
    predictions: int = 0
    samples: int = 0
    exemplars: int = 0
    remains: list[str] = field(default_factory=list)


def _hashes(rows: pd.DataFrame) -> pd.Series:
    """SHA-256 of each row's picture: by its name in the lineage, else as stated, else of the file where it lies."""
    found = []
    for path, stated in zip(rows["path"], rows["sha256"], strict=True):
        if path.startswith("faces/"):
            found.append(Path(path).stem)
        elif stated:
            found.append(stated)
        else:
            found.append(digest_of(Path(path)) if Path(path).is_file() else "")
    return pd.Series(found, index=rows.index, dtype="str")


class _Subject:
    """Who or what is to be forgotten."""

    def __init__(self, identity: str, sha256: str, dataset: str):
        self.identity, self.sha256, self.dataset = identity, sha256.lower(), dataset

    def among(self, rows: pd.DataFrame) -> NDArray[np.bool_]:
        """Rows (n,) that show, or hold the face of, the subject."""
        if self.sha256:
            made_from = rows["sha256"] if "sha256" in rows else pd.Series("", index=rows.index)
            return np.asarray((_hashes(rows) == self.sha256) | (made_from == self.sha256), bool)
        hit = rows["identity"].eq(self.identity) | rows["source_identity"].eq(self.identity)
        if "person" in rows:
            hit |= rows["person"].eq(self.identity)
        if self.dataset and "dataset" in rows:
            hit &= rows["dataset"].eq(self.dataset)
        return np.asarray(hit, bool)


def forget(lineage: Lineage, identity: str = "", sha256: str = "", dataset: str = "") -> Forgotten:
    """Remove and search; the caller holds the lock. Running it again after a kill ends the work.

    Raises FFDError where nothing of the kind is in the lineage, or an addition is under way.
    """
    none_under_way(lineage)
    if bool(identity) == bool(sha256):
        raise FFDError("say who: --identity NAME, or --sha256 of one picture; one of the two.")
    if sha256 and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise FFDError(f"--sha256 {sha256!r}: a SHA-256 has 64 hexadecimal digits.")
    who = _Subject(identity, sha256, dataset)
    done = Forgotten()
    words = {sha256.lower()} - {""}
    for number in lineage.versions():
        faces = pd.read_parquet(lineage.folder(number) / "faces.parquet")
        stored = pd.read_parquet(lineage.folder(number) / "exemplars.parquet")
        for rows in (faces, stored):
            hit = rows[who.among(rows)]
            done.rows |= {int(n) for n in hit["manifest_row"]}
            words |= {h for h in _hashes(hit) if h} | {str(s) for s in hit["source"]}
            if rows is faces and (taught := hit.loc[hit["stream"] == "train", "manifest_row"].nunique()):
                done.taught[number] = taught
    if not done.rows and not any(_predicted(lineage, who)):
        raise FFDError(
            f"no face of {'this person' if identity else 'this hash'} is in {lineage.path}. Names count exactly as the "
            "manifest has them."
        )
    for number in lineage.versions():
        _forget_version(lineage, number, who, done)
    done.pictures = sweep_faces(lineage)
    shutil.rmtree(lineage.path / ".cache", ignore_errors=True)
    if identity:
        words.add(identity)
    done.remains = search(lineage, words)
    append_log(
        lineage,
        "forget",
        subject=subject_of(lineage, identity or sha256.lower()),
        by="identity" if identity else "sha256",
        faces=len(done.rows),
        pictures=done.pictures,
        trained_versions=sorted(done.taught),
        remains=len(done.remains),
    )
    return done


def _predicted(lineage: Lineage, who: _Subject) -> Iterator[bool]:
    if who.sha256:
        return
    for path in (lineage.path / "versions").glob("*/predictions/*.parquet"):
        table = pd.read_parquet(path, columns=["identity", "source_identity"])
        yield bool(who.identity in set(table["identity"]) | set(table["source_identity"]))


def _forget_version(lineage: Lineage, number: int, who: _Subject, done: Forgotten) -> None:
    """Faces last: they say what else belongs to the subject, should a kill come before the end."""
    folder = RunFolder(lineage.folder(number))
    touched = False
    for path in [*sorted((folder.path / "predictions").glob("*.parquet")), folder.path / "predictions.parquet"]:
        table = pd.read_parquet(path)
        gone = table["row"].isin(done.rows).to_numpy()
        if not who.sha256:
            gone = gone | who.among(table)
        if gone.any():
            touched = True
            done.predictions += int(gone.sum()) if path.parent.name == "predictions" else 0
            write_table(path, table[~gone].reset_index(drop=True))
    removed = _forget_samples(folder.path / "samples", done.rows, touched)
    done.samples += removed
    (folder.path / "skipped.csv").unlink(missing_ok=True)
    shutil.rmtree(folder.path / "events", ignore_errors=True)
    done.exemplars += _forget_exemplars(lineage, number, done.rows, who)
    if touched or removed:
        write_report(folder.path)
    for name in ("faces.parquet", "stored.parquet"):
        if (folder.path / name).is_file():
            rows = pd.read_parquet(folder.path / name)
            gone = rows["manifest_row"].isin(done.rows).to_numpy() | who.among(rows)
            rows = rows[~gone].reset_index(drop=True)
            for column in ("pair", "mask"):  # the subject's picture beside another face
                rows.loc[rows[column].map(lambda p: Path(p).stem) == (who.sha256 or "-"), column] = ""
            write_table(folder.path / name, rows)


def _forget_samples(folder: Path, rows: set[int], touched: bool) -> int:
    """Sample pictures of these faces; where the index does not tell whose they are, all of them."""
    index = folder / "index.json"
    if not touched or not index.is_file():
        return 0
    entries = json.loads(index.read_text(encoding="utf-8"))
    kept = [entry for entry in entries if entry.get("row") is not None and entry["row"] not in rows]
    write_text(index, json.dumps(kept, indent=1))
    named = {str(entry[key]) for entry in kept for key in ("picture", "map", "mask") if key in entry}
    for path in folder.glob("*.png"):
        if path.name not in named:
            path.unlink()
    return len(entries) - len(kept)


def _forget_exemplars(lineage: Lineage, number: int, rows: set[int], who: _Subject) -> int:
    """Out of exemplars.parquet and the memory in the checkpoint, which counts rows in it: the memory first."""
    path = lineage.folder(number) / "exemplars.parquet"
    stored = pd.read_parquet(path)
    gone = stored["manifest_row"].isin(rows).to_numpy() | who.among(stored)
    if not gone.any():
        return 0
    kept = np.flatnonzero(~gone)
    if lineage.has_weights(number):
        last = RunFolder(lineage.folder(number)).after(len(lineage.about(number)["experiences"]) - 1)
        checkpoint = load_checkpoint(last)
        state = strategy_state(checkpoint)
        if len(stored_rows(state)) == len(stored):  # else a killed `ffd forget` came so far
            save_checkpoint(last, with_strategy(checkpoint, choose_stored(state, kept, np.arange(len(kept)))))
    write_table(path, stored.iloc[kept].reset_index(drop=True))
    return int(gone.sum())


def search(lineage: Lineage, words: set[str]) -> list[str]:
    """Every file of the lineage that still names one of these words (names, hashes, paths), with the word's kind.

    Tables are searched cell by cell, texts by whole words, file names and all other files by their bytes.
    """
    found = []
    exact = {word for word in words if word}
    pattern = re.compile("|".join(rf"(?<![\w/.-]){re.escape(word)}(?![\w-])" for word in sorted(exact)))
    long = [word.encode() for word in exact if len(word) >= 8]
    for path in sorted(p for p in lineage.path.rglob("*") if p.is_file()):
        name = path.relative_to(lineage.path).as_posix()
        if path.stem in exact:
            found.append(f"{name}: its name")
        if path.suffix == ".parquet":
            table = pd.read_parquet(path)
            for column in (c for c in table.columns if not pd.api.types.is_numeric_dtype(table[c])):
                cells = table[column].dropna().astype(str)
                if (cells.isin(exact) | cells.map(lambda c: Path(c).stem).isin(exact)).any():
                    found.append(f"{name}: column {column}")
        elif path.suffix in TEXT:
            text = path.read_text(encoding="utf-8", errors="replace")
            if path.suffix == ".html":  # "1,000 faces" does not name the person 000
                text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
            if pattern.search(text):
                found.append(f"{name}: its text")
        elif path.name not in ("lock", "promoted"):
            data = path.read_bytes()
            if any(word in data for word in long):
                found.append(f"{name}: its bytes")
    return found
