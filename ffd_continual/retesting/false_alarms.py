"""How often a detector calls real faces forged: untouched ones, harmlessly edited ones, and in each group of people.

False alarms are counted at the run's own threshold and at those that let 1 % and 10 % of the *validation* faces pass:
edited faces choose nothing. One draw of persons serves all edits, so that the rise over untouched faces is paired.
Axes: n faces, g persons, b resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import beta
from tqdm import tqdm

from ffd_continual.measuring.calibration import Calibration
from ffd_continual.measuring.matrix import read_figures, resampling_groups
from ffd_continual.measuring.metrics import Floats, draw_counts, percentile_interval
from ffd_continual.retesting.reopen import Reopened
from ffd_continual.runs.facts import Facts
from ffd_continual.scenarios.benign import Edit
from ffd_continual.scenarios.errors import FFDError

FOLDER, TABLE = "benign", "benign.parquet"  # in a run
UNTOUCHED, ALL = "untouched", "mean of all edits"
OWN = "own"
RATES = (0.01, 0.10)
KNOWN = ("skin_tone", "skin", "fitzpatrick", "monk", "age", "age_group", "sex", "gender")  # looked for without --by
RARE = 5  # persons with an alarm; of fewer the percentile interval says too much
SMALL = 20  # persons; a group of fewer says little
CUT = 8  # a column of numbers with more values is cut into quarters
COLUMNS = (
    "edit", "kind", "by", "group", "at", "threshold", "faces", "persons", "fpr", "low", "high",
    "rise", "rise_low", "rise_high", "small",
)  # fmt: skip


class Rate(NamedTuple):
    """A share with its 95 % interval."""

    value: float
    low: float
    high: float


def thresholds(run: Reopened, folder: Path) -> dict[str, float]:
    """{"own": of the run, "fpr 1 %": .., "fpr 10 %": ..} on z; without a rate that the validation faces cannot tell."""
    scenario, table = run.parts.scenario, run.parts.sources.table
    rows = np.concatenate([scenario.index("valid", name) for name in scenario.experiences])
    rows = rows[np.unique(table.slot[rows], return_index=True)[1]]  # a face that experiences share counts once
    real = rows[table.rows["label"].to_numpy()[rows] == 0]
    z = np.sort(run.kept_scores(folder, "valid", "valid", real, None))
    facts = Facts(0, Calibration(), run.threshold, z, np.zeros(0), len(z), 0, None, None, None)
    found = {OWN: run.threshold}
    for rate in RATES:
        if rate * len(z) >= 1:
            found[f"fpr {100 * rate:g} %"] = facts.forged_from(rate)
    return found


def real_faces(run: Reopened) -> pd.DataFrame:
    """The real test faces, each once however many streams show it; columns of `Reopened.streams`."""
    streams = run.streams()
    return streams[streams["label"] == 0].drop_duplicates("slot").reset_index(drop=True)


def judge_edits(run: Reopened, edits: Sequence[Edit], folder: Path) -> tuple[pd.DataFrame, dict[str, Floats]]:
    """The real test faces, and z (n,) of each after every edit, `UNTOUCHED` first. Scores are kept in `folder`."""
    faces = real_faces(run)
    rows = faces["at"].to_numpy(np.int64)
    found: dict[str, Floats] = {}
    bar = tqdm([None, *edits], desc="false alarms", unit="edit", leave=False)
    for edit in bar:
        name = UNTOUCHED if edit is None else edit.name
        bar.set_postfix_str(name)
        change = None if edit is None else lambda face, _, made=edit: made.apply(face)
        found[name] = run.kept_scores(folder, name, f"{name}|1", rows, change)
    return faces, found


def groups_of(faces: pd.DataFrame, by: Sequence[str]) -> dict[str, NDArray[np.str_]]:
    """{column: group of each face (n,)}, "" where the cell is empty; many-valued numbers are cut into quarters.

    Empty `by`: the columns of `KNOWN` that are there. FFDError that lists the columns for an unknown one.
    """
    own = [
        str(c) for c in faces.columns if c not in ("at", "row", "slot", "after", "threshold", "label", "on", "stream")
    ]
    usable = [c for c in own if c not in ("path", "video", "identity", "forgery", "video_threshold")]
    for column in by:
        if column not in usable:
            raise FFDError(
                f"--by {column}: the manifest has no such column to group people by. It has: "
                f"{', '.join(usable) or 'none'} (columns beyond the format are kept as subgroups, docs/manifest.md)."
            )
    return {column: _cut(faces[column].fillna("").astype(str)) for column in by or [c for c in KNOWN if c in usable]}


def _cut(cells: pd.Series) -> NDArray[np.str_]:
    numbers = pd.to_numeric(cells.where(cells != ""), errors="coerce")
    known = cells != ""
    if numbers[known].isna().any() or numbers.nunique() <= CUT:
        return np.asarray(cells, dtype=str)
    edges = np.unique(np.quantile(numbers[known], [0, 0.25, 0.5, 0.75, 1]))
    place = np.clip(np.searchsorted(edges, numbers[known], side="right") - 1, 0, len(edges) - 2)
    names = [f"{low:g} to {'<' if i < len(edges) - 2 else ''}{edges[i + 1]:g}" for i, low in enumerate(edges[:-1])]
    found = np.full(len(cells), "", dtype=object)
    found[known.to_numpy()] = [names[i] for i in place]
    return found.astype(str)


def share_with_interval(alarms: Floats, person: NDArray[np.int64], counts: Floats) -> Rate:
    """Share of alarms (n,) in 0..1 with the percentile interval over drawn persons; person (n,) indexes counts (b, g).

    Where fewer than `RARE` persons raise an alarm (or fewer are spared one) resamples hardly differ, and of none at all
    they would say exactly 0: then it is Clopper and Pearson's exact interval, as of one face a person.
    """
    if not len(alarms):
        return Rate(np.nan, np.nan, np.nan)
    value, persons = float(alarms.mean()), len(np.unique(person))
    raised, spared = (len(np.unique(person[which])) for which in (alarms > 0, alarms < 1))
    if min(raised, spared) >= RARE:
        return Rate(*percentile_interval(value, drawn_shares(alarms, person, counts))[:3])
    if not len(counts):
        return Rate(value, np.nan, np.nan)
    hits = value * persons
    low = float(beta.ppf(0.025, hits, persons - hits + 1)) if hits > 0 else 0.0
    high = float(beta.ppf(0.975, hits + 1, persons - hits)) if hits < persons else 1.0
    return Rate(value, low, high)


def drawn_shares(values: Floats, person: NDArray[np.int64], counts: Floats) -> Floats:
    """Mean of values (n,) in every resample (b,): persons weigh as often as they were drawn."""
    size = counts.shape[1]
    sums, faces = np.bincount(person, weights=values, minlength=size), np.bincount(person, minlength=size)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((counts @ sums) / (counts @ faces))


def alarm_table(
    faces: pd.DataFrame,
    scores: dict[str, Floats],
    cuts: dict[str, float],
    kinds: dict[str, str],
    by: dict[str, NDArray[np.str_]],
    samples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Columns `COLUMNS`: the false-positive rate of every edit, group and threshold ("at"), and its rise.

    faces (n rows), scores {edit: z (n,)} with `UNTOUCHED`, kinds {edit: family}. by "": everybody. The edit `ALL` is
    the mean over the edits. small: fewer than `SMALL` persons. A face with an empty cell belongs to no group of it.
    """
    _, person, count = resampling_groups(faces)
    counts = draw_counts(count, samples, np.random.default_rng(seed)) if count > 1 else np.zeros((0, count))
    members = [("", "everybody", np.ones(len(faces), dtype=bool))]
    for column, names in by.items():
        members += [(column, str(name), names == name) for name in sorted(set(names.tolist()) - {""})]
    edits = [name for name in scores if name != UNTOUCHED]
    rows: list[tuple[Any, ...]] = []
    for at, cut in cuts.items():
        alarms = {name: z >= cut for name, z in scores.items()}
        for column, group, member in members:
            who = person[member]
            base = alarms[UNTOUCHED][member]
            told = (int(member.sum()), len(np.unique(who)))
            for name in scores:
                part = alarms[name][member]
                rise = _rise(part.astype(float) - base, who, counts) if name != UNTOUCHED else Rate(*[np.nan] * 3)
                rate = share_with_interval(part.astype(np.float64), who, counts)
                rows.append((name, kinds.get(name, ""), column, group, at, cut, *told, *rate, *rise, told[1] < SMALL))
            if len(edits) > 1:
                mean = np.mean([alarms[name][member].astype(np.float64) for name in edits], axis=0)
                rate, rise = share_with_interval(mean, who, counts), _rise(mean - base, who, counts)
                rows.append((ALL, "", column, group, at, cut, *told, *rate, *rise, told[1] < SMALL))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _rise(gap: Floats, person: NDArray[np.int64], counts: Floats) -> Rate:
    return Rate(*percentile_interval(float(gap.mean()), drawn_shares(gap, person, counts))[:3])


