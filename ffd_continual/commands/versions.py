"""`ffd versions LINEAGE`, `ffd versions LINEAGE --compare A B`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ffd_continual.lineage.lineage import open_lineage
from ffd_continual.lineage.page import write_page
from ffd_continual.lineage.versions import compared, table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The lineage; two of its versions."""
    parser.add_argument("lineage", type=Path, metavar="LINEAGE")
    parser.add_argument("--compare", type=int, nargs=2, metavar=("A", "B"), help="B against A on the same faces")
    parser.add_argument("--page", action="store_true", help="write LINEAGE/report.html again")


def run(args: argparse.Namespace) -> int:
    """Print; reading needs no lock."""
    lineage = open_lineage(args.lineage)
    print(compared(lineage, *args.compare) if args.compare else table(lineage))
    if args.page:
        print(f"\nlineage: {write_page(lineage)}")
    return 0
