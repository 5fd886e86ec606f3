"""`ffd rollback LINEAGE N`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ffd_continual.lineage.page import write_page
from ffd_continual.lineage.store import writing
from ffd_continual.lineage.upkeep import roll_back
from ffd_continual.terminal import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The lineage and the version to use."""
    parser.add_argument("lineage", type=Path, metavar="LINEAGE")
    parser.add_argument("number", type=int, metavar="N", help="version to put into use")
    parser.add_argument("--anyway", action="store_true", help="even if it was refused")


def run(args: argparse.Namespace) -> int:
    """Put it into use."""
    with writing(args.lineage) as lineage:
        was = roll_back(lineage, args.number, args.anyway)
        write_page(lineage)
    say(f"version {args.number} is in use (it was {was}). The next `ffd add` grows from it; no version was removed.")
    return 0
