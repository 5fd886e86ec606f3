"""Is growing cheaper than retraining, and as good? A lineage that learns one forgery after another, against detectors
trained from scratch on all of them at once, on the same faces. Resumable: each addition and each retraining is kept.

Growing: seconds of learning of each addition, the reading of its faces included. Retraining: one experience that holds
the first k forgeries, with k times the steps of an addition, so that each forgery is given as much; seconds of its
steps alone, without the reading of faces, so that the ratio errs against growing. Seconds of the processor are of this
process, which other work on the machine prolongs little. How good: bench_figures.py.
"""

from __future__ import annotations

import fcntl
import io
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from ffd_continual.config import RunConfig, to_mapping
from ffd_continual.lineage.add import Addition, begin
from ffd_continual.lineage.adopt import adopt
from ffd_continual.lineage.bench_data import Forgery, make_data
from ffd_continual.lineage.candidate import Rules
from ffd_continual.lineage.grow import grow
from ffd_continual.lineage.lineage import Lineage, is_lineage
from ffd_continual.lineage.page import write_page
from ffd_continual.lineage.store import writing
from ffd_continual.run import resume, start
from ffd_continual.runs.folder import RunFolder, write_text
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.manifest import Manifest
from ffd_continual.terminal import say

FIRST, GROWN = "first", "grown"


@dataclass(frozen=True)
class Benchmark:
    """What is asked for; the same folder takes it up again only for the same."""

    config: RunConfig
    forgeries: tuple[Forgery, ...]
    retrained: tuple[int, ...]  # how many forgeries each retraining has; the last one is all of them
    faces: int  # training faces of each class of an addition, 0: all
    out: Path

    @property
    def names(self) -> list[str]:
        """The forgeries in the order of learning."""
        return [one.name for one in self.forgeries]

    def folder(self, count: int) -> Path:
        """Run folder of the retraining on the first `count`."""
        return self.out / f"retrained-{count}"

    def settle(self) -> None:
        """Write benchmark.json. Raises FFDError where the folder holds another benchmark, or something else."""
        values = {"config": to_mapping(self.config), "forgeries": self.names, "faces": self.faces}
        path = self.out / "benchmark.json"
        if path.is_file():
            try:
                before = json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise FFDError(f"{path} is damaged ({error}): choose another --out.") from error
            if before != json.loads(json.dumps(values)):
                raise FFDError(f"{self.out} holds a benchmark with other settings ({path}). Choose another --out.")
        elif self.out.exists() and any(self.out.iterdir()):
            raise FFDError(f"{self.out} is there already and holds no benchmark. Choose another --out.")
        self.out.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(values, indent=1))


def run_all(asked: Benchmark, manifest: Manifest) -> tuple[Lineage, pd.DataFrame, pd.DataFrame]:
    """What is missing of the lineage, then of the retrainings: lineage, `additions`, `retrainings` (as read below)."""
    asked.settle()
    with _alone(asked.out):
        return _run_all(asked, manifest)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """The folder for this process. Raises FFDError where another one works in it."""
    with (out / "lock").open("a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise FFDError(
                f"another process works on the benchmark in {out}. Wait until it ends, or stop it."
            ) from error
        yield


def _run_all(asked: Benchmark, manifest: Manifest) -> tuple[Lineage, pd.DataFrame, pd.DataFrame]:
    data = make_data(manifest, asked.forgeries, asked.faces, asked.out / "data", asked.retrained)
    lineage = _begun(asked, data)
    for number, name in enumerate(asked.names[1:], 2):
        cell = _addition(asked, lineage, name, data[name])
        learnt, measured = _seconds(cell, "train"), _seconds(cell, "measure")
        say(f"{number} of {len(asked.names)}, {name}: learnt in {learnt}, measured in {measured}")
    for count in (asked.retrained[-1], *asked.retrained[:-1]):  # the one that quality needs comes first
        cell = _retraining(asked, count, data[f"first {count}"])
        say(f"all of the first {count} at once: learnt in {_seconds(cell, 'train')}")
    return lineage, additions(asked), retrainings(asked)


def additions(asked: Benchmark) -> pd.DataFrame:
    """A row an addition: forgery, number, resumed; seconds train, measure, whole and their _cpu. The whole has the
    looking at new faces, copying and the pages besides."""
    return pd.DataFrame([_read(asked.out, name) for name in asked.names[1:]])


