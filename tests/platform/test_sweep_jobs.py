"""Sweeps side by side: the same rows whatever runs them, what happens to cells that fail, die, or are another's."""

from __future__ import annotations

import importlib
import json
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.util import register_after_fork
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from ffd_continual.cli import main
from ffd_continual.runs.folder import RunFolder
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.sweeping import grid as sweep_grid
from ffd_continual.sweeping import sweep as sweeping
from ffd_continual.sweeping import workers
from ffd_continual.sweeping.claims import Claim, myself, take
from ffd_continual.sweeping.grid import Cell, Grid, make_cells, share_threads
from ffd_continual.sweeping.sweep import DEATHS, Outcome, claims_of, sweep
from ffd_continual.sweeping.workers import Workers
from ffd_continual.terminal import WIDTH

MEASURED = ("train_seconds", "step_ms", "judge_ms_per_face")


def _write_grid(folder: Path, config: dict[str, Any], **grid: Any) -> Path:
    base = folder / "base.yaml"
    base.write_text(yaml.safe_dump(config), encoding="utf-8")
    file = folder / "grid.yaml"
    file.write_text(yaml.safe_dump({"base": str(base), "seeds": [0], **grid}, sort_keys=False), encoding="utf-8")
    return file


# Real cells -------------------------------------------------------------------------------------------------------


def _with_streams_of_its_own(pipe: Connection, work: Callable[[Connection], None] = workers._work) -> None:
    """A forked process holds what pytest put in the place of its streams."""
    with open(1, "w", closefd=False) as sys.stdout, open(2, "w", closefd=False) as sys.stderr:
        work(pipe)


def _pipe_that_ends() -> tuple[Connection, Connection]:
    """A forked process holds the sweep's end too, and would wait ten seconds for itself to close it."""
    ours, theirs = multiprocessing.Pipe()
    register_after_fork(ours, Connection.close)
    return ours, theirs


