"""`report.html`: a whole run on one page that needs no network; its figures as PNG and tables as CSV beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import pandas as pd

from ffd_continual.measuring.intervals import RunFigures
from ffd_continual.measuring.matrix import FIGURES, TRACES
from ffd_continual.reporting import extras as extras
from ffd_continual.reporting import sections as sections
from ffd_continual.reporting.alarm_page import alarm_section
from ffd_continual.reporting.data import RunData, read_run
from ffd_continual.reporting.embedding import embedding, write_clouds
from ffd_continual.reporting.frame import page
from ffd_continual.reporting.modules import modules
from ffd_continual.reporting.panels import forgetting_panels, loss_panels, unseen_panels
from ffd_continual.reporting.pictures import contact_sheet, load_sample
from ffd_continual.reporting.plots import write_matrix, write_panels
from ffd_continual.reporting.robust_page import robustness_section
from ffd_continual.retesting.false_alarms import read_alarms
from ffd_continual.retesting.robustness import read_robustness

SAMPLE_COLUMNS = 6
SUFFIX = {"frame": "", "video": "_videos"}  # of files at that level


def page_sections(run: RunData) -> list[tuple[str, str, str]]:
    """(anchor, heading, HTML) of every part that this run has, in reading order."""
    found = [
        ("figures", "Figures", sections.headline(run)),
        ("forgetting", "Forgetting curves", sections.forgetting(run)),
        ("unseen", "Unseen forgeries", sections.unseen(run)),
        ("matrix", "The matrix", sections.matrix(run)),
        ("localisation", "Localisation", extras.localisation(run)),
        ("streams", "Every measure", sections.streams(run)),
    ]
    perturbed = read_robustness(run.path)
    if perturbed:
        found.append(("robustness", "Robustness", robustness_section(perturbed)))
    alarms = read_alarms(run.path)
    if alarms is not None:
        found.append(("benign", "False alarms on harmless edits", alarm_section(alarms)))
    if run.controls:
        found.append(("controls", "Controls of the data", extras.controls(run)))
    if run.samples:
        found.append(("samples", "Sample faces", extras.samples(run)))
    if run.scalars is not None:
        found.append(("losses", "Losses", sections.losses(run)))
    if run.embedding is not None:
        found.append(("features", "Features", embedding(run)))
    if run.modules:
        found.append(("modules", "Modules", modules(run)))
    if run.costs:
        found.append(("costs", "Costs", extras.costs(run)))
    if run.config or run.environment:
        found.append(("setting", "Configuration and environment", extras.setting(run)))
    return [part for part in found if part[2]]


def figure_table(run: RunData) -> pd.DataFrame:
    """The headline figures as a table: metric, level, figure, value, low, high."""
    rows: list[dict[str, Any]] = []
    for level, summary in (("frame", run.summary), ("video", run.videos)):
        for metric in ("auc", "acc", *TRACES):
            one = summary.get(metric, {})
            for figure in FIGURES:
                low, high = one.get("ci", {}).get(figure, (None, None))
                if figure in one:
                    row = {"metric": metric, "level": level, "figure": figure, "value": one[figure]}
                    rows.append({**row, "low": low, "high": high})
    return pd.DataFrame(rows)


def _write_csv(folder: Path, run: RunData) -> None:
    run.matrix.to_csv(folder / "matrix.csv", index=False)
    figure_table(run).to_csv(folder / "figures.csv", index=False)
    for level in run.levels:
        auc = run.matrix[(run.matrix["metric"] == "auc") & (run.matrix["level"] == level)]
        wide = auc.pivot_table(index="after", columns=["stream", "on"], values="value", sort=False)
        wide.to_csv(folder / f"auc{SUFFIX[level]}.csv")
    if run.controls:
        columns = ["forgery", "border_probe", "strongest_feature", "its_auc", "together"]
        pd.DataFrame(extras.control_rows(run.controls), columns=columns).to_csv(folder / "controls.csv", index=False)


def _write_png(folder: Path, run: RunData) -> None:
    for level in run.levels:
        end, words = SUFFIX[level], ", video by video" if level == "video" else ""
        heading = f"AUC of each forgery over the run{words}"
        write_panels(folder / f"forgetting{end}.png", forgetting_panels(run, level), heading)
        heading = f"AUC on forgeries that were never learnt{words}"
        write_panels(folder / f"unseen{end}.png", unseen_panels(run, level), heading)
        write_matrix(folder / f"matrix{end}.png", run, level)
    write_clouds(folder / "features.png", run)
    losses = loss_panels(run)
    if losses:
        write_panels(folder / "losses.png", losses, "Training losses")
    rows: dict[str, list[Any]] = {}
    for entry in run.samples:
        row = rows.setdefault(str(entry.get("forgery", "?")), [])
        loaded = load_sample(run.path / "samples", entry) if len(row) < SAMPLE_COLUMNS else None
        row.extend(picture for picture in loaded or () if picture is not None)
    if any(rows.values()):
        sheet = contact_sheet([row for row in rows.values() if row])
        _, data = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
        (folder / "samples.png").write_bytes(data.tobytes())  # imwrite says nothing of a full disk


def write_report(
    run_dir: Path,
    samples: int | None = None,
    extra: Sequence[tuple[str, str, str]] = (),
    *,
    figures: RunFigures | None = None,
    pictures: bool = True,
) -> Path:
    """Write `report/report.html` of a run from its folder alone; returns its path.

    samples = resamples of the confidence intervals (None: as many as the run's own summary); extra = further (anchor,
    heading, HTML) sections at the end; figures: what `run_figures` gave already; pictures: also the charts as PNG
    files, the page has its own. Parts that the run lacks are left out. FFDError where the folder is no run or a
    file in it is damaged.
    """
    run = read_run(run_dir, samples, figures)
    folder = Path(run_dir) / "report"
    folder.mkdir(exist_ok=True)
    text = page(run.name, [*page_sections(run), *extra])
    _write_csv(folder, run)
    if pictures:
        _write_png(folder, run)
    path = folder / "report.html"
    part = folder / "report.html.part"  # a reader never meets half a page
    part.write_text(text, encoding="utf-8")
    part.replace(path)
    return path
