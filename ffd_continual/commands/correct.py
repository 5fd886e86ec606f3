"""`ffd correct LINEAGE --labels fixed.csv`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ffd_continual.commands.add import add_rules, rules_of, tell
from ffd_continual.lineage.add import brought_to_its_end
from ffd_continual.lineage.correct import begin_correction
from ffd_continual.lineage.store import writing
from ffd_continual.terminal import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The lineage, the labels, the rule of promotion."""
    parser.add_argument("lineage", type=Path, metavar="LINEAGE")
    parser.add_argument("--labels", type=Path, required=True, metavar="CSV", help="columns path (or sha256) and label")
    add_rules(parser)


def run(args: argparse.Namespace) -> int:
    """Learn the version in use again; exit code 3 when the outcome was refused."""
    with writing(args.lineage) as lineage:
        plan = begin_correction(lineage, args.labels, rules_of(args), args.steps, tuple(args.set))
        for note in plan.notes:
            say(f"note: {note}")
        return tell(lineage, brought_to_its_end(lineage))
