"""Sweeps: the cells of a grid, each run once, by an engine that says where.

Every cell is run under its claim (`claims`), whatever the engine, so that sweeps started side by side on one
folder share the cells between them. A cell that another sweep runs is waited for: it is taken over if that one dies.
A cell that fails does not end the sweep; one whose process dies (killed, out of memory) is begun again from its last
safe point, `DEATHS` times.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Protocol

from ffd_continual.run import resume, start
from ffd_continual.runs.assemble import open_data
from ffd_continual.runs.folder import RunFolder, write_text
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.stopping import Stopping
from ffd_continual.sweeping.claims import Owner, forget, held, take
from ffd_continual.sweeping.grid import Cell
from ffd_continual.sweeping.rows import row_of
from ffd_continual.terminal import WIDTH, say

DEATHS = 2  # how often a cell is begun again after its process died
PAUSE = 1.0  # seconds between two looks at cells that others run
PATIENCE = 120.0  # seconds that cells get to save themselves after Ctrl-C


@dataclass(frozen=True)
class Outcome:
    """What became of a cell: done, busy (text: who runs it), failed or died (text: why), stopped."""

    kind: str
    text: str = ""
    seconds: float = 0.0


class Engine(Protocol):
    """Where cells run."""

    slots: int  # cells at a time

    def submit(self, cell: Cell) -> None:
        """Begin a cell."""

    def wait(self, seconds: float) -> list[tuple[Cell, Outcome]]:
        """What ended since, after at most so many seconds."""

    def stop(self) -> None:
        """Have every running cell save itself and end; a second call: at once."""

    def close(self) -> None:
        """End all processes."""


def claims_of(out: Path) -> Path:
    """The claims' folder of a sweep's folder."""
    return out / ".claims"


class _Barrier:
    """Keeps an error of one cell from the others: its traceback goes into a file, its message to the sweep's end.

    Whatever the error is: a fault in one learner must not cost a night's work on the others.
    """

    def __init__(self, file: Path):
        self.file, self.message = file, ""

    def __enter__(self) -> _Barrier:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> bool:
        if not isinstance(error, Exception):  # Ctrl-C and the like go on
            return False
        self.message = str(error) if isinstance(error, FFDError) else f"{type(error).__name__}: {error}"
        with suppress(OSError):  # a full disk may be what it is about
            write_text(self.file, "".join(traceback.format_exception(error)))
        return True


@contextmanager
def _said_into(file: Path) -> Iterator[None]:
    """Inside, all that this process and its children say goes to the end of a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    before = [(number, os.dup(number)) for number in (1, 2)]
    log = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        for number, _ in before:
            os.dup2(log, number)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, kept in before:
            os.dup2(kept, number)
            os.close(kept)
        os.close(log)


def run_cell(cell: Cell, log: bool) -> Outcome:
    """Run or resume a cell if it is free and not done. `log`: what it says goes into its log.txt."""
    claims = claims_of(cell.folder.parent)
    try:
        claim = take(claims, cell.name)
    except OSError as error:
        return Outcome("failed", f"cannot claim it in {claims}: {error}")
    if isinstance(claim, Owner):
        return Outcome("busy", str(claim))
    began, barrier = time.monotonic(), _Barrier(cell.folder / "error.txt")
    with claim, barrier:
        if not cell.done:  # another sweep may have run it since this one looked
            with _said_into(cell.folder / "log.txt") if log else nullcontext():
                if not log:
                    print(f"\n== {cell.method}, seed {cell.seed}\n{cell.folder}")
                _prepare(cell, claims)
                resume(cell.folder) if RunFolder(cell.folder).config.exists() else start(cell.config(), cell.folder)
        barrier.file.unlink(missing_ok=True)
        forget(claims, cell.name)
    if barrier.message:
        return Outcome("failed", barrier.message)
    return Outcome("done", seconds=time.monotonic() - began)


def _prepare(cell: Cell, claims: Path) -> None:
    """Rendered faces lie in a folder that all cells share: one renders them, the others wait."""
    config = cell.config()
    if config.scenario.data == "studio":
        with held(claims, "studio"):
            open_data(config, RunFolder(cell.folder).cache)


class Here:
    """In this very process, one after the other, saying all that a run says."""

    slots = 1

    def __init__(self) -> None:
        self._ended: list[tuple[Cell, Outcome]] = []

    def submit(self, cell: Cell) -> None:
        self._ended.append((cell, run_cell(cell, log=False)))

    def wait(self, seconds: float) -> list[tuple[Cell, Outcome]]:
        ended, self._ended = self._ended, []
        return ended

    def stop(self) -> None:
        """Ctrl-C has reached the run itself."""

    def close(self) -> None:
        """There is nothing to end."""


