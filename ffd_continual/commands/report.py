"""`ffd report RUN`: build a run's report again from its folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from ffd_continual.scenarios.errors import FFDError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument(
        "--samples", type=int, metavar="N", help="resamples of the confidence intervals (default: as the run itself)"
    )


def run(args: argparse.Namespace) -> int:
    """Write the report and print its path; FFDError where the folder is no run or a file is damaged."""
    from ffd_continual.reporting.report import (
        write_report,  # matplotlib takes a second to import: only when it is needed
    )

    if args.samples is not None and args.samples < 0:
        raise FFDError(f"--samples {args.samples}: give 0 (no intervals) or more")
    print(write_report(args.run, args.samples))
    return 0
