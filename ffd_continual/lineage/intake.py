"""Faces that come to a lineage: read, checked, told apart from those it knows, and put into train, valid and test.

A person, video or picture that the lineage knows stays in the part where it stands there; everybody new is placed as in
a run (scenarios/splits.py), however few they are: three people are enough, one for each part.
"""

from __future__ import annotations

import difflib
import os
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from ffd_continual.lineage.lineage import Lineage
from ffd_continual.lineage.store import digest_of, forgotten
from ffd_continual.scenarios.errors import DataWarning, FFDError
from ffd_continual.scenarios.faces import FaceFinder
from ffd_continual.scenarios.folder import IDENTITY_PATTERN, index_folder
from ffd_continual.scenarios.landmarks import models_installed
from ffd_continual.scenarios.manifest import Manifest, make_manifest, read_manifest
from ffd_continual.scenarios.manifest_cells import REAL, SPLITS
from ffd_continual.scenarios.pictures import PICTURE_SUFFIXES, PictureError, read_picture
from ffd_continual.scenarios.splits import assign_splits, link_groups, source_datasets

LOOKED_AT = 32  # faces that the finder is asked about
FOUND = 0.5  # fewer faces found than this share are no crops of faces
_ANY = ("forged", "fake")  # a class folder that says only that its faces are forged
_DUMMY = "\x1flineage"
PART = {"train": "train", "kept": "train", "valid": "valid", "test": "test", "unseen": "test"}


@dataclass(frozen=True)
class Incoming:
    """New faces with every split filled: the manifest's columns, absolute paths, sha256; and remarks for the user."""

    table: pd.DataFrame
    notes: tuple[str, ...]


def _flat(where: Path, forgery: str, pattern: str) -> Manifest:
    """All pictures below a folder as faces of one class; where several sub-folders hold them, those are videos."""
    found = sorted(
        Path(base, name)
        for base, folders, names in os.walk(where)
        for name in names
        if not name.startswith(".") and Path(name).suffix.lower() in PICTURE_SUFFIXES
    )
    if not found:
        raise FFDError(f"{where} holds no pictures. Give a folder of face crops, DIR/real and DIR/NAME, or a manifest.")
    inner = Path(os.path.commonpath([path.parent for path in found]))  # one folder that holds them all is no video
    rows = []
    for path in found:
        inside = path.relative_to(inner).with_suffix("").as_posix()
        match = re.search(pattern, inside)
        video = inside.rpartition("/")[0]
        rows.append(
            {"path": str(path.resolve()), "label": int(forgery != REAL), "forgery": forgery,
             "dataset": where.resolve().name, "video": video, "identity": match.group(1) if match else ""}
        )  # fmt: skip
    return make_manifest(pd.DataFrame(rows), where, str(where))


def _open(data: Path, name: str, real_only: bool, pattern: str) -> tuple[Manifest, bool]:
    """The manifest, and whether its people were guessed from file names."""
    if not data.exists():
        raise FFDError(
            f"there is nothing at {data}. Give a folder of face crops, DIR/real and DIR/NAME, or a manifest."
        )
    if data.is_file():
        return read_manifest(data), False
    for file in ("manifest.parquet", "manifest.csv"):
        if (data / file).is_file():
            return read_manifest(data / file), False
    folders = {entry.name for entry in os.scandir(data) if entry.is_dir() and not entry.name.startswith(".")}
    if real_only:
        return _flat(data / REAL if REAL in folders else data, REAL, pattern), True
    if REAL in folders or folders & {"train", "valid", "val", "test"}:
        return index_folder(data, pattern), True
    return _flat(data / name if name in folders else data, name, pattern), True


def _choose(manifest: Manifest, name: str, real_only: bool) -> tuple[pd.DataFrame, list[str]]:
    """The rows that are meant, under the name they shall have. FFDError for one-class data and other names."""
    table, notes = manifest.table, list(manifest.notes)
    wrong = (table["label"] == 0) != (table["forgery"] == REAL)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise FFDError(
            f"{manifest.source}: {int(wrong.sum())} labels contradict the column forgery, first at "
            f"{manifest.place(row)} (label {table['label'].iloc[row]}, forgery {table['forgery'].iloc[row]!r}). "
            "Correct them first."
        )
    real = table["label"] == 0
    if real_only:
        if not real.any():
            raise FFDError(f"{manifest.source} holds no real face, and --real adds nothing else.")
        return table, notes  # forged faces of the same source are not learnt from, but tested on
    known = manifest.forgeries
    if not known:
        raise FFDError(f"{manifest.source} holds real faces only: there is nothing to learn. `--real` adds those.")
    if name not in known and len(known) == 1 and known[0] in _ANY:
        table = table.assign(forgery=table["forgery"].where(real, name).astype("str"))
        known = (name,)
    if name not in known:
        near = difflib.get_close_matches(name, known, 1, 0.5)
        hint = f" Did you mean --forgery {near[0]}?" if near else ""
        raise FFDError(f"{manifest.source} holds no face of forgery {name!r}, but {', '.join(known)}.{hint}")
    chosen = real | (table["forgery"] == name)
    if len(known) > 1:
        notes.append(f"of {len(known)} forgeries in {manifest.source} only {name} is added")
    return table[chosen].reset_index(drop=True), notes


