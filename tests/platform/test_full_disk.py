"""A disk that is really full, or a file that may not grow: one message, code 2; with room made, the run goes on."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from ffd_continual import cli
from ffd_continual.scenarios.errors import is_full

TABLES = ("matrix.parquet", "predictions.parquet", "scalars.parquet")


@pytest.fixture
def short_files() -> Iterator[None]:
    """No file may grow beyond 40 kB: the operating system then refuses as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_counts_as_full(short_files: None, tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught:  # noqa: PT011 - which one it is, is the question
        (tmp_path / "bytes").write_bytes(b"x" * 50_000)
    assert is_full(caught.value)
    with pytest.raises(OSError) as caught:  # noqa: PT011
        np.save(tmp_path / "array.npy", np.zeros(20_000))
    assert is_full(caught.value)
    assert is_full(OSError(errno.ENOSPC, "No space left on device"))
    assert not is_full(PermissionError(errno.EACCES, "Permission denied"))
    assert not is_full(ValueError("3 faces requested"))


def test_files_that_may_not_grow(
    small_config: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, run = tmp_path / "small.yaml", tmp_path / "run"
    config.write_text(yaml.safe_dump(small_config))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, hard))
    try:
        code = cli.main(["run", str(config), "--quiet", "--out", str(run)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    said = capsys.readouterr().err
    assert code == 2
    assert "Traceback" not in said
    assert said.count("ffd: ") == 1
    assert f"cannot write the checkpoint {run}/checkpoints/after_000: the disk is full" in said
    assert f"`ffd resume {run}`" in said
    predicted = (run / "predictions" / "after_000.parquet").stat().st_mtime_ns
    assert cli.main(["resume", str(run)]) == 0
    assert (run / "predictions" / "after_000.parquet").stat().st_mtime_ns == predicted
    assert (run / "summary.json").exists()


def test_a_folder_that_may_not_be_used(
    small_config: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "small.yaml"
    config.write_text(yaml.safe_dump(small_config))
    assert cli.main(["run", str(config), "--quiet", "--out", str(config / "run")]) == 2  # a file is no folder
    said = capsys.readouterr().err
    assert said.startswith("ffd: cannot use")
    assert str(config) in said


class _Disk:
    """A file system of its own, of any size."""

    def __init__(self, path: Path):
        self.path = path
        path.mkdir()

    def mount(self, kilobytes: int) -> None:
        self._call("mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "none", str(self.path))

    def grow(self, kilobytes: int) -> None:
        self._call("mount", "-o", f"remount,size={kilobytes}k", str(self.path))

    def close(self) -> None:
        if os.path.ismount(self.path):
            self._call("umount", "-l", str(self.path))

    def _call(self, *words: str) -> None:
        try:
            subprocess.run(words, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"this machine does not let the test mount a small file system: {error}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[_Disk]:
    made = _Disk(tmp_path / "disk")
    yield made
    made.close()


def _ffd(*words: str) -> tuple[int, str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "ffd_continual.cli", *words],
        capture_output=True, text=True, env=environment, check=False, timeout=900,
    )  # fmt: skip
    return done.returncode, done.stderr


def _whole(run: Path) -> dict[str, int]:
    """What is computed and stands whole: predictions and checkpoints, with their inodes."""
    found = [*run.glob("predictions/*.parquet"), *run.glob("checkpoints/after_*"), *run.glob("checkpoints/inside/e*")]
    return {str(path): path.stat().st_ino for path in found if path.suffix != ".part"}


@pytest.mark.slow
@pytest.mark.timeout(5400)
@pytest.mark.parametrize("kept", [0, 1])
def test_a_full_disk(tiny_config: dict[str, Any], tmp_path: Path, disk: _Disk, kept: int) -> None:
    """At sizes that end the run while it opens, keeps features, measures, trains, saves, and reports."""
    tiny_config["scenario"]["size"] = 32
    tiny_config["train"] |= {"steps": 3, "batch": 8, "kept_views": kept}
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny_config))
    disk.mount(100_000)
    run = disk.path / "run"
    assert _ffd("run", str(path), "--quiet", "--out", str(run))[0] == 0
    tables = {name: (run / name).read_bytes() for name in TABLES}
    used = sum(f.stat().st_blocks // 2 for f in disk.path.rglob("*") if f.is_file())
    disk.close()
    ends = set()
    for share in (0.003, 0.1, 0.4, 0.75, 0.95):
        disk.mount(max(4, int(used * share)))
        code, said = _ffd("run", str(path), "--quiet", "--out", str(run))
        assert code == 2, said
        assert "Traceback" not in said
        assert said.count("ffd: ") == 1
        assert "the disk is full" in said
        assert "make room, then `ffd resume" in said or "Make room and try again" in said
        if "ffd resume" in said:
            assert f"`ffd resume {run}`" in said
        before = _whole(run)
        ends.add(len(before))
        print(f"{share}: {said[said.index('ffd: ') :].strip()}")
        disk.grow(100_000)
        words = ("resume", str(run)) if (run / "config.yaml").exists() else ("run", str(path), "--out", str(run))
        code, said = _ffd(*words)
        assert code == 0, said
        after = _whole(run)
        assert all(after[p] == inode for p, inode in before.items() if "inside" not in p)  # nothing was made again
        for name, content in tables.items():
            assert (run / name).read_bytes() == content, (share, name)
        assert not list(disk.path.rglob("*.part"))
        disk.close()
    assert len(ends) >= 3  # it did end at different places
