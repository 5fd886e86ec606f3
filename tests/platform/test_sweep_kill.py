"""Real sweeps whose processes are killed or stopped: they end complete, each cell once, and leave nobody behind."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc"),
]

LIMIT = 300.0  # seconds until a sweep must have come to what is waited for
STEPS = 150
CELLS = [("naive", 0), ("joint", 0), ("naive", 1), ("joint", 1)]


class _Sweep:
    """`ffd sweep` of four cells as a process; what it says goes into a file."""

    def __init__(self, grid: Path, out: Path, log: Path, words: tuple[str, ...]):
        self.out, self.log = out, log
        with log.open("wb") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ffd_continual.cli", "sweep", str(grid), "--out", str(out), *words],
                stdout=said, stderr=said, start_new_session=True,
            )  # fmt: skip

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def holders(self) -> dict[str, int]:
        """Cells that train at this moment, and by which process."""
        found = {}
        for path in (self.out / ".claims").glob("*-s*.[0-9]*"):
            cell, pid = path.name.rpartition(".")[0], _pid(path)
            if pid is not None and _alive(pid) and self.steps(cell) >= 10:
                found[cell] = pid
        return found

    def steps(self, cell: str) -> int:
        """Steps that a cell has made."""
        path = self.out / cell / "scalars.jsonl"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def until(self, there: Callable[[], bool]) -> None:
        end = time.monotonic() + LIMIT
        while not there():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < end, self.said()
            time.sleep(0.02)

    def two_at_once(self) -> dict[str, int]:
        """Wait until two cells train side by side, in two processes."""
        self.until(lambda: len(set(self.holders().values())) == 2)
        return self.holders()

    def wait(self) -> int:
        return self.process.wait(LIMIT)

    def assert_complete(self) -> None:
        """Every cell is there once, every step of it was made once, and no claim is left."""
        rows = pd.read_csv(self.out / "rows.csv")
        found = sorted(zip(rows["method"], rows["seed"], strict=True))
        assert found == sorted(CELLS)
        for method, seed in CELLS:
            table = pd.read_parquet(self.out / f"{method}-s{seed}" / "scalars.parquet")
            assert list(table["step"].drop_duplicates()) == list(range(2 * STEPS))
            assert not table.duplicated(["step", "tag"]).any()
        assert list((self.out / ".claims").iterdir()) == []


def _pid(path: Path) -> int | None:
    try:
        return int(json.loads(path.read_text())["pid"])
    except (OSError, ValueError):
        return None


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _gone(pids: list[int], seconds: float) -> bool:
    until = time.monotonic() + seconds
    while any(_alive(pid) for pid in pids) and time.monotonic() < until:
        time.sleep(0.05)
    return not any(_alive(pid) for pid in pids)


def _children(pid: int) -> list[int]:
    """A process's descendants."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents.setdefault(int(stat.read_text().rpartition(")")[2].split()[1]), []).append(int(stat.parent.name))
        except OSError:
            continue
    found, ahead = [], [pid]
    while ahead:
        below = parents.get(ahead.pop(), [])
        found += below
        ahead += below
    return found


Start = Callable[..., _Sweep]


@pytest.fixture
def start(small_config: dict[str, Any], tmp_path: Path) -> Iterator[Start]:
    """Starts sweeps on one folder; none outlives the test."""
    small_config["train"] |= {"steps": STEPS, "batch": 8}
    small_config["scenario"]["order"] = ["alpha", "beta"]
    small_config["checkpoint"] = {"steps": 10}
    base, grid = tmp_path / "base.yaml", tmp_path / "grid.yaml"
    base.write_text(yaml.safe_dump(small_config))
    methods = {"naive": [], "joint": ["strategy.name=joint"]}
    grid.write_text(yaml.safe_dump({"base": str(base), "seeds": [0, 1], "methods": methods}, sort_keys=False))
    sweeps: list[_Sweep] = []

    def begin(*words: str) -> _Sweep:
        sweeps.append(_Sweep(grid, tmp_path / "out", tmp_path / f"said-{len(sweeps)}.txt", words))
        return sweeps[-1]

    yield begin
    for sweep in sweeps:
        below = _children(sweep.process.pid) if sweep.process.poll() is None else []
        if sweep.process.poll() is None:
            sweep.process.kill()
            sweep.process.wait(10)
        for pid in below:
            if _alive(pid):
                os.kill(pid, signal.SIGKILL)


def test_a_killed_process_is_replaced(start: Start) -> None:
    sweep = start("--jobs", "2")
    cell, pid = sorted(sweep.two_at_once().items())[0]
    os.kill(pid, signal.SIGKILL)
    assert sweep.wait() == 0, sweep.said()
    said = " ".join(sweep.said().split())
    assert f"{cell}: its process was ended by SIGKILL (out of memory?); it goes on from its last safe point" in said
    sweep.assert_complete()


