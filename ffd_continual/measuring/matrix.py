"""The product of a run: the matrix a[i, j, metric], after experience i on stream j, and the figures read off it.

The matrix is a tidy table with columns after (int, -1 = the untrained model), on (forgery or stream), stream ("test",
"unseen" or "valid"), metric, level ("frame" or "video"), value, low, high (95 % interval, NaN where not asked for).

Predictions, one row a model and test face: after, on, stream, label (1 = forged), z (higher = more forged); and where
known row (in the manifest), path, forgery, dataset, identity, video, p (calibrated probability), threshold (on z,
chosen on validation, one value an `after`), video_threshold (the same on a video's score, see video_level.py), iou
and pixel_auc (of the trace map on a forged face whose mask is known; IoU at probability 0.5, sigmoid of the logit).
Any measure can be recomputed from them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ffd_continual.measuring.cells import KEYS as KEYS
from ffd_continual.measuring.cells import MEASURED, cells_of
from ffd_continual.measuring.cells import TRACES as TRACES
from ffd_continual.measuring.metrics import Floats, draw_counts, percentile_interval, resample
from ffd_continual.measuring.video_level import MEAN, VideoRule, names_in
from ffd_continual.scenarios.errors import FFDError

MATRIX_COLUMNS = ("after", "on", "stream", "metric", "level", "value", "low", "high")
UNTRAINED = -1
FIGURES = ("aa", "diagonal", "forgetting_signed", "forgetting_max", "bwt", "fwt", "zero_shot", "unseen")
Cells = Mapping[tuple[int, str], Floats]


def check_columns(table: pd.DataFrame, needed: Collection[str], what: str) -> None:
    """FFDError that names the missing columns and those that are there."""
    missing = [c for c in needed if c not in table.columns]
    if missing:
        raise FFDError(
            f"{what} has no column {', '.join(missing)}; it has {', '.join(map(str, table.columns)) or 'none'}"
        )


def read_figures(path: Path, needed: Collection[str], again: str) -> pd.DataFrame | None:
    """Figures as a command left them, None where it never ran. FFDError that says `again` if they are damaged."""
    if not path.is_file():
        return None
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise FFDError(f"{path} is damaged ({str(error).splitlines()[0]}): delete it, or `{again}`.") from error
    check_columns(table, needed, str(path))
    return table


def resampling_groups(predictions: pd.DataFrame) -> tuple[str, NDArray[np.int64], int]:
    """What is drawn in a bootstrap: (unit in words, group of every row (n,), number of groups).

    A row's group is its person, else its video, else the face itself (which gives too narrow an interval for videos,
    hence the unit is always reported beside the interval).
    """
    keys = np.full(len(predictions), "", dtype=object)
    used: list[str] = []
    for word, column in (("persons", "identity"), ("videos", "video"), ("faces", "path"), ("faces", "row")):
        if column not in predictions.columns:
            continue
        names = names_in(predictions, column)
        fill = (keys == "") & (names != "")
        if fill.any():
            keys[fill] = np.char.add(f"{column}:", names[fill])
            used.append(word)
    alone = np.flatnonzero(keys == "")
    if len(alone):
        keys[alone] = [f"#{i}" for i in alone]
        used.append("faces")
    names, groups = np.unique(keys.astype(str), return_inverse=True)
    return " or ".join(dict.fromkeys(used)), groups.astype(np.int64), len(names)


class Measured(NamedTuple):
    """A matrix, and each cell's resampled values: draws[level, metric, stream][after, on] is (b,)."""

    matrix: pd.DataFrame
    draws: dict[tuple[str, str, str], dict[tuple[int, str], Floats]]
    unit: str  # what was drawn
    groups: int
    samples: int  # b; 0 where fewer than two groups could be drawn


