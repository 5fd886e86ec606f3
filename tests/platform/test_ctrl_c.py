"""Ctrl-C, as a terminal sends it to a command and all its processes: one line, code 130, nobody left, it goes on."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml

from ffd_continual.config import config_from
from ffd_continual.run import resume, start
from ffd_continual.runs.checkpoint import load_checkpoint
from ffd_continual.runs.saving import SafePoints, latest_safe_point
from ffd_continual.scenarios.forging.portraits import SUFFIXES
from ffd_continual.scenarios.pictures import write_picture
from ffd_continual.scenarios.studio.portrait import studio_faces
from ffd_continual.stopping import Stopping
from ffd_continual.strategies.training.template import FaceStrategy

LIMIT = 180.0  # seconds until a command must have come to the point where it is stopped


class _Command:
    """`ffd` with these words as the leader of its own process group; what it says goes into a file."""

    def __init__(self, log: Path, *words: str):
        self.log = log
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        with log.open("wb") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ffd_continual.cli", *words],
                stdout=said, stderr=said, env=environment, start_new_session=True,
            )  # fmt: skip

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def group(self) -> list[int]:
        """Processes of the command that are still there."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                state, _, group = stat.read_text().rpartition(")")[2].split()[:3]
            except OSError:
                continue
            if int(group) == self.process.pid and state != "Z":
                found.append(int(stat.parent.name))
        return found

    def stop_when(self, there: Callable[[], bool], delay: float = 0.0) -> int:
        """Ctrl-C to all of them `delay` seconds after `there()`; the exit code."""
        until = time.monotonic() + LIMIT
        while not there():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < until, self.said()
            time.sleep(0.002)
        time.sleep(delay)
        os.killpg(self.process.pid, signal.SIGINT)
        code = self.process.wait(60)
        until = time.monotonic() + 10
        while self.group() and time.monotonic() < until:
            time.sleep(0.05)
        assert self.group() == []
        return code

    def wait(self) -> int:
        return self.process.wait(LIMIT)

    def end(self) -> None:
        for pid in self.group():
            os.kill(pid, signal.SIGKILL)
        self.process.wait(10)


Ffd = Callable[..., _Command]  # file for its words, then the words


@pytest.fixture
def ffd() -> Iterator[Ffd]:
    """Starts commands; none outlives the test."""
    started: list[_Command] = []

    def call(log: Path, *words: str) -> _Command:
        started.append(_Command(log, *words))
        return started[-1]

    yield call
    for command in started:
        command.end()


def _assert_quiet(command: _Command, *words: str) -> None:
    """The last line says what happened; no traceback of any process above it."""
    said = command.said()
    assert "Traceback" not in said, said
    assert "Error" not in said, said
    last = said.rstrip("\n").splitlines()[-1]
    assert last.startswith("ffd: stopped."), said
    for word in words:
        assert word in last
    assert said.count("ffd: stopped") == 1


# Inside one process -----------------------------------------------------------------------------------------------


def test_the_first_ctrl_c_is_noted_and_the_second_raises(capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT)
    with Stopping() as stopping:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        assert stopping.asked
        assert "stopping after this step" in capfd.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("step", [2, 4])  # in the middle; as the last step ends
