"""`ffd prune LINEAGE --keep K`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ffd_continual.lineage.page import write_page
from ffd_continual.lineage.store import writing
from ffd_continual.lineage.upkeep import numbers_in_words, prune
from ffd_continual.terminal import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The lineage, and how many versions keep their weights."""
    parser.add_argument("lineage", type=Path, metavar="LINEAGE")
    parser.add_argument(
        "--keep", type=int, required=True, metavar="K",
        help="newest versions to keep whole; the one in use and its parent are always kept",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Remove weights."""
    with writing(args.lineage) as lineage:
        gone, freed = prune(lineage, args.keep)
        write_page(lineage)
    if gone:
        say(f"weights of version {numbers_in_words(gone)} removed, {freed / 1e6:.1f} MB; their figures are kept.")
    else:
        say("nothing to prune: every version is among those kept, in use, or its parent.")
    return 0
