"""What a report needs, read from a run folder alone; a part that a run does not have is left empty."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pandas as pd
import yaml

from ffd_continual.measuring.intervals import RunFigures, run_figures
from ffd_continual.measuring.matrix import (
    KEYS,
    MATRIX_COLUMNS,
    check_columns,
    summarise,
    summarised,
)
from ffd_continual.measuring.video_level import LEVELS, VideoRule
from ffd_continual.scenarios.errors import FFDError

T = TypeVar("T")
SCALAR_COLUMNS = ("step", "experience", "tag", "value")


class Point(NamedTuple):
    """One cell of the matrix on a curve."""

    after: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class RunData:
    """A run as the report shows it; matrix, predictions and summary as in `matrix`."""

    path: Path
    name: str
    matrix: pd.DataFrame
    order: list[str]
    self_made: list[str]
    summary: dict[str, Any]
    videos: dict[str, Any] = field(default_factory=dict)  # the summary at video level; empty if a video is one frame
    threshold: float | None = None
    faces: int = 0  # distinct faces tested
    config: str = ""
    environment: dict[str, Any] = field(default_factory=dict)
    scalars: pd.DataFrame | None = None
    samples: list[dict[str, Any]] = field(default_factory=list)
    controls: dict[str, Any] = field(default_factory=dict)
    costs: dict[str, Any] = field(default_factory=dict)
    labels: str = "given"  # of training faces; "shuffled" in a control
    modules: dict[str, Any] = field(default_factory=dict)  # of `modules.measure_modules`, as the summary holds it
    embedding: pd.DataFrame | None = None  # of `embedding.measure_embedding`

    def apart_word(self, name: str) -> str:
        """Why a stream is in no mean."""
        return "real faces of a new source" if name in self.summary.get("sources", ()) else "self-made"

    @property
    def last(self) -> int:
        """The last experience that was measured."""
        return int(self.summary["after"])

    @property
    def unseen(self) -> list[str]:
        """Streams that nothing was trained on, without the self-made ones."""
        return [str(name) for name in self.summary["unseen_streams"]]

    def curve(self, stream: str, on: str, metric: str = "auc", level: str = "frame") -> list[Point]:
        """A stream's values over the experiences, in order."""
        return self._curves.get((stream, on, metric, level), [])

    @cached_property
    def _curves(self) -> dict[tuple[str, str, str, str], list[Point]]:
        m = self.matrix.sort_values("after", kind="stable")
        found: dict[tuple[str, str, str, str], list[Point]] = {}
        columns = ("stream", "on", "metric", "level", "after", "value", "low", "high")
        for *key, after, value, low, high in zip(*(m[name] for name in columns), strict=True):
            point = Point(int(after), float(value), float(low), float(high))
            found.setdefault((key[0], key[1], key[2], key[3]), []).append(point)
        return found

    def step_names(self) -> list[tuple[int, str]]:
        """(after, name) of every model that was measured."""
        return [(i, "untrained" if i < 0 else self.order[i]) for i in sorted({int(a) for a in self.matrix["after"]})]

    @property
    def levels(self) -> tuple[str, ...]:
        """The levels that a chart is drawn at: "video" only where videos have several frames."""
        return LEVELS if self.videos else LEVELS[:1]

    def means(self, metric: str, level: str = "frame") -> dict[str, Any]:
        """The summary of a metric: its figures, and their curves over the run."""
        found: dict[str, Any] = (self.summary if level == "frame" else self.videos)[metric]
        return found

    @property
    def numbered(self) -> bool:
        """Whether charts number the experiences: their names would be too many or too long to stand side by side."""
        return len(self.order) > 8 or max(map(len, self.order)) > 12

    def ticks(self) -> list[tuple[float, str]]:
        """The experiences under a chart: by name, or by number (– = untrained) where `numbered`."""
        if not self.numbered:
            return [(float(i), name) for i, name in self.step_names()]
        return [(float(i), "–" if i < 0 else str(i + 1)) for i, _ in self.step_names()]


