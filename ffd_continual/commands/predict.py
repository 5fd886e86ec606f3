"""`ffd predict`: judge pictures, videos and folders with a run's or a lineage's detector."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import cv2
import torch
from tqdm import tqdm

from ffd_continual.detecting.evidence import gather
from ffd_continual.detecting.inputs import walk_inputs
from ffd_continual.detecting.journal import Journal
from ffd_continual.detecting.opened import Opened, open_detector
from ffd_continual.detecting.predict import Asking, Judging, NearestOf, left_to_do
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.prepare.source import spread
from ffd_continual.terminal import wrapped


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments, added to its (sub-)parser."""
    parser.add_argument("detector", type=Path, metavar="LINEAGE|RUN", help="a lineage, or a finished run's folder")
    parser.add_argument("paths", nargs="+", metavar="PATH", help="pictures, videos, folders; - is a list on stdin")
    parser.add_argument("--out", type=Path, help=".jsonl, .csv or .parquet; default: JSON Lines on stdout")
    parser.add_argument("--overwrite", action="store_true", help="do not go on with what --out holds")
    parser.add_argument("--at", type=int, metavar="VERSION", help="version of the lineage (default: the promoted one)")
    parser.add_argument("--fpr", type=float, help="false alarms allowed, measured on validation faces (default 0.05)")
    parser.add_argument(
        "--band",
        type=float,
        help="misses allowed among faces called real; between: no decision (default 0.05; 0: none)",
    )
    parser.add_argument("--cropped", action="store_true", help="pictures are face crops, framed as the run's data")
    parser.add_argument("--frames", type=int, default=32, metavar="N", help="of a video, spread over it (default 32)")
    parser.add_argument("--neighbours", type=int, default=0, metavar="K", help="show the K nearest stored faces")
    parser.add_argument("--overlay", type=Path, metavar="DIR", help="write each face with its trace map over it")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), help="default: the run's")
    parser.add_argument("--threads", type=int, help="of torch; default: the run's")


def _apart(overlay: Path | None, paths: list[str]) -> None:
    """An overlay folder inside an input folder would be judged by the next prediction."""
    for word in paths if overlay is not None else []:
        if Path(word).is_dir() and overlay is not None and overlay.resolve().is_relative_to(Path(word).resolve()):
            raise FFDError(f"--overlay {overlay} lies inside the input {word}: its pictures would be judged, too.")


def describe(detector: Opened) -> str:
    """How decisions are made, in words."""
    rule, facts = detector.rule, detector.facts
    if not facts.reals:
        return f"{detector.version}: no validation faces, so one threshold and no rate to tell."
    text = (
        f"{detector.version}: forged from z = {rule.forged:.3f} on (at most {100 * rule.fpr:.3g} % of {facts.reals} "
        f"real validation faces)"
    )
    if rule.real < rule.forged:
        text += f", real below {rule.real:.3f} (at most {100 * rule.band:.3g} % of {facts.forgeds} forged ones)"
    return text + "."


def _nearest(detector: Opened, count: int) -> NearestOf | None:
    """What finds the neighbours of faces, or None; says which faces they are."""
    if count < 0:
        raise FFDError(f"--neighbours counts faces, 0 or more, not {count}.")
    if count == 0:
        return None
    evidence = gather(detector)
    lost = f" ({evidence.lost} more cannot be read)" if evidence.lost else ""
    print(wrapped(f"neighbours are among {len(evidence.paths)} {evidence.kind}{lost}."), file=sys.stderr)
    return lambda verdicts: evidence.nearest(verdicts, count)


def summary(counts: dict[str, int]) -> str:
    """Counts of what came out, in words."""
    parts = [f"{counts.get('face', 0)} face" + ("" if counts.get("face") == 1 else "s")]
    parts += [f"{counts[k]} {k.removeprefix('face: ')}" for k in sorted(counts) if k.startswith("face: ")]
    if counts.get("video"):
        parts[0] += f" ({counts['video']} video{'s' if counts['video'] > 1 else ''})"
    text = ": ".join([parts[0], ", ".join(parts[1:])] if parts[1:] else parts)
    text += "".join(
        f"; {counts[kind]} {words}"
        for kind, words in (("no face", "without a face"), ("error", "that cannot be read"))
        if counts.get(kind)
    )
    return text + "."


def run(args: argparse.Namespace) -> int:
    """Write the records; 0 when every input was read, 1 when one could not be (its record says why)."""
    _apart(args.overlay, args.paths)
    spread(0, args.frames)  # a number out of range is told before anything is opened
    detector = open_detector(args.detector, args.at, args.fpr, args.band, args.device)
    torch.set_num_threads(args.threads or detector.config.train.threads)
    cv2.setNumThreads(1)
    print(wrapped(describe(detector)), file=sys.stderr)
    judging = Judging(detector, Asking(args.cropped, args.overlay, _nearest(detector, args.neighbours), args.frames))
    journal = Journal(args.out, judging.settings, args.overwrite)
    finished = False
    try:
        inputs = left_to_do(walk_inputs(args.paths), journal.done(), args.out)
        with tqdm(desc="judging", unit="face", disable=None) as bar:
            for records in judging.records(inputs):
                journal.write(records)
                bar.update(len(records))
        finished = True
    except BrokenPipeError:  # the reader has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        again = "The same command goes on there." if args.out else "With --out FILE it could go on later."
        raise KeyboardInterrupt(again) from None
    finally:
        journal.close(finished)
    print(wrapped(summary(judging.counts)), file=sys.stderr)
    return 1 if judging.counts["error"] else 0
