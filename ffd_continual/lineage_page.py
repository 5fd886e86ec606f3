"""LINEAGE/report.html: every forgery's AUC over versions and time, what each version cost, what is in use."""

from __future__ import annotations

from pathlib import Path

from ffd_continual.lineage import Lineage
from ffd_continual.report_html import page
from ffd_continual.run_folder import write_text


def write_page(lineage: Lineage) -> Path:
    """Write the page from the versions' own files; its path."""
    path = lineage.path / "report.html"
    write_text(path, page(lineage.path.resolve().name, [("versions", "Versions", "")]))
    return path
