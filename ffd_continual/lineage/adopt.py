"""Version 1 of a lineage: a finished run, with the faces that later versions are measured on copied beside it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pandas as pd

from ffd_continual.config import RunConfig
from ffd_continual.lineage.lineage import FORMAT, Lineage, is_lineage, write_promoted
from ffd_continual.lineage.rows import as_rows, copied, kept_of, strategy_state, with_strategy
from ffd_continual.lineage.store import PROMOTED, append_log, now
from ffd_continual.load import strategy_class
from ffd_continual.measuring.matrix import UNTRAINED
from ffd_continual.replay.stored import choose_stored, stored_rows
from ffd_continual.reporting.report import write_report
from ffd_continual.runs.assemble import open_data
from ffd_continual.runs.checkpoint import load_checkpoint, save_checkpoint, sync
from ffd_continual.runs.folder import RunFolder, write_table, write_text
from ffd_continual.runs.saving import checked
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.streams import build_scenario

COPIED = (
    "config.yaml", "environment.json", "summary.json", "matrix.parquet", "costs.json", "controls.json",
    "scalars.parquet", "scalars.jsonl", "detector.json",
)  # fmt: skip
KEPT = 40
ALL_FACES = ("hdp",)  # strategies that ask for training faces of earlier experiences while they learn


def check_growable(config: RunConfig, where: Path) -> None:
    """Raise FFDError for a run that cannot grow forgery by forgery."""
    name = config.strategy.name
    if getattr(strategy_class(name), "retrains", False) or name in ALL_FACES:
        raise FFDError(
            f"{where} was run with strategy {name}, which needs the training faces of all earlier forgeries: a lineage "
            "keeps few of them. Adopt a run of another strategy (`ffd list strategies`), e.g. iin."
        )
    if config.scenario.labels == "shuffled":
        raise FFDError(f"{where} is a control with shuffled labels: it detects nothing and cannot be adopted.")


def _finished(folder: RunFolder, order: tuple[str, ...]) -> None:
    last = len(order) - 1
    lacking = [
        p for p in (folder.after(last), folder.predictions(last), folder.path / "summary.json") if not p.exists()
    ]
    if lacking:
        raise FFDError(
            f"{folder.path} is not finished: {lacking[0].name} is missing. `ffd resume {folder.path}` first."
        )


def adopt(run: Path, path: Path, kept: int = KEPT) -> Lineage:
    """Make the lineage `path` with the finished run as version 1; the run itself is left as it is.

    kept: real and forged training faces of each experience that the lineage keeps. Raises FFDError where the run is not
    finished, cannot grow, or its faces are gone.
    """
    if is_lineage(path) or (path.exists() and any(path.iterdir())):
        raise FFDError(f"{path} is there already. Choose another name, or `ffd add {path}` where it is a lineage.")
    folder = RunFolder(run)
    config = folder.read_config()
    check_growable(config, run)
    if (run / "version.json").is_file():
        raise FFDError(f"{run} is a version of a lineage already.")
    scenario = build_scenario(open_data(config, folder.cache), config.scenario)
    _finished(folder, scenario.experiences)
    part = path.with_name(f".{path.name}.{uuid4().hex[:8]}.part")
    try:
        made = _fill(folder, config, scenario.rows, scenario.experiences, scenario.unseen, Lineage(part), kept)
        write_text(part / "lineage.json", json.dumps({"format": FORMAT, "made": now(), "salt": uuid4().hex}, indent=1))
        write_promoted(Lineage(part), 1)
        append_log(Lineage(part), "adopt", 1, forgery=made["forgery"])
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            path.rmdir()
        part.rename(path)
        sync(path.resolve().parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return Lineage(path)


def _fill(
    folder: RunFolder,
    config: RunConfig,
    rows: pd.DataFrame,
    order: tuple[str, ...],
    unseen: tuple[str, ...],
    lineage: Lineage,
    kept: int,
) -> dict[str, Any]:
    target = RunFolder(lineage.folder(1))
    target.path.mkdir(parents=True)
    skipped = folder.path / "skipped.csv"
    if skipped.is_file():  # the run left them out, so its exemplars do not count them
        rows = rows[~rows["path"].isin(set(pd.read_csv(skipped)["path"]))].reset_index(drop=True)
    checkpoint = checked(load_checkpoint(folder.after(len(order) - 1)), folder.after(len(order) - 1))
    state = strategy_state(checkpoint)
    stored = stored_rows(state)
    if len(stored) and stored.max() >= len(rows):
        raise FFDError(
            f"{folder.path} remembers faces that its data no longer hold: {config.scenario.data} has changed."
        )
    every = as_rows(rows)
    train = every[every["stream"] == "train"]
    judged = copied(lineage, every[every["stream"] != "train"], "copying faces")
    keeps = copied(lineage, kept_of(train, kept), "copying kept faces")
    exemplars = copied(lineage, every.iloc[stored].assign(stream="train"), "copying exemplars")
    write_table(target.path / "faces.parquet", pd.concat([train, judged, keeps], ignore_index=True))
    write_table(target.path / "exemplars.parquet", exemplars)
    every_one = np.arange(len(stored))
    save_checkpoint(target.after(len(order) - 1), with_strategy(checkpoint, choose_stored(state, every_one, every_one)))
    place = dict(zip(judged["manifest_row"], judged["path"], strict=True))
    parts = []
    for after in range(UNTRAINED, len(order)):
        table = pd.read_parquet(folder.predictions(after))
        table["path"] = [place[row] for row in table["row"]]
        write_table(target.predictions(after), table)
        parts.append(table)
    write_table(target.path / "predictions.parquet", pd.concat(parts, ignore_index=True))
    for name in COPIED:
        if (folder.path / name).is_file():
            shutil.copyfile(folder.path / name, target.path / name)
    if (folder.path / "samples").is_dir():
        shutil.copytree(folder.path / "samples", target.path / "samples")
    write_report(target.path)
    summary = json.loads((target.path / "summary.json").read_text(encoding="utf-8"))
    about = {
        "format": FORMAT, "number": 1, "parent": None, "kind": "adopt", "forgery": ", ".join(order), "date": now(),
        "experiences": list(order), "unseen": list(unseen), "verdict": PROMOTED, "drops": [], "worst_drop": None,
        "faces": {s: int((every["stream"] == s).sum()) for s in ("train", "valid", "test", "unseen")},
        "seconds": summary["seconds"], "aa": summary["auc"].get("aa"), "ci": summary["auc"].get("ci", {}).get("aa"),
        "unseen_auc": summary["auc"].get("unseen"), "next_row": int(rows["manifest_row"].max()) + 1,
        "learner_bytes": summary["bytes"]["learner"], "stored_bytes": summary["bytes"]["stored"],
    }  # fmt: skip
    write_text(target.path / "version.json", json.dumps(about, indent=1))
    return about
