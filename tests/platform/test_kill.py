"""A run that is killed with SIGKILL, wherever it is, and resumed ends with the same bits as one that never was."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors import safe_open

from ffd_continual import cli

Start = Callable[[list[str]], Any]  # arguments of `ffd` -> a process with pid, is_alive(), join()


class _Subprocess:
    """subprocess.Popen with multiprocessing's names; what it says goes into a file."""

    def __init__(self, words: list[str], log: Path):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        with log.open("wb") as said:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "ffd_continual.cli", *words], stdout=said, stderr=said, env=environment
            )
        self.pid = self.popen.pid

    @property
    def exitcode(self) -> int | None:
        return self.popen.poll()

    def is_alive(self) -> bool:
        return self.popen.poll() is None

    def join(self) -> None:
        self.popen.wait()


def _entries(folder: Path) -> dict[str, int]:
    """Relative paths with inodes; what vanishes while it is looked at is left out."""
    found = {}
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(parent, name)
            try:
                found[path.relative_to(folder).as_posix()] = path.stat().st_ino
            except OSError:
                continue
    return found


def _kill_when(process: Any, run: Path, pattern: str, delay: float) -> bool:
    """SIGKILL `delay` seconds after a new path that matches appears in the run's folder; False if it ended before."""
    before = _entries(run)
    while process.is_alive():
        new = (path for path, inode in _entries(run).items() if before.get(path) != inode)
        if any(re.search(pattern, path) for path in new):
            time.sleep(delay)
            if not process.is_alive():
                break
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            assert process.exitcode == -signal.SIGKILL
            return True
        time.sleep(0.0005)
    process.join()
    return False


def _tensors(run: Path) -> dict[str, torch.Tensor]:
    """Every tensor of every checkpoint that stands after an experience."""
    found: dict[str, torch.Tensor] = {}
    for path in sorted(run.glob("checkpoints/after_*/tensors.safetensors")):
        with safe_open(path, framework="pt") as file:
            found |= {f"{path.parent.name}/{key}": file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    return found


def _assert_equal(killed: Path, whole: Path) -> None:
    for name in ("matrix.parquet", "predictions.parquet", "scalars.parquet"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    mine, theirs = _tensors(killed), _tensors(whole)
    assert mine.keys() == theirs.keys()
    assert len(mine) > 100
    for name, tensor in theirs.items():
        assert mine[name].dtype == tensor.dtype, name
        # NaN marks prototypes that do not exist yet: bits are compared, not numbers.
        assert mine[name].numpy().tobytes() == tensor.numpy().tobytes(), name


def _write_config(path: Path, mapping: dict[str, Any], steps: int, workers: int) -> None:
    mapping["train"] |= {"steps": steps, "workers": workers}
    mapping["checkpoint"] = {"steps": 2}
    path.write_text(yaml.safe_dump(mapping))


def _run_with_kills(start: Start, config: Path, folder: Path, kills: list[tuple[str, float]]) -> int:
    """Run, kill and resume through the list, then let it end; how many kills hit."""
    first = ["run", str(config), "--quiet", "--out", str(folder)]
    hits = 0
    for pattern, delay in kills:
        words = ["resume", str(folder)] if (folder / "config.yaml").exists() else first
        hits += _kill_when(start(words), folder, pattern, delay)
    last = start(["resume", str(folder)])
    last.join()
    assert last.exitcode == 0
    return hits


@pytest.fixture
def quick_start() -> Iterator[Start]:
    """Real processes, forked from this one, which has imported everything."""
    context = multiprocessing.get_context("fork")
    made = []

    def start(words: list[str]) -> Any:
        process = context.Process(target=cli.main, args=(words,))
        process.start()
        made.append(process)
        return process

    yield start
    for process in made:
        if process.is_alive():
            process.kill()
            process.join()


def test_two_kills_change_no_bit(quick_start: Start, tiny_config: dict[str, Any], tmp_path: Path) -> None:
    config = tmp_path / "tiny.yaml"
    tiny_config["scenario"] |= {"unseen": [], "size": 32}
    _write_config(config, tiny_config, steps=6, workers=0)
    whole = quick_start(["run", str(config), "--quiet", "--out", str(tmp_path / "whole")])
    whole.join()
    assert whole.exitcode == 0
    kills = [
        (r"inside/e000_s0000004\.part", 0.0),  # while a safe point is written
        (r"predictions/after_001\.parquet$", 0.1),  # the second experience opens: a teacher, no safe point yet
    ]
    assert _run_with_kills(quick_start, config, tmp_path / "killed", kills) == 2
    _assert_equal(tmp_path / "killed", tmp_path / "whole")


def _under_way(run: Path) -> str:
    """What a killed run was doing, read off its folder."""
    if list(run.glob("checkpoints/**/*.part")):
        return "writing"
    learnt, measured = len(list(run.glob("checkpoints/after_*"))), len(list(run.glob("predictions/*.parquet")))
    return "measuring" if learnt >= measured else "training"


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_twenty_kills_change_no_bit(tiny_config: dict[str, Any], tmp_path: Path) -> None:
    """Worker processes, IIN with its queues and its strategy; kills while writing, training and measuring."""
    config, run = tmp_path / "tiny.yaml", tmp_path / "killed"
    _write_config(config, tiny_config, steps=16, workers=2)
    log = tmp_path / "log.txt"
    whole = _Subprocess(["run", str(config), "--quiet", "--out", str(tmp_path / "whole")], log)
    whole.join()
    assert whole.exitcode == 0, log.read_text()[-3000:]
    early = [(r"config\.yaml$", 0.05), (r"predictions/after_000\.parquet", 0.0)]
    # By turns as the next checkpoint is begun and a little after the next one is whole, so that each is met twice.
    begun, done = r"checkpoints/(inside/e\d+_s\d+|after_\d+)(\.part)?$", r"checkpoints/(inside/e\d+_s\d+|after_\d+)$"
    turns = [spec for i in range(14) for spec in ((begun, 0.0), (done, 0.03 * (i % 4)))]
    seen = []
    for pattern, delay in early + turns:
        fresh = ["run", str(config), "--quiet", "--out", str(run)]
        words = ["resume", str(run)] if (run / "config.yaml").exists() else fresh
        process = _Subprocess(words, log)
        if not _kill_when(process, run, pattern, delay):
            assert process.exitcode == 0, log.read_text()[-3000:]
            break  # the run came to its end
        seen.append(_under_way(run) if (run / "predictions").exists() else "reading")
    last = _Subprocess(["resume", str(run)], log)
    last.join()
    assert last.exitcode == 0, log.read_text()[-3000:]
    assert len(seen) >= 20
    assert {"writing", "training", "measuring"} <= set(seen)
    _assert_equal(run, tmp_path / "whole")
    print(f"{len(seen)} kills: {', '.join(f'{seen.count(kind)} {kind}' for kind in sorted(set(seen)))}")
