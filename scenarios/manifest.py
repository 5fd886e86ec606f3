"""The manifest: one table of faces, one row a face, as CSV or Parquet (docs/manifest.md has the format).

Reading is strict about types, so that a typo is found before a training run and not by it; what needs the pictures or
compares rows (labels that contradict each other, persons in two splits) is left to `ffd_continual.scenarios.check`.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow

from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.manifest_cells import (
    COLUMNS,
    OPTIONAL,
    PATH_COLUMNS,
    REAL,
    REQUIRED,
    cell_parsers,
    cell_text,
)
from ffd_continual.scenarios.pictures import PathLike, write_bytes

_SHOWN = 5


@dataclass(frozen=True, eq=False)
class Manifest:
    """A table of faces with every contract column, normalised, and where it came from.

    ``table``: columns `COLUMNS` in order, then the file's own (subgroup) columns as text; ``label`` is int64 0/1,
    ``frame`` nullable Int64, everything else text with "" for nothing; index 0..n-1. ``root``: the folder that relative
    paths start from. ``source``: what to call it in messages. ``lines``: each row's place in the file (CSV line or
    Parquet row, both from 1). ``notes``: remarks for the user that are no errors.
    """

    table: pd.DataFrame
    root: Path
    source: str
    lines: npt.NDArray[np.int64]
    unit: str = "row"
    notes: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.table)

    @property
    def forgeries(self) -> tuple[str, ...]:
        """The forgeries in order of first appearance, without "real"."""
        return tuple(str(name) for name in self.table["forgery"].unique() if name != REAL)

    @property
    def subgroups(self) -> tuple[str, ...]:
        """The columns beyond the contract, kept as text."""
        return tuple(str(name) for name in self.table.columns[len(COLUMNS) :])

    def absolute(self, path: str) -> Path:
        """A path of this table as a path from here: relative ones start at the manifest's folder."""
        return self.root / path

    def landmarks(self, row: int) -> npt.NDArray[np.float32] | None:
        """The landmarks (68, 2) or hull (>= 3, 2) of row ``row`` (0-based) in pixels x, y; None where it has none."""
        text = self.table["landmarks"].iat[row]
        return np.asarray(json.loads(text), dtype=np.float32) if text else None

    def place(self, row: int) -> str:
        """Row ``row`` (0-based) as a person finds it in the file: "line 7" or "row 6"."""
        return f"{self.unit} {self.lines[row]}"

    def subset(self, keep: npt.NDArray[np.bool_] | npt.NDArray[np.int64] | Sequence[int]) -> Manifest:
        """The rows of a boolean array (n,) or of positions, in that order; `place` still names the file's rows."""
        chosen = np.asarray(keep)
        rows = np.flatnonzero(chosen) if chosen.dtype == np.bool_ else chosen.astype(np.int64)
        return replace(self, table=self.table.iloc[rows].reset_index(drop=True), lines=self.lines[rows])


def _check_columns(names: Sequence[str], source: str) -> list[str]:
    """Notes on the columns beyond the contract. Raises `FFDError` for missing or doubled ones."""
    doubled = sorted({name for name in names if list(names).count(name) > 1})
    if doubled:
        raise FFDError(f"{source}: the column {doubled[0]!r} appears twice. Rename or remove one of them.")
    lower = {name.lower().strip(): name for name in names if name not in COLUMNS}
    for name in REQUIRED:
        if name not in names:
            nearest = difflib.get_close_matches(name, lower, 1, 0.6)
            hint = f"The nearest it has is {lower[nearest[0]]!r}: rename it. " if nearest else ""
            has = ", ".join(names) or "none"
            raise FFDError(f"{source}: the required column {name!r} is missing. {hint}Columns found: {has}.")
    notes = []
    for name in names:
        if name not in COLUMNS:
            absent = [other for other in OPTIONAL if other not in names]
            nearest = difflib.get_close_matches(name.lower().strip(), absent, 1, 0.8)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
            notes.append(f"column {name!r} is not part of the format and is kept as a subgroup column{hint}")
    return notes


def make_manifest(
    table: pd.DataFrame,
    root: PathLike,
    source: str = "table",
    lines: Iterable[int] | None = None,
    unit: str = "row",
    notes: Iterable[str] = (),
) -> Manifest:
    """A `Manifest` from a table in memory: columns completed, ordered and typed; relative paths start at ``root``.

    ``lines`` gives each row's place in its file (default 1, 2, ...). Raises `FFDError` that lists the
    first wrong cells.
    """
    names = [str(name) for name in table.columns]
    remarks = [*notes, *_check_columns(names, source)]
    places = np.arange(1, len(table) + 1) if lines is None else np.asarray(list(lines))
    places = places.astype(np.int64)
    if len(table) == 0:
        raise FFDError(f"{source}: the table has no rows. Give it one row for each face.")
    parsers = cell_parsers()
    extra = [name for name in names if name not in COLUMNS]
    wrong: list[tuple[int, str]] = []
    columns: dict[str, list[object]] = {}
    by_name = dict(zip(names, (table.iloc[:, at].tolist() for at in range(len(names))), strict=True))
    for name in (*COLUMNS, *extra):
        parse = parsers.get(name, cell_text)
        cells: list[object] = []
        for row, value in enumerate(by_name.get(name, [None] * len(table))):
            try:
                cells.append(parse(value))
            except (ValueError, TypeError) as error:
                cells.append(None)
                shown = repr(cell_text(value)[:40])
                wrong.append((row, f"  {unit} {places[row]}, {name}: {shown} {error}"))
        columns[name] = cells
    for row, (label, forgery) in enumerate(zip(columns["label"], columns["forgery"], strict=True)):
        if forgery == "":
            columns["forgery"][row] = REAL
            if label == 1:
                wrong.append((row, f"  {unit} {places[row]}, forgery: is empty though the face is forged"))
    if wrong:
        wrong.sort(key=lambda item: item[0])
        shown = "\n".join(message for _, message in wrong[:_SHOWN])
        more = f"\n  and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise FFDError(f"{source}: {len(wrong)} wrong cell(s). Correct them:\n{shown}{more}")
    types = {"label": "int64", "frame": "Int64"}
    series = {name: pd.Series(cells, dtype=types.get(name, "str")) for name, cells in columns.items()}
    return Manifest(pd.DataFrame(series), Path(root), source, places, unit, tuple(remarks))


