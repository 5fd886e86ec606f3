"""`ffd discover`: new kinds of forgeries among suspicious faces; `--measure`: how well that works."""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import torch

from ffd_continual.config import apply_sets, config_from, read_yaml
from ffd_continual.detecting.discover import MIXED, WAY, Discovery, discover, known_standard
from ffd_continual.detecting.inputs import walk_inputs
from ffd_continual.detecting.measure import (
    each_text,
    flagging_text,
    grouping_text,
    measure_discovery,
    measure_finished,
)
from ffd_continual.detecting.opened import open_detector
from ffd_continual.detecting.suspects import begun
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.prepare.source import spread
from ffd_continual.terminal import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments, added to its (sub-)parser."""
    parser.add_argument("detector", nargs="?", type=Path, metavar="LINEAGE|RUN", help="a lineage, or a finished run")
    parser.add_argument("paths", nargs="*", metavar="PATH", help="suspicious pictures, videos, folders; - is a list")
    parser.add_argument("--out", type=Path, required=True, help="a new folder: sheets, faces.csv, manifest.csv, crops")
    parser.add_argument("--at", type=int, metavar="VERSION", help="version of the lineage (default: the promoted one)")
    parser.add_argument("--cropped", action="store_true", help="pictures are face crops, framed as the run's data")
    parser.add_argument("--mixed", action="store_true", help="real faces may be among them: flag fewer of those")
    parser.add_argument("--smallest", type=int, default=5, metavar="N", help="faces that make a group (default 5)")
    parser.add_argument("--frames", type=int, default=8, metavar="N", help="of a video, spread over it (default 8)")
    parser.add_argument("--name", default="new", help="groups are called NAME-01, NAME-02, ... (default: new)")
    parser.add_argument(
        "--measure", metavar="CONFIG|RUN", help="instead: withhold forgeries in turn; of a run, nothing is trained"
    )
    parser.add_argument("--withhold", default="", metavar="NAME,NAME", help="with --measure: only these (default: all)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="with --measure: train.steps=50"
    )


def run(args: argparse.Namespace) -> int:
    """Discover, or measure; 0, or 1 where an input could not be read."""
    if args.smallest < 2:
        raise FFDError(f"--smallest {args.smallest}: a group has 2 faces or more.")
    if args.measure:
        if args.detector is not None:
            raise FFDError("--measure trains detectors of its own: leave LINEAGE|RUN and PATH out.")
        return _measure(args)
    if args.detector is None or not args.paths:
        raise FFDError("give a lineage or run and the suspicious pictures: ffd discover RUN DIR --out OUT.")
    spread(0, args.frames)
    begun(args.out)  # before minutes are spent on what is known
    detector = open_detector(args.detector, args.at)
    torch.set_num_threads(detector.config.train.threads)
    cv2.setNumThreads(1)
    known = known_standard(detector, MIXED if args.mixed else WAY)
    say(
        f"{detector.version} knows {', '.join(detector.known)}; novel is what exceeds {known.threshold:.2f}, the 95 % "
        f"point of {known.usual} of its validation forgeries ({known.way}, {known.stored} {known.kind})."
    )
    if known.reals > 0:
        more = "" if args.mixed else " (fewer with --mixed)"
        say(f"So do {known.reals:.0%} of its real validation faces{more}: look for real ones on the sheets.")
    found = discover(
        detector, walk_inputs(args.paths), args.out, known, args.cropped, args.smallest, args.frames, args.name
    )
    tell(found, args.out)
    return 1 if found.unreadable else 0


def tell(found: Discovery, out: Path) -> None:
    """Groups and counts, at most 80 columns."""
    faces = found.faces
    novel = int((faces["novelty"] > faces["threshold"]).sum())
    say(
        f"{len(faces)} faces: {novel} novel, {sum(g.faces for g in found.groups)} of them in {len(found.groups)} groups"
    )
    for message in found.unreadable[:5]:
        say(f"  left out: {message}")
    if found.groups:
        print(f"{'group':<12}{'faces':>6}{'score':>7}  nearest known  sheet")
        for group in found.groups:
            print(f"{group.name:<12}{group.faces:>6}{group.score:>7.2f}  {group.resembles[:13]:<13}  {group.sheet}")
        first = found.groups[0].name
        say(f"draft: {found.manifest}. Look at the sheets, take out what does not belong, then, for example:")
        print(f"  ffd add LINEAGE --forgery {first} --data {out}")


def _measure(args: argparse.Namespace) -> int:
    names = [name for name in args.withhold.split(",") if name]
    if Path(args.measure).is_dir():
        if args.set:
            raise FFDError("--set changes a configuration; --measure was given a finished run.")
        torch.set_num_threads(1)
        table = measure_finished(Path(args.measure), args.out, args.smallest, names)
    else:
        config = config_from(apply_sets({"name": Path(args.measure).stem, **read_yaml(args.measure)}, args.set))
        table = measure_discovery(config, args.out, args.smallest, names)
    say("\nTest faces of a withheld forgery against those of known ones (means over forgeries):")
    print(flagging_text(table))
    say(f"\n{WAY}, and what it flags in groups:")
    print(each_text(table, WAY))
    print("\n" + grouping_text(table, WAY))
    print(f"\n{args.out / 'discover.csv'}")
    return 0
