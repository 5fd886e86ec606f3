"""A loss that turns NaN in the middle of a run: how the run ends, and what is left of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ffd_continual.cli import main
from ffd_continual.runs.checkpoint import load_checkpoint

LEARNER = '''
"""A plain learner whose second loss term, or its gradient, breaks at one step of experience 1."""

from dataclasses import dataclass, field

import torch

from ffd_continual.strategies.learners.plain import Plain, PlainConfig
from ffd_continual.strategies.learners.trunk import TrunkConfig


@dataclass(frozen=True)
class BrittleConfig(PlainConfig):
    breaks: float = 0.5
    gradient: bool = False


class Brittle(Plain):
    config_type = BrittleConfig

    def step(self, batch):
        out, losses = super().step(batch)
        broken = len(self.growth) == 2 and self.progress >= self.config.breaks
        odd = out.z.mean() * (float("nan") if broken and not self.config.gradient else 0.0)
        if broken and self.config.gradient:  # finite itself, but the slope of a root at 0 is not
            odd = (out.z - out.z.detach()).abs().sum().sqrt()
        return out, {**losses, "odd": odd}
'''


@pytest.fixture
def brittle(small_config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    (tmp_path / "brittle.py").write_text(LEARNER)
    monkeypatch.syspath_prepend(str(tmp_path))
    small_config["scenario"]["order"] = ["alpha", "beta"]
    small_config["learner"] |= {"name": "brittle:Brittle"}
    small_config["train"]["steps"] = 4
    return small_config


def _run(config: dict[str, Any], folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    path = folder / "brittle.yaml"
    path.write_text(yaml.safe_dump(config))
    code = main(["run", str(path), "--out", str(folder / "run")])
    return code, capsys.readouterr().err


def test_nan_names_learner_term_step_and_checkpoint(
    brittle: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = _run(brittle, tmp_path, capsys)
    good = tmp_path / "run" / "checkpoints" / "after_000"
    assert code == 2
    assert "learner brittle: loss 'odd' is nan at step 2 of experience 1 (beta)" in said
    assert f"The last good checkpoint is {good}." in said
    assert "Traceback" not in said
    checkpoint = load_checkpoint(good)
    assert checkpoint.meta["growth"] == ["alpha"]
    assert all(bool(torch.isfinite(t).all()) for t in checkpoint.tensors.values() if t.is_floating_point())
    assert not (tmp_path / "run" / "checkpoints" / "after_001").exists()


def test_a_safe_point_inside_the_experience_is_named(
    brittle: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Breaks at step 2 = progress 0.5; with a save at every step the last good one is that after step 2."""
    brittle["checkpoint"] = {"steps": 1}
    brittle["learner"]["gradient"] = True
    code, said = _run(brittle, tmp_path, capsys)
    assert code == 2
    assert "learner brittle: the gradient of the sum of decision, odd is" in said
    assert "at step 2 of experience 1 (beta)" in said
    (named,) = [word.rstrip(".") for word in said.split() if "e001_s" in word]
    checkpoint = load_checkpoint(Path(named))
    assert checkpoint.meta["position"] == [1, 2]
    assert all(bool(torch.isfinite(t).all()) for t in checkpoint.tensors.values() if t.is_floating_point())


def test_without_any_checkpoint_that_is_said(
    brittle: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    brittle["train"]["lr"] = 1e38  # the first step throws the weights out of range, the second meets them
    brittle["train"] |= {"clip": 0.0, "warmup": 0.0, "optimizer": "sgd", "schedule": "constant"}
    code, said = _run(brittle, tmp_path, capsys)
    assert code == 2
    assert "of experience 0 (alpha)" in said
    assert "No checkpoint was written before." in said
