"""`ffd bench CONFIG --out DIR`: what growing a detector forgery by forgery costs and reaches, against retraining it."""

from __future__ import annotations

import argparse
from pathlib import Path

from ffd_continual.config import apply_sets, config_from, read_yaml
from ffd_continual.lineage.bench import Benchmark, run_all
from ffd_continual.lineage.bench_data import wanted
from ffd_continual.lineage.bench_figures import figures, in_words, write_figures
from ffd_continual.runs.assemble import open_data
from ffd_continual.scenarios.errors import FFDError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The configuration, the forgeries, how many faces, what is retrained."""
    parser.add_argument("config", help="a packaged configuration (`ffd list configs`) or a file")
    parser.add_argument("--data", help="a manifest or folder, instead of the configuration's")
    parser.add_argument("--out", type=Path, required=True, help="all is kept here; the same command goes on")
    parser.add_argument(
        "--forgeries",
        default="",
        metavar="A,B,C@phone",
        help="in the order of learning; NAME@CAMERA: again through a camera; default: the configuration's",
    )
    parser.add_argument("--faces", type=int, default=0, metavar="N", help="training faces of each class; 0: all")
    parser.add_argument("--retrain", default="", metavar="K,K", help="also at once: the first K; default: 2, half, all")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="e.g. --set train.steps=30")


def _retrained(words: str, count: int) -> tuple[int, ...]:
    if not words:
        return tuple(sorted({2, (count + 1) // 2, count}))
    try:
        found = {int(word) for word in words.split(",")} | {count}
    except ValueError as error:
        raise FFDError(f"--retrain {words}: write whole numbers, e.g. --retrain 2,11.") from error
    if min(found) < 1 or max(found) > count:
        raise FFDError(f"--retrain {words}: from 1 to {count}, as many as there are forgeries.")
    return tuple(sorted(found))


def run(args: argparse.Namespace) -> int:
    """Do what is missing, then print and write the figures."""
    sets = [*args.set, *([f"scenario.data={args.data}"] if args.data is not None else [])]
    config = config_from(apply_sets({"name": "growth", **read_yaml(args.config)}, sets))
    if args.faces < 0:
        raise FFDError(f"--faces must be 0 (all) or more, not {args.faces}.")
    words = [word.strip() for word in args.forgeries.split(",") if word.strip()]
    manifest = open_data(config, args.out.resolve().parent / ".cache")
    chosen = wanted(words or [*config.scenario.order, *config.scenario.unseen], manifest)
    asked = Benchmark(config, tuple(chosen), _retrained(args.retrain, len(chosen)), args.faces, args.out)
    try:
        lineage, cost, retrained = run_all(asked, manifest)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("The same `ffd bench` command goes on where it stopped.") from None
    found = figures(asked, lineage, cost, retrained)
    print("\n" + in_words(found))
    print("\n" + "\n".join(str(path) for path in write_figures(found, args.out)))
    return 0
