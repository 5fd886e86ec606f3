"""Is a new forgery noticed? Each forgery of a configuration is withheld from training in turn, then shown.

OUT/without-NAME is a run that was never taught NAME. Its novelty threshold is the 95 % point of *validation* faces of
the forgeries it knows, before any test face is looked at. Then: test faces of the known forgeries against those of the
withheld one (AUROC, FPR at 95 % TPR, and both shares at the threshold); and what is flagged among known, withheld and
the configuration's unseen forgeries, in groups (purity). All is resumable: finished runs and their figures are kept.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ffd_continual.config import RunConfig
from ffd_continual.detecting.evidence import class_names, read_rows, spread_rows, stored_rows
from ffd_continual.detecting.grouping import WAYS, group_faces, measure_grouping
from ffd_continual.detecting.novelty import SPACES, Novelty, describe_faces, measure_flagging
from ffd_continual.detecting.opened import open_detector
from ffd_continual.measuring.matrix import number
from ffd_continual.run import resume, start
from ffd_continual.runs.assemble import open_data
from ffd_continual.runs.folder import RunFolder, write_text
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.streams import build_scenario
from ffd_continual.terminal import say

QUANTILE = 0.95
RESULT = "discover.json"


def without(config: RunConfig, name: str) -> RunConfig:
    """The configuration that is never taught `name`."""
    rest = tuple(entry for entry in config.scenario.order if entry != name)
    unseen = (name, *config.scenario.unseen)
    return replace(config, name=f"without-{name}", scenario=replace(config.scenario, order=rest, unseen=unseen))


def train_without(config: RunConfig, name: str, folder: Path) -> Path:
    """The run folder, finished. Raises FFDError where another configuration lies there."""
    wanted = without(config, name)
    if not (folder / "config.yaml").exists():
        start(wanted, folder)
        return folder
    there = RunFolder(folder).read_config()
    if there.scenario.order != wanted.scenario.order or there.learner != wanted.learner:
        raise FFDError(f"{folder} was run with another configuration. Choose another --out.")
    if not (folder / "summary.json").is_file():
        resume(folder)
    return folder


def measure_one(folder: Path, rows: pd.DataFrame, name: str, beside: Sequence[str], smallest: int) -> dict[str, Any]:
    """Figures of one run; `rows` are those of the whole configuration's scenario, `beside` its unseen forgeries."""
    detector = open_detector(folder)
    stored, kind = stored_rows(detector)
    kept, faces = read_rows(detector, stored)
    novelty = Novelty(describe_faces(detector, faces), class_names(kept))
    forged = rows[rows["label"] == 1]
    valid = forged[(forged["stream"] == "valid") & (forged["experience"] != name)]
    _, faces = read_rows(detector, spread_rows(valid))
    usual = describe_faces(detector, faces)
    shown = forged[forged["stream"].isin(("test", "unseen"))].drop_duplicates(["path", "experience"])
    judged, faces = read_rows(detector, shown)
    seen, names = describe_faces(detector, faces), np.array(class_names(judged))
    new = names == name
    known = ~new & ~np.isin(names, list(beside))
    flagging = {}
    for way in novelty.ways():
        scores, cut = novelty.score(way, seen), float(np.quantile(novelty.score(way, usual), QUANTILE))
        found = measure_flagging(scores[known], scores[new], cut)
        spaces = {space: getattr(seen, space) for space in SPACES}
        flagged = scores > cut
        grouping = {
            f"{by}-{space}": asdict(
                measure_grouping(
                    group_faces(novelty.white[space].kin(features[flagged]), by, smallest), names[flagged].tolist()
                )
            )
            for by in WAYS
            for space, features in spaces.items()
        }
        flagging[way] = {**asdict(found), "flagged_faces": int(flagged.sum()), "grouping": grouping}
    return {
        "withheld": name, "stored": len(kept), "kind": kind, "known": int(known.sum()), "novel": int(new.sum()),
        "ways": flagging,
    }  # fmt: skip


def measure_discovery(config: RunConfig, out: Path, smallest: int = 5) -> pd.DataFrame:
    """All of it; one row a withheld forgery and score. Also written: OUT/discover.csv and a discover.json a run.

    Raises FFDError for fewer than three forgeries (two have to be known), and as a run does.
    """
    order = config.scenario.order
    if len(order) < 3:
        raise FFDError("scenario.order names fewer than 3 forgeries: withholding one would leave less than two known.")
    rows = build_scenario(open_data(config, RunFolder(out / "run").cache), config.scenario).rows
    lines = []
    for name in order:
        folder = train_without(config, name, out / f"without-{name.replace('/', '_')}")
        result = folder / RESULT
        if not result.is_file():
            say(f"withheld {name}: judging")
            found = measure_one(folder, rows, name, config.scenario.unseen, smallest)
            write_text(result, json.dumps(found, indent=1))
        found = json.loads(result.read_text(encoding="utf-8"))
        for way, values in found["ways"].items():
            line = {"withheld": name, "score": way, **{k: v for k, v in values.items() if k != "grouping"}}
            for by, group in values["grouping"].items():
                line |= {f"{by} {key}": number(value) for key, value in group.items()}
            lines.append(line)
    table = pd.DataFrame(lines)
    write_text(out / "discover.csv", table.to_csv(index=False))
    return table


def flagging_text(table: pd.DataFrame) -> str:
    """AUROC of every score and withheld forgery, then means over forgeries; at most 80 columns."""
    lines = [f"{'score':<24}{'AUROC':>8}{'FPR95':>8}{'flagged':>9}{'false':>8}   lowest AUROC"]
    for way, part in table.groupby("score", sort=False):
        worst = part.loc[part["auroc"].idxmin()]
        cells = f"{part['auroc'].mean():>8.3f}{part['fpr95'].mean():>8.3f}"
        cells += f"{part['flagged'].mean():>9.3f}{part['false'].mean():>8.3f}"
        lines.append(f"{way:<24}{cells}   {worst['auroc']:.3f} {str(worst['withheld'])[:12]}")
    return "\n".join(lines)


def grouping_text(table: pd.DataFrame, way: str) -> str:
    """Purity of the groups among the faces that one score flags, means over withheld forgeries."""
    part = table[table["score"] == way]
    lines = [f"{'groups by':<28}{'groups':>8}{'grouped':>9}{'purity':>8}{'one group':>11}"]
    for column in [c.removesuffix(" purity") for c in part.columns if c.endswith(" purity")]:
        cells = [part[f"{column} {key}"].astype(float).mean() for key in ("groups", "grouped", "purity", "chance")]
        lines.append(f"{column:<28}{cells[0]:>8.1f}{cells[1]:>9.3f}{cells[2]:>8.3f}{cells[3]:>11.3f}")
    return "\n".join(lines)