def measured_from_predictions(
    predictions: pd.DataFrame,
    samples: int = 0,
    seed: int = 0,
    score: str = "z",
    levels: Sequence[str] = ("frame", "video"),
    intervals_of: Collection[str] = ("auc", "acc", *TRACES),
    rule: VideoRule = MEAN,
) -> Measured:
    """Every measure of every (after, on, stream), see the module's text for both tables; one draw serves all cells.

    score: the column that ranks, z or another one such as z_common. samples > 0 adds 95 % intervals to the measures
    in `intervals_of`, by drawing persons or videos. rule: what a video's score is. A measure
    without its column (acc without threshold, ece without p) is left out; one that does not exist (one class) is NaN.
    FFDError on missing columns, doubled rows, NaN scores.
    """
    check_columns(predictions, (*KEYS, "label", "z", score), "the table of predictions")
    if "row" in predictions.columns and predictions["row"].notna().all():
        doubled = int(predictions.duplicated([*KEYS, "row"]).sum())
        if doubled:
            raise FFDError(f"the table of predictions holds {doubled} faces twice for the same model and stream")
    unit, groups, count = resampling_groups(predictions)
    counts = draw_counts(count, samples, np.random.default_rng(seed)) if samples and count > 1 else np.zeros((0, count))
    rows: list[tuple[Any, ...]] = []
    drawn: dict[tuple[str, str, str], dict[tuple[int, str], Floats]] = {}
    for level in levels:
        for cell in cells_of(predictions, level, score, rule):
            for name, (metric, column) in MEASURED.items():
                if column not in cell.columns:
                    continue
                values = cell.columns[column]
                value = float(metric(cell.labels, values, np.ones((1, len(values))))[0])
                low = high = float("nan")
                if name in intervals_of:
                    draws = resample(metric, cell.labels, values, groups[cell.rows], counts)
                    low, high = percentile_interval(value, draws)[1:3]
                    drawn.setdefault((level, name, cell.stream), {})[(cell.after, cell.on)] = draws
                rows.append((cell.after, cell.on, cell.stream, name, level, value, low, high))
    return Measured(pd.DataFrame(rows, columns=list(MATRIX_COLUMNS)), drawn, unit, count, len(counts))


def _mean(values: list[Floats], size: int) -> Floats:
    # A missing cell is NaN and makes the mean NaN: an average over the cells that happen to exist is another figure.
    return np.mean(np.stack(values), axis=0) if values else np.full(size, np.nan)


def figures(
    test: Cells, unseen: Cells, order: Sequence[str], last: int, self_made: Collection[str] = ()
) -> dict[str, Floats]:
    """The figures of one metric after experience `last`; cells map (after, on) to values (b,), b = resamples.

    With a[i, j] after experience i on experience j, T = last, and j over the experiences that are not self-made:
    aa = mean_j a[T, j]; diagonal = mean_j a[j, j];
    forgetting_signed = mean_{j<T} (a[j, j] - a[T, j]) (negative = later learning helped); bwt = -forgetting_signed
    (Lopez-Paz and Ranzato, NeurIPS 2017, eq. 3);
    forgetting_max = mean_{j<T} (max_{j<=i<T} a[i, j] - a[T, j]) (Chaudhry et al., ECCV 2018, i >= j as nothing before
    could be forgotten);
    fwt = mean_{j>0} (a[j-1, j] - a[-1, j]) (Lopez-Paz and Ranzato, eq. 4; needs the untrained model);
    zero_shot = mean of a[i, j] over 0 <= i < j; unseen = mean of a[T, u] over the unseen streams.
    """
    size = len(next(iter({**test, **unseen}.values()), np.zeros(1)))
    void = np.full(size, np.nan)

    def a(i: int, j: int) -> Floats:
        return test.get((i, order[j]), void)

    own = [j for j, name in enumerate(order) if name not in self_made]
    seen = [j for j in own if j <= last]
    past = [j for j in own if j < last]
    signed = _mean([a(j, j) - a(last, j) for j in past], size)
    best = [np.max(np.stack([a(i, j) for i in range(j, last)]), axis=0) - a(last, j) for j in past]
    others = sorted({u for i, u in unseen if u not in self_made})
    return {
        "aa": _mean([a(last, j) for j in seen], size),
        "diagonal": _mean([a(j, j) for j in seen], size),
        "forgetting_signed": signed,
        "forgetting_max": _mean(best, size),
        "bwt": -signed,
        "fwt": _mean([a(j - 1, j) - a(UNTRAINED, j) for j in seen if j > 0], size),
        "zero_shot": _mean([a(i, j) for i in range(last + 1) for j in own if j > i], size),
        "unseen": _mean([unseen.get((last, u), void) for u in others], size),
    }


def number(value: float) -> float | None:
    """A float for JSON: None where it does not exist."""
    return float(value) if np.isfinite(value) else None


