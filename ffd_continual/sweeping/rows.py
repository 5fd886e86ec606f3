"""Finished cells as rows of a table: rows.csv, the means over seeds, and tables that outlive the runs."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ffd_continual.measuring.intervals import over_seeds
from ffd_continual.runs.folder import RunFolder, write_text
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.sweeping.claims import held
from ffd_continual.sweeping.grid import finished
from ffd_continual.terminal import say

FIGURES = ("aa", "diagonal", "forgetting_signed", "forgetting_max", "bwt", "fwt", "zero_shot", "unseen")


def row_of(method: str, seed: int, folder: Path) -> dict[str, Any]:
    """A finished cell as one row: its figures (AUC, with 95 % intervals, ACC, trace), seconds, bytes and threads.

    Seconds of cells that ran side by side are those of a shared machine.
    """
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    costs = json.loads((folder / "costs.json").read_text(encoding="utf-8"))
    run = RunFolder(folder)
    train = run.read_config().train
    row: dict[str, Any] = {"method": method, "seed": seed}
    row |= {f"{m}_{f}": summary[m].get(f) for m in ("auc", "acc") for f in FIGURES}
    row |= {f"{m}_{f}": summary.get(m, {}).get(f) for m in ("iou", "pixel_auc") for f in ("aa", "unseen")}
    for figure, ends in summary["auc"].get("ci", {}).items():
        row |= {f"auc_{figure}_{end}": value for end, value in zip(("low", "high"), ends, strict=True)}
    seconds, steps = summary["seconds"]["train"], train.steps * len(summary["order"])
    row |= {"train_seconds": round(seconds, 1), "step_ms": round(1000 * seconds / steps, 1), "threads": train.threads}
    row |= {"stored_bytes": summary["bytes"]["stored"]}
    row |= {"learner_bytes": costs["learner_bytes"], "judge_ms_per_face": round(costs["judge_ms_per_face"], 2)}
    row |= {key: costs[key] for key in ("parameters", "parameters_per_type") if key in costs}
    return row | {"processor": str(run.environment().get("processor", ""))}


def write_rows(out: Path, claims: Path, methods: Sequence[str]) -> pd.DataFrame:
    """rows.csv anew from the summaries of all finished cells of `methods`.

    One process at a time reads and writes: of two sweeps the later writer also knows the other's cells. A cell whose
    configuration is not one of this version is left out, and named: it stops no other.
    """
    with held(claims, "rows.csv"):
        rows: list[dict[str, Any]] = []
        for folder in sorted(path.parent for path in out.glob("*-s*/summary.json")):
            method, _, seed = folder.name.rpartition("-s")
            if method in methods and finished(folder):
                try:
                    rows.append(row_of(method, int(seed), folder))
                except FFDError as error:
                    say(f"{folder.name} is left out of rows.csv: {error}")
        rows.sort(key=lambda r: (methods.index(r["method"]), r["seed"]))
        table = pd.DataFrame(rows)
        if rows:
            write_text(out / "rows.csv", table.to_csv(index=False))
    return table


def mean_table(rows: pd.DataFrame) -> str:
    """Mean over seeds and 95 % interval of the main figures, as `ffd compare` gives them; at most 80 columns."""
    shown = {"aa": "AA", "diagonal": "diag", "forgetting_signed": "forget", "unseen": "unseen"}
    lines = [f"{'method':20s}{'n':>3s}" + "".join(f"{word:>14s}" for word in shown.values())]
    for method, part in rows.groupby("method", sort=False):
        cells = []
        for figure in shown:
            mean, half = over_seeds(part[f"auc_{figure}"].astype(float).tolist())
            cells.append(f"{mean:.3f}" if math.isnan(half) else f"{mean:.3f} ±{half:.3f}")
        lines.append(f"{str(method)[:19]:20s}{len(part):>3d}" + "".join(f"{cell:>14s}" for cell in cells))
    return "\n".join([*lines, "AUC, mean over n seeds ± 95 % interval (Student's t); one seed has none here"])


def published(known: pd.DataFrame, rows: pd.DataFrame, methods: Sequence[str]) -> pd.DataFrame:
    """Rows that were published, with those of `rows` in the place of theirs; all cells are text, which nothing rounds.

    Methods stand in the order of `methods`, others behind them as they stood.
    """
    new = pd.DataFrame({name: rows[name].map(lambda v: "" if pd.isna(v) else str(v)) for name in rows})
    pairs = set(zip(new["method"], new["seed"], strict=True))
    kept = known[[pair not in pairs for pair in zip(known["method"], known["seed"], strict=True)]]
    table = pd.concat([kept, new], ignore_index=True).fillna("")
    order = {name: at for at, name in enumerate(dict.fromkeys([*methods, *table["method"]]))}
    places = table.assign(at=table["method"].map(order), number=table["seed"].astype(int))
    return table.loc[places.sort_values(["at", "number"], kind="stable").index].reset_index(drop=True)


def publish(rows: pd.DataFrame, file: Path, claims: Path, methods: Sequence[str]) -> None:
    """Merge a sweep's rows into a CSV file that may hold rows of other days and machines, and write the table of it as
    Markdown beside it. Raises FFDError where the file is no such table."""
    with held(claims, "publish"):
        known = pd.DataFrame({"method": [], "seed": []}, dtype=str)
        if file.exists():
            known = pd.read_csv(file, dtype=str, keep_default_na=False)
            if not {"method", "seed", "auc_aa"} <= set(known):
                raise FFDError(f"--publish: {file} is no table of rows (it has no columns method, seed and auc_aa).")
        table = published(known, rows, methods)
        write_text(file, table.to_csv(index=False))
        write_text(file.with_suffix(".md"), markdown_table(table))


def _cell(part: pd.DataFrame, figure: str) -> str:
    """Mean ± 95 % interval over seeds; of one seed its value and interval over persons."""
    values = pd.to_numeric(part[figure], errors="coerce").astype(float).tolist()
    mean, half = over_seeds(values)
    if math.isnan(mean):
        return "–"
    if not math.isnan(half):
        return f"{mean:.3f} ± {half:.3f}"
    ends = [part[f"{figure}_{end}"].iloc[0] if f"{figure}_{end}" in part else "" for end in ("low", "high")]
    return f"{mean:.3f} [{float(ends[0]):.3f}, {float(ends[1]):.3f}]" if all(ends) else f"{mean:.3f}"


def markdown_table(table: pd.DataFrame) -> str:
    """Published rows as Markdown: a line a method."""
    heads = ["method", "seeds", "average AUC", "when just learnt", "forgetting", "unseen", "stored MB", "learner MB"]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for method, part in table.groupby("method", sort=False):
        cells = [_cell(part, f"auc_{name}") for name in ("aa", "diagonal", "forgetting_signed", "unseen")]
        sizes = [
            f"{mean / 1e6:.1f}" if math.isfinite(mean := pd.to_numeric(part[name], errors="coerce").mean()) else "–"
            for name in ("stored_bytes", "learner_bytes")
        ]
        lines.append(f"| {' | '.join([str(method), str(len(part)), *cells, *sizes])} |")
    note = "AUC: mean over seeds ± 95 % interval (Student's t); of one seed its 95 % interval over test persons."
    named = table.get("processor", pd.Series("", index=table.index))
    used, blank = sorted(set(named) - {""}), int((named == "").sum())
    if used and blank:
        used.append(f"not recorded for {blank} of {len(table)} rows")
    return "\n".join([*lines, "", note + (f" Processors: {'; '.join(used)}." if used else "")]) + "\n"
