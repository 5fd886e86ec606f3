"""A DCL run with videos that stops inside its second experience and is resumed ends as one that did not, to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from safetensors.torch import load_file

from ffd_continual.config import config_from
from ffd_continual.run import resume, start
from ffd_continual.strategies.learners.dcl import DCL


@pytest.fixture
def settings(tiny_faces: Path, tmp_path: Path) -> dict[str, Any]:
    """Training faces of a forgery, two by two, are made frames of one video."""
    table = pd.read_csv(tiny_faces, dtype=str, keep_default_na=False)
    for column in ("path", "pair", "mask"):
        table[column] = [str(tiny_faces.parent / p) if p else "" for p in table[column]]
    train = table["split"] == "train"
    number = table["identity"].str[1:].astype(int)
    table["video"] = (table["forgery"] + "-" + (number // 2).astype(str)).where(train, "")
    table["frame"] = (number % 2).astype(str).where(train, "")
    table.to_csv(tmp_path / "videos.csv", index=False)
    trunk = {"backbone": "test_efficientnet", "weights": "none", "frozen_stages": 2}
    return {
        "name": "tiny",
        "scenario": {"data": str(tmp_path / "videos.csv"), "order": ["alpha", "beta"], "unseen": ["gamma"], "size": 32},
        "learner": {"name": "dcl", "trunk": trunk, "map_stages": 5, "queue": 64},
        "strategy": {"name": "replay", "exemplars": 8},
        "train": {"steps": 4, "batch": 12, "threads": 1, "eval_batch": 32, "device": "cpu"},
        "evaluation": {"bootstrap": 20, "samples": 1, "controls": False},
        "checkpoint": {"steps": 1},
    }


@pytest.mark.slow
def test_a_stopped_run_goes_on_bit_for_bit(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_from(settings)
    start(config, tmp_path / "whole")
    assert "the data give no" not in capsys.readouterr().out  # other frames, pairs and masks are all there
    plain_step, calls, shifted = DCL.step, [0], [0]

    def interrupted(self: DCL, batch: Any) -> Any:
        calls[0] += 1
        shifted[0] += int(batch.other_known.sum())
        if calls[0] == 7:  # the third step of the second experience
            raise KeyboardInterrupt
        return plain_step(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(DCL, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            start(config, tmp_path / "stopped")
    assert shifted[0] > 0
    resume(tmp_path / "stopped")
    states = [
        load_file(tmp_path / run / "checkpoints" / "after_001" / "tensors.safetensors") for run in ("whole", "stopped")
    ]
    assert states[0].keys() == states[1].keys()
    assert any("queues.0.queues.1.features" in name for name in states[0])
    assert any("key_trunk" in name and "running_mean" in name for name in states[0])
    for name, value in states[0].items():
        assert value.numpy().tobytes() == states[1][name].numpy().tobytes(), name
    scores = [pd.read_parquet(tmp_path / run / "predictions.parquet") for run in ("whole", "stopped")]
    pd.testing.assert_frame_equal(*scores, check_exact=True)
    logged = [(tmp_path / run / "scalars.jsonl").read_text(encoding="utf-8") for run in ("whole", "stopped")]
    assert logged[0] == logged[1]
    assert '"admission_real"' in logged[0]
