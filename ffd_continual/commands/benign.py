"""`ffd benign RUN`: how often a finished run's detector calls real faces forged, untouched and harmlessly edited."""

from __future__ import annotations

import argparse
from pathlib import Path

from ffd_continual.comparing.finished import read_runs
from ffd_continual.reporting.alarm_page import terminal, write_alarms
from ffd_continual.retesting.false_alarms import FOLDER, measure_alarms, real_faces
from ffd_continual.retesting.reopen import Reopened, reopen
from ffd_continual.scenarios.benign import EDITS, Edit, Picture, edits_named
from ffd_continual.scenarios.errors import FFDError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a finished run")
    parser.add_argument("--edits", default="", metavar="A,B", help=f"some of {', '.join(EDITS)} (default: all)")
    parser.add_argument(
        "--by",
        default="",
        metavar="A,B",
        help="columns of the manifest that group people (default: skin tone, age, sex)",
    )
    parser.add_argument("--samples", type=int, default=1000, metavar="N", help="resamples of the intervals (1000)")
    parser.add_argument("--out", type=Path, help="where table and page go (default: RUN/benign)")


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def one_face(run: Reopened, edits: list[Edit]) -> list[tuple[str, Picture]]:
    """The first real test face, untouched and under every edit."""
    table = run.parts.sources.table
    slot = int(real_faces(run)["slot"].iloc[0])
    face: Picture = table.pictures[slot].copy()
    return [("untouched", face), *((edit.name, edit.apply(face)) for edit in edits)]


def run(args: argparse.Namespace) -> int:
    """Judge, write table and page, print the short table and the page's path."""
    if args.samples < 0:
        raise FFDError(f"--samples {args.samples}: give 0 (no intervals) or more.")
    edits = edits_named(_listed(args.edits))
    runs, left_out = read_runs([args.run])
    if len(runs) != 1 or left_out:
        raise FFDError(f"{args.run} holds several runs: name one of them, e.g. {runs[0].path}.")
    opened = reopen(args.run)
    out: Path = args.out or args.run / FOLDER
    try:
        alarms, notes = measure_alarms(opened, edits, _listed(args.by), out / "scores", args.samples)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("The same command goes on from there.") from None
    title = f"False alarms of {runs[0].method}"
    where = write_alarms(out, alarms, title, one_face(opened, edits), notes)
    print(terminal(alarms, notes))
    if out == args.run / FOLDER:
        print(f"`ffd report {args.run}` shows it, too")
    print(f"\npage: {where}")
    return 0
