"""What `ffd check` says of a manifest, and the manifest as it reads it."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ffd_continual.scenarios.manifest import Manifest


@dataclass(frozen=True)
class Fault:
    """One fault: ``row`` is the CSV line or Parquet row (both from 1), None where it concerns the whole table."""

    row: int | None
    column: str
    kind: str
    message: str
    warning: bool = False


class Rows:
    """The table as plain lists, which are many times faster than cells of a DataFrame."""

    def __init__(self, manifest: Manifest) -> None:
        table = manifest.table
        self.count = len(table)
        self.lines = manifest.lines.tolist()
        self.unit = manifest.unit
        self.text = {str(name): table[name].tolist() for name in table.columns}
        self.file = {
            name: [os.path.normpath(manifest.absolute(cell)) if cell else "" for cell in self.text[name]]
            for name in ("path", "pair", "mask")
        }

    def fault(self, row: int, column: str, kind: str, message: str) -> Fault:
        """A fault of that row."""
        return Fault(int(self.lines[row]), column, kind, message)

    def at(self, row: int) -> str:
        """The row as its file counts it."""
        return f"{self.unit} {self.lines[row]}"
