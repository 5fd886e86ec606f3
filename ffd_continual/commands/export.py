"""`ffd export`: a detector as an ONNX graph, with its preprocessing and a model card."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from ffd_continual.detecting.export import CARD, DESCRIPTION, MODEL, export_detector
from ffd_continual.detecting.opened import open_detector


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments, added to its (sub-)parser."""
    parser.add_argument("detector", type=Path, metavar="LINEAGE|RUN", help="a lineage, or a finished run's folder")
    parser.add_argument("--out", type=Path, required=True, help=f"folder for {MODEL}, {DESCRIPTION} and {CARD}")
    parser.add_argument("--at", type=int, metavar="VERSION", help="version of the lineage (default: the promoted one)")
    parser.add_argument("--fpr", type=float, help="of the decision that is described (default 0.05)")
    parser.add_argument("--band", type=float, help="of the decision that is described (default 0.05)")
    parser.add_argument("--overwrite", action="store_true", help="replace what --out holds")


def run(args: argparse.Namespace) -> int:
    """Export, compare with torch, and print how close the two are."""
    detector = open_detector(args.detector, args.at, args.fpr, args.band, "cpu")
    torch.set_num_threads(detector.config.train.threads)
    made = export_detector(detector, args.out, args.overwrite)
    print(f"{made.folder / MODEL}: {(made.folder / MODEL).stat().st_size / 1e6:.1f} MB")
    print(f"largest difference to torch on {made.faces} {made.source}:")
    for name, gap in made.differences.items():
        print(f"  {name:<12} {gap:.1e}")
    print(f"described in {made.folder / DESCRIPTION}, {made.folder / CARD}")
    return 0