def _readable(table: pd.DataFrame, skip: bool) -> tuple[pd.DataFrame, list[str]]:
    """Every picture decoded once; its hash in the column sha256."""
    digests, bad = {}, {}
    for path in tqdm(list(dict.fromkeys(table["path"])), desc="looking at new faces", unit="face", leave=False):
        try:
            read_picture(path)
            digests[path] = digest_of(Path(path))
        except PictureError as error:
            bad[path] = str(error)
    if bad and not skip:
        shown = "\n  ".join(list(bad.values())[:5])
        raise FFDError(
            f"{len(bad)} of {len(digests) + len(bad)} new pictures cannot be read:\n  {shown}\n"
            "Mend or remove them, or give --skip-unreadable to leave them out."
        )
    kept = table[~table["path"].isin(bad)].reset_index(drop=True)
    kept = kept.assign(sha256=pd.Series([digests[p] for p in kept["path"]], dtype="str"))
    return kept, [f"{len(bad)} unreadable pictures are left out"] if bad else []


def _share_found(paths: Sequence[str]) -> float:
    finder = FaceFinder()
    chosen = [paths[int(i)] for i in np.unique(np.linspace(0, len(paths) - 1, min(LOOKED_AT, len(paths))).astype(int))]
    return float(np.mean([bool(finder.faces(read_picture(path))) for path in chosen]))


def check_crops(table: pd.DataFrame, known: Sequence[str], source: str) -> None:
    """FFDError where no face is found in most of the new pictures, as long as it is in those that the lineage knows."""
    if not models_installed() or not known:
        return
    share = _share_found(sorted(set(table["path"])))
    if share < FOUND <= _share_found(known):
        raise FFDError(
            f"{source}: in {100 * (1 - share):.0f} % of the pictures looked at no face is found, though it is in the "
            "faces that this lineage knows. Are they crops of faces? --any-picture adds them all the same."
        )


def known_people(lineage: Lineage, number: int) -> pd.DataFrame:
    """Where everybody stands whom a version has met: dataset, identity, source_identity, video, sha256, part."""
    columns = ["dataset", "identity", "source_identity", "video", "sha256", "path", "stream"]
    parts = [pd.read_parquet(lineage.folder(n) / "faces.parquet", columns=columns) for n in lineage.chain(number)]
    rows = pd.concat(parts, ignore_index=True)
    copied = rows["path"].str.startswith("faces/")
    digest = rows["path"].str.split("/").str[-1].str.split(".").str[0].where(copied, rows["sha256"])
    return rows.assign(part=rows["stream"].map(PART), sha256=digest).drop(columns=["stream", "path"])


def _names(table: pd.DataFrame) -> list[list[tuple[str, ...]]]:
    """All that may tie a row to a part: persons and videos count within their data set, pictures everywhere."""
    columns = [table[n].astype(str).tolist() for n in ("dataset", "identity", "source_identity", "video", "sha256")]
    owners = source_datasets(*columns[:3])
    found = []
    for dataset, identity, source, video, digest, owner in zip(*columns, owners, strict=True):
        ties: list[tuple[str, ...]] = [("p", dataset, identity), ("p", owner, source), ("v", dataset, video)]
        found.append([tie for tie in [*ties, ("h", digest)] if tie[-1]])
    return found


