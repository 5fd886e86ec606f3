"""The model card of a detector, written from its run's own numbers: no figure in it is written by hand.

Headings follow Mitchell et al., "Model cards for model reporting", FAT* 2019.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from ffd_continual.detecting.opened import Opened
from ffd_continual.runs.folder import write_text
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.streams import MIXED

FIGURES = {
    "aa": "average over the forgeries learnt",
    "diagonal": "when just learnt",
    "forgetting_signed": "forgetting (signed)",
    "forgetting_max": "forgetting (from the best)",
    "unseen": "forgeries never taught",
}
MEASURES = ("auc", "acc", "eer", "ap", "tpr10", "tpr1", "ece", "iou")


def _read(path: Path) -> dict[str, Any]:
    try:
        read: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FFDError(f"{path} cannot be read ({error}): finish the run with `ffd resume {path.parent}`.") from error
    return read


def _figure(value: object, digits: int = 3) -> str:
    return f"{value:.{digits}f}" if isinstance(value, int | float) else "-"


def _with_interval(value: object, interval: object) -> str:
    if isinstance(interval, list) and len(interval) == 2 and all(isinstance(v, int | float) for v in interval):
        return f"{_figure(value)} [{_figure(interval[0])}, {_figure(interval[1])}]"
    return _figure(value)


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def _overall(summary: dict[str, Any]) -> list[str]:
    names = [name for name in MEASURES if isinstance(summary.get(name), dict)]
    rows = []
    for key, words in FIGURES.items():
        cells = [_with_interval(summary[n].get(key), summary[n].get("ci", {}).get(key)) for n in names]
        if any(cell != "-" for cell in cells):
            rows.append([words, *cells])
    return _table(["", *names], rows)


def _each(matrix: pd.DataFrame, after: int) -> list[str]:
    part = matrix[(matrix["after"] == after) & (matrix["level"] == "frame")]
    names = [name for name in MEASURES if name in set(part["metric"])]
    rows = []
    for (stream, on), cells in part.groupby(["stream", "on"], sort=False):
        by = cells.set_index("metric")
        row = [f"{on} ({'taught' if stream == 'test' else 'never taught'})"]
        for name in names:
            cell = by.loc[name] if name in by.index else None
            known = cell is not None and pd.notna(cell["value"])
            bounds = [float(cell["low"]), float(cell["high"])] if known and pd.notna(cell["low"]) else None  # type: ignore[index]
            row.append(_with_interval(float(cell["value"]), bounds) if known else "-")  # type: ignore[index]
        rows.append(row)
    return _table(["forgery", *names], rows)


def _data(detector: Opened, summary: dict[str, Any], predictions: pd.DataFrame) -> list[str]:
    scenario, facts = detector.config.scenario, detector.facts
    people = predictions.loc[predictions["identity"] != "", "identity"].nunique()
    cameras = sorted(set(scenario.profiles.values()) - {"", MIXED})
    named = f" ({', '.join(summary['datasets'])})" if summary.get("datasets") else ""
    once = predictions.drop_duplicates(["row", "path"])
    lines = [
        f"- Data: `{scenario.data}`{named}.",
        f"- Taught, in this order: {', '.join(summary['order'])}.",
        f"- Never taught, tested only: {', '.join(summary['unseen_streams']) or 'none'}.",
        f"- Validation: {facts.reals} real and {facts.forgeds} forged faces. Test: {len(once)} faces"
        + (f" of {people} people." if people else "."),
        f"- Seen by the learner: {scenario.size} x {scenario.size} pixels"
        + (f", through simulated cameras {', '.join(cameras)}." if cameras else "."),
    ]
    if scenario.labels != "given":
        lines.append(f"- **Control run: labels are {scenario.labels}.** It detects nothing and must not be used.")
    return lines


def _limits(summary: dict[str, Any], detector: Opened) -> list[str]:
    auc = summary.get("auc", {})
    interval = auc.get("ci", {}).get("unseen")
    lines = [
        "- A score is evidence, not proof. No person should be accused, and no picture removed, on a score alone.",
        "- Rates hold for faces like the validation faces above; another camera, codec or group of people moves them.",
        "- Groups of people were not compared unless a section above says so.",
    ]
    if auc.get("unseen") is not None:
        words = f"- Forgeries of a kind it was not taught: AUC {_with_interval(auc['unseen'], interval)}"
        close = isinstance(interval, list) and interval[0] is not None and interval[0] <= 0.5
        lines.insert(1, words + (", which chance (0.5) may explain." if close else "; chance is 0.5."))
    if detector.facts.framing is None:
        lines.append("- The data have no landmarks: how a face lies in its crop was assumed to be `ffd forge`'s way.")
    return lines


def card_text(detector: Opened, checked: dict[str, Any] | None = None) -> str:
    """The card as Markdown. Raises FFDError where the run lacks its summary, matrix or environment."""
    folder, config, facts, rule = detector.folder.path, detector.config, detector.facts, detector.rule
    summary, environment = _read(folder / "summary.json"), _read(folder / "environment.json")
    for name in ("matrix.parquet", "predictions.parquet"):
        if not (folder / name).is_file():
            raise FFDError(f"{folder / name} is missing: finish the run with `ffd resume {folder}`.")
    predictions = pd.read_parquet(folder / "predictions.parquet")
    predictions = predictions[predictions["after"] == predictions["after"].max()]
    boot = summary.get("bootstrap", {})
    intervals = (
        f"Intervals: 95 %, {boot['samples']} bootstrap resamples of {boot['groups']} {boot['unit']}."
        if boot.get("samples")
        else "No intervals were measured."
    )
    versions = ", ".join(f"{name} {version}" for name, version in environment.get("versions", {}).items())
    cut = f"forged from z = {rule.forged:.3f} on (FPR {100 * rule.fpr:.3g} % on validation)"
    if rule.real < rule.forged:
        cut += f", real below {rule.real:.3f} (misses {100 * rule.band:.3g} %), no decision between"
    lines = [
        f"# Model card: {detector.version}",
        "",
        "## The model",
        f"- Tells real from forged faces, one crop at a time: learner {config.learner.name}, strategy "
        f"{config.strategy.name}, {sum(p.numel() for p in detector.learner.parameters()):,} parameters.",
        f"- Calibration: P(forged) = sigmoid({facts.calibration.scale:.4f} z {facts.calibration.offset:+.4f}); its "
        f"error (ECE) on validation, on the faces it was fitted on: {_figure(facts.ece_before)} before, "
        f"{_figure(facts.ece_after)} after.",
        f"- Decision: {cut}." if rule.fpr == rule.fpr else f"- Decision: forged from z = {rule.forged:.3f} on.",
        f"- Made by ffd_continual {environment.get('ffd_continual', '')}, commit "
        f"{environment.get('commit') or 'unknown'}, seed {environment.get('seed')}, Python "
        f"{environment.get('python')}, {versions}; "
        f"{environment.get('gpu') or environment.get('processor')}; training took "
        f"{summary.get('seconds', {}).get('train', 0):.0f} s.",
        "",
        "## Intended use",
        "- Sorting face pictures for people to look at, and research on detectors that keep learning.",
        "- Not intended: decisions about persons without a human, identifying anybody, or proving a picture genuine.",
        "",
        "## Data",
        *_data(detector, summary, predictions),
        "",
        "## Figures",
        f"After the last forgery, on test people that were in neither training nor validation. {intervals}",
        "",
        *_overall(summary),
        "",
        *_each(pd.read_parquet(folder / "matrix.parquet"), int(summary["after"])),
        "",
        "## Limits",
        *_limits(summary, detector),
    ]
    if checked is not None:
        gaps = ", ".join(f"{name} {gap:.1e}" for name, gap in checked["differences"].items())
        lines += [
            "",
            "## The ONNX graph",
            f"Largest difference to torch on {checked['faces']} {checked['source']}, batches of "
            f"{', '.join(map(str, checked['batches']))}: {gaps}.",
        ]
    return "\n".join(lines) + "\n"


def write_card(detector: Opened, path: Path, checked: dict[str, Any] | None = None) -> None:
    """MODEL_CARD.md; see `card_text`."""
    write_text(path, card_text(detector, checked))
