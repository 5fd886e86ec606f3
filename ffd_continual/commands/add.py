"""`ffd add LINEAGE --forgery NAME --data DIR`: learn one more forgery; `--real NAME`: one more source of real faces."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import pandas as pd

from ffd_continual.lineage.add import Addition, abandon, begin, brought_to_its_end
from ffd_continual.lineage.adopt import KEPT
from ffd_continual.lineage.candidate import Rules, read_plan
from ffd_continual.lineage.drops import in_words
from ffd_continual.lineage.grow import Outcome
from ffd_continual.lineage.lineage import Lineage
from ffd_continual.lineage.page import write_page
from ffd_continual.lineage.real import told_apart
from ffd_continual.lineage.store import REFUSED, writing
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.terminal import say

NOT_PROMOTED = 3


def add_rules(parser: argparse.ArgumentParser) -> None:
    """When a candidate is promoted."""
    parser.add_argument("--tolerance", type=float, default=0.02, help="largest drop in AUC of one forgery (0.02)")
    parser.add_argument("--mean-tolerance", type=float, help="largest mean drop; default: --tolerance")
    parser.add_argument("--strict", action="store_true", help="the drops' 95 %% intervals must stay within, too")
    parser.add_argument("--promote-anyway", action="store_true", help="promote whatever is measured; logged")
    parser.add_argument(
        "--measure-faces", type=int, default=0, metavar="N", help="measure N faces of each stream; default: all"
    )
    parser.add_argument("--steps", type=int, help="optimizer steps; default: as the parent")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="e.g. --set train.lr=0.001")


def rules_of(args: argparse.Namespace) -> Rules:
    """Raises FFDError on a number that cannot be meant."""
    mean = args.tolerance if args.mean_tolerance is None else args.mean_tolerance
    for word, value in (("--tolerance", args.tolerance), ("--mean-tolerance", mean)):
        if not 0 <= value <= 1:
            raise FFDError(f"{word} is a drop in AUC between 0 and 1, not {value}.")
    if args.measure_faces < 0:
        raise FFDError(f"--measure-faces is 0 (all) or more, not {args.measure_faces}.")
    return Rules(args.tolerance, mean, args.strict, args.promote_anyway, args.measure_faces)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The lineage, the faces, the rule of promotion; or what to do with an addition under way."""
    parser.add_argument("lineage", type=Path, metavar="LINEAGE")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--forgery", metavar="NAME", help="name of the new forgery")
    what.add_argument("--real", metavar="NAME", help="real faces only: name of the new phone, codec or place")
    what.add_argument("--resume", action="store_true", help="go on with the addition under way")
    what.add_argument("--abandon", action="store_true", help="drop the addition under way")
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="a folder of crops, DIR/real + DIR/NAME, or a manifest"
    )
    add_rules(parser)
    parser.add_argument("--keep", type=int, default=KEPT, metavar="N", help=f"training faces a class to keep ({KEPT})")
    parser.add_argument("--identity-pattern", default="", metavar="RE", help="file name -> person, for folders")
    parser.add_argument("--skip-unreadable", action="store_true", help="leave unreadable pictures out")
    parser.add_argument("--any-picture", action="store_true", help="do not look whether the pictures show faces")
    parser.add_argument(
        "--unmeasured", action="store_true", help="too few faces to test on: learn from all, measure the others only"
    )
    parser.add_argument("--without-missing", action="store_true", help="go on without exemplars that are gone")


def run(args: argparse.Namespace) -> int:
    """Add, resume or abandon; exit code 3 when the candidate was refused."""
    with writing(args.lineage) as lineage:
        if args.abandon:
            say("dropped." if abandon(lineage) else f"nothing is under way in {lineage.path}.")
            return 0
        if args.resume:
            if not lineage.candidate.is_dir():
                raise FFDError(f"nothing is under way in {lineage.path}. `ffd add` with --forgery or --real begins.")
            plan = read_plan(lineage)
        else:
            if args.data is None:
                raise FFDError("--data is missing: a folder of face crops, DIR/real and DIR/NAME, or a manifest.")
            asked = Addition(
                args.data, args.forgery or "", args.real or "", rules_of(args), args.steps, tuple(args.set), args.keep,
                args.identity_pattern, args.skip_unreadable, args.any_picture, args.without_missing,
                args.unmeasured,
            )  # fmt: skip
            if args.unmeasured and args.real:
                raise FFDError("--unmeasured is for a forgery: real faces alone are few anyway to learn from.")
            plan = begin(lineage, asked)
        for note in plan.notes:
            say(f"note: {note}")
        return tell(lineage, brought_to_its_end(lineage))


