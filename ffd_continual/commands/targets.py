"""`ffd targets`: run again what results/targets.csv claims, and say which claims hold."""

from __future__ import annotations

import argparse
from pathlib import Path

from ffd_continual.comparing.targets import DEFAULT, Checked, Target, check_target, chosen_targets, read_targets


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which claims, from which table, and where their runs go."""
    parser.add_argument("claims", nargs="*", metavar="WORDS", help="claims that hold these words; default: all")
    parser.add_argument("--file", type=Path, default=DEFAULT, help="the table of claims (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/targets"), help="folder of the runs")
    parser.add_argument("--list", action="store_true", help="show the claims, run nothing")


def _said(target: Target) -> str:
    return f"{target.claim}: {target.metric} {target.value:.3f} [{target.low:.3f}, {target.high:.3f}]"


def _outcome(checked: Checked) -> str:
    word = "holds" if checked.holds else "DOES NOT HOLD"
    return f"{word}: {_said(checked.target)}, now {checked.value:.3f}"


def run(args: argparse.Namespace) -> int:
    """Check them one after the other; 1 when some claim does not hold."""
    targets = chosen_targets(read_targets(args.file), args.claims)
    if args.list:
        for target in targets:
            sets = "".join(f" --set {one}" for one in target.overrides)
            print(f"{_said(target)}\n  {target.measured}, {target.machine}")
            print(f"  ffd run {target.config}{sets}, seed {', '.join(map(str, target.seeds))}")
        return 0
    checked = [check_target(target, args.out) for target in targets]
    print("\n" + "\n".join(map(_outcome, checked)))
    return 0 if all(one.holds for one in checked) else 1
