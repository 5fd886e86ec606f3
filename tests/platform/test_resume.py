"""What a stopped run takes up again: its seconds, and a checkpoint whose JSON was damaged ends in one message."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ffd_continual import run as module
from ffd_continual.config import config_from
from ffd_continual.run import resume, start
from ffd_continual.runs.folder import RunFolder
from ffd_continual.runs.saving import SafePoints
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.strategies.training.template import FaceStrategy


class _Stop(Exception):
    """Stands for a kill: raised where no code catches it."""


@pytest.fixture
def stopped(small_config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run killed in its first experience, after step 3 of 4, with a safe point at step 2."""
    small_config["train"]["steps"] = 4
    small_config["checkpoint"] = {"steps": 2}
    after = SafePoints.after_training_iteration

    def until(self: SafePoints, strategy: FaceStrategy, **kwargs: Any) -> None:
        after(self, strategy, **kwargs)
        if strategy.position == (0, 3):
            raise _Stop

    with monkeypatch.context() as patch:
        patch.setattr(SafePoints, "after_training_iteration", until)
        with pytest.raises(_Stop):
            start(config_from(small_config), tmp_path / "run")
    return tmp_path / "run"


def _edit(path: Path, **changes: object) -> None:
    """Set entries of a JSON file; None removes one."""
    values = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in values.items() if v is not None}))


def test_the_seconds_of_a_killed_experience_count(stopped: Path) -> None:
    meta = stopped / "checkpoints" / "inside" / "e000_s0000002" / "meta.json"
    assert json.loads(meta.read_text())["seconds"] > 0
    _edit(meta, seconds=1000.0)
    resume(stopped)
    trained = json.loads((stopped / "summary.json").read_text())["seconds"]["train"]
    assert 1000.0 < trained < 1100.0
    assert json.loads((stopped / "checkpoints" / "after_000" / "meta.json").read_text())["seconds"] == trained
    resume(stopped)  # nothing is trained: nothing is added
    assert json.loads((stopped / "summary.json").read_text())["seconds"]["train"] == trained
    (stopped / "clock.json").write_text("{")
    with pytest.raises(FFDError, match=r"clock.json is damaged"):
        resume(stopped)


def test_training_that_is_made_again_is_counted_once(stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill between an experience's checkpoint and the clock's file loses no second either."""
    monkeypatch.setattr(module.Clock, "save", lambda self: None)
    resume(stopped)
    monkeypatch.undo()
    meta = json.loads((stopped / "checkpoints" / "after_000" / "meta.json").read_text())
    assert meta["seconds"] > 0
    assert not (stopped / "clock.json").exists() or json.loads((stopped / "clock.json").read_text())["train"] == 0
    resume(stopped)
    assert json.loads((stopped / "summary.json").read_text())["seconds"]["train"] == meta["seconds"]


@pytest.mark.parametrize("changes", [{"position": None}, {"position": "two"}, {"growth": None}, {"growth": 3}])
def test_a_safe_point_with_other_json(stopped: Path, changes: dict[str, object]) -> None:
    _edit(stopped / "checkpoints" / "inside" / "e000_s0000002" / "meta.json", **changes)
    with pytest.raises(FFDError, match="not a whole checkpoint") as caught:
        resume(stopped)
    for word in ("e000_s0000002", next(iter(changes)), "Delete that folder"):
        assert word in str(caught.value)


_HOLD = """
import fcntl, sys
file = open(sys.argv[1], "a+")
fcntl.lockf(file, fcntl.LOCK_EX)
file.write("process 77 on there"), file.flush(), print("held", flush=True)
sys.stdin.read()
"""


def test_two_processes_never_write_one_run(small_config: dict[str, Any], tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    command = [sys.executable, "-S", "-c", _HOLD, str(run / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(FFDError, match=r"run is being run by process 77 on there\. Wait"):
            start(config_from(small_config), run)
        assert not (run / "config.yaml").exists()
        RunFolder(run).write_config(config_from(small_config))
        with pytest.raises(FFDError, match="is being run by process 77"):
            resume(run)
        other.kill()
    with RunFolder(run).alone():  # a kill leaves no lock behind
        assert (run / "lock").read_text().startswith("process ")


def test_a_run_is_found_its_data_from_any_working_folder(
    small_config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its configuration names them as the user did: from the folder in which it was started."""
    data = Path(small_config["scenario"]["data"])
    assert data.is_absolute()
    small_config["scenario"]["data"] = os.path.relpath(data, tmp_path)
    small_config["train"]["steps"] = 1
    monkeypatch.chdir(tmp_path)
    start(config_from(small_config), Path("runs/mine"))
    monkeypatch.chdir(tmp_path / "runs")
    config = RunFolder(Path("mine")).read_config()
    assert Path(config.scenario.data).resolve() == data.resolve()
    before = pd.read_parquet("mine/matrix.parquet")
    resume(Path("mine"))
    pd.testing.assert_frame_equal(before, pd.read_parquet("mine/matrix.parquet"))
    _edit(Path("mine/environment.json"), data_from_run=None)
    assert config_from(small_config) == RunFolder(Path("mine")).read_config()  # nothing known: named as it was
