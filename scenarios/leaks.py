"""What a run refuses before it starts: a person, video or picture that stands on two sides of a split.

`ffd check` lists every such fault of a manifest; a scenario asks only about the faces that it shows. In a plain folder
people and videos are guessed from file names, and 0001.png of train need not be the 0001.png of test: there it is said,
and the run goes on.
"""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt

from ffd_continual.scenarios.check import split_faults
from ffd_continual.scenarios.errors import DataWarning, FFDError
from ffd_continual.scenarios.manifest import Manifest

SHOWN = 3  # examples in a message


def check_leaks(manifest: Manifest, used: npt.NDArray[np.int64], allow: bool = False, guessed: bool = False) -> None:
    """FFDError (a DataWarning with `allow` or `guessed`) when one of the rows `used` stands on two sides of a split.

    Splits that this package fills never leak; a split column written by others may. A person counts as the face's owner
    and as the source whose face was put in.
    """
    faults = split_faults(manifest.subset(np.unique(used)))
    if not faults:
        return
    shown = [f"{manifest.unit} {fault.row}, {fault.column}: {fault.message}" for fault in faults[:SHOWN]]
    if len(faults) > SHOWN:
        shown.append(f"and {len(faults) - SHOWN} more")
    text = f"{manifest.source}: {len(faults)} leak(s) between splits:\n  " + "\n  ".join(shown) + "\n"
    if allow:
        warnings.warn(text + "Allowed by scenario.leaks: the figures may be too good.", DataWarning, stacklevel=3)
        return
    if guessed:
        advice = (
            "These names are guessed from the files' names. If they are the same people, the figures will be too good: "
            "move each into one split. If not, tell them apart by scenario.identity_pattern."
        )
        warnings.warn(text + advice, DataWarning, stacklevel=3)
        return
    raise FFDError(
        text + "What was learnt by heart would count as detected. Put each person, video and picture into one split "
        f"(`ffd check {manifest.source}` lists all; an empty split column is filled without leaks), or set "
        "scenario.leaks=allow to measure all the same."
    )