def _guarded(path: Path, read: Callable[[Path], T]) -> T:
    try:
        return read(path)
    except (OSError, ValueError, yaml.YAMLError) as error:  # a broken Parquet or JSON file is a ValueError
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise FFDError(f"{path} is damaged ({first}): restore it, or delete it and evaluate the run again") from error


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _mapping(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    if not path.is_file():
        return {}
    found = _guarded(path, lambda p: json.loads(_text(p)))
    if not isinstance(found, dict):
        raise FFDError(f"{path} must hold a JSON object, it holds {type(found).__name__}")
    return found


def read_predictions(folder: Path) -> pd.DataFrame | None:
    """predictions.parquet, or the parts in predictions/ (one a model); None where a run has none."""
    whole, parts = folder / "predictions.parquet", sorted((folder / "predictions").glob("*.parquet"))
    paths = [whole] if whole.is_file() else parts
    tables = [t for t in (_guarded(path, pd.read_parquet) for path in paths) if len(t)]
    return pd.concat(tables, ignore_index=True) if tables else None


def _read_lines(path: Path) -> pd.DataFrame:
    """JSON lines {"step", "experience", "values": {tag: value}}; a last line that a kill cut short is dropped."""
    lines = _text(path).split("\n")
    records = [json.loads(line) for line in lines[:-1] if line]
    with contextlib.suppress(ValueError):
        records.append(json.loads(lines[-1]))
    return pd.DataFrame([{**{k: v for k, v in r.items() if k != "values"}, **r.get("values", {})} for r in records])


def _scalars(folder: Path) -> pd.DataFrame | None:
    table, lines = folder / "scalars.parquet", folder / "scalars.jsonl"
    if table.is_file():
        found = _guarded(table, pd.read_parquet)
    elif lines.is_file():
        found = _guarded(lines, _read_lines)
    else:
        return None
    if len(found) and "tag" not in found.columns:  # one line a step with a column a loss
        keys = [c for c in ("step", "experience") if c in found.columns]
        found = found.melt(keys, var_name="tag", value_name="value")
        found = found[pd.to_numeric(found["value"], errors="coerce").notna()]
    if "experience" not in found.columns:
        found = found.assign(experience=0)
    check_columns(found, SCALAR_COLUMNS, "the table of losses")
    return found.astype({"value": float}) if len(found) else None


def _embedding(folder: Path) -> pd.DataFrame | None:
    path = folder / "embedding.parquet"
    if not path.is_file():
        return None
    found = _guarded(path, pd.read_parquet)
    check_columns(found, ("on", "stream", "label", "x", "y"), str(path))
    return found


def _samples(folder: Path) -> list[dict[str, Any]]:
    index = folder / "samples" / "index.json"
    if not index.is_file():
        return []
    found = _guarded(index, lambda p: json.loads(_text(p)))
    if not isinstance(found, list) or not all(isinstance(s, dict) for s in found):
        raise FFDError(f"{index} must hold a JSON list of objects")
    return found


def _order(folder: Path, stored: dict[str, Any], config: Any, streams: list[str]) -> list[str]:
    if stored.get("order"):
        return [str(name) for name in stored["order"]]
    scenario = config.get("scenario") if isinstance(config, dict) else None
    listed = scenario.get("order") if isinstance(scenario, dict) else None
    if listed and set(listed) <= set(streams):
        return [str(name) for name in listed]
    if not streams:
        raise FFDError(f"{folder} has no test stream yet: evaluate the run first")
    return streams


def _video_rule(folder: Path, settings: Any) -> VideoRule:
    given = (settings.get("evaluation") if isinstance(settings, dict) else None) or {}
    known = {name: given[key] for key, name in (("video", "way"), ("video_share", "share")) if key in given}
    return _guarded(folder / "config.yaml", lambda _: VideoRule(**known))


def read_run(run_dir: Path, samples: int | None = None, figures: RunFigures | None = None) -> RunData:
    """Everything the report shows. samples = resamples of the intervals; None: as the stored summary, or 1000.

    Needs predictions (predictions.parquet or predictions/*.parquet) or matrix.parquet. Figures are recomputed from
    the predictions, unless they are given as `figures`; a stored summary gives the order of learning, the self-made
    families, the seed of the resamples (so that page and terminal agree to the last digit) and, without predictions,
    its intervals. FFDError where the folder is no run, or a file is damaged.
    """
    folder = Path(run_dir)
    if not folder.is_dir():
        raise FFDError(f"{folder} is not a folder: give the folder of a run")
    predictions, table = read_predictions(folder), folder / "matrix.parquet"
    if predictions is None and not table.is_file():
        raise FFDError(f"{folder} holds neither predictions nor matrix.parquet: evaluate the run first")
    config = _guarded(folder / "config.yaml", _text) if (folder / "config.yaml").is_file() else ""
    settings = _guarded(folder / "config.yaml", lambda p: yaml.safe_load(_text(p))) if config else None
    stored = _mapping(folder, "summary.json")
    self_made = [str(name) for name in stored.get("self_made", [])]
    drawn = stored.get("bootstrap") or {}
    seed = int(drawn.get("seed", 0))
    samples = int(drawn.get("samples", 1000)) if samples is None else samples
    threshold, faces = None, 0
    if predictions is not None:
        check_columns(predictions, (*KEYS, "label", "z"), "the table of predictions")
        streams = predictions.loc[predictions["stream"] == "test", "on"]
        order = _order(folder, stored, settings, list(dict.fromkeys(streams)))
        rule = _video_rule(folder, settings)
        matrix, summary, videos = figures or run_figures(predictions, order, self_made, samples, seed, rule)
        cuts = (
            predictions.loc[predictions["after"] == summary["after"]].get("threshold", pd.Series(dtype=float)).dropna()
        )
        threshold = float(cuts.iloc[0]) if len(cuts) else None
        name = next((c for c in ("path", "row") if c in predictions.columns and predictions[c].notna().all()), None)
        faces = int(predictions[name].nunique()) if name else 0
    else:
        matrix = _guarded(table, pd.read_parquet)
        check_columns(matrix, MATRIX_COLUMNS, str(table))
        order = _order(folder, stored, settings, list(dict.fromkeys(matrix.query("stream == 'test'")["on"])))
        summary = summarise(matrix, order, self_made)
        for metric in summarised(matrix, "frame"):
            summary[metric]["ci"] = stored.get(metric, {}).get("ci", {})
        summary["bootstrap"] = stored.get("bootstrap")
        videos = stored.get("videos") or {}
    summary = summary | {
        key: stored[key] for key in ("trace_prior", "embedding", "sources") if key in stored
    }  # not to be had from predictions
    title = settings.get("name") if isinstance(settings, dict) else None
    return RunData(
        path=folder,
        name=str(title or folder.resolve().name),
        matrix=matrix,
        order=order,
        self_made=self_made,
        summary=summary,
        videos=videos,
        threshold=threshold,
        faces=faces,
        config=config,
        environment=_mapping(folder, "environment.json"),
        scalars=_scalars(folder),
        samples=_samples(folder),
        controls=_mapping(folder, "controls.json"),
        costs=_mapping(folder, "costs.json"),
        labels=str(stored.get("labels", "given")),
        modules=stored.get("modules") or {},
        embedding=_embedding(folder) if stored.get("embedding") else None,
    )