def place_incoming(
    table: pd.DataFrame, known: pd.DataFrame, seed: int, source: str, unmeasured: bool = False, label: int = 1
) -> tuple[pd.DataFrame, list[str]]:
    """Fill the column split, with train alone where nothing shall be measured.

    label: the class that has to be in each part. Rows tied to two parts of the lineage at once are left out, and said.
    """
    if unmeasured:
        table = table.assign(split=pd.Series("train", index=table.index, dtype="str"))
    stands: dict[tuple[str, ...], set[str]] = {}
    for ties, part in zip(_names(known), known["part"], strict=True):
        for tie in ties:
            stands.setdefault(tie, set()).add(str(part))
    parts = [set().union(*(stands.get(tie, set()) for tie in ties)) for ties in _names(table)]
    clash = np.array([len(p | ({own} - {""})) > 1 for p, own in zip(parts, table["split"], strict=True)])
    notes = []
    if clash.any():
        notes.append(
            f"{int(clash.sum())} of {len(table)} faces are left out: their people or pictures stand in another part "
            "(train, valid, test) of this lineage"
        )
    filled = [next(iter(p), own) for p, own in zip(parts, table["split"], strict=True)]
    table = table.assign(split=pd.Series(filled, index=table.index, dtype="str"))[~clash].reset_index(drop=True)
    if unmeasured:
        if not (table["label"] == 1).any():
            raise FFDError(
                f"{source}: all forged faces are of people whom this lineage tests on: none is left to learn."
            )
        return table, notes
    together = pd.concat([table, _dummies(table, label)], ignore_index=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)  # that nothing tells the people is said by `take_in`
            placed = assign_splits(together, seed)
    except FFDError as error:
        if not str(error).startswith("cannot split by"):
            raise FFDError(f"{source}: {error}") from error
        own = table[table["label"] == label]
        count = own["identity"].where(own["identity"] != "", own["path"]).nunique()
        linked = len(set(link_groups(own)[0].tolist()))
        people = "1 person" if count == 1 else f"{count} people"
        if linked < count:  # by videos, swaps or equal pictures
            people += f" in {linked} group{'' if linked == 1 else 's'} that videos, swapped faces or equal pictures tie"
        raise FFDError(
            f"{source}: {people} with {'forged' if label else 'real'} faces cannot fill train, valid and test; nobody "
            "is divided, and who stands in one part of this lineage stays there. Bring at least three people, about "
            "thirty to have it measured well"
            + ("; or give --unmeasured to learn from all of them and test on none." if label else ".")
        ) from error
    return placed[placed["dataset"] != _DUMMY].reset_index(drop=True), notes


def _dummies(table: pd.DataFrame, needed: int) -> pd.DataFrame:
    """Stand-ins for a class of which there are too few to be in each part: the lineage's own faces fill in later."""
    rows = []
    for label in (0, 1):
        part = table[table["label"] == label]
        if part["identity"].where(part["identity"] != "", part["path"]).nunique() < len(SPLITS) and (
            label != needed or part.empty
        ):
            for split in SPLITS:
                name = f"{_DUMMY}{label}{split}"
                rows.append({"path": name, "label": label, "split": split, "dataset": _DUMMY, "identity": name})
    blank = pd.DataFrame(rows, columns=table.columns if not rows else None).reindex(columns=table.columns)
    text = [c for c in table.columns if c not in ("label", "frame")]
    return blank.assign(
        **{c: blank[c].astype(object).where(blank[c].notna(), "").astype("str") for c in text},
        label=blank["label"].astype("int64"),
    )


def _without_forgotten(lineage: Lineage, table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The rows of nobody whom `ffd forget` removed: they do not come back with later data."""
    columns = ["identity", "source_identity", "sha256"]
    gone = forgotten(lineage, set(table[columns].to_numpy().ravel()))
    hit = table[columns].isin(gone).any(axis=1)
    if hit.all():
        raise FFDError("all of these faces are of people, or pictures, that this lineage was told to forget.")
    notes = [f"{int(hit.sum())} faces are left out: the lineage was told to forget them"] if hit.any() else []
    return table[~hit].reset_index(drop=True), notes


def take_in(
    lineage: Lineage,
    parent: int,
    data: Path,
    name: str,
    *,
    real_only: bool = False,
    pattern: str = "",
    skip_unreadable: bool = False,
    any_picture: bool = False,
    unmeasured: bool = False,
    seed: int = 0,
) -> Incoming:
    """Read and place new faces for version `parent`'s next one. Raises FFDError on all that is wrong with them."""
    manifest, guessed = _open(data, name, real_only, pattern or IDENTITY_PATTERN)
    table, notes = _choose(manifest, name, real_only)
    for column in ("path", "pair", "mask"):
        cells = [str(manifest.absolute(cell).resolve()) if cell else "" for cell in table[column]]
        table = table.assign(**{column: pd.Series(cells, index=table.index, dtype="str")})
    main = table[table["label"] == int(not real_only)]
    if guessed and not pattern and main["identity"].nunique() < len(SPLITS) <= main["path"].nunique():
        table = table.assign(identity=pd.Series("", index=table.index, dtype="str"))
        notes.append("file names tell no people: each picture counts as a person of its own (--identity-pattern)")
    table, skipped = _readable(table, skip_unreadable)
    table, gone = _without_forgotten(lineage, table)
    known = lineage.table(parent, "faces.parquet")
    if not any_picture:
        copied = known.loc[known["stream"].isin(("valid", "test")), "path"]
        check_crops(table, sorted(set(copied)), str(data))
    placed, left_out = place_incoming(
        table, known_people(lineage, parent), seed, str(data), unmeasured, int(not real_only)
    )
    return Incoming(placed, (*notes, *skipped, *gone, *left_out))
