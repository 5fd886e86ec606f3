"""What a growth benchmark found: is an addition's cost flat, how much dearer is retraining, and is growing as good?

Flat: the median of the last third of the additions over that of the first third, in seconds of the processor. As good:
the mean AUC over all forgeries, each against the real test faces of its own data; grown - retrained with its 95 %
interval by drawing persons, both judged on each draw. Growing is not inferior where the interval's lower end stays
above -MARGIN, a margin that was fixed before anything was measured.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ffd_continual.lineage.bench import Benchmark
from ffd_continual.lineage.lineage import Lineage
from ffd_continual.lineage.versions import last_predictions
from ffd_continual.measuring.matrix import resampling_groups
from ffd_continual.measuring.metrics import auc, batched_auc, draw_counts, percentile_interval, resample
from ffd_continual.runs.folder import RunFolder, write_text

MARGIN = 0.02
FLAT = 0.2  # an addition's cost may differ by this share from the first third to the last
RESAMPLES = 1000
SECONDS = ("train", "train_cpu", "measure", "measure_cpu", "whole", "whole_cpu")


@dataclass(frozen=True)
class Quality:
    """Mean AUC of the grown detector and of the retrained one; difference = grown - retrained, with its interval."""

    grown: float
    retrained: float
    difference: float
    low: float
    high: float
    persons: int

    @property
    def not_inferior(self) -> bool:
        """The interval excludes a loss of MARGIN or more."""
        return self.low > -MARGIN


@dataclass(frozen=True)
class Trend:
    """Median seconds of the first and of the last third of the additions that ran through."""

    early: float
    late: float

    @property
    def ratio(self) -> float:
        """1: flat."""
        return self.late / self.early if self.early else float("nan")

    @property
    def flat(self) -> bool:
        """Within FLAT of 1."""
        return abs(self.ratio - 1.0) <= FLAT


def trend(cost: pd.DataFrame, column: str) -> Trend:
    """Additions that were stopped and resumed do not count: their seconds are those of two processes. NaN where nothing
    was timed so."""
    values = cost.reindex(columns=[column])[column][~cost["resumed"].astype(bool)].dropna().to_numpy(float)
    third = max(1, len(values) // 3)
    if not len(values):
        return Trend(float("nan"), float("nan"))
    return Trend(float(np.median(values[:third])), float(np.median(values[-third:])))


def sources_of(lineage: Lineage, number: int) -> pd.DataFrame:
    """row -> the path where a face was found before it was copied."""
    parts = [pd.read_parquet(lineage.folder(n) / "faces.parquet") for n in lineage.chain(number)]
    rows = pd.concat(parts, ignore_index=True)
    return rows[["manifest_row", "source"]].drop_duplicates("manifest_row")


def both_judged(lineage: Lineage, retrained: Path) -> pd.DataFrame:
    """Test faces that the version in use and the retrained run judged: the former's columns, and `z_retrained`."""
    number = lineage.promoted()
    mine = last_predictions(lineage, number)
    mine = mine.merge(sources_of(lineage, number), left_on="row", right_on="manifest_row")
    mine["own"] = mine["source"].map(lambda p: str(Path(p).resolve()))
    theirs = pd.read_parquet(RunFolder(retrained).predictions(0))
    theirs["own"] = theirs["path"].map(lambda p: str(Path(p).resolve()))
    theirs = theirs.drop_duplicates("own")
    return mine[mine["stream"] == "test"].merge(theirs[["own", "z"]], on="own", suffixes=("", "_retrained"))


def quality(both: pd.DataFrame, names: Sequence[str], samples: int = RESAMPLES, seed: int = 0) -> Quality:
    """The version in use against the retrained run, on the faces that both judged, forgery by forgery."""
    both = both[both["on"].isin(names)].reset_index(drop=True)
    _, groups, count = resampling_groups(both)
    counts = draw_counts(count, samples, np.random.default_rng(seed))
    gaps, grown, other = [], [], []
    for name in names:
        at = np.flatnonzero((both["on"] == name).to_numpy())
        labels = both["label"].to_numpy()[at].astype(bool)
        one, two = (both[column].to_numpy()[at] for column in ("z", "z_retrained"))
        grown.append(auc(labels, one))
        other.append(auc(labels, two))
        draws = [resample(batched_auc, labels, z, groups[at], counts) for z in (one, two)]
        gaps.append(draws[0] - draws[1])
    gap = float(np.mean(grown) - np.mean(other))
    low, high = percentile_interval(gap, np.mean(gaps, axis=0))[1:3]
    return Quality(float(np.mean(grown)), float(np.mean(other)), gap, low, high, count)


