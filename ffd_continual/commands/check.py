"""`ffd check`: every fault of a manifest or a folder of faces, grouped by kind."""

from __future__ import annotations

import argparse
import dataclasses
import json
import textwrap
import warnings
from collections import defaultdict

from ffd_continual.scenarios.check import check_manifest
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.faults import Fault
from ffd_continual.scenarios.folder import IDENTITY_PATTERN, assign_splits, open_faces
from ffd_continual.scenarios.manifest import Manifest

WIDTH = 80


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments, added to its (sub-)parser."""
    parser.add_argument("faces", metavar="MANIFEST|DIR", help="manifest (.csv, .parquet) or DIR/real + DIR/<forgery>")
    parser.add_argument("--no-pictures", action="store_true", help="do not decode the pictures, only look for them")
    parser.add_argument("--no-duplicates", action="store_true", help="do not look for nearly the same picture twice")
    parser.add_argument("--partial", action="store_true", help="also cut and partly covered copies (some ms a face)")
    parser.add_argument("--families", action="store_true", help="also: how alike are its forgeries? (a probe on each)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.add_argument("--workers", type=int, default=2, help="threads that decode pictures (default 2)")
    parser.add_argument(
        "--identity-pattern", default=IDENTITY_PATTERN, help="for a DIR: regular expression whose group is the person"
    )


def _unassigned_fault(manifest: Manifest) -> list[Fault]:
    """Splits that are still to be assigned must be assignable: a run would stop there."""
    if not (manifest.table["split"] == "").any():
        return []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assign_splits(manifest.table, 0)
    except FFDError as error:
        return [Fault(None, "split", "cannot-split", str(error))]
    return []


def report(manifest: Manifest, faults: list[Fault]) -> str:
    """The faults as text of at most 80 columns: a heading, then each kind with its count and every row of it."""
    labels = manifest.table["label"]
    forged = int(labels.sum())
    head = f"{manifest.source}: {len(manifest)} faces, {len(manifest) - forged} real and {forged} forged"
    lines = textwrap.wrap(f"{head} ({', '.join(manifest.forgeries) or 'no forgery'})", WIDTH)
    for note in manifest.notes:
        lines += textwrap.wrap(f"note: {note}", WIDTH, subsequent_indent="  ")
    groups: dict[tuple[bool, str], list[Fault]] = defaultdict(list)
    for fault in faults:
        groups[fault.warning, fault.kind].append(fault)
    for (warning, kind), members in sorted(groups.items()):
        word = ("warning" if warning else "fault") + ("" if len(members) == 1 else "s")
        lines += ["", f"{kind}: {len(members)} {word}"]
        for fault in members:
            place = f"{manifest.unit} {fault.row}, {fault.column}: " if fault.row else ""
            lines += textwrap.wrap(place + fault.message, WIDTH, initial_indent="  ", subsequent_indent="    ")
    wrong = sum(not fault.warning for fault in faults)
    verdict = "no faults" if not wrong else f"{wrong} fault(s)"
    return "\n".join([*lines, "", f"{verdict}, {len(faults) - wrong} warning(s)"])


def run(args: argparse.Namespace) -> int:
    """Print the faults; 0 without faults (warnings allowed), 2 with. Raises `FFDError` for an unreadable manifest, and
    for `--partial` without the pictures that it compares."""
    if args.partial and (args.no_pictures or args.no_duplicates):
        raise FFDError("--partial compares pictures: leave out --no-pictures and --no-duplicates.")
    manifest = open_faces(args.faces, identity_pattern=args.identity_pattern, assign=False)
    found = check_manifest(
        manifest,
        not args.no_pictures,
        args.workers,
        progress=not args.json,
        duplicates=not args.no_duplicates,
        partial=args.partial,
    )
    faults = sorted([*_unassigned_fault(manifest), *found], key=lambda fault: fault.warning)
    wrong = sum(not fault.warning for fault in faults)
    if args.json:
        listed = [dataclasses.asdict(fault) for fault in faults]
        summary = {"source": manifest.source, "faces": len(manifest), "faults": wrong, "notes": list(manifest.notes)}
        print(json.dumps(summary | {"warnings": len(faults) - wrong, "found": listed}, indent=2))
    else:
        print(report(manifest, faults))
        if args.families:
            from ffd_continual.measuring.families import family_matrix, frozen_statistics, print_families

            table = open_faces(args.faces, identity_pattern=args.identity_pattern).table
            values = frozen_statistics(manifest, table, size=96, crop=0.75)
            print("\n" + print_families(family_matrix(values, table["forgery"].tolist(), table["split"].tolist())))
    return 2 if wrong else 0
