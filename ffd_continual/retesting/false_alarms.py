"""How often a detector calls real faces forged: untouched ones, harmlessly edited ones, and in each group of people.

False alarms are counted at the run's own threshold and at those that let 1 % and 10 % of the *validation* faces pass:
edited faces choose nothing. Where faces are frames of videos, videos are counted as well: a video's score follows the
run's rule (video_level.py), and its thresholds are chosen on validation *videos* in the same way. One draw of persons
serves all edits, so that the rise over untouched faces is paired. Axes: n faces, v videos, g persons, b resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import beta
from tqdm import tqdm

from ffd_continual.measuring.calibration import Calibration
from ffd_continual.measuring.matrix import check_columns, read_figures, resampling_groups
from ffd_continual.measuring.metrics import Floats, draw_counts, percentile_interval
from ffd_continual.measuring.video_level import LEVELS, MAJORITY, VideoRule, has_videos, names_in, video_level
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

VIDEO_COLUMNS = ("level", "videos", "rule")  # beside these where faces are frames of videos


class Rate(NamedTuple):
    """A share with its 95 % interval."""

    value: float
    low: float
    high: float


def _cuts(own: float, real: Floats) -> dict[str, float]:
    facts = Facts(0, Calibration(), own, np.sort(real), np.zeros(0), len(real), 0, None, None, None)
    told = [rate for rate in RATES if rate * len(real) >= 1]
    return {OWN: own} | {f"fpr {100 * rate:g} %": facts.forged_from(rate) for rate in told}


def thresholds(run: Reopened, folder: Path) -> dict[str, dict[str, float]]:
    """At each of `LEVELS` {"own": of the run, "fpr 1 %": .., "fpr 10 %": ..} on a face's z or a video's score; without
    a rate that the real validation faces, or videos, cannot tell."""
    scenario, table = run.parts.scenario, run.parts.sources.table
    rows = np.concatenate([scenario.index("valid", name) for name in scenario.experiences])
    rows = rows[np.unique(table.slot[rows], return_index=True)[1]]  # a face that experiences share counts once
    real = rows[table.rows["label"].to_numpy()[rows] == 0]
    z = run.kept_scores(folder, "valid", "valid", real, None)
    rule, whole = run.config.evaluation.video_rule, run.video_threshold
    videos = real_videos(table.rows.iloc[real], {UNTOUCHED: z}, rule, run.threshold).scores[UNTOUCHED]
    own = MAJORITY if rule.way == "vote" else run.threshold if whole is None else whole
    return dict(zip(LEVELS, (_cuts(run.threshold, z), _cuts(own, videos)), strict=True))


class Videos(NamedTuple):
    """Real videos: of the first frame of each its place (v,) in the table of faces, how many it has, its scores."""

    first: NDArray[np.int64]
    frames: NDArray[np.int64]
    scores: dict[str, Floats]  # edit -> (v,)


def real_videos(faces: pd.DataFrame, scores: Mapping[str, Floats], rule: VideoRule, threshold: float) -> Videos:
    """faces (n rows) and {edit: z (n,)} of real faces alone, video by video; threshold: of a face, read by "vote"."""
    names, real = names_in(faces, "video"), np.zeros(len(faces), np.int64)
    found = {e: video_level(real, {"z": z, "margin": z - threshold}, names, rule) for e, z in scores.items()}
    first = np.asarray(next(iter(found.values()))["first"], np.int64)
    known, count = np.unique(names, return_counts=True)
    frames = np.where(names[first] == "", 1, count[np.searchsorted(known, names[first])])
    return Videos(first, frames, {edit: one["z"] for edit, one in found.items()})


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
    frames: NDArray[np.int64] | None = None,
) -> pd.DataFrame:
    """Columns `COLUMNS`: the false-positive rate of every edit, group and threshold ("at"), and its rise.

    faces (n rows), scores {edit: z (n,)} with `UNTOUCHED`, kinds {edit: family}. by "": everybody. The edit `ALL` is
    the mean over the edits. small: fewer than `SMALL` persons. A face with an empty cell belongs to no group of it.
    frames: rows are videos of so many faces (n,), and a column "videos" says how many of them there are.
    """
    _, person, count = resampling_groups(faces)
    counts = draw_counts(count, samples, np.random.default_rng(seed)) if count > 1 else np.zeros((0, count))
    members = [("", "everybody", np.ones(len(faces), dtype=bool))]
    for column, names in by.items():
        members += [(column, str(name), names == name) for name in sorted(set(names.tolist()) - {""})]
    edits = [name for name in scores if name != UNTOUCHED]
    sizes = np.ones(len(faces), np.int64) if frames is None else frames
    rows: list[tuple[Any, ...]] = []
    for at, cut in cuts.items():
        alarms = {name: z >= cut for name, z in scores.items()}
        for column, group, member in members:
            who = person[member]
            base = alarms[UNTOUCHED][member]
            told = (int(sizes[member].sum()), len(np.unique(who)))
            for name in scores:
                part = alarms[name][member]
                rise = _rise(part.astype(float) - base, who, counts) if name != UNTOUCHED else Rate(*[np.nan] * 3)
                rate = share_with_interval(part.astype(np.float64), who, counts)
                rows.append((name, kinds.get(name, ""), column, group, at, cut, *told, *rate, *rise, told[1] < SMALL))
            if len(edits) > 1:
                mean = np.mean([alarms[name][member].astype(np.float64) for name in edits], axis=0)
                rate, rise = share_with_interval(mean, who, counts), _rise(mean - base, who, counts)
                rows.append((ALL, "", column, group, at, cut, *told, *rate, *rise, told[1] < SMALL))
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    if frames is None:
        return table
    there = {(column, group): int(member.sum()) for column, group, member in members}
    return table.assign(videos=[there[key] for key in zip(table["by"], table["group"], strict=True)])


def _rise(gap: Floats, person: NDArray[np.int64], counts: Floats) -> Rate:
    return Rate(*percentile_interval(float(gap.mean()), drawn_shares(gap, person, counts))[:3])


def _missing_rates(cuts: Mapping[str, float], of: str) -> list[str]:
    return [
        f"no threshold for a false alarm rate of {100 * rate:g} %: fewer than {round(1 / rate)} real validation {of}"
        for rate in RATES
        if f"fpr {100 * rate:g} %" not in cuts
    ]


def measure_alarms(
    run: Reopened, edits: Sequence[Edit], by: Sequence[str], folder: Path, samples: int
) -> tuple[pd.DataFrame, list[str]]:
    """`alarm_table` of a run, and remarks on what could not be told.

    Where faces are frames of videos it holds both of `LEVELS` and has `VIDEO_COLUMNS`: videos = how many there are, 0
    at level frame; rule = what their score is, in words. A video whose frames disagree on a group is in none.
    """
    faces = real_faces(run)
    grouped = groups_of(faces, by)  # a wrong column is an error before anything is judged
    cuts = thresholds(run, folder)
    faces, scores = judge_edits(run, edits, folder)
    kinds, seed = {e.name: e.kind for e in edits}, run.config.seed
    table = alarm_table(faces, scores, cuts["frame"], kinds, grouped, samples, seed)
    notes = _missing_rates(cuts["frame"], "faces")
    for column, names in grouped.items():
        empty = int((names == "").sum())
        if empty:
            notes.append(f"{empty} of {len(names)} real faces have no {column} and are in no group of it")
    if has_videos(faces[["video", "dataset"]]):
        rule = run.config.evaluation.video_rule
        first, frames, whole = real_videos(faces, scores, rule, run.threshold)
        of, shared = names_in(faces, "video"), {}
        for column, names in grouped.items():
            mixed = (of != "") & (pd.Series(names).groupby(of).transform("nunique") > 1).to_numpy()
            shared[column] = np.where(mixed, "", names)[first]
            if mixed.any():
                told = f"{int(mixed[first].sum())} of {len(first)} real videos"
                notes.append(f"{told} have frames of several groups of {column} and are in none of it")
        videos = faces.iloc[first].reset_index(drop=True)
        lower = alarm_table(videos, whole, cuts["video"], kinds, shared, samples, seed, frames)
        both = [table.assign(level="frame", videos=0), lower.assign(level="video")]
        table = pd.concat(both, ignore_index=True).assign(rule=rule.words)
        notes += _missing_rates(cuts["video"], "videos")
    if not grouped:
        notes.append("the manifest has no column of skin tone, age or sex: no subgroups (name another one by --by)")
    return table, notes


def read_alarms(run: Path) -> pd.DataFrame | None:
    """The table in a run's folder, as `ffd benign` left it; None where it never ran. FFDError if it is damaged."""
    table = read_figures(run / FOLDER / TABLE, COLUMNS, f"ffd benign {run}")
    if table is not None and set(VIDEO_COLUMNS) & set(table.columns):
        check_columns(table, VIDEO_COLUMNS, str(run / FOLDER / TABLE))
    return table
