"""Which real faces an experience sees, and whose people they are where each data set brings its own.

*shared*: all real faces. *split*: an equal share of people each, in train and valid. *dataset*: the real faces of the
data sets (column `dataset`) that its forged faces come from, in every stream, as FF++ > DFDCP > DFD > CDF2 has it: a
test on DFD then holds DFD's real faces and nobody else's. Experiences of one data set share its real faces among them
by `scenario.people`: "shared", each sees all of them; "own" or "apart", each has its own people in train and valid,
dealt among the experiences of that data set only. On a single data set this is *shared*.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.people import Placed, place_people
from ffd_continual.scenarios.splits import source_datasets

REALS = ("shared", "split", "dataset")


def real_faces(faces: pd.DataFrame, forgeries: Sequence[str], reals: str) -> npt.NDArray[np.bool_]:
    """Real faces (n,) that an experience with these forgeries may see.

    faces: columns label, forgery, dataset. Raises FFDError naming a data set of its forged faces that has no real face.
    """
    real = np.asarray(faces["label"] == 0, bool)
    if reals != "dataset":
        return real
    sets = _sets(faces, forgeries)
    held = {str(name) for name in faces.loc[real, "dataset"].unique()}
    if sets - held:
        raise FFDError(
            f"scenario.reals=dataset: no real face of data set {_named(sets - held)}, where forged faces of "
            f"{'+'.join(forgeries)} come from; real faces come from {_named(held) or 'none'}. Write the same name into "
            "the column dataset of real and forged faces that belong together, or set scenario.reals=shared."
        )
    seen: npt.NDArray[np.bool_] = real & np.asarray(faces["dataset"].isin(sets), bool)
    return seen


def _sets(faces: pd.DataFrame, forgeries: Sequence[str]) -> set[str]:
    return {str(name) for name in faces.loc[faces["forgery"].isin(forgeries), "dataset"].unique()}


def _named(sets: set[str]) -> str:
    return ", ".join(repr(name) for name in sorted(sets))


def place_reals(faces: pd.DataFrame, groups: Sequence[Sequence[str]], people: str, reals: str, seed: int) -> Placed:
    """`place_people` over all experiences, or, under "dataset", over those of each data set.

    Raises FFDError where experiences with people of their own have some data sets in common and others not: nobody
    could say whose the people of the others are.
    """
    if reals != "dataset" or people == "shared":
        return place_people(faces, groups, people, seed)
    sets = [_sets(faces, group) for group in groups]
    if people == "apart":  # whose faces were put in counts, too
        sets = [own | lent for own, lent in zip(sets, _lending_sets(faces, groups), strict=True)]
    share, sound, notes = np.full(len(faces), -1, np.int64), np.ones(len(faces), bool), []
    units = {frozenset(names): None for names in sets}
    for own in units:
        members = [number for number, names in enumerate(sets) if names & own]
        for number in members:
            if sets[number] != own:
                raise FFDError(
                    f"scenario.people={people} with scenario.reals=dataset: {'+'.join(groups[members[0]])} and "
                    f"{'+'.join(groups[members[-1]])} come from data sets {_named(sets[members[0]])} and "
                    f"{_named(sets[members[-1]])}, some in common and some not, so their people cannot be dealt. "
                    "Set scenario.people=shared or scenario.reals=shared, or give them the same data sets."
                )
        here = faces["dataset"].isin(own).to_numpy()
        placed = place_people(faces[here], [groups[number] for number in members], people, seed)
        share[here] = np.where(placed.share < 0, -1, np.asarray(members, np.int64)[placed.share])
        sound[here] = placed.sound
        notes += [f"data set {_named(set(own))}: {note}" if len(units) > 1 else note for note in placed.notes]
    return Placed(share, sound, tuple(notes))


def _lending_sets(faces: pd.DataFrame, groups: Sequence[Sequence[str]]) -> list[set[str]]:
    """For each experience, the data sets of the people whose faces were put into its forged ones."""
    sources = [str(s) if isinstance(s, str) else "" for s in faces["source_identity"]]
    owners = source_datasets([str(d) for d in faces["dataset"]], [str(i) for i in faces["identity"]], sources)
    lent = np.array([bool(source) for source in sources])
    forgery, owner = faces["forgery"].to_numpy(), np.array(owners, object)
    return [{str(name) for name in owner[lent & np.isin(forgery, list(group))]} for group in groups]
