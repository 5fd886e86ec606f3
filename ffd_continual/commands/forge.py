"""`ffd forge`: a forged data set from folders of real portraits."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from ffd_continual.scenarios.forging.contract import FAMILIES
from ffd_continual.scenarios.forging.forge import ForgeConfig, ForgedDataset, forge_dataset
from ffd_continual.scenarios.forging.portraits import IDENTITY, parse_source

SHOWN = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments, defaults those of `ForgeConfig`."""
    default = ForgeConfig()
    parser.add_argument("portraits", nargs="+", metavar="[NAME=]DIR", help="folders of real portraits, searched deep")
    parser.add_argument("--out", required=True, type=Path, help="folder for the data set; an unfinished one goes on")
    parser.add_argument("--families", default=",".join(FAMILIES), help="comma-separated; default: %(default)s")
    parser.add_argument("--size", type=int, default=default.size, help="side of the crops, px (default %(default)s)")
    parser.add_argument("--seed", type=int, default=default.seed, help="default %(default)s")
    parser.add_argument("--workers", type=int, default=2, help="processes (default %(default)s); same bytes for any")
    parser.add_argument("--per-family", type=int, default=None, help="faces a family forges (default: all)")
    parser.add_argument("--identity-pattern", default=IDENTITY, help="first group in the file's stem is the person")
    parser.add_argument("--png", action="store_true", help="write PNG in place of JPEG 95 4:4:4")
    parser.add_argument("--skip-bad", action="store_true", help="leave out pictures that cannot be read")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def run(args: argparse.Namespace) -> int:
    """Forge, then print a summary; raises FFDError for what the user must mend."""
    sources = [replace(parse_source(text), identity=args.identity_pattern) for text in args.portraits]
    config = ForgeConfig(
        families=tuple(name.strip() for name in args.families.split(",") if name.strip()),
        size=args.size,
        seed=args.seed,
        workers=args.workers,
        per_family=args.per_family,
        suffix=".png" if args.png else ".jpg",
        skip_bad=args.skip_bad,
        progress=not args.quiet,
    )
    try:
        made = forge_dataset(sources, args.out, config)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("The same `ffd forge` command goes on where it stopped.") from None
    print(summary(made))
    return 0


def summary(made: ForgedDataset) -> str:
    """Counts by forgery and split in at most 80 columns, what was left out, and where the manifest lies."""
    table = made.table
    lines = [f"{'forgery':<16}{'train':>8}{'valid':>8}{'test':>8}{'people':>8}{'declined':>10}"]
    for forgery in table["forgery"].unique():
        rows = table[table["forgery"] == forgery]
        counts = "".join(f"{int((rows['split'] == split).sum()):>8}" for split in ("train", "valid", "test"))
        people = rows["identity"].nunique()
        lines.append(f"{forgery:<16}{counts}{people:>8}{made.declined.get(str(forgery), 0):>10}")
    for title, paths in (
        ("no face found in", made.collected.faceless),
        ("cannot be read", [path for path, _ in made.collected.unreadable]),
    ):
        if paths:
            lines.append(f"{title}: {len(paths)} picture(s), left out")
            lines += [f"  {path}" for path in paths[:SHOWN]]
            lines += [f"  and {len(paths) - SHOWN} more"] if len(paths) > SHOWN else []
    lines.append("forged files are marked as forged in their metadata")
    lines.append(f"manifest: {made.manifest}")
    return "\n".join(lines)