def learnt_in_words(lineage: Lineage, number: int) -> str:
    """How well the new forgery is told from real faces, before and after, and on how many faces that was seen."""
    about, folder = lineage.about(number), lineage.folder(number)
    name, last = about["forgery"], len(about["experiences"]) - 1
    matrix = pd.read_parquet(folder / "matrix.parquet")
    own = matrix[(matrix["metric"] == "auc") & (matrix["level"] == "frame") & (matrix["on"] == name)]
    by = own[own["stream"] == "test"].set_index("after")
    if last not in by.index or not math.isfinite(by["value"][last]):
        return f"+ {name}: learnt, not measured. Whether it is found is not known."
    faces = pd.read_parquet(folder / "faces.parquet", columns=["stream", "label"])
    forged = int(((faces["stream"] == "test") & (faces["label"] == 1)).sum())
    before = f"{by['value'][last - 1]:.3f} -> " if last - 1 in by.index else ""
    interval = f" [{by['low'][last]:.3f}, {by['high'][last]:.3f}]" if math.isfinite(by["low"][last]) else ""
    return f"+ {name}: AUC {before}{by['value'][last]:.3f}{interval}, {forged} forged test faces"


def tell_source(lineage: Lineage, number: int) -> None:
    """What was gained at a new source of real faces, and what it costs; a warning where the cost outweighs."""
    about, same = lineage.about(number), False
    for one in told_apart(lineage, number):
        same = same or "same source" in one.against
        say(
            f"+ {about['forgery']} against {one.faces} {one.against}: AUC {one.before:.3f} -> {one.after:.3f}; called "
            f"forged: {one.found_before:.0%} -> {one.found_after:.0%} of these, {one.alarms_before:.0%} -> "
            f"{one.alarms_after:.0%} of the new real ones"
        )
        if one.costs_more(about["tolerance"]):
            say(
                f"WARNING: {one.against} are told from real faces of {about['forgery']} worse than before: fewer false "
                f"alarms are bought with forged faces that are missed. `ffd rollback {lineage.path} {about['parent']}` "
                "takes it back; forged faces of the same source (`ffd add --forgery`) would mend it."
            )
    if not same:
        say(
            f"How well forged faces from {about['forgery']} are found is not known: none came along. Put some into "
            "the manifest, labelled; they are only tested on."
        )


def tell(lineage: Lineage, outcome: Outcome) -> int:
    """What became of a candidate; the exit code."""
    page = write_page(lineage)
    about = lineage.about(outcome.number)
    print()
    if about["kind"] == "add":
        say(learnt_in_words(lineage, outcome.number))
    if about["kind"] == "real":
        tell_source(lineage, outcome.number)
    for one in outcome.found:
        say(("! " if one in outcome.over else "  ") + in_words(one))
    limit = f"{about['tolerance']:g}" + (" at the intervals' upper ends" if about["strict"] else "")
    seconds = about["seconds"]
    times = f"trained {seconds['train']:.1f} s, measured {seconds['measure']:.1f} s"
    wide = [one for one in outcome.found if one not in outcome.over and one.high > about["tolerance"]]
    if outcome.verdict == REFUSED:
        names = ", ".join(f"{one.name} fell by {one.drop:.3f}" for one in outcome.over)
        chance = "" if any(one.low > 0 for one in outcome.over) else " With so few test faces this may be chance."
        say(
            f"REFUSED: version {outcome.number} is kept but not used ({names}; tolerance {limit}).{chance} Version "
            f"{lineage.promoted()} stays in use. More steps, more exemplars or --tolerance may help; "
            f"--promote-anyway overrules. {times}."
        )
    else:
        say(f"version {outcome.number} is {outcome.verdict} and in use (tolerance {limit}). {times}.")
        if wide:
            say(f"A drop beyond {about['tolerance']:g} is not excluded for {', '.join(one.name for one in wide)}.")
    print(f"\nlineage: {page}")
    return NOT_PROMOTED if outcome.verdict == REFUSED else 0
