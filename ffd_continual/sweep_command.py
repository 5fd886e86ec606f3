"""`ffd sweep GRID`: every method of a grid with every seed, one run folder a cell, one row a finished cell.

A grid is YAML: `base` (a configuration), `seeds`, `methods` (name -> list of key=value changes), and `learners` and
`strategies` (the same), whose product adds a method `<learner>+<strategy>` each. `seeds_of` gives any of these seeds of
their own. A cell whose summary exists is skipped, a stopped one is resumed, so a sweep can be killed and started again
at any moment. Cells run one after the other: methods are compared at equal resources.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from ffd_continual.config import apply_sets, config_from, fill, read_yaml
from ffd_continual.run import resume, start
from ffd_continual.run_folder import RunFolder, write_text
from ffd_continual.scenarios.errors import FFDError

FIGURES = ("aa", "diagonal", "forgetting_signed", "forgetting_max", "bwt", "fwt", "zero_shot", "unseen")


@dataclass(frozen=True)
class Grid:
    """What a grid file holds."""

    base: str
    methods: dict[str, tuple[str, ...]] = field(default_factory=dict)
    learners: dict[str, tuple[str, ...]] = field(default_factory=dict)
    strategies: dict[str, tuple[str, ...]] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0, 1, 2)
    seeds_of: dict[str, tuple[int, ...]] = field(default_factory=dict)
    set: tuple[str, ...] = field(default=())  # changes to the base, for all methods

    def cells(self) -> dict[str, tuple[str, ...]]:
        """All methods with their changes: those listed, then learner by learner the product."""
        product = {
            f"{learner}+{strategy}": (*sets, *more)
            for learner, sets in self.learners.items()
            for strategy, more in self.strategies.items()
        }
        return {**self.methods, **product}

    def seeds_for(self, method: str) -> tuple[int, ...]:
        """A method's seeds: its own, else its strategy's, else its learner's, else the grid's."""
        learner, _, strategy = method.partition("+")
        for name in (method, strategy, learner):
            if name in self.seeds_of:
                return self.seeds_of[name]
        return self.seeds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The grid, where runs and rows go, and a choice of cells."""
    parser.add_argument("grid", help="a YAML file: base, methods, seeds")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs; rows go to OUT/rows.csv")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for every cell")
    parser.add_argument("--only", default="", help="comma-separated methods, in this order")
    parser.add_argument("--seeds", default="", help="comma-separated seeds, instead of the grid's")


def row_of(method: str, seed: int, folder: Path) -> dict[str, Any]:
    """A finished cell as one row: its figures (AUC, with 95 % intervals, ACC, trace), seconds and bytes."""
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    costs = json.loads((folder / "costs.json").read_text(encoding="utf-8"))
    row: dict[str, Any] = {"method": method, "seed": seed}
    row |= {f"{m}_{f}": summary[m].get(f) for m in ("auc", "acc") for f in FIGURES}
    row |= {f"{m}_{f}": summary.get(m, {}).get(f) for m in ("iou", "pixel_auc") for f in ("aa", "unseen")}
    for figure, ends in summary["auc"].get("ci", {}).items():
        row |= {f"auc_{figure}_{end}": value for end, value in zip(("low", "high"), ends, strict=True)}
    seconds, steps = summary["seconds"]["train"], RunFolder(folder).read_config().train.steps * len(summary["order"])
    row |= {"train_seconds": round(seconds, 1), "step_ms": round(1000 * seconds / steps, 1)}
    row |= {"stored_bytes": summary["bytes"]["stored"]}
    row |= {"learner_bytes": costs["learner_bytes"], "judge_ms_per_face": round(costs["judge_ms_per_face"], 2)}
    return row | {key: costs[key] for key in ("parameters", "parameters_per_type") if key in costs}


def mean_table(rows: pd.DataFrame) -> str:
    """Mean over seeds and half the spread of the main figures, at most 80 columns."""
    shown = {"aa": "AA", "diagonal": "diag", "forgetting_signed": "forget", "unseen": "unseen"}
    lines = [f"{'method':24s}{'n':>3s}" + "".join(f"{word:>13s}" for word in shown.values())]
    for method, part in rows.groupby("method", sort=False):
        cells = []
        for figure in shown:
            values = part[f"auc_{figure}"].astype(float)
            cells.append(f"{values.mean():.3f} ±{(values.max() - values.min()) / 2:.3f}")
        lines.append(f"{str(method)[:23]:24s}{len(part):>3d}" + "".join(f"{cell:>13s}" for cell in cells))
    return "\n".join([*lines, "AUC, mean over n seeds ± half the range"])


def run(args: argparse.Namespace) -> int:
    """Run what is missing, then print the table."""
    grid = fill(Grid, read_yaml(args.grid), "grid")
    cells = grid.cells()
    if not cells:
        raise FFDError(f"{args.grid} names no cell: give methods, or learners and strategies.")
    methods = [m.strip() for m in args.only.split(",") if m.strip()] or list(cells)
    unknown = [m for m in methods if m not in cells]
    if unknown:
        raise FFDError(f"--only: no method {', '.join(unknown)} in {args.grid}. Known: {', '.join(cells)}.")
    try:
        chosen = [int(s) for s in args.seeds.split(",") if s.strip()]
    except ValueError as error:
        raise FFDError(f"--seeds {args.seeds}: write whole numbers, e.g. --seeds 0,1,2.") from error
    base = read_yaml(grid.base)
    seeds_of = {method: chosen or list(grid.seeds_for(method)) for method in methods}
    for seed in sorted({seed for seeds in seeds_of.values() for seed in seeds}):
        for method in (m for m in methods if seed in seeds_of[m]):
            sets = [*grid.set, *cells[method], *args.set, f"seed={seed}"]
            config = config_from(apply_sets({"name": method, **base}, sets))
            folder = args.out / f"{method}-s{seed}"
            if not (folder / "summary.json").exists():
                print(f"\n== {method}, seed {seed}\n{folder}")
                try:
                    resume(folder) if RunFolder(folder).config.exists() else start(config, folder)
                except KeyboardInterrupt:
                    raise KeyboardInterrupt("The same `ffd sweep` command goes on where it stopped.") from None
            _write_rows(args.out, list(cells))
    print("\n" + mean_table(_write_rows(args.out, list(cells))))
    return 0


def _write_rows(out: Path, methods: list[str]) -> pd.DataFrame:
    rows = []
    for summary in sorted(out.glob("*-s*/summary.json")):
        method, _, seed = summary.parent.name.rpartition("-s")
        if method in methods:
            rows.append(row_of(method, int(seed), summary.parent))
    rows.sort(key=lambda r: (methods.index(r["method"]), r["seed"]))
    table = pd.DataFrame(rows)
    write_text(out / "rows.csv", table.to_csv(index=False))
    return table