def retrainings(asked: Benchmark) -> pd.DataFrame:
    """A row a retraining: forgeries (how many), resumed, seconds train (steps alone) and whole_cpu."""
    return pd.DataFrame([_read(asked.out, f"retrained-{count}") for count in asked.retrained])


def _seconds(cell: dict[str, Any], name: str) -> str:
    cpu = cell.get(f"{name}_cpu")
    return f"{cell[name]:.1f} s" + (f" ({cpu:.1f} s of the processor)" if cpu is not None else "")


def _cell(out: Path, name: str) -> Path:
    return out / "cells" / f"{name}.json"


def _read(out: Path, name: str) -> dict[str, Any]:
    path = _cell(out, name)
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FFDError(f"{path} is damaged ({error}); delete it and start again: only seconds are lost.") from error
    return found


def _keep(out: Path, name: str, values: dict[str, Any]) -> dict[str, Any]:
    path = _cell(out, name)
    path.parent.mkdir(exist_ok=True)
    write_text(path, json.dumps(values, indent=1))
    return values


def _run(config: RunConfig, folder: Path) -> bool:
    """A run brought to its end, unless it was; whether it had been begun before."""
    begun = RunFolder(folder).config.is_file()
    if not (folder / "summary.json").is_file() or not (folder / "report" / "report.html").is_file():
        with redirect_stdout(io.StringIO()):
            resume(folder) if begun else start(config, folder)
    return begun


def _plain(config: RunConfig, data: Path, order: Sequence[str], steps: int, name: str) -> RunConfig:
    """The configuration with these experiences; every one sees all real faces of its data."""
    scenario = replace(
        config.scenario, data=str(data), order=tuple(order), unseen=(), reals="shared", people="shared", profiles={},
        permuted=-1,
    )  # fmt: skip
    train = replace(config.train, steps=steps)
    evaluation = replace(config.evaluation, controls=False)
    return replace(config, scenario=scenario, train=train, evaluation=evaluation, name=name)


def _begun(asked: Benchmark, data: dict[str, Path]) -> Lineage:
    """The lineage whose version 1 knows the first forgery."""
    path, name = asked.out / GROWN, asked.names[0]
    if not is_lineage(path):
        _run(_plain(asked.config, data[name], [name], asked.config.train.steps, FIRST), asked.out / FIRST)
        adopt(asked.out / FIRST, path)
    return Lineage(path)


def _addition(asked: Benchmark, lineage: Lineage, name: str, data: Path) -> dict[str, Any]:
    """One more forgery, whatever it costs the others."""
    if _cell(asked.out, name).is_file():
        return _read(asked.out, name)
    resumed, began, spent = False, time.monotonic(), time.process_time()
    with writing(lineage.path) as held:
        number = held.promoted()
        if name in held.about(number)["experiences"]:  # a kill came between its end and its cell
            resumed = True
        else:
            resumed = held.candidate.is_dir()
            if not resumed:
                begin(held, Addition(data, name, rules=Rules(anyway=True), any_picture=True))
            with redirect_stdout(io.StringIO()):
                number = grow(held).number
                write_page(held)  # `ffd add` ends with it
        seconds = held.about(number)["seconds"]
    whole = (None, None) if resumed else (time.monotonic() - began, time.process_time() - spent)
    seconds = {**seconds, "whole": whole[0], "whole_cpu": whole[1]}
    return _keep(asked.out, name, {"forgery": name, "number": number, "resumed": resumed, **seconds})


def _retraining(asked: Benchmark, count: int, data: Path) -> dict[str, Any]:
    """All of the first `count` forgeries at once, from scratch."""
    name = asked.folder(count).name
    if _cell(asked.out, name).is_file():
        return _read(asked.out, name)
    began = time.process_time()
    config = _plain(asked.config, data, ["+".join(asked.names[:count])], asked.config.train.steps * count, name)
    resumed = _run(config, asked.folder(count))
    summary = json.loads((asked.folder(count) / "summary.json").read_text(encoding="utf-8"))
    whole = None if resumed else time.process_time() - began
    train = float(summary["seconds"]["train"])
    return _keep(asked.out, name, {"forgeries": count, "resumed": resumed, "train": train, "whole_cpu": whole})
