"""What is done to versions that are there: put into use again, freed of their weights; and what a lineage weighs."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

import pandas as pd

from ffd_continual.lineage.candidate import read_plan
from ffd_continual.lineage.lineage import Lineage, write_promoted
from ffd_continual.lineage.store import REFUSED, append_log, sweep_faces
from ffd_continual.runs.folder import RunFolder, write_table
from ffd_continual.scenarios.errors import FFDError


def none_under_way(lineage: Lineage) -> None:
    """Raise FFDError while there is a candidate: what it grows from must not change under it."""
    if lineage.candidate.is_dir():
        raise FFDError(
            f"an addition of {read_plan(lineage).forgery} is under way: `ffd add {lineage.path} --resume` or --abandon "
            "it first."
        )


def roll_back(lineage: Lineage, number: int, anyway: bool = False) -> int:
    """Put an earlier (or later) version into use; returns the one that was. The caller holds the lock."""
    none_under_way(lineage)
    was = lineage.promoted()
    lineage.run(number)
    if number == was:
        raise FFDError(f"version {number} is in use already.")
    if lineage.about(number)["verdict"] == REFUSED and not anyway:
        worst = lineage.about(number)["worst_drop"]
        raise FFDError(
            f"version {number} was refused (largest drop {worst:.3f}). --anyway puts it into use all the same; logged."
        )
    write_promoted(lineage, number)
    append_log(lineage, "rollback", number, before=was)
    return was


def prunable(lineage: Lineage, keep: int) -> list[int]:
    """Versions whose weights may go: all but the `keep` newest, the one in use and its parent (`ffd correct`)."""
    used = lineage.promoted()
    held = {used, lineage.about(used)["parent"], *lineage.versions()[max(0, len(lineage.versions()) - keep) :]}
    return [n for n in lineage.versions() if n not in held and lineage.has_weights(n)]


def prune(lineage: Lineage, keep: int) -> tuple[list[int], int]:
    """Remove weights and exemplars of old versions; their figures, tests and numbers stay. Versions, bytes freed."""
    if keep < 1:
        raise FFDError(f"--keep must be at least 1, not {keep}.")
    none_under_way(lineage)
    gone = prunable(lineage, keep)
    before = size_of(lineage)
    for number in gone:
        folder = RunFolder(lineage.folder(number))
        away = folder.path / "checkpoints.gone"
        (folder.path / "checkpoints").rename(away)
        shutil.rmtree(away)
        stored = pd.read_parquet(folder.path / "exemplars.parquet")
        write_table(folder.path / "exemplars.parquet", stored.iloc[:0])
        append_log(lineage, "prune", number)
    for left in (lineage.path / "versions").glob("*/checkpoints.gone"):  # of a prune that was killed
        shutil.rmtree(left)
    sweep_faces(lineage)
    return gone, before - size_of(lineage)


def size_of(lineage: Lineage) -> int:
    """Bytes of all files of a lineage; one that several versions share counts once."""
    found = (path.stat() for path in lineage.path.rglob("*") if path.is_file())
    return sum({(one.st_dev, one.st_ino): one.st_size for one in found}.values())


def numbers_in_words(numbers: Sequence[int]) -> str:
    """ "1, 2 and 3"."""
    words = [str(n) for n in numbers]
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)
