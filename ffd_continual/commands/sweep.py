"""`ffd sweep GRID`: every method of a grid with every seed, one run folder a cell, one row a finished cell.

A cell that was run to its end is skipped, a stopped one is resumed, so a sweep can be killed and started again at any
moment, also several times at once on one folder: no two ever work on one cell. `--jobs` runs cells side by side and
changes nothing in their figures as long as it leaves them their threads; their seconds are then those of a shared
machine, so methods are compared at equal cost with one job.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ffd_continual.config import fill, read_yaml
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.sweeping.grid import Cell, Grid, cores, make_cells, share_threads
from ffd_continual.sweeping.ray_engine import RayTasks
from ffd_continual.sweeping.rows import mean_table, publish, write_rows
from ffd_continual.sweeping.sweep import Engine, Here, claims_of, sweep
from ffd_continual.sweeping.workers import Workers
from ffd_continual.terminal import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The grid, where runs and rows go, a choice of cells, and where they run."""
    parser.add_argument("grid", help="a YAML file: base, methods, seeds")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs; rows go to OUT/rows.csv")
    parser.add_argument(
        "--publish", type=Path, metavar="FILE.csv", help="also merge the rows into this table, which outlives the runs"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for every cell")
    parser.add_argument("--only", default="", help="comma-separated methods, in this order")
    parser.add_argument("--seeds", default="", help="comma-separated seeds, instead of the grid's")
    parser.add_argument("--jobs", metavar="N", help="cells at a time: a number, or auto (cores // threads); default 1")
    parser.add_argument("--engine", choices=("processes", "ray"), default="processes", help="default %(default)s")
    parser.add_argument("--address", help="a running Ray cluster; default RAY_ADDRESS, else one of the sweep's own")
    parser.add_argument("--gpus", type=float, default=0.0, metavar="N", help="with Ray: GPUs a cell, e.g. 0.5")


def _chosen(args: argparse.Namespace) -> tuple[Grid, list[Cell], bool]:
    grid = fill(Grid, read_yaml(args.grid), "grid")
    known = grid.cells()
    if not known:
        raise FFDError(f"{args.grid} names no cell: give methods, or learners and strategies.")
    methods = [m.strip() for m in args.only.split(",") if m.strip()] or list(known)
    unknown = [m for m in methods if m not in known]
    if unknown:
        raise FFDError(f"--only: no method {', '.join(unknown)} in {args.grid}. Known: {', '.join(known)}.")
    try:
        seeds = [int(s) for s in args.seeds.split(",") if s.strip()]
    except ValueError as error:
        raise FFDError(f"--seeds {args.seeds}: write whole numbers, e.g. --seeds 0,1,2.") from error
    return grid, *make_cells(grid, methods, seeds, args.set, args.out)


def _jobs(words: str | None, cells: Sequence[Cell]) -> int:
    """The number of jobs; 0 where none is given."""
    if words is None:
        return 0
    if words == "auto":
        return max(1, cores() // max(cell.threads for cell in cells))
    if not words.isdecimal() or int(words) < 1:
        raise FFDError(f"--jobs {words}: give a whole number of at least 1, or auto.")
    return int(words)


def _with_threads(cells: list[Cell], said: bool, jobs: int) -> list[Cell]:
    """The cells with their share of this machine; what the grid says of threads is left as it is."""
    if not said:
        return share_threads(cells, jobs)
    threads = max(cell.threads for cell in cells)
    if jobs > 1 and jobs * threads > cores():
        say(
            f"{jobs} jobs of {threads} threads on {cores()} cores will slow each other down: "
            f"--jobs {max(1, cores() // threads)}, or --set train.threads={max(1, cores() // jobs)}"
        )
    return cells


def _engine(args: argparse.Namespace, cells: list[Cell], said: bool) -> tuple[Engine, list[Cell]]:
    jobs = _jobs(args.jobs, cells)
    if args.engine == "ray":
        address = args.address or os.environ.get("RAY_ADDRESS") or "local"
        if address == "local":
            jobs = jobs or _jobs("auto", cells)
            cells = _with_threads(cells, said, jobs)
        return RayTasks(address, jobs, cells, args.gpus), cells
    if args.address or args.gpus:
        raise FFDError("--address and --gpus are for --engine ray.")
    if jobs <= 1:
        return Here(), cells
    cells = _with_threads(cells, said, jobs)
    return Workers(jobs, max(cell.threads for cell in cells)), cells


def run(args: argparse.Namespace) -> int:
    """Run what is missing, then print the table. Raises FFDError that names the cells that failed, after the others."""
    grid, cells, said = _chosen(args)
    methods = list(grid.cells())
    out, claims = args.out, claims_of(args.out)
    failed: dict[str, str] = {}

    def written() -> pd.DataFrame:
        rows = write_rows(out, claims, methods)
        if args.publish is not None and len(rows):
            publish(rows, args.publish, claims, methods)
        return rows

    if any(not cell.done for cell in cells):
        engine, cells = _engine(args, cells, said)
        try:
            failed = sweep(cells, engine, written)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("The same `ffd sweep` command goes on where it stopped.") from None
    rows = written()
    if len(rows):
        print("\n" + mean_table(rows))
    if failed:
        told = "".join(f"\n- {name}: {text}" for name, text in failed.items())
        raise FFDError(
            f"{len(failed)} of {len(cells)} cells failed (error.txt in their folders in {out}):{told}\n"
            "Mend the cause and give the same command again: only they are run."
        )
    return 0