def measure_alarms(
    run: Reopened, edits: Sequence[Edit], by: Sequence[str], folder: Path, samples: int
) -> tuple[pd.DataFrame, list[str]]:
    """`alarm_table` of a run, and remarks on what could not be told."""
    faces = real_faces(run)
    grouped = groups_of(faces, by)  # a wrong column is an error before anything is judged
    cuts = thresholds(run, folder)
    notes = [
        f"no threshold for a false alarm rate of {100 * rate:g} %: fewer than {round(1 / rate)} real validation faces"
        for rate in RATES
        if f"fpr {100 * rate:g} %" not in cuts
    ]
    faces, scores = judge_edits(run, edits, folder)
    table = alarm_table(faces, scores, cuts, {e.name: e.kind for e in edits}, grouped, samples, run.config.seed)
    for column, names in grouped.items():
        empty = int((names == "").sum())
        if empty:
            notes.append(f"{empty} of {len(names)} real faces have no {column} and are in no group of it")
    if not grouped:
        notes.append("the manifest has no column of skin tone, age or sex: no subgroups (name another one by --by)")
    return table, notes


def read_alarms(run: Path) -> pd.DataFrame | None:
    """The table in a run's folder, as `ffd benign` left it; None where it never ran. FFDError if it is damaged."""
    return read_figures(run / FOLDER / TABLE, COLUMNS, f"ffd benign {run}")