@pytest.mark.parametrize("way", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_two_jobs_give_the_rows_of_one_and_a_failing_cell_stops_no_other(
    small_config: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    way: str,
) -> None:
    """`spawn` is what a sweep does; `fork` spares the seconds in which each new process imports everything."""
    if way == "fork":
        importlib.import_module("ffd_continual.strategies.training.template")  # once, not in each process
        context = multiprocessing.get_context("fork")
        monkeypatch.setattr(context, "Pipe", _pipe_that_ends)
        monkeypatch.setattr(multiprocessing, "get_context", lambda _: context)
        monkeypatch.setattr(workers, "_work", _with_streams_of_its_own)
    del small_config["train"]["threads"]  # so that the sweep divides the cores
    methods = {
        "bad": ["scenario.data=/nowhere"],
        "naive": [],
        "joint-with-a-name-that-is-longer-than-the-line-has-room-for": ["strategy.name=joint"],
    }
    file = _write_grid(tmp_path, small_config, methods=methods)
    one, two = tmp_path / "one", tmp_path / "two"
    assert main(["sweep", str(file), "--out", str(two), "--jobs", str(os.cpu_count() or 1)]) == 2
    said = capsys.readouterr()
    assert "1 of 3 cells failed" in said.err
    assert "- bad-s0: there is nothing at /nowhere" in said.err
    assert "FFDError" in (two / "bad-s0" / "error.txt").read_text()
    lines = said.out.splitlines()
    assert sum(" failed: " in line for line in lines) == 1
    assert sum("AUC 0." in line and line.endswith(" left") for line in lines) == 2
    assert not [line for line in lines if len(line) > WIDTH]
    assert "AUC (frame level)" in (two / "naive-s0" / "log.txt").read_text()  # what a run says lies beside it
    assert "AUC (frame level)" not in said.out

    assert main(["sweep", str(file), "--out", str(one), "--set", "train.threads=1"]) == 2
    assert "1 of 3 cells failed" in capsys.readouterr().err
    rows = [pd.read_csv(out / "rows.csv").drop(columns=list(MEASURED)) for out in (one, two)]
    pd.testing.assert_frame_equal(*rows)
    assert list(rows[1]["method"]) == list(methods)[1:]
    assert list(rows[1]["threads"]) == [1, 1]
    for cell in ("naive-s0", f"{list(methods)[2]}-s0"):
        assert RunFolder(two / cell).environment()["threads"] == 1
        for name in ("matrix.parquet", "predictions.parquet", "scalars.parquet"):
            assert (one / cell / name).read_bytes() == (two / cell / name).read_bytes()
    assert list(claims_of(two).iterdir()) == []


def test_a_living_claim_is_waited_for_and_a_dead_one_taken_over(
    small_config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = _write_grid(tmp_path, small_config, methods={"held": [], "left": ["seed=1"]})
    out = tmp_path / "out"
    claim = take(claims_of(out), "held-s0")
    assert isinstance(claim, Claim)
    dead = claims_of(out) / "left-s0.3"
    dead.write_text(claim.path.read_text().replace(f'"started": "{myself().started}"', '"started": "1"'))
    told = []

    def say(text: str) -> None:
        told.append(text)
        if "waiting" in text:
            assert not (out / "held-s0" / "config.yaml").exists()
            claim.release()

    monkeypatch.setattr(sweeping, "say", say)
    monkeypatch.setattr(sweeping, "PAUSE", 0.05)
    assert main(["sweep", str(file), "--out", str(out)]) == 0
    assert told == [f"held-s0 is run by {myself()}: waiting for it"]
    assert list(pd.read_csv(out / "rows.csv")["method"]) == ["held", "left"]
    began = [(out / cell / "config.yaml").stat().st_mtime_ns for cell in ("left-s0", "held-s0")]
    assert began == sorted(began)  # what was free came first
    assert list(claims_of(out).iterdir()) == []


# The order of events, with an engine that only tells --------------------------------------------------------------


class _Told:
    """An engine that returns what it was told, in order, for each cell."""

    def __init__(self, outcomes: dict[str, list[Outcome]], slots: int = 2):
        self.slots, self.outcomes = slots, outcomes
        self.submitted: list[str] = []
        self.running: list[Cell] = []
        self.most = 0
        self.closed = False

    def submit(self, cell: Cell) -> None:
        self.submitted.append(cell.method)
        self.running.append(cell)
        self.most = max(self.most, len(self.running))

    def wait(self, seconds: float) -> list[tuple[Cell, Outcome]]:
        ended, self.running = self.running, []
        return [(cell, self.outcomes[cell.method].pop(0)) for cell in ended]

    def stop(self) -> None:
        raise AssertionError("nobody pressed Ctrl-C")

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[_Told, dict[str, str]]]:
    row = {"auc_aa": 0.5, "auc_forgetting_signed": None, "auc_unseen": 0.25}
    monkeypatch.setattr(sweeping, "row_of", lambda method, seed, folder: row)
    monkeypatch.setattr(sweeping, "PAUSE", 0.02)

    def run(slots: int = 2, **outcomes: list[Outcome]) -> tuple[_Told, dict[str, str]]:
        engine = _Told(outcomes, slots)
        cells = [Cell(name, 0, {}, tmp_path / f"{name}-s0", 1) for name in outcomes]
        return engine, sweep(cells, engine, lambda: None)

    return run


def test_a_cell_whose_process_dies_is_begun_again_but_not_for_ever(
    told: Callable[..., tuple[_Told, dict[str, str]]], capsys: pytest.CaptureFixture[str]
) -> None:
    died, done = Outcome("died", "ended by SIGKILL"), Outcome("done", seconds=90.0)
    engine, failed = told(a=[died, done], b=[died] * (DEATHS + 1), c=[done], slots=1)
    assert engine.submitted == ["a", "a", *["b"] * (DEATHS + 1), "c"]
    assert failed == {"b-s0": "ended by SIGKILL"}
    assert engine.closed
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "a-s0: ended by SIGKILL; it goes on from its last safe point"
    assert lines[1].startswith("1/3 a-s0 ")
    assert lines[1].endswith("AUC 0.500  forget -  unseen 0.250  1m30s, 3m00s left")
    assert lines[-1].endswith("1m30s, 0s left")


def test_slots_are_filled_and_busy_cells_come_last(told: Callable[..., tuple[_Told, dict[str, str]]]) -> None:
    done, busy = Outcome("done", seconds=2.0), Outcome("busy", "process 7 on far")
    engine, failed = told(a=[busy, busy, done], b=[done], c=[Outcome("failed", "why")], d=[done])
    assert engine.submitted == ["a", "b", "c", "d", "a", "a"]
    assert engine.most == 2
    assert failed == {"c-s0": "why"}


# Threads and words ------------------------------------------------------------------------------------------------


def test_cores_are_divided_where_the_grid_says_nothing(
    small_config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sweep_grid, "cores", lambda: 8)
    del small_config["train"]["threads"]
    file = _write_grid(tmp_path, small_config, methods={"a": [], "b": []})
    grid = Grid(**{**yaml.safe_load(file.read_text()), "seeds": (0, 1)})
    cells, said = make_cells(grid, ["b", "a"], (), (), tmp_path)
    assert not said
    assert [(cell.method, cell.seed, cell.threads) for cell in cells] == [
        ("b", 0, 2), ("a", 0, 2), ("b", 1, 2), ("a", 1, 2),
    ]  # fmt: skip
    assert [cell.config().train.threads for cell in share_threads(cells, 4)] == [2, 2, 2, 2]
    assert [cell.config().train.threads for cell in share_threads(cells, 5)] == [1, 1, 1, 1]
    assert [cell.threads for cell in share_threads(cells, 99)] == [1, 1, 1, 1]
    cells, said = make_cells(grid, ["a"], (5,), ("train.threads=3",), tmp_path)
    assert said
    assert [(cell.seed, cell.threads) for cell in cells] == [(5, 3)]
    with pytest.raises(FFDError, match="method a of the grid: config: unknown key train.thread"):
        make_cells(grid, ["a"], (), ("train.thread=3",), tmp_path)


def test_a_process_gets_its_share_of_threads_and_ends_with_its_pipe() -> None:
    engine, before = Workers(2, 3), os.environ.get("OMP_NUM_THREADS")
    worker = engine._start()
    engine._workers.append(worker)
    environment = Path(f"/proc/{worker.process.pid}/environ")
    if environment.exists():
        words, until = [b""], time.monotonic() + 30.0
        while words == [b""] and time.monotonic() < until:  # empty until the new program has replaced the copy
            words = environment.read_bytes().split(b"\0")
            time.sleep(0.01)
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            assert f"{name}=3".encode() in words
    assert os.environ.get("OMP_NUM_THREADS") == before
    worker.process.kill()
    worker.process.join()
    engine.close()
    assert not worker.process.is_alive()


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["--jobs", "0"], "--jobs 0: give a whole number of at least 1, or auto."),
        (["--jobs", "two"], "--jobs two: give a whole number"),
        (["--address", "auto"], "--address and --gpus are for --engine ray"),
        (["--engine", "ray"], "pip install 'ffd-continual[ray]'"),
    ],
)
def test_what_cannot_be_done_is_said(
    small_config: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    answer: str,
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # as where it is not installed
    file = _write_grid(tmp_path, small_config, methods={"a": []})
    assert main(["sweep", str(file), "--out", str(tmp_path / "out"), *words]) == 2
    assert answer in capsys.readouterr().err
    assert not (tmp_path / "out" / "a-s0").exists()


def test_half_a_finish_is_no_finish(tmp_path: Path) -> None:
    """Killed between summary and report: the cell is not done yet."""
    cell = Cell("a", 0, {}, tmp_path / "a-s0", 1)
    cell.folder.mkdir()
    (cell.folder / "summary.json").write_text(json.dumps({"auc": math.pi}))
    assert not cell.done
    (cell.folder / "costs.json").write_text("{}")
    (cell.folder / "report").mkdir()
    assert not cell.done
    (cell.folder / "report" / "report.html").write_text("")
    assert cell.done