def test_a_stopped_run_is_saved_at_the_step_and_ends_with_the_same_bits(
    small_config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    small_config["train"]["steps"] = 4
    small_config["scenario"]["order"] = ["alpha", "beta"]
    monkeypatch.setattr("ffd_continual.finish.write_report", lambda folder, **_: folder)
    start(config_from(small_config), tmp_path / "whole")
    after = SafePoints.after_training_iteration

    def press(self: SafePoints, strategy: FaceStrategy, **kwargs: Any) -> None:
        if strategy.position == (0, step):
            signal.raise_signal(signal.SIGINT)
        after(self, strategy, **kwargs)

    run = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        patch.setattr(SafePoints, "after_training_iteration", press)
        with pytest.raises(KeyboardInterrupt, match=rf"`ffd resume {run}` goes on"):
            start(config_from(small_config), run)
    assert not (run / "predictions" / "after_001.parquet").exists()
    if step < 4:
        point = latest_safe_point(run / "checkpoints" / "inside", 0)
        assert point is not None
        assert load_checkpoint(point).meta["position"] == [0, step]
    else:
        assert (run / "checkpoints" / "after_000").is_dir()
    resume(run)
    for name in ("matrix.parquet", "predictions.parquet", "scalars.parquet"):
        assert (run / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    mine, theirs = (load_checkpoint(p / "checkpoints" / "after_001").tensors for p in (run, tmp_path / "whole"))
    assert all(torch.equal(mine[key], theirs[key]) for key in theirs)


# Real commands ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_run_and_sweep(tiny_config: dict[str, Any], tmp_path: Path, ffd: Ffd, workers: int) -> None:
    tiny_config["train"] |= {"steps": 400, "workers": workers}
    path, run = tmp_path / "tiny.yaml", tmp_path / "run"
    path.write_text(yaml.safe_dump(tiny_config))

    def trains(folder: Path) -> Callable[[], bool]:
        return lambda: (folder / "scalars.jsonl").exists() and (folder / "scalars.jsonl").stat().st_size > 2000

    command = ffd(tmp_path / "run.txt", "run", str(path), "--quiet", "--out", str(run))
    assert command.stop_when(trains(run)) == 130
    _assert_quiet(command, f"`ffd resume {run}`")
    point = latest_safe_point(run / "checkpoints" / "inside", 0)
    assert point is not None
    saved = load_checkpoint(point).meta["position"][1]
    assert len((run / "scalars.jsonl").read_text().splitlines()) == saved  # not a step was lost
    again = ffd(tmp_path / "again.txt", "resume", str(run))
    assert again.stop_when(lambda: (run / "checkpoints" / "after_000").is_dir()) == 130  # while it measures
    _assert_quiet(again, f"`ffd resume {run}`")

    grid = {"base": str(path), "seeds": [0], "methods": {"one": [], "two": []}}
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(grid))
    words = ("sweep", str(tmp_path / "grid.yaml"), "--out", str(tmp_path / "sweep"))
    sweep = ffd(tmp_path / "sweep.txt", *words, "--set", "train.steps=40")
    assert sweep.stop_when(trains(tmp_path / "sweep" / "one-s0")) == 130
    _assert_quiet(sweep, "The same `ffd sweep` command goes on")
    assert latest_safe_point(tmp_path / "sweep" / "one-s0" / "checkpoints" / "inside", 0) is not None
    rest = ffd(tmp_path / "rest.txt", *words, "--set", "train.steps=40")
    assert rest.wait() == 0, rest.said()
    assert list(pd.read_csv(tmp_path / "sweep" / "rows.csv")["method"]) == ["one", "two"]


def _portraits(folder: Path, people: int) -> Path:
    for face in studio_faces(people, 1, 5, 160):
        write_picture(folder / f"{face.name}.png", face.image)
    assert ".png" in SUFFIXES
    return folder


@pytest.mark.slow
def test_forge(tmp_path: Path, ffd: Ffd) -> None:
    """Stopped as its processes start (they import for seconds), while it forges, and then left to its end."""
    faces, out = _portraits(tmp_path / "portraits", 16), tmp_path / "out"
    words = ("forge", str(faces), "--families", "swap,warp,morph", "--size", "64", "--workers", "2")
    first = ffd(tmp_path / "first.txt", *words, "--out", str(out))
    assert first.stop_when(lambda: len(first.group()) >= 3, 0.3) == 130
    _assert_quiet(first, "The same `ffd forge` command goes on")

    journal = out / "forge.jsonl"
    second = ffd(tmp_path / "second.txt", *words, "--out", str(out))
    made = re.compile(r'"forgery"')
    assert second.stop_when(lambda: journal.exists() and len(made.findall(journal.read_text())) > 5) == 130
    _assert_quiet(second, "The same `ffd forge` command goes on")
    done = len(made.findall(journal.read_text()))
    assert 5 < done < 48
    assert not (out / "manifest.parquet").exists()
    assert not list(out.rglob("*.part"))

    third = ffd(tmp_path / "third.txt", *words, "--out", str(out))
    assert third.wait() == 0, third.said()
    whole = ffd(tmp_path / "whole.txt", *words, "--out", str(tmp_path / "whole"))
    assert whole.wait() == 0, whole.said()
    mine, theirs = (pd.read_parquet(folder / "manifest.parquet") for folder in (out, tmp_path / "whole"))
    pd.testing.assert_frame_equal(mine, theirs)  # the sha256 of every picture as well
    assert len(made.findall(journal.read_text())) == len(made.findall((tmp_path / "whole" / "forge.jsonl").read_text()))