def _read_csv(path: Path) -> tuple[pd.DataFrame, list[int]]:
    """All cells as text, with the line each row begins on (a quoted cell may hold line breaks)."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        header = next(reader, [])
        rows: list[list[str]] = []
        lines: list[int] = []
        begin = reader.line_num + 1
        for cells in reader:
            if cells and len(cells) != len(header):
                cause = f"line {begin} has {len(cells)} cells, the header has {len(header)}"
                raise FFDError(f"{path}: {cause}. Quote cells that hold commas.")
            if cells:
                rows.append(cells)
                lines.append(begin)
            begin = reader.line_num + 1
    except UnicodeDecodeError as error:
        raise FFDError(f"{path}: is no UTF-8 text (byte {error.start}). Save it as CSV in UTF-8.") from error
    except csv.Error as error:
        raise FFDError(f"{path}: is no proper CSV ({error}). Save it as comma-separated CSV in UTF-8.") from error
    if len(header) == 1 and (";" in header[0] or "\t" in header[0]):
        raise FFDError(f"{path}: its cells are separated by semicolons or tabs. Save it as comma-separated CSV.")
    header = [name.strip() for name in header]
    return pd.DataFrame(rows, columns=header, dtype=object), lines


def read_manifest(path: PathLike) -> Manifest:
    """Read a ``.csv`` or ``.parquet`` manifest. Raises `FFDError` that names the column, the rows and the remedy."""
    where = Path(path)
    if not where.is_file():
        raise FFDError(f"there is no manifest {where}. Check the path, or give the folder of pictures instead.")
    suffix = where.suffix.lower()
    try:
        if suffix == ".csv":
            table, lines = _read_csv(where)
            return make_manifest(table, where.parent, str(where), lines, "line")
        if suffix == ".parquet":
            return make_manifest(pd.read_parquet(where), where.parent, str(where))
    except pyarrow.ArrowException as error:
        raise FFDError(f"{where}: is no readable Parquet file ({error}). Write it again.") from error
    except OSError as error:
        raise FFDError(f"cannot read {where}: {error.strerror or error}. Check the file.") from error
    raise FFDError(f"{where}: the suffix {suffix!r} is not known. A manifest ends in .csv or .parquet.")


def _rebased(manifest: Manifest, folder: Path) -> pd.DataFrame:
    """The table with its relative paths rewritten to start at ``folder``."""
    table = manifest.table.copy()
    old, new = os.path.abspath(manifest.root), os.path.abspath(folder)
    if old != new:
        for name in PATH_COLUMNS:
            cells = [
                os.path.relpath(os.path.join(old, cell), new) if cell and not os.path.isabs(cell) else cell
                for cell in table[name]
            ]
            table[name] = pd.Series(cells, dtype="str")
    return table


def write_manifest(table: pd.DataFrame | Manifest, path: PathLike) -> Manifest:
    """Check, complete and write a table as ``.csv`` or ``.parquet``, whole or not at all; returns what a reader gets.

    Relative paths of a bare table must start at ``path``'s folder; those of a `Manifest` are rewritten to do so.
    Raises `FFDError` as `read_manifest` does, and when the disk refuses.
    """
    where = Path(path)
    suffix = where.suffix.lower()
    if suffix not in (".csv", ".parquet"):
        raise FFDError(f"cannot write {where}: a manifest ends in .csv or .parquet.")
    plain = _rebased(table, where.parent) if isinstance(table, Manifest) else table
    if suffix == ".parquet":
        manifest = make_manifest(plain, where.parent, str(where))
        out = io.BytesIO()
        manifest.table.to_parquet(out, index=False)
        write_bytes(where, out.getvalue())
        return manifest
    manifest = make_manifest(plain, where.parent, str(where), unit="line")
    text = manifest.table.to_csv(index=False, lineterminator="\n")
    write_bytes(where, text.encode("utf-8"))
    if text.count("\n") == len(manifest) + 1:
        return replace(manifest, lines=manifest.lines + 1)
    return replace(manifest, lines=np.asarray(_read_csv(where)[1], dtype=np.int64))
