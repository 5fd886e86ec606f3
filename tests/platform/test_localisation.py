"""Localisation: from a trace map to faces, matrix, summary and report; Grad-CAM where there is no trace map."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from ffd_continual.config import config_from
from ffd_continual.measuring.intervals import print_matrix, summarise_with_ci
from ffd_continual.measuring.matrix import measured_from_predictions, summarise
from ffd_continual.measuring.metrics import draw_counts
from ffd_continual.reporting.data import read_run
from ffd_continual.reporting.frame import show
from ffd_continual.reporting.report import page_sections, write_report
from ffd_continual.run import start
from ffd_continual.runs.detector import score_faces
from ffd_continual.scenarios.batch import Batch
from ffd_continual.strategies.learner import Learner, Output


@dataclass(frozen=True)
class NoConfig:
    """Nothing to set."""


class Corner(Learner):
    """A 2 x 2 map of logits, whatever the face: sure in one corner, undecided in another, sure of the opposite."""

    config_type = NoConfig

    def forward(self, images: Tensor) -> Output:
        trace = torch.tensor([[2.0, -3.0], [-3.0, -3.0]]).expand(len(images), 1, 2, 2)
        return Output(z=images.mean((1, 2, 3)), features={"common": images.mean((2, 3))}, maps={"trace": trace})


def _batch(masks: list[list[list[int]]], target: list[int], known: list[bool]) -> Batch:
    count = len(target)
    none, no = torch.zeros(count, 0), torch.zeros(count, dtype=torch.bool)
    fields: dict[str, Any] = {name: no if name.endswith("known") else none for name in Batch._fields}
    fields |= {
        "image": torch.rand(count, 3, 2, 2), "target": torch.tensor(target), "forgery": torch.tensor(target),
        "mask": torch.tensor(masks, dtype=torch.float32)[:, None], "mask_known": torch.tensor(known),
        "row": torch.arange(count),
    }  # fmt: skip
    return Batch(**fields)


def test_faces_worked_by_hand() -> None:
    """The map finds the upper left pixel alone. Mask = left column: IoU 1 / 2, and of its 2 pixels x 2 others the upper
    beats both, the lower ties with both: pixel AUC (1 + 1 + .5 + .5) / 4 = .75. Mask = that pixel: 1 and 1.
    All forged: IoU 1 / 4, no AUC. An unknown mask, an empty one, and a real face give nothing."""
    left, pixel, whole, empty = [[1, 0], [1, 0]], [[1, 0], [0, 0]], [[1, 1], [1, 1]], [[0, 0], [0, 0]]
    batch = _batch([left, pixel, whole, left, empty, empty], [1, 1, 1, 1, 1, 0], [True, True, True, False, True, True])
    scores = score_faces(Corner(), lambda out: out.z, [batch])
    assert scores["iou"].fillna(-1).tolist() == [0.5, 1.0, 0.25, -1, -1, -1]
    assert scores["pixel_auc"].fillna(-1).tolist() == [0.75, 1.0, -1, -1, -1, -1]


ORDER = ["a", "b"]


def _predictions() -> pd.DataFrame:
    """8 persons, two forged faces and one real one each; person 0 has no known mask."""
    rng = np.random.default_rng(3)
    rows = []
    for after in (-1, 0, 1):
        for number, (on, stream) in enumerate((("a", "test"), ("b", "test"), ("u", "unseen"))):
            for person in range(8):
                for face, label in enumerate((0, 1, 1)):
                    value = rng.uniform() if label and person else np.nan
                    rows.append(
                        {"after": after, "on": on, "stream": stream, "label": label, "identity": f"p{person}",
                         "row": 100 * number + 3 * person + face, "path": f"{on}/{person}/{face}.png", "video": "",
                         "z": rng.normal() + label, "threshold": 0.4, "iou": value, "pixel_auc": (1 + value) / 2}
                    )  # fmt: skip
    return pd.DataFrame(rows)


def test_matrix_rows_and_intervals_are_means_over_forged_faces_of_drawn_persons() -> None:
    table = _predictions()
    matrix = measured_from_predictions(table, samples=200, seed=5, levels=("frame",)).matrix
    part = matrix[matrix["metric"] == "iou"].set_index(["after", "on", "stream"])
    assert set(part.index) == {
        (i, on, s) for i in (-1, 0, 1) for on, s in (("a", "test"), ("b", "test"), ("u", "unseen"))
    }
    assert set(matrix[matrix["metric"] == "pixel_auc"]["on"]) == {"a", "b", "u"}
    counts = draw_counts(8, 200, np.random.default_rng(5))
    for after, on, stream in part.index:
        faces = table[(table["after"] == after) & (table["on"] == on) & table["iou"].notna()]
        row = part.loc[(after, on, stream)]
        assert row["value"] == pytest.approx(sum(faces["iou"]) / 14)
        means = []
        for drawn in counts:
            total = weight = 0.0
            for person, value in zip(faces["identity"], faces["iou"], strict=True):
                total += drawn[int(person[1:])] * value
                weight += drawn[int(person[1:])]
            means.append(total / weight)
        assert (row["low"], row["high"]) == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])))
        assert row["low"] < row["value"] < row["high"]


def test_a_forgery_without_masks_is_in_no_mean_of_the_trace_map_and_is_named() -> None:
    table = _predictions()
    bare = table["on"] == "b"
    table.loc[bare, ["iou", "pixel_auc"]] = np.nan
    matrix = measured_from_predictions(table, levels=("frame",)).matrix
    cell = matrix[matrix["metric"] == "iou"].set_index(["after", "on"])["value"]
    summary = summarise_with_ci(table, ORDER, samples=50)
    assert summary["iou"]["maskless"] == ["b"]
    assert summary["iou"]["aa"] == pytest.approx(cell[1, "a"])
    assert summary["iou"]["forgetting_signed"] == pytest.approx(cell[0, "a"] - cell[1, "a"])
    low, high = summary["iou"]["ci"]["aa"]
    assert low < summary["iou"]["aa"] < high
    assert "maskless" not in summary["auc"]
    assert summary["auc"]["aa"] is not None
    assert f"learnt {summary['iou']['aa']:.3f}" in print_matrix(matrix, ORDER, summary)
    assert "without masks: b" in print_matrix(matrix, ORDER, summary)


def test_summary_and_terminal_hold_the_trace_figures() -> None:
    table = _predictions()
    matrix = measured_from_predictions(table, levels=("frame",)).matrix
    cell = matrix[matrix["metric"] == "iou"].set_index(["after", "on"])["value"]
    summary = summarise_with_ci(table, ORDER, samples=50)
    assert summary["iou"]["aa"] == pytest.approx((cell[1, "a"] + cell[1, "b"]) / 2)
    assert summary["iou"]["diagonal"] == pytest.approx((cell[0, "a"] + cell[1, "b"]) / 2)
    assert summary["iou"]["forgetting_signed"] == pytest.approx(cell[0, "a"] - cell[1, "a"])
    assert summary["iou"]["unseen"] == pytest.approx(cell[1, "u"])
    low, high = summary["pixel_auc"]["ci"]["aa"]
    assert low < summary["pixel_auc"]["aa"] < high
    assert summarise(matrix, ORDER)["iou"]["aa"] == summary["iou"]["aa"]
    text = print_matrix(matrix, ORDER, summary)
    assert f"trace IoU at 0.5    learnt {summary['iou']['aa']:.3f}, unseen {summary['iou']['unseen']:.3f}" in text
    assert max(map(len, text.splitlines())) <= 80
    without = table.drop(columns=["iou", "pixel_auc"])
    plain = summarise_with_ci(without, ORDER, samples=50)
    assert {"iou", "pixel_auc"}.isdisjoint(plain)
    assert plain["auc"] == summary["auc"]  # the trace figures change no other draw
    assert "trace" not in print_matrix(measured_from_predictions(without, levels=("frame",)).matrix, ORDER, plain)


def test_report_shows_every_stream(tmp_path: Path) -> None:
    table = _predictions()
    table.to_parquet(tmp_path / "predictions.parquet")
    run = read_run(tmp_path, 30)
    sections = {heading: html for _, heading, html in page_sections(run)}
    html = sections["Localisation"]
    for on, stream in (("a", "test"), ("b", "test"), ("u", "unseen")):
        point = run.curve(stream, on, "iou")[-1]
        assert f"{show(point.value)} <small>[{show(point.low)}, {show(point.high)}]</small>" in html
    assert show(run.curve("test", "a", "iou")[1].value) in html  # when just learnt
    assert show(run.summary["iou"]["aa"]) in html
    assert "u <small>unseen</small>" in html
    assert "0.5 or more" in html
    write_report(tmp_path, 0)
    figures = pd.read_csv(tmp_path / "report" / "figures.csv").set_index(["metric", "figure"])["value"]
    assert figures["iou", "unseen"] == pytest.approx(run.summary["iou"]["unseen"])
    (tmp_path / "bare").mkdir()
    table.drop(columns=["iou", "pixel_auc"]).to_parquet(tmp_path / "bare" / "predictions.parquet")
    assert "Localisation" not in [heading for _, heading, _ in page_sections(read_run(tmp_path / "bare", 0))]


@pytest.mark.parametrize("learner", ["iin", "plain"])
def test_a_run_with_and_without_a_trace_map(learner: str, tiny_config: dict[str, Any], tmp_path: Path) -> None:
    tiny_config["scenario"]["size"] = 32
    tiny_config["train"] |= {"steps": 2, "batch": 8}
    if learner == "plain":
        trunk = {**tiny_config["learner"]["trunk"], "frozen_stages": 2}
        tiny_config |= {"learner": {"name": "plain", "trunk": trunk}, "strategy": {"name": "naive"}}
    run = tmp_path / "run"
    start(config_from(tiny_config), run)
    matrix = pd.read_parquet(run / "matrix.parquet")
    summary = json.loads((run / "summary.json").read_text())
    html = (run / "report" / "report.html").read_text(encoding="utf-8")
    index = json.loads((run / "samples" / "index.json").read_text())
    assert len(index) == 4
    maps = [np.asarray(cv2.imread(str(run / "samples" / e["map"]), cv2.IMREAD_GRAYSCALE)) for e in index]
    assert {m.shape for m in maps} == {(32, 32)}
    if learner == "plain":
        assert "iou" not in summary
        assert {"iou", "pixel_auc"}.isdisjoint(matrix["metric"])
        assert {entry["map_kind"] for entry in index} == {"Grad-CAM"}
        assert max(int(m.max()) for m in maps) == 255  # over its own maximum
        assert "This learner has no trace map" in html
        assert 'alt="Grad-CAM of the same face"' in html
    else:
        traced = matrix[matrix["metric"].isin(["iou", "pixel_auc"])]
        assert {("gamma", "unseen"), ("alpha", "test")} <= set(zip(traced["on"], traced["stream"], strict=True))
        assert len(traced) == 2 * 3 * 3
        assert traced["low"].notna().all()
        assert summary["iou"]["unseen"] == pytest.approx(
            traced.query("metric == 'iou' and after == 1 and on == 'gamma'")["value"].item()
        )
        constant = summary["trace_prior"]["unseen"]["gamma"]  # stands in the row's last two cells
        row = html[html.index("gamma <small>unseen</small>") :].split("</tr>")[0]
        assert [show(constant[t]) for t in ("iou", "pixel_auc")] == re.findall(r">([0-9.]+)</td>", row)[-2:]
        assert {entry["map_kind"] for entry in index} == {"trace"}
        assert "Grad-CAM" not in html
        assert "<h2>Localisation</h2>" in html
