"""`ffd robust RUN...`: finished runs judged on perturbed test faces: curves, tables and a page."""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pandas as pd

from ffd_continual.comparing.finished import FinishedRun, read_runs
from ffd_continual.comparing.paired import check_same_faces
from ffd_continual.retesting.reopen import reopen
from ffd_continual.retesting.robustness import FOLDER, levels_in, measure_robustness, terminal
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.perturb import PERTURBATIONS, RobustnessConfig, chosen


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folders of finished runs of one scenario")
    parser.add_argument("--perturb", default="", metavar="A,B", help=f"some of {', '.join(PERTURBATIONS)} (all)")
    parser.add_argument(
        "--people", type=int, metavar="N", help="so many test persons, drawn by the seed (default: all)"
    )
    parser.add_argument("--samples", type=int, default=1000, metavar="N", help="resamples of the intervals (1000)")
    parser.add_argument(
        "--out", type=Path, help="where tables, pictures and page go (default: RUN/robustness; of several, beside them)"
    )


def settings(args: argparse.Namespace, given: RobustnessConfig) -> RobustnessConfig:
    """The run's own evaluation.robustness with what the command line says instead. FFDError as `chosen`."""
    if args.perturb:
        given = replace(given, perturb=tuple(part.strip() for part in args.perturb.split(",") if part.strip()))
    if args.people is not None:
        given = replace(given, people=args.people)
    chosen(given)
    return given


def labels_of(runs: list[FinishedRun]) -> list[str]:
    """What each run is called: its method, with the seed where a method has several runs."""
    names = [run.method for run in runs]
    return [n if names.count(n) == 1 else f"{n}, seed {r.seed}" for n, r in zip(names, runs, strict=True)]


def run(args: argparse.Namespace) -> int:
    """Judge, write tables, pictures and page, print the short table and the page's path."""
    from ffd_continual.reporting.robust_page import write_robustness  # matplotlib takes a second to import

    if args.samples < 0:
        raise FFDError(f"--samples {args.samples}: give 0 (no intervals) or more.")
    runs, left_out = read_runs(args.runs)
    for line in left_out:
        print(textwrap.fill(f"warning: left out: {line}.", 80, break_long_words=False), file=sys.stderr)
    check_same_faces(runs)
    single = len(runs) == 1
    out: Path = args.out or (runs[0].path / FOLDER if single else runs[0].path.resolve().parent / FOLDER)
    tables: dict[str, pd.DataFrame] = {}
    try:
        for label, found in zip(labels_of(runs), runs, strict=True):
            opened = reopen(found.path)
            config = settings(args, opened.config.evaluation.robustness)
            self_made = [str(name) for name in found.summary.get("self_made", [])]
            tables[label] = measure_robustness(opened, config, out / "scores", self_made, args.samples, label)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("The same command goes on from there.") from None
    asked = {label: list(dict.fromkeys(table["perturbation"])) for label, table in tables.items()}
    if len({json.dumps(names) for names in asked.values()}) > 1:
        raise FFDError("the runs' own evaluation.robustness name other perturbations: choose some by --perturb.")
    where = write_robustness(out, tables, "Robustness" if len(tables) > 1 else f"Robustness of {next(iter(tables))}")
    print(terminal(tables))
    first = next(iter(tables.values())).iloc[0]
    drawn = f"95 % interval, {args.samples} resamples of {first['groups']} {first['unit']}; " if args.samples else ""
    faces = f"{first['faces']} faces" + (f" in {first['videos']} videos" if "videos" in first else "")
    print(textwrap.fill(f"[ ] {drawn}{faces}, threshold and faces of the run", 80))
    if len(levels_in(tables)) > 1:
        print(textwrap.fill(f"score of a video: {first['rule']}", 80))
    if single and out == runs[0].path / FOLDER:
        print(f"`ffd report {runs[0].path}` shows it, too")
    print(f"\npage: {where}")
    return 0
