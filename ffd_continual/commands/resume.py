"""`ffd resume RUN`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ffd_continual.run import resume


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run folder."""
    parser.add_argument("run_dir", type=Path, metavar="RUN", help="a run folder")


def run(args: argparse.Namespace) -> int:
    """Go on with it."""
    resume(args.run_dir)
    return 0