def test_ctrl_c_saves_every_cell_and_the_same_command_goes_on(start: Start) -> None:
    sweep = start("--jobs", "2")
    running = sweep.two_at_once()
    everyone = [sweep.process.pid, *_children(sweep.process.pid)]
    assert set(running.values()) < set(everyone)
    os.killpg(sweep.process.pid, signal.SIGINT)  # as a terminal does
    assert sweep.wait() == 130, sweep.said()
    assert _gone(everyone, 10)
    said = sweep.said()
    assert "Traceback" not in said
    assert said.rstrip().splitlines()[-1] == "ffd: stopped. The same `ffd sweep` command goes on where it stopped."
    made = {cell: sweep.steps(cell) for cell in running}
    for cell, steps in made.items():
        points = sorted((sweep.out / cell / "checkpoints" / "inside").glob("e*_s*"))
        assert points, cell  # saved at the very step
        assert int(points[-1].name[-7:]) == (steps - 1) % STEPS + 1
    assert list((sweep.out / ".claims").glob("*-s*")) == []
    again = start("--jobs", "2")
    assert again.wait() == 0, again.said()
    again.assert_complete()


def test_two_sweeps_share_the_cells_and_one_takes_over_from_the_other(start: Start) -> None:
    first, second = start("--jobs", "1"), start("--jobs", "1")
    first.two_at_once()
    for sweep in (first, second):
        assert sweep.process.pid in first.holders().values()
    first.process.kill()
    first.process.wait(10)
    assert second.wait() == 0, second.said()
    second.assert_complete()


def test_processes_of_a_killed_sweep_end_and_free_their_cells(start: Start) -> None:
    sweep = start("--jobs", "2")
    running = sweep.two_at_once()
    sweep.process.kill()
    sweep.process.wait(10)
    assert _gone(list(running.values()), 30)
    assert list((sweep.out / ".claims").glob("*-s*")) == []  # given back, not only dead
    again = start("--jobs", "2")
    assert again.wait() == 0, again.said()
    again.assert_complete()


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is an extra: pip install 'ffd-continual[ray]'")
def test_a_killed_ray_worker_costs_no_cell(start: Start) -> None:
    """A real cluster on this machine with two workers at work; one is killed in the middle of its cell."""
    sweep = start("--engine", "ray", "--jobs", "2")
    running = sweep.two_at_once()
    cell, pid = sorted(running.items())[0]
    words = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/comm").read_bytes()
    assert b"ray" in words
    assert pid in _children(sweep.process.pid)
    os.kill(pid, signal.SIGKILL)
    assert sweep.wait() == 0, sweep.said()
    said = " ".join(sweep.said().split())
    assert f"{cell}: its Ray task was lost" in said
    assert said.count("its Ray task was lost") == 1
    sweep.assert_complete()


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is an extra: pip install 'ffd-continual[ray]'")
def test_ctrl_c_on_ray_saves_every_cell(start: Start) -> None:
    sweep = start("--engine", "ray", "--jobs", "2")
    running = sweep.two_at_once()
    everyone = [sweep.process.pid, *_children(sweep.process.pid)]
    os.killpg(sweep.process.pid, signal.SIGINT)
    assert sweep.wait() == 130, sweep.said()
    assert _gone(everyone, 30)
    assert "Traceback" not in sweep.said()
    for cell in running:
        points = sorted((sweep.out / cell / "checkpoints" / "inside").glob("e*_s*"))
        assert points, cell
        assert int(points[-1].name[-7:]) == (sweep.steps(cell) - 1) % STEPS + 1
    assert list((sweep.out / ".claims").glob("*-s*")) == []


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is an extra: pip install 'ffd-continual[ray]'")
def test_a_lost_node_of_a_running_cluster_costs_no_cell(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two nodes of one CPU each, which the sweep only joins; one goes in the middle of its cell."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # keep to the loopback interface; read at import
    cluster_utils = importlib.import_module("ray.cluster_utils")
    node = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "include_dashboard": False}
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=node)
    try:
        second = cluster.add_node(num_cpus=1, node_ip_address="127.0.0.1")
        cluster.wait_for_nodes()
        sweep = start("--engine", "ray", "--address", cluster.address)
        running = sweep.two_at_once()
        raylet = second.all_processes["raylet"][0].process.pid
        lost = {cell: pid for cell, pid in running.items() if pid in _children(raylet)}
        assert len(lost) == 1
        cluster.remove_node(second, allow_graceful=False)
        assert sweep.wait() == 0, sweep.said()
        said = " ".join(sweep.said().split())
        assert f"{next(iter(lost))}: its Ray task was lost" in said
        sweep.assert_complete()
    finally:
        cluster.shutdown()
