"""`ffd adopt RUN LINEAGE`: put a finished run into use."""

from __future__ import annotations

import argparse
from pathlib import Path

from ffd_continual.lineage.adopt import KEPT, adopt
from ffd_continual.terminal import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run, the new lineage, how many training faces it keeps."""
    parser.add_argument("run_dir", type=Path, metavar="RUN", help="a finished run folder; it is left as it is")
    parser.add_argument("lineage", type=Path, metavar="LINEAGE", help="the folder to make")
    parser.add_argument(
        "--keep", type=int, default=KEPT, metavar="N",
        help=f"real and forged training faces of each forgery to keep, for data that lack a class ({KEPT})",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Make it."""
    lineage = adopt(args.run_dir, args.lineage, args.keep)
    about = lineage.about(1)
    faces, pictures = about["faces"], [p for p in lineage.faces.rglob("*") if p.is_file()]
    size = sum(p.stat().st_size for p in pictures) / 1e6
    say(
        f"{lineage.path}: version 1, in use, knows {about['forgery']}; average AUC {about['aa']:.3f}. "
        f"{faces['valid']} validation, {faces['test']} test and {faces['unseen']} unseen faces, exemplars and "
        f"{args.keep} kept faces of each class are copied ({len(pictures)} files, {size:.1f} MB): the lineage does not "
        "need the run or its data any more."
    )
    return 0