def _cells(matrix: pd.DataFrame, stream: str, metric: str, level: str) -> dict[tuple[int, str], Floats]:
    part = matrix[(matrix["stream"] == stream) & (matrix["metric"] == metric) & (matrix["level"] == level)]
    return {(int(i), str(on)): np.array([v]) for i, on, v in zip(part["after"], part["on"], part["value"], strict=True)}


def last_experience(matrix: pd.DataFrame, order: Sequence[str]) -> int:
    """The last experience that the table knows; FFDError where it does not fit `order`."""
    known = sorted(set(matrix.loc[matrix["stream"] == "test", "on"]))
    absent = [name for name in order if name not in known]
    if absent:
        raise FFDError(f"no test stream is called {', '.join(absent)}; the table knows {', '.join(known) or 'none'}")
    last = int(matrix["after"].max())
    if last >= len(order):
        raise FFDError(f"the table goes up to experience {last}, but the order names only {len(order)} experiences")
    return last


def unmeasured(matrix: pd.DataFrame, order: Sequence[str], level: str) -> list[str]:
    """Those of the order whose test stream holds one class only, so that no model has an AUC on it."""
    part = matrix[(matrix["stream"] == "test") & (matrix["metric"] == "auc") & (matrix["level"] == level)]
    known = part.groupby("on")["value"].agg(lambda values: values.notna().any())
    return [name for name in order if not known.get(name, True)]


def maskless(matrix: pd.DataFrame, metric: str, level: str) -> list[str]:
    """Test and unseen streams none of whose faces has a mask, so that no trace map has this figure on them."""
    part = matrix[(matrix["level"] == level) & matrix["stream"].isin(["test", "unseen"])]
    known = part[(part["metric"] == metric) & part["value"].notna()]
    return sorted(set(part["on"]) - set(known["on"]))


def summarised(matrix: pd.DataFrame, level: str) -> tuple[str, ...]:
    """The metrics that a summary holds: AUC and ACC, and those of the trace map where one was measured."""
    there = matrix[(matrix["level"] == level) & matrix["value"].notna()]["metric"].unique()
    return ("auc", "acc", *(trace for trace in TRACES if trace in there))


def summarise(
    matrix: pd.DataFrame,
    order: Sequence[str],
    self_made: Collection[str] = (),
    level: str = "frame",
    metrics: Sequence[str] = (),
) -> dict[str, Any]:
    """{"order", "after", "self_made", "level", metric: {figure: value or None, curves}}, ready for JSON.

    matrix: `MATRIX_COLUMNS`. order: test streams in the order of learning, experience i learnt order[i]. self_made:
    families the learner synthesises itself, in a lineage also sources of real faces: in no mean, listed apart under
    each metric's "self_made". What is not
    measured (`unmeasured`) is in no mean, either, and listed where there is any; nor are streams without masks
    (`maskless`, listed under each metric of the trace map) in that metric's. An unfinished run is summarised after its
    last experience. A figure whose cells are missing is None. Figures: see `figures`.
    """
    check_columns(matrix, MATRIX_COLUMNS[:6], "the matrix")
    last = last_experience(matrix, order)
    result: dict[str, Any] = {
        "order": list(order),
        "after": last,
        "self_made": sorted(self_made),
        "level": level,
        "unseen_streams": sorted(set(matrix.loc[matrix["stream"] == "unseen", "on"]) - set(self_made)),
    }
    if left := unmeasured(matrix, order, level):
        result["unmeasured"] = left
    apart = {*self_made, *left}
    steps = sorted({int(i) for i in matrix["after"]})
    for metric in metrics or summarised(matrix, level):
        test, unseen = (_cells(matrix, stream, metric, level) for stream in ("test", "unseen"))
        lacking = maskless(matrix, metric, level) if metric in TRACES else []
        per_step = {i: figures(test, unseen, order, i, {*apart, *lacking}) for i in steps}
        one: dict[str, Any] = {name: number(values[0]) for name, values in per_step[last].items()} if last >= 0 else {}
        if lacking:
            one["maskless"] = lacking
        for curve, figure, start in (("aa_curve", "aa", 0), ("unseen_curve", "unseen", UNTRAINED)):
            at = [i for i in steps if i >= start]
            one[curve] = {"after": at, "value": [number(per_step[i][figure][0]) for i in at]}
        cells = {**unseen, **test}
        one["self_made"] = {s: number(cells.get((last, s), np.array([np.nan]))[0]) for s in sorted(self_made)}
        result[metric] = one
    return result
