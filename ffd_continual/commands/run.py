"""`ffd run CONFIG` and `ffd run protocols/NAME`."""

from __future__ import annotations

import argparse
from pathlib import Path

import yaml

from ffd_continual.config import apply_sets, config_from, to_mapping
from ffd_continual.protocols import base_values
from ffd_continual.run import start
from ffd_continual.scenarios.errors import FFDError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The configuration, what to change in it, where to write."""
    parser.add_argument("config", help="a packaged configuration (`ffd list configs`), protocols/NAME or a file")
    parser.add_argument("--studio", action="store_true", help="a protocol's miniature on rendered faces")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="e.g. --set train.steps=30")
    parser.add_argument("--data", help="a manifest or folder, instead of the configuration's")
    parser.add_argument("--out", type=Path, help="the run folder; default runs/<name>")
    parser.add_argument("--seed", type=int, help="instead of the configuration's")
    parser.add_argument("--quiet", action="store_true", help="do not print the resolved configuration")


def run(args: argparse.Namespace) -> int:
    """Run it from the start."""
    if args.studio and args.data is not None:
        raise FFDError("--studio renders its faces and --data names others: give one of them.")
    sets = list(args.set)
    if args.data is not None:
        sets.append(f"scenario.data={args.data}")
    if args.seed is not None:
        sets.append(f"seed={args.seed}")
    values = {"name": Path(args.config).stem, **base_values(args.config, args.studio, args.data or "")}
    values = apply_sets(values, sets)
    config = config_from(values)
    if not args.quiet:
        print(yaml.safe_dump(to_mapping(config), sort_keys=False))
    start(config, args.out or default_out(config.name))
    return 0


def default_out(name: str) -> Path:
    """runs/<name>, or the next free runs/<name>-N."""
    base = Path("runs") / name
    number, path = 2, base
    while path.exists():
        path, number = Path(f"{base}-{number}"), number + 1
    return path
