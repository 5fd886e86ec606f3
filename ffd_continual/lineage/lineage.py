"""A lineage: a detector in use, as a folder of numbered versions of which one is promoted.

    LINEAGE/lineage.json     format of the folder, and the salt of its log
    LINEAGE/versions/0001/   a run folder each, with its last checkpoint; only erasure and pruning ever change it
    LINEAGE/promoted         number of the version in use
    LINEAGE/candidate/       the version under way, if any; it gets its number when it is renamed into versions/
    LINEAGE/faces/           copies of the pictures that the lineage keeps, named by their content's SHA-256
    LINEAGE/log.jsonl        who did what and when, one JSON object a line; only ever appended to
    LINEAGE/lock             held by the one process that writes

Beside a run's files a version holds version.json (number, parent, forgery, verdict, figures), faces.parquet (the faces
that it brought) and exemplars.parquet (the stored faces of its strategy, in the order of its memory).
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ffd_continual.runs.folder import write_text
from ffd_continual.scenarios.errors import FFDError

FORMAT = 1
_NUMBER = re.compile(r"\d{4,}")
PATHS = ("path", "pair", "mask")


@dataclass(frozen=True)
class Lineage:
    """Paths and facts of a lineage; nothing here writes."""

    path: Path

    @property
    def candidate(self) -> Path:
        """The run folder of the version under way."""
        return self.path / "candidate"

    @property
    def faces(self) -> Path:
        """Pictures, by content."""
        return self.path / "faces"

    @property
    def log(self) -> Path:
        """The audit."""
        return self.path / "log.jsonl"

    def settings(self) -> dict[str, Any]:
        """What lineage.json holds."""
        return _read_json(self.path / "lineage.json")

    def folder(self, number: int) -> Path:
        """Where version `number` lies, or would."""
        return self.path / "versions" / f"{number:04d}"

    def versions(self) -> list[int]:
        """Numbers of all versions, ascending: promoted, refused and pruned ones."""
        parent = self.path / "versions"
        found = [entry.name for entry in parent.iterdir() if entry.is_dir()] if parent.is_dir() else []
        return sorted(int(name) for name in found if _NUMBER.fullmatch(name))

    def promoted(self) -> int:
        """Number of the version in use. Raises FFDError when the file is damaged."""
        path = self.path / "promoted"
        try:
            number = int(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise FFDError(
                f"{path} does not name a version ({error}). Write the number of the version to use into it; "
                f"there are {', '.join(map(str, self.versions())) or 'none'}."
            ) from error
        if number not in self.versions():
            raise FFDError(
                f"{path} names version {number}, which is not there. Known: {', '.join(map(str, self.versions()))}."
            )
        return number

    def run(self, number: int | None = None) -> Path:
        """Run folder of a version (default: the promoted one). Raises FFDError when it is unknown or was pruned."""
        chosen = self.promoted() if number is None else number
        if chosen not in self.versions():
            known = ", ".join(map(str, self.versions())) or "none"
            raise FFDError(f"{self.path} has no version {chosen}. Known: {known} (`ffd versions {self.path}`).")
        if not self.has_weights(chosen):
            raise FFDError(f"version {chosen} of {self.path} was pruned: its figures are kept, its weights are gone.")
        return self.folder(chosen)

    def has_weights(self, number: int) -> bool:
        """False once it was pruned."""
        return any((self.folder(number) / "checkpoints").glob("after_*"))

    def about(self, number: int) -> dict[str, Any]:
        """What version.json of a version holds."""
        return _read_json(self.folder(number) / "version.json")

    def chain(self, number: int) -> list[int]:
        """A version and all it grew from, oldest first."""
        found = [number]
        while (parent := self.about(found[-1])["parent"]) is not None:
            found.append(int(parent))
        return found[::-1]

    def table(self, number: int, name: str) -> pd.DataFrame:
        """faces.parquet or exemplars.parquet of a version, paths of copied pictures made absolute."""
        return self.absolute(pd.read_parquet(self.folder(number) / name))

    def absolute(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Relative paths start at the lineage."""
        root = f"{self.path.resolve()}{os.sep}"
        made = {
            name: [root + cell if cell and not os.path.isabs(cell) else cell for cell in rows[name].tolist()]
            for name in PATHS
            if name in rows
        }
        return rows.assign(**{name: pd.Series(cells, index=rows.index, dtype="str") for name, cells in made.items()})


def _read_json(path: Path) -> dict[str, Any]:
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FFDError(f"{path} cannot be read ({error}): the lineage is damaged. Restore it from a copy.") from error
    if not isinstance(read, dict):
        raise FFDError(f"{path} holds no mapping: the lineage is damaged. Restore it from a copy.")
    return read


def is_lineage(path: Path) -> bool:
    """Whether a folder is a lineage (of any format)."""
    return (Path(path) / "lineage.json").is_file()


def open_lineage(path: Path) -> Lineage:
    """Open a lineage for reading. Raises FFDError when it is none, or of another format."""
    lineage = Lineage(Path(path))
    if not is_lineage(lineage.path):
        run = (lineage.path / "config.yaml").is_file()
        hint = " It is a run folder: `ffd adopt RUN LINEAGE` makes a lineage of it." if run else ""
        raise FFDError(
            f"{path} is not a lineage: it has no lineage.json.{hint or ' `ffd adopt RUN LINEAGE` makes one.'}"
        )
    found = lineage.settings().get("format")
    if found != FORMAT:
        raise FFDError(
            f"{path} is a lineage of format {found}, this version reads format {FORMAT}. "
            "Use the version of ffd_continual that wrote it, or a newer one."
        )
    return lineage


def write_promoted(lineage: Lineage, number: int) -> None:
    """Name the version in use; written whole."""
    write_text(lineage.path / "promoted", f"{number}\n")
