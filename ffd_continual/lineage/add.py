"""`ffd add`: one more forgery, or one more domain of real faces, from the version in use."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from ffd_continual.lineage.adopt import KEPT
from ffd_continual.lineage.candidate import Plan, Rules, candidate_config, check_exemplars, prepare, read_plan
from ffd_continual.lineage.experience import new_experience, next_row
from ffd_continual.lineage.grow import Outcome, grow
from ffd_continual.lineage.intake import take_in
from ffd_continual.lineage.lineage import Lineage
from ffd_continual.lineage.real import real_experience
from ffd_continual.lineage.rows import brought
from ffd_continual.lineage.store import append_log, drop_candidate, sweep_faces
from ffd_continual.runs.folder import RunFolder
from ffd_continual.scenarios.errors import FFDError

_NAME = re.compile(r"[\w][\w.() -]*")
MEASURABLE = 5  # people among the forged test faces of a new forgery


@dataclass(frozen=True)
class Addition:
    """What `ffd add` is asked for."""

    data: Path
    forgery: str = ""  # or
    real: str = ""  # a name for the domain of real faces
    rules: Rules = field(default_factory=Rules)
    steps: int | None = None  # None: as many as the parent
    sets: tuple[str, ...] = ()
    kept: int = KEPT
    pattern: str = ""
    skip_unreadable: bool = False
    any_picture: bool = False
    without_missing: bool = False
    unmeasured: bool = False  # all faces are learnt from, none is tested on


def check_name(lineage: Lineage, parent: int, name: str) -> None:
    """Raise FFDError for a name that cannot be a forgery's, or is one already."""
    about = lineage.about(parent)
    if not _NAME.fullmatch(name) or name == "real":
        raise FFDError(
            f"--forgery {name!r}: a forgery's name has letters, digits, '.', '-' and '_', and is not 'real'."
        )
    known = about["experiences"]
    parts = {part for entry in known for part in entry.split("+")}
    if name in known or name in parts:
        raise FFDError(
            f"{lineage.path} knows {name!r} already (it knows {', '.join(known)}). Give more faces of it another name, "
            f"such as {name}-2; `ffd correct` mends wrong labels of the last version."
        )


def check_measurable(rows: pd.DataFrame, name: str) -> None:
    """FFDError where the forged test faces of a new experience are too few to tell whether it was learnt."""
    forged = rows[(rows["label"] == 1) & (rows["experience"] == name)]
    test = forged.loc[forged["stream"] == "test", "person"].nunique()
    if test < MEASURABLE:
        raise FFDError(
            f"of {forged['path'].nunique()} forged faces {test} {'person comes' if test == 1 else 'people come'} into "
            f"the test of {name}: too few to tell whether it was learnt ({MEASURABLE} at least, so about "
            f"{7 * MEASURABLE} people in all). Give more faces, or --unmeasured: then all of them are learnt from, "
            f"the other forgeries are measured as ever and alone decide on promotion, and of {name} nothing is known."
        )


def check_faces(lineage: Lineage, parent: int) -> None:
    """FFDError where copied faces that a candidate is measured on are gone: told now, not after the training."""
    rows = brought(lineage, parent, ("valid", "test", "unseen"), columns=("path", "stream"))
    paths = sorted(set(rows["path"]))
    gone = [path for path in paths if not os.path.isfile(path)]
    if gone:
        raise FFDError(
            f"{len(gone)} of {len(paths)} validation, test and unseen faces of {lineage.path} are missing, such as "
            f"{gone[0]}. Without them nothing can be compared with earlier versions: put them back from a copy of "
            f"{lineage.faces}."
        )


def begin(lineage: Lineage, asked: Addition) -> Plan:
    """Make the candidate. All checks of the input happen here, before any training."""
    if lineage.candidate.is_dir():
        plan = read_plan(lineage)
        raise FFDError(
            f"an addition of {plan.forgery} to {lineage.path} is under way: `ffd add {lineage.path} --resume` goes on "
            f"with it, `ffd add {lineage.path} --abandon` drops it."
        )
    parent = lineage.promoted()
    about = lineage.about(parent)
    name = asked.forgery or f"real-{asked.real}"
    check_name(lineage, parent, name)
    if not asked.without_missing:
        check_exemplars(lineage, parent)
    check_faces(lineage, parent)
    unseen = tuple(u for u in about["unseen"] if u != name)
    plan = Plan(
        "real" if asked.real else "add", name, parent, (*about["experiences"], name), unseen, 0, asked.kept, asked.rules
    )
    config = candidate_config(lineage, parent, plan, asked.steps, asked.sets)
    try:
        incoming = take_in(
            lineage, parent, asked.data, name, real_only=bool(asked.real), pattern=asked.pattern,
            skip_unreadable=asked.skip_unreadable, any_picture=asked.any_picture, unmeasured=asked.unmeasured,
            seed=config.scenario.seed,
        )  # fmt: skip
        if asked.real:
            rows, notes = real_experience(lineage, parent, name, incoming.table)
        else:
            rows, notes = new_experience(lineage, parent, name, incoming.table)
            if asked.unmeasured:
                notes.append(f"{name} is not measured: all its faces are learnt from, and how well is not known")
            else:
                check_measurable(rows, name)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{lineage.path} is as it was.") from None
    if name in about["unseen"]:
        notes.append(f"{name} was an unseen forgery of this lineage: its unseen stream ends here")
    told = (*incoming.notes, *notes)
    numbers = max(int(rows["manifest_row"].max()) + 1, next_row(lineage))
    plan = Plan(plan.kind, name, parent, plan.experiences, unseen, numbers, asked.kept, asked.rules, told)
    prepare(lineage, plan, rows, asked.steps, asked.sets, asked.without_missing)
    folder = asked.data.resolve().name  # the log tells no more of where it came from
    append_log(lineage, "begin", None, forgery=name, parent=parent, data=folder)
    return plan


def brought_to_its_end(lineage: Lineage) -> Outcome:
    """`grow`; an addition that fails before anything was learnt from it (its data do not fit) leaves no candidate."""
    try:
        return grow(lineage)
    except FFDError as error:
        folder, last = RunFolder(lineage.candidate), read_plan(lineage).last
        if not folder.after(last).is_dir() and not folder.safe_points.is_dir() and "the disk is full" not in str(error):
            abandon(lineage)
        raise


def abandon(lineage: Lineage) -> bool:
    """Drop the candidate and the pictures that only it had; False where there was none."""
    if not drop_candidate(lineage):
        return False
    sweep_faces(lineage)
    append_log(lineage, "abandon")
    return True