def by_forgery(lineage: Lineage, both: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """A row a forgery: AUC just learnt, of the last version, and retrained; share of its forged faces that the last
    version attributes to it, and to another camera's copy of the same family."""
    number, rows = lineage.promoted(), []
    folder = RunFolder(lineage.folder(number))
    for place, name in enumerate(names):
        part = both[both["on"] == name]
        labels = part["label"].to_numpy().astype(bool)
        then = pd.read_parquet(folder.predictions(place))
        then = then[(then["on"] == name) & (then["stream"] == "test")]
        said = part.loc[labels, "attribution"]
        rows.append(
            {
                "forgery": name,
                "just_learnt": auc(then["label"].to_numpy().astype(bool), then["z"].to_numpy()),
                "grown": auc(labels, part["z"].to_numpy()),
                "retrained": auc(labels, part["z_retrained"].to_numpy()),
                "attributed": float((said == name).mean()),
            }
        )
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class Found:
    """All figures of a benchmark."""

    cost: pd.DataFrame
    retrained: pd.DataFrame
    forgeries: pd.DataFrame
    quality: Quality
    trends: dict[str, Trend]

    def processor(self) -> dict[str, Trend]:
        """What decides on flatness: other work on the machine hardly prolongs seconds of the processor."""
        return {"learning": self.trends["train_cpu"], "all": self.trends["whole_cpu"]}

    def ratios(self) -> dict[str, float]:
        """Retraining on everything over one addition of the last third: seconds of learning, and of the processor."""
        last = self.retrained.iloc[-1]
        late = trend(self.cost, "train").late
        whole = self.trends["whole_cpu"].late
        spent = last["whole_cpu"]
        return {
            "train": float(last["train"]) / late,
            "whole_cpu": float(spent) / whole if spent is not None else float("nan"),
        }


def figures(asked: Benchmark, lineage: Lineage, cost: pd.DataFrame, retrained: pd.DataFrame) -> Found:
    """Measure what `bench.run_all` made."""
    both = both_judged(lineage, asked.folder(asked.retrained[-1]))
    trends = {column: trend(cost, column) for column in SECONDS}
    names = asked.names
    return Found(
        cost, retrained, by_forgery(lineage, both, names), quality(both, names, seed=asked.config.seed), trends
    )


def in_words(found: Found) -> str:
    """Tables in 80 columns."""
    lines = [f"{'addition':22}{'learnt s':>10}{'CPU s':>8}{'measured s':>12}{'CPU s':>8}{'all s':>8}{'CPU s':>8}"]
    for row in found.cost.to_dict("records"):
        cells = [_cell(row.get(key)) for key in SECONDS]
        mark = "*" if row["resumed"] else ""
        lines.append(f"{_short(row['forgery'] + mark):22}" + _row(cells))
    lines += [
        f"{'first third, median':22}" + _row([_cell(t.early) for t in found.trends.values()]),
        f"{'last third, median':22}" + _row([_cell(t.late) for t in found.trends.values()]),
        f"{'last / first':22}" + _row([f"{t.ratio:.2f}" for t in found.trends.values()]),
    ]
    said = [f"{word} {'yes' if one.flat else 'NO'} ({one.ratio:.2f})" for word, one in found.processor().items()]
    lines.append(f"CPU s within {FLAT:.0%} of the first third's: {', '.join(said)}")
    if found.cost["resumed"].any():
        lines.append("* stopped and resumed: not in the medians")
    lines += ["", f"{'at once, from scratch':22}{'steps s':>10}{'all CPU s':>11}"]
    for row in found.retrained.to_dict("records"):
        lines.append(f"{row['forgeries']:<3}{'forgeries':19}{_cell(row['train']):>10}{_cell(row['whole_cpu']):>11}")
    ratios = found.ratios()
    lines += [
        f"over an addition of the last third: {ratios['train']:.1f} times (learning), "
        f"{ratios['whole_cpu']:.1f} times (all)",
        "", f"{'AUC':22}{'just learnt':>12}{'grown':>8}{'retrained':>11}{'attributed':>12}",
    ]  # fmt: skip
    for row in found.forgeries.to_dict("records"):
        lines.append(
            f"{_short(row['forgery']):22}{row['just_learnt']:>12.3f}{row['grown']:>8.3f}{row['retrained']:>11.3f}"
            f"{row['attributed']:>12.2f}"
        )
    one, means = found.quality, found.forgeries.mean(numeric_only=True)
    lines += [
        f"{'mean':22}{means['just_learnt']:>12.3f}{one.grown:>8.3f}{one.retrained:>11.3f}{means['attributed']:>12.2f}",
        f"grown - retrained {one.difference:+.3f} [{one.low:+.3f}, {one.high:+.3f}], {one.persons} persons drawn",
        f"not inferior by a margin of {MARGIN:g}: {'shown' if one.not_inferior else 'NOT shown'}",
    ]
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    return "-" if value is None or not np.isfinite(value) else f"{value:.1f}"


def _row(cells: Sequence[str]) -> str:
    return "".join(f"{cell:>{width}}" for cell, width in zip(cells, (10, 8, 12, 8, 8, 8), strict=True))


def _short(name: str) -> str:
    return name if len(name) <= 21 else name[:20] + "~"


def write_figures(found: Found, folder: Path) -> list[Path]:
    """additions.csv, retrainings.csv, forgeries.csv and growth.json."""
    tables = {"additions": found.cost, "retrainings": found.retrained, "forgeries": found.forgeries}
    for name, table in tables.items():
        write_text(folder / f"{name}.csv", table.to_csv(index=False))
    values: dict[str, Any] = {
        "quality": asdict(found.quality) | {"margin": MARGIN, "not_inferior": found.quality.not_inferior},
        "seconds": {name: asdict(t) | {"ratio": t.ratio, "flat": t.flat} for name, t in found.trends.items()},
        "retraining_over_addition": found.ratios(),
    }
    values |= {name: json.loads(table.to_json(orient="records")) for name, table in tables.items()}
    write_text(folder / "growth.json", json.dumps(values, indent=1))
    return [folder / f"{name}.csv" for name in tables] + [folder / "growth.json"]
