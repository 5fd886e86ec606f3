"""`ffd forget LINEAGE --identity NAME` or `--sha256 HASH`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ffd_continual.lineage.forget import forget
from ffd_continual.lineage.page import write_page
from ffd_continual.lineage.store import writing
from ffd_continual.terminal import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The lineage, and who leaves it."""
    parser.add_argument("lineage", type=Path, metavar="LINEAGE")
    parser.add_argument("--identity", default="", metavar="NAME", help="the person, as the manifest names them")
    parser.add_argument("--dataset", default="", metavar="NAME", help="only where the person is of this data set")
    parser.add_argument("--sha256", default="", metavar="HASH", help="one picture, by the hash of its file")


def run(args: argparse.Namespace) -> int:
    """Forget, search, and say what remains; exit code 1 when the search still finds something."""
    with writing(args.lineage) as lineage:
        done = forget(lineage, args.identity, args.sha256, args.dataset)
        write_page(lineage)
    say(
        f"{len(done.rows)} faces forgotten: {done.pictures} picture files, {done.exemplars} exemplars, "
        f"{done.predictions} predictions and {done.samples} sample pictures removed from {lineage.path}."
    )
    if done.taught:
        told = ", ".join(f"version {n} on {count}" for n, count in sorted(done.taught.items()))
        say(
            f"In weights there remains what training took from these faces ({told}; versions that grew from them "
            "inherit it), and what prototypes and feature queues averaged over them: no face can be read from these "
            "files, but only learning again without the faces removes their influence."
        )
    say("Figures that were measured with them stay as they were. Originals outside the lineage were not touched.")
    if done.remains:
        say("The search over all files still finds:")
        for line in done.remains:
            say(f"  {line}")
        return 1
    say("A search over all files of the lineage finds no name, hash or path of them any more.")
    return 0
