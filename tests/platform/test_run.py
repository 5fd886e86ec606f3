"""A whole small run: what its folder holds, and what resuming does to it."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from ffd_continual.config import config_from
from ffd_continual.measuring.matrix import MATRIX_COLUMNS
from ffd_continual.run import resume, start
from ffd_continual.scenarios.errors import FFDError

FIGURES = {"aa", "diagonal", "forgetting_signed", "forgetting_max", "bwt", "fwt", "unseen"}


@pytest.fixture
def finished(tiny_config: dict[str, Any], tmp_path: Path, rendered: Callable[[], AbstractContextManager[None]]) -> Path:
    tiny_config["scenario"]["size"] = 32
    tiny_config["train"] |= {"steps": 3, "batch": 8}
    tiny_config["checkpoint"] = {"steps": 1}
    with rendered():
        start(config_from(tiny_config), tmp_path / "run")
    return tmp_path / "run"


def _results(run: Path) -> dict[str, bytes]:
    names = ("matrix.parquet", "predictions.parquet", "scalars.parquet")
    return {name: (run / name).read_bytes() for name in names}


def test_a_run_s_folder_and_its_second_life(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "config.yaml", "environment.json", "matrix.parquet", "predictions.parquet", "scalars.parquet", "summary.json",
        "costs.json", "report/report.html", "samples/index.json", "checkpoints/after_000/meta.json",
        "checkpoints/after_001/tensors.safetensors",
    ):  # fmt: skip
        assert (finished / name).stat().st_size > 0, name
    assert not (finished / "checkpoints" / "inside").exists()  # safe points go when the experience is saved
    assert not list(finished.rglob("*.part"))

    matrix = pd.read_parquet(finished / "matrix.parquet")
    assert tuple(matrix.columns) == MATRIX_COLUMNS
    assert set(matrix["after"]) == {-1, 0, 1}
    assert set(zip(matrix["on"], matrix["stream"], strict=True)) == {
        ("alpha", "test"), ("beta", "test"), ("gamma", "unseen"),
    }  # fmt: skip
    assert {"auc", "acc", "eer", "ap", "ece", "iou"} <= set(matrix["metric"])
    auc = matrix[(matrix["metric"] == "auc") & (matrix["level"] == "frame")]
    assert len(auc) == 9
    assert auc["value"].between(0, 1).all()
    assert (auc["low"] < auc["high"]).all()
    # Percentiles of 50 resamples of seven persons: a skew one may miss the figure itself, by a little.
    assert auc["value"].between(auc["low"] - 0.05, auc["high"] + 0.05).all()
    assert auc["value"].between(auc["low"], auc["high"]).mean() > 0.75

    predictions = pd.read_parquet(finished / "predictions.parquet")
    assert not predictions.duplicated(["after", "on", "stream", "row"]).any()
    assert predictions.groupby("after")["threshold"].nunique().eq(1).all()
    assert predictions["p"].between(0, 1).all()

    summary = json.loads((finished / "summary.json").read_text())
    assert summary["order"] == ["alpha", "beta"]
    for metric in ("auc", "acc"):
        assert summary[metric].keys() >= FIGURES
        assert all(isinstance(summary[metric][name], float) for name in FIGURES)
        assert summary[metric]["bwt"] == -summary[metric]["forgetting_signed"]
    cell = auc.set_index(["after", "on"])["value"]
    assert summary["auc"]["aa"] == pytest.approx((cell[1, "alpha"] + cell[1, "beta"]) / 2)
    assert summary["auc"]["forgetting_signed"] == pytest.approx(cell[0, "alpha"] - cell[1, "alpha"])
    assert summary["auc"]["unseen"] == pytest.approx(cell[1, "gamma"])
    assert summary["seconds"].keys() == {"train", "measure"}
    assert all(value > 0 for value in summary["seconds"].values())
    assert summary["bytes"]["stored"] == 8 * 32 * 32 * 3
    assert summary["bytes"]["learner"] > 1000

    scalars = pd.read_parquet(finished / "scalars.parquet")
    assert sorted(scalars.loc[scalars["tag"] == "loss", "step"]) == list(range(6))
    meta = json.loads((finished / "checkpoints" / "after_001" / "meta.json").read_text())
    assert meta["growth"] == ["alpha", "beta"]
    assert meta["position"] == [2, 0]

    config = config_from(yaml.safe_load((finished / "config.yaml").read_text()))
    with pytest.raises(FFDError, match="holds a run already"):
        start(config, finished)

    before = _results(finished)
    monkeypatch.setattr("ffd_continual.finish.write_report", lambda folder, **_: folder)  # drawn once is enough
    resume(finished)
    assert _results(finished) == before  # a finished run is only reported again
    # Predictions that are lost are made again from the checkpoints, and learning goes on from the right one.
    for number in (0, 1, 2):
        (finished / "predictions" / f"after_00{number}.parquet").unlink()
    resume(finished)
    assert _results(finished) == before
    (finished / "predictions" / "after_001.parquet").unlink()
    (finished / "checkpoints" / "after_001" / "meta.json").unlink()
    (finished / "checkpoints" / "after_001" / "tensors.safetensors").unlink()
    (finished / "checkpoints" / "after_001").rmdir()
    resume(finished)
    assert _results(finished) == before


def test_resume_checks_what_it_finds(small_config: dict[str, Any], tmp_path: Path) -> None:
    finished = tmp_path / "run"
    start(config_from(small_config), finished)
    with pytest.raises(FFDError, match="is not a run folder"):
        resume(tmp_path / "nowhere")
    path = finished / "config.yaml"
    text = path.read_text()
    path.write_text(text.replace("threads: 1", "threads: 3"))
    with pytest.raises(FFDError, match="was run with 1 torch threads and its config now says 3"):
        resume(finished)
    older = yaml.safe_load(text)
    del older["learner"]["dropout"], older["scenario"]["crop"]
    path.write_text(yaml.safe_dump(older))
    with pytest.raises(
        FFDError, match=r"does not say scenario.crop, learner.dropout: the run was made by another vers"
    ):
        resume(finished)
    path.write_text("a: [")
    with pytest.raises(FFDError, match="not readable YAML"):
        resume(finished)
    path.write_text(text.replace("backbone: test_efficientnet", "backbone: test_efficientnet_ln"))
    (finished / "predictions" / "after_001.parquet").unlink()
    with pytest.raises(FFDError, match="does not fit this configuration") as caught:
        resume(finished)
    assert "after_000" in str(caught.value)
    path.write_text(text)
    (finished / "environment.json").write_text("{")
    with pytest.raises(FFDError, match="is damaged"):
        resume(finished)
