"""A run is a folder: where each of its files lies, and how they are written whole."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml

import ffd_continual
from ffd_continual.config import RunConfig, config_from, to_mapping
from ffd_continual.scenarios.errors import FFDError

PACKAGES = ("torch", "torchvision", "avalanche-lib", "timm", "faiss-cpu", "numpy", "opencv-python-headless", "pandas")


STUDIO = "studio"  # scenario.data of rendered faces


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run; nothing here keeps state."""

    path: Path

    @property
    def config(self) -> Path:
        """Resolved configuration."""
        return self.path / "config.yaml"

    def foreign(self) -> str:
        """The name of something that no run or sweep wrote here, "" where there is none: a new run leaves it alone."""
        if not self.path.is_dir() or (self.path / "environment.json").exists():
            return ""
        names = sorted(p.name for p in self.path.iterdir() if not p.name.startswith("."))
        return next((name for name in names if name not in ("lock", "log.txt", "error.txt")), "")

    @property
    def cache(self) -> Path:
        """Prepared faces, shared by neighbouring runs; may be deleted at any time."""
        return self.path.resolve().parent / ".cache"

    @property
    def safe_points(self) -> Path:
        """Checkpoints inside an experience; the last two are kept."""
        return self.path / "checkpoints" / "inside"

    def after(self, experience: int) -> Path:
        """Checkpoint after an experience."""
        return self.path / "checkpoints" / f"after_{experience:03d}"

    def predictions(self, experience: int) -> Path:
        """Predictions after an experience, -1 for the untrained model."""
        return self.path / "predictions" / f"after_{experience + 1:03d}.parquet"

    def read_predictions(self, experience: int) -> pd.DataFrame:
        """Raises FFDError when the file is damaged; without it, its faces are judged again."""
        path = self.predictions(experience)
        try:
            return pd.read_parquet(path)
        except ValueError as error:  # Arrow's errors are such
            raise FFDError(f"{path} is damaged. Delete it: `ffd resume {self.path}` judges its faces again.") from error

    @property
    def scalars(self) -> Path:
        """Loss curves: one JSON line a step."""
        return self.path / "scalars.jsonl"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else may write the run meanwhile. Raises FFDError that names the process which does.

        The lock is the operating system's, of this process alone: workers that outlive it do not hold it.
        """
        with (self.path / "lock").open("a+", encoding="utf-8") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in (errno.EACCES, errno.EAGAIN):  # others: a file system without locks
                    file.seek(0)
                    holder = file.read().strip() or "another process"
                    raise FFDError(f"{self.path} is being run by {holder}. Wait until it ends, or stop it.") from error
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}")
            file.flush()
            yield

    def write_config(self, config: RunConfig) -> None:
        """The resolved configuration, as `ffd run` would take it."""
        write_text(self.config, yaml.safe_dump(to_mapping(config), sort_keys=False, allow_unicode=True))

    def read_config(self) -> RunConfig:
        """Raises FFDError when the folder is not a run, or one of another version."""
        if not self.config.is_file():
            raise FFDError(f"{self.path} is not a run folder: it has no config.yaml. `ffd run` makes one.")
        try:
            values = yaml.safe_load(self.config.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise FFDError(f"{self.config} is not readable YAML: {error}") from error
        try:
            config = config_from(values)
        except FFDError as error:
            raise FFDError(
                f"{self.config} cannot be used; the run was made by another version, or the file was edited. {error}"
            ) from error
        if untold := missing_keys(to_mapping(config), values):
            raise FFDError(
                f"{self.config} does not say {', '.join(untold)}: the run was made by another version, whose detector "
                "may have judged otherwise. Run it again, or write in the value that keeps it as it was (CHANGELOG.md)."
            )
        return self._data_found(config)

    def describe(self, config: RunConfig) -> dict[str, Any]:
        """What environment.json is to hold: the machine, and where data that are named by a relative path lie as
        seen from the run's folder, so that the run can be used from any working folder."""
        said = describe_environment(config)
        data = config.scenario.data
        if data != STUDIO and not os.path.isabs(data):
            said["data_from_run"] = os.path.relpath(data, self.path)
        return said

    def _data_found(self, config: RunConfig) -> RunConfig:
        """The configuration with data that lie beside the run, where the working folder is not the one they are
        named from."""
        data = config.scenario.data
        if data == STUDIO or Path(data).exists():
            return config
        with suppress(FFDError):  # a damaged environment.json is told of where it matters
            beside = self.path / self.environment().get("data_from_run", "")
            if beside != self.path and beside.exists():
                return replace(config, scenario=replace(config.scenario, data=os.path.normpath(beside)))
        return config

    def environment(self) -> dict[str, Any]:
        """What environment.json holds; raises FFDError when it is damaged."""
        path = self.path / "environment.json"
        if not path.exists():
            return {}
        try:
            read: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise FFDError(f"{path} is damaged ({error}); delete it and resume.") from error
        return read


def missing_keys(resolved: Mapping[str, Any], said: Mapping[str, Any]) -> list[str]:
    """Dotted keys of what makes a detector (faces, learner, strategy, training) that a stored configuration leaves
    open: today's defaults need not be those that it was run with."""
    found = []
    for part in ("scenario", "learner", "strategy", "train"):
        open_: list[tuple[tuple[str, ...], Any, Any]] = [((part,), resolved[part], said.get(part) or {})]
        while open_:
            names, whole, told = open_.pop()
            for key, value in whole.items():
                if key not in told:
                    found.append(".".join((*names, key)))
                elif isinstance(value, Mapping) and isinstance(told[key], Mapping):
                    open_.append(((*names, key), value, told[key]))
    return found


def write_text(path: Path, text: str) -> None:
    """Write a small file whole: into a temporary neighbour, synced, renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a Parquet file whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    table.to_parquet(part, index=False)
    with part.open("rb") as file:
        os.fsync(file.fileno())  # or a power cut may leave the name without its rows
    part.replace(path)


def describe_environment(config: RunConfig) -> dict[str, Any]:
    """Versions, seed, commit and hardware."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "missing"
    return {
        "ffd_continual": ffd_continual.__version__,
        "commit": _commit(),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "",
        "threads": config.train.threads,
        "seed": config.seed,
        "versions": versions,
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()


def _commit() -> str:
    """The source's git commit, with "+" when the tree has changes; "" for an installed wheel."""
    here = Path(ffd_continual.__file__).resolve().parent
    try:
        answer = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"],
            capture_output=True, text=True, timeout=10, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""
