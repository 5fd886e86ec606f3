"""A run on shuffled labels ends at chance where the same run on given labels does not."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ffd_continual.comparing.finished import estimate
from ffd_continual.config import apply_sets, config_from, read_yaml
from ffd_continual.run import start


def _tiny_faces(folder: Path) -> Path:
    file = Path(__file__).resolve().parents[1] / "conftest.py"
    spec = importlib.util.spec_from_file_location("faces_of_conftest", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made: Path = module.make_tiny_faces(folder, people=60, forgeries=("alpha", "beta"))
    return made


def _aa(values: dict[str, Any], labels: str, seed: int, out: Path) -> float:
    path = out / f"{labels}-s{seed}"
    start(config_from(apply_sets(values, [f"scenario.labels={labels}", f"seed={seed}"])), path)
    summary = json.loads((path / "summary.json").read_text())
    assert summary["labels"] == labels
    return float(summary["auc"]["aa"])


def test_chance_lies_in_the_interval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ffd_continual.finish.write_report", lambda folder, **_: folder)
    monkeypatch.setattr("ffd_continual.run.write_samples", lambda *given: None)
    trunk = {"backbone": "test_efficientnet", "weights": "none", "frozen_stages": 4}
    values = {
        "name": "tiny",
        "scenario": {"data": str(_tiny_faces(tmp_path)), "order": ["alpha", "beta"], "size": 32},
        "learner": {"name": "plain", "pooling": "statistics", "trunk": trunk, "features": 16},
        "strategy": {"name": "replay", "exemplars": 8},
        "train": {"steps": 30, "batch": 16, "threads": 1, "eval_batch": 64, "device": "cpu", "lr": 0.003},
        "evaluation": {"bootstrap": 0, "controls": False},
    }
    shuffled = estimate([_aa(values, "shuffled", seed, tmp_path) for seed in range(3)])
    assert shuffled.low <= 0.5 <= shuffled.high
    assert abs(shuffled.value - 0.5) < 0.06
    assert _aa(values, "given", 0, tmp_path) > 0.62  # what is there to be learnt


@pytest.mark.slow
def test_the_control_on_rendered_faces(tmp_path: Path) -> None:
    smaller = [
        "scenario.studio_people=80",
        "scenario.order=[swap, warp]",
        "scenario.unseen=[morph]",
    ]
    smaller += ["train.steps=40", "evaluation={bootstrap: 0, samples: 1, controls: false}"]
    values = apply_sets(read_yaml("control_shuffled"), smaller)
    assert values["scenario"]["labels"] == "shuffled"
    found = [_aa(values, "shuffled", seed, tmp_path) for seed in range(5)]
    shuffled = estimate(found)
    assert shuffled.low <= 0.5 <= shuffled.high
    assert np.abs(np.array(found) - 0.5).max() < 0.25
    given = _aa(values, "given", 0, tmp_path)
    assert given > shuffled.high
    assert given > 0.7
