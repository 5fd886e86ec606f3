"""`ffd evaluate DETECTOR DATA`: a detector measured on data it need not have been taught on."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ffd_continual.detecting.evaluate import SPLITS, Evaluation, evaluate_faces
from ffd_continual.detecting.opened import Opened, open_detector
from ffd_continual.measuring.intervals import FEW
from ffd_continual.measuring.metrics import Interval
from ffd_continual.runs.folder import write_table, write_text
from ffd_continual.runs.torch_state import compute_alike
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.folder import IDENTITY_PATTERN
from ffd_continual.terminal import wrapped

WORDS = {
    "auc": "AUC",
    "acc": "accuracy",
    "eer": "equal error rate",
    "ap": "average precision",
    "tpr10": "found at 10 % alarms",
    "tpr1": "found at 1 % alarms",
    "ece": "calibration error",
    "found": "forged faces called so",
    "alarms": "real faces called forged",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("detector", type=Path, metavar="LINEAGE|RUN", help="a lineage, or a finished run's folder")
    parser.add_argument("data", type=Path, metavar="DATA", help="a manifest, or DIR/real and DIR/<forgery>")
    parser.add_argument("--split", choices=SPLITS, default="test", help="where the data have splits (default: test)")
    parser.add_argument("--only", default="", metavar="A,B", help="these forgeries, beside all real faces")
    parser.add_argument("--identity-pattern", default=IDENTITY_PATTERN, help="as of `ffd run`, for folders")
    parser.add_argument("--samples", type=int, default=1000, metavar="N", help="resamples of the intervals (1000)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="one row a face: .parquet or .csv")
    parser.add_argument("--at", type=int, metavar="VERSION", help="version of the lineage (default: the promoted one)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), help="default: the run's")
    parser.add_argument("--threads", type=int, help="of torch; default: the run's")


def _lines(measured: Mapping[str, Interval], faces: Mapping[str, int] | None = None) -> list[str]:
    lines = []
    for name, one in measured.items():
        short = name if len(name) <= 24 else name[:23] + "~"
        count = f"{faces[name]:7d}" if faces and name in faces else " " * 7
        span = f" [{one.low:.3f}, {one.high:.3f}]" if np.isfinite(one.low) else ""
        lines.append(f"{short:24s}{count} {one.value:8.3f}{span}")
    return lines


def words(detector: Opened, found: Evaluation, source: str, samples: int) -> str:
    """Every figure, in at most 80 columns."""
    faces, known = found.faces, detector.known
    counts = faces[faces["label"] == 1]["forgery"].value_counts().to_dict()
    reals, people = int((faces["label"] == 0).sum()), faces["person"].nunique()
    frame = {"auc": found.frame["auc"], "acc": found.frame["acc"], **found.decided, **found.frame}
    lines = [
        wrapped(f"{detector.version} on {source}: {len(faces)} faces, {reals} of them real"),
        "",
        f"{'forgery':24s}{'faces':>7s} {'AUC':>8s}  * it was taught",
        *_lines({name + " *" * (name in known): one for name, one in found.forgeries.items()},
                {name + " *" * (name in known): count for name, count in counts.items()}),
        *_lines({f"mean, {word}": one for word, one in found.means.items()}),
        "",
    ]  # fmt: skip
    for level, measured in (("faces", frame), ("videos", found.video)):
        if measured is not None:
            lines += [f"all {level} together", *_lines({WORDS[name]: one for name, one in measured.items()}), ""]
    drawn = f"[ ] 95 % interval, {samples} resamples of {people} persons (videos, files, where nobody is named)"
    lines.append(wrapped(drawn if samples else "no intervals were asked for"))
    if samples and people < FEW:
        lines.append("    so few that the intervals are too narrow: take them as a hint")
    lines.append(
        wrapped(
            "each forgery against all real faces; accuracy and what is called forged: at the detector's own threshold"
        )
    )
    if found.unreadable:
        lines.append(wrapped(f"{len(found.unreadable)} pictures could not be read, e.g. {found.unreadable[0]}"))
    return "\n".join(lines)


def run(args: argparse.Namespace) -> int:
    """Measure, print, and write the faces where asked to; 1 where pictures could not be read."""
    if args.samples < 0:
        raise FFDError(f"--samples {args.samples}: give 0 (no intervals) or more.")
    if args.out is not None and args.out.suffix not in (".parquet", ".csv"):
        raise FFDError(f"--out {args.out}: give a name that ends in .parquet or .csv.")
    only = [part.strip() for part in args.only.split(",") if part.strip()]
    detector = open_detector(args.detector, args.at, device=args.device)
    compute_alike(args.threads or detector.config.train.threads)
    found = evaluate_faces(detector, args.data, args.split, args.identity_pattern, args.samples, only=only)
    split = "" if args.split == "all" or not (found.faces["split"] != "").any() else f" ({args.split})"
    print(words(detector, found, f"{args.data}{split}", args.samples))
    if args.out is not None:
        if args.out.suffix == ".csv":
            write_text(args.out, found.faces.to_csv(index=False))
        else:
            write_table(args.out, found.faces)
        print(f"\nfaces: {args.out}")
    return 1 if found.unreadable else 0