@dataclass
class _Sweep:
    """The state of a sweep under way."""

    engine: Engine
    total: int
    pending: deque[Cell]
    wrote: Callable[[], object]
    running: int = 0
    ended: int = 0
    seconds: list[float] = field(default_factory=list)
    deaths: Counter[str] = field(default_factory=Counter)
    failed: dict[str, str] = field(default_factory=dict)
    others: dict[str, str] = field(default_factory=dict)  # cells that others run, and who
    again: float = 0.0  # when to look at them again

    def settle(self, cell: Cell, outcome: Outcome) -> None:
        """Note what became of a cell."""
        self.running -= 1
        if outcome.kind == "busy":
            if cell.name not in self.others:
                say(f"{cell.name} is run by {outcome.text}: waiting for it")
            self.others[cell.name] = outcome.text
            self.pending.append(cell)
            self.again = time.monotonic() + PAUSE
            return
        self.others.pop(cell.name, None)
        if outcome.kind == "died" and self.deaths[cell.name] < DEATHS:
            self.deaths[cell.name] += 1
            say(f"{cell.name}: {outcome.text}; it goes on from its last safe point")
            self.pending.appendleft(cell)
        elif outcome.kind in ("died", "failed"):
            self.ended += 1
            self.failed[cell.name] = outcome.text
            say(f"{self.ended}/{self.total} {cell.name} failed: {_first(outcome.text)}")
        elif outcome.kind == "done":
            self.ended += 1
            self.seconds += [outcome.seconds] if outcome.seconds > 1 else []  # others' cells take no time
            self.wrote()
            print(self._line(cell, outcome), flush=True)

    def next(self) -> Cell | None:
        """A cell to begin now, those that nobody runs first."""
        for _ in range(len(self.pending)):
            cell = self.pending.popleft()
            if cell.name not in self.others or time.monotonic() >= self.again:
                return cell
            self.pending.append(cell)
        return None

    def _line(self, cell: Cell, outcome: Outcome) -> str:
        row = row_of(cell.method, cell.seed, cell.folder)
        figures = [
            f"{word} {'-' if row[key] is None else format(row[key], '.3f')}"
            for word, key in (("AUC", "auc_aa"), ("forget", "auc_forgetting_signed"), ("unseen", "auc_unseen"))
        ]
        left = sum(self.seconds) / max(1, len(self.seconds)) * (self.total - self.ended) / self.engine.slots
        rest = f"  {'  '.join(figures)}  {_short(outcome.seconds)}, {_short(left)} left"
        count = f"{self.ended}/{self.total} "
        room = WIDTH - len(count) - len(rest)
        name = cell.name if len(cell.name) <= room else cell.name[: room - 1] + "…"
        return f"{count}{name:{room}s}{rest}"


def sweep(cells: Sequence[Cell], engine: Engine, wrote: Callable[[], object]) -> dict[str, str]:
    """Run all cells that are not done; the names of those that failed, and why. `wrote` is called after each.

    Ctrl-C is KeyboardInterrupt, after every cell under way has saved itself.
    """
    todo = [cell for cell in cells if not cell.done]
    state = _Sweep(engine, len(todo), deque(todo), wrote)
    try:
        if isinstance(engine, Here):  # a run in this process handles Ctrl-C itself
            _drive(state, None)
        else:
            with Stopping() as stopping:
                _drive(state, stopping)
    finally:
        engine.close()
    return state.failed


def _drive(state: _Sweep, stopping: Stopping | None) -> None:
    while state.pending or state.running:
        while state.running < state.engine.slots and (cell := state.next()) is not None:
            state.running += 1
            state.engine.submit(cell)
            if stopping is not None and stopping.asked:
                break
        ended = state.engine.wait(0.3)
        for cell, outcome in ended:
            state.settle(cell, outcome)
        if stopping is not None and stopping.asked:
            _stop(state)
        if not ended and not state.running:
            time.sleep(PAUSE / 4)


def _stop(state: _Sweep) -> None:
    """Let the running cells save themselves; those that ended meanwhile count."""
    until = time.monotonic() + PATIENCE
    state.engine.stop()
    try:
        while state.running and time.monotonic() < until:
            for cell, outcome in state.engine.wait(0.3):
                state.settle(cell, outcome)
    except KeyboardInterrupt:  # pressed again
        state.engine.stop()
        state.engine.wait(5.0)
    raise KeyboardInterrupt


def _first(text: str) -> str:
    return text.split("\n")[0]


def _short(seconds: float) -> str:
    """At most 6 letters: 42s, 12m05s, 3h20m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole // 60 % 60:02d}m"
