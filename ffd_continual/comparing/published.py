"""Published figures beside ours, where the data are the same, and never otherwise.

They are shown when every run compared is `ffd run protocols/NAME` on the data sets that the protocol names: its
resolved configuration bears the protocol's name, reads the manifest joined for it, learns in its order and is judged on
its test faces, and the faces' data sets are the protocol's, no more and no fewer. A miniature on rendered faces
(`--studio`), a manifest given by `--data`, another order, a control: none of them. Whether the files in the folders of
these names are the official ones cannot be told from here, and preparation, seeds and computing differ from the
papers': the rows are set apart and nothing is tested against them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import PurePath
from typing import NamedTuple

import numpy as np
import pandas as pd

from ffd_continual.comparing.finished import FinishedRun, Method
from ffd_continual.protocols import PREFIX, Protocol, joined_path, read_protocol
from ffd_continual.published import METRICS
from ffd_continual.scenarios.errors import FFDError

DASH = "–"


class Beside(NamedTuple):
    """One line: a published figure, or ours (source "") by the same metric; shares, not per cent; NaN: none."""

    method: str
    metric: str
    on: str
    value: float
    forgetting: float
    source: str


def protocol_of(run: FinishedRun) -> Protocol | None:
    """The protocol whose published figures were measured on this run's data; None where that is not so."""
    name = str(run.config.get("protocol") or "")
    if not name:
        return None
    try:
        protocol = read_protocol(name)
    except FFDError:  # of another version of this package
        return None
    scenario, wanted = run.config.get("scenario") or {}, protocol.run.get("scenario") or {}
    same = (
        PurePath(str(scenario.get("data"))).parts[-3:] == joined_path(protocol).parts[-3:]
        and run.order == list(scenario.get("order") or []) == list(wanted.get("order") or [])
        and list(scenario.get("unseen") or []) == list(wanted.get("unseen") or [])
        and scenario.get("reals", "shared") == wanted.get("reals", "shared")
        and scenario.get("people", "shared") == wanted.get("people", "shared")
        and not any(scenario.get("profiles") or {})  # pictures pass through no camera that the papers' did not
        and scenario.get("judged", "test") == "test"
        and (scenario.get("labels", "given"), scenario.get("permuted", -1)) == ("given", -1)
        and set(run.summary.get("datasets", [])) == set(protocol.data)
    )
    return protocol if same else None


def _matrix_figures(run: FinishedRun, metric: str, on: str) -> tuple[float, float]:
    """(value, forgetting) of one run: of a stream at the end, or the mean over what was learnt and what was lost."""
    name, level = METRICS[metric]
    matrix = pd.read_parquet(run.path / "matrix.parquet")
    part = matrix[(matrix["metric"] == name) & (matrix["level"] == level)]
    cell = {(int(i), str(j)): float(v) for i, j, v in zip(part["after"], part["on"], part["value"], strict=True)}
    last = run.last
    if on:
        return cell.get((last, on), math.nan), math.nan
    ends = [cell.get((last, j), math.nan) for j in run.order]
    lost = [cell.get((i, j), math.nan) - cell.get((last, j), math.nan) for i, j in enumerate(run.order[:-1])]
    return float(np.mean(ends)), float(np.mean(lost)) if lost else math.nan


def published_beside(methods: Sequence[Method]) -> tuple[str, list[Beside]]:
    """The protocol's name and all lines, published ones first in each group of metric and stream; ("", []) if none."""
    found = [protocol_of(run) for method in methods for run in method.runs]
    protocol = found[0]
    if protocol is None or any(other != protocol for other in found) or not protocol.published:
        return "", []
    lines: list[Beside] = []
    for metric, on in dict.fromkeys((row.metric, row.stream) for row in protocol.published):
        for row in (row for row in protocol.published if (row.metric, row.stream) == (metric, on)):
            lost = math.nan if row.forgetting is None else row.forgetting / 100
            lines.append(Beside(row.method, metric, on, row.value / 100, lost, row.source))
        for method in methods:
            both = np.array([_matrix_figures(run, metric, on) for run in method.runs])
            lines.append(Beside(method.name, metric, on, float(both[:, 0].mean()), float(both[:, 1].mean()), ""))
    return f"{PREFIX}{protocol.name}", lines


def published_note(name: str) -> str:
    """What has to be said beside the lines."""
    return (
        f"Printed by papers for the data sets and the order of {name}. Their preparation, test faces and computing "
        "differ from ours where they are not stated, and seeds and intervals are not given: a rough comparison."
    )


def _number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else DASH


def published_cells(lines: Sequence[Beside]) -> tuple[list[str], list[list[str]]]:
    """Heads and cells of a table."""
    heads = ["Method", "From", "Metric", "Tested on", "Value", "Forgetting"]
    return heads, [
        [one.method, one.source or "this run", one.metric, one.on or "all learnt", *map(_number, one[3:5])]
        for one in lines
    ]


def published_markdown(name: str, lines: Sequence[Beside]) -> str:
    """Heading, note and table; empty without lines."""
    if not lines:
        return ""
    heads, rows = published_cells(lines)
    grid = [heads, ["---"] * 4 + ["---:"] * 2, *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    table = "\n".join(f"| {' | '.join(row)} |" for row in grid)
    return f"\n### Published\n\n{published_note(name)}\n\n{table}\n"


def published_terminal(name: str, lines: Sequence[Beside]) -> str:
    """The lines in at most 80 columns; empty without any."""
    if not lines:
        return ""
    shown = [f"published figures for {name}, and ours (no source)"]
    for one in lines:
        where = f"{one.metric} {one.on}".strip()
        source = one.source if len(one.source) <= 30 else one.source[:29] + "~"
        method = one.method if len(one.method) <= 18 else one.method[:17] + "~"
        shown.append(f"{method:18s}{where:>15s}{_number(one.value):>8s}{_number(one.forgetting):>8s} {source}".rstrip())
    return "\n".join(shown)


def published_table(lines: Sequence[Beside]) -> pd.DataFrame:
    """The lines in full precision, for CSV."""
    return pd.DataFrame(lines, columns=list(Beside._fields))
