"""A lineage's history for the page: versions, the AUC of every forgery over them, and where each report lies.

A run folder alone has no versions; its curves go over the experiences that it learnt. Nothing is cached: files are
small, and another process may promote, erase or prune at any time.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd

from ffd_continual.lineage.lineage import Lineage, is_lineage, open_lineage
from ffd_continual.lineage.versions import is_measured, mean_auc, moment
from ffd_continual.scenarios.errors import FFDError

SHOWN = (
    "number", "parent", "kind", "forgery", "date", "verdict", "worst_drop", "drops", "aa", "ci", "unseen_auc", "faces",
    "seconds", "learner_bytes", "stored_bytes",
)  # fmt: skip
_LINK = re.compile(r'href="versions/(\d+)/report/report\.html"')  # of the lineage's report to its versions
REPORT, LINEAGE_REPORT = Path("report") / "report.html", "report.html"


def history(path: Path) -> dict[str, Any]:
    """{lineage, name, promoted, versions, axis, curves, real_sources, report}: what the page shows of the folder.

    axis: [{x, label, time}], time (of versions only) in seconds since 1970; curves: [{name, stream, learnt: x or None,
    points: [[x, auc, low, high]]}]. FFDError where the lineage is damaged.
    """
    name = path.resolve().name
    if not is_lineage(path):
        axis, curves = _of_run(path)
        report = (path / REPORT).is_file()
        return {
            "lineage": False, "name": name, "promoted": None, "versions": [], "axis": axis, "curves": curves,
            "real_sources": [], "report": report,
        }  # fmt: skip
    lineage = open_lineage(path)
    promoted = lineage.promoted()
    axis, curves = _of_chain(lineage, lineage.chain(promoted))
    versions = [_version(lineage, number, promoted) for number in lineage.versions()]
    return {
        "lineage": True, "name": name, "promoted": promoted, "versions": versions, "axis": axis, "curves": curves,
        "real_sources": real_sources(path), "report": (path / LINEAGE_REPORT).is_file(),
    }  # fmt: skip


def _version(lineage: Lineage, number: int, promoted: int) -> dict[str, Any]:
    about = lineage.about(number)
    return {
        **{key: about.get(key) for key in SHOWN},
        "aa": mean_auc(lineage, number),
        "measured": is_measured(lineage, number),
        "promoted": number == promoted,
        "weights": lineage.has_weights(number),
        "report": (lineage.folder(number) / REPORT).is_file(),
    }


def real_sources(path: Path) -> list[str]:
    """What was learnt that is no forgery but a source of real faces; [] for a run."""
    if not is_lineage(path):
        return []
    lineage = open_lineage(path)
    told = [lineage.about(number) for number in lineage.versions()]
    return sorted({str(about.get("forgery")) for about in told if about.get("kind") == "real"})


def read_report(path: Path, number: int | None = None) -> str | None:
    """The report of a lineage's version; None: of the lineage, or of the run. None where there is none."""
    where = path / (LINEAGE_REPORT if is_lineage(path) else REPORT)
    if number is not None:
        if not is_lineage(path) or number not in open_lineage(path).versions():
            return None
        where = open_lineage(path).folder(number) / REPORT
    if not where.is_file():
        return None
    text = where.read_text(encoding="utf-8")
    return _LINK.sub(lambda found: f'href="/api/versions/{int(found[1])}/report"', text)


def _matrix(folder: Path) -> pd.DataFrame:
    """after, stream, on, value, low, high of the AUC of faces. Raises FFDError where it cannot be read."""
    path = folder / "matrix.parquet"
    try:
        table = pd.read_parquet(path)
        chosen = table[
            (table["metric"] == "auc") & (table["level"] == "frame") & table["stream"].isin(["test", "unseen"])
        ]
    except (OSError, ValueError, KeyError) as error:
        raise FFDError(f"{path} cannot be read ({error}): restore it from a copy.") from error
    return chosen.reindex(columns=["after", "stream", "on", "value", "low", "high"])


Points = dict[tuple[str, str], list[list[float]]]


def _take(points: Points, x: int, rows: pd.DataFrame) -> None:
    for row in rows.itertuples():
        points.setdefault((str(row.stream), str(row.on)), []).append(
            [x, float(row.value), float(row.low), float(row.high)]
        )


def _curves(points: Points, learnt: dict[str, int]) -> list[dict[str, Any]]:
    return [
        {"name": name, "stream": stream, "learnt": learnt.get(name) if stream == "test" else None, "points": found}
        for (stream, name), found in points.items()
    ]


def _of_run(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    table = _matrix(folder)
    order = list(dict.fromkeys(table.loc[table["stream"] == "test", "on"].astype(str)))
    steps = sorted(int(step) for step in table["after"].unique())
    points: Points = {}
    for step in steps:
        _take(points, step, table[table["after"] == step])
    axis = [{"x": step, "label": "untrained" if step < 0 else order[step]} for step in steps if step < len(order)]
    return axis, _curves(points, {name: at for at, name in enumerate(order)})


def _of_chain(lineage: Lineage, chain: list[int]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Over the versions that the promoted one grew from, itself included."""
    points: Points = {}
    learnt: dict[str, int] = {}
    for number in chain:
        table = _matrix(lineage.folder(number))
        _take(points, number, table[table["after"] == table["after"].max()])
        for name in lineage.about(number).get("experiences", ()):
            learnt.setdefault(str(name), number)
    axis = [{"x": number, "label": f"v{number}", "time": moment(lineage.about(number)["date"])} for number in chain]
    return axis, _curves(points, learnt)
