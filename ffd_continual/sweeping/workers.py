"""Cells in processes of this machine, one cell a process at a time.

Processes are spawned, so that a cell finds the same state whichever cells went before in the sweep's own process, and
their libraries' thread pools are sized before they are loaded. Each leads its own process group: a terminal's Ctrl-C
reaches the sweep alone, which passes it on once to each. They end with the sweep, also where that is killed.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from ffd_continual.sweeping.grid import Cell
from ffd_continual.sweeping.sweep import Outcome, run_cell
from ffd_continual.terminal import warnings_as_remarks

#: what the libraries under numpy, scipy, faiss and torch read when they are loaded
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass
class _Worker:
    process: SpawnProcess
    pipe: Connection
    cell: Cell | None = None


class Workers:
    """At most `jobs` processes; `threads`: of each one's libraries."""

    def __init__(self, jobs: int, threads: int):
        self.slots, self.threads = jobs, threads
        self._workers: list[_Worker] = []

    def submit(self, cell: Cell) -> None:
        """Give it to an idle process, or to a new one."""
        for worker in [w for w in self._workers if w.cell is None]:
            worker.cell = cell
            try:
                worker.pipe.send(cell)
            except OSError:  # it died while it had nothing to do
                self._remove(worker)
                continue
            return
        worker = self._start()
        worker.cell = cell
        self._workers.append(worker)
        worker.pipe.send(cell)

    def wait(self, seconds: float) -> list[tuple[Cell, Outcome]]:
        """What the processes report, and the cells of those that died."""
        busy = {worker.pipe: worker for worker in self._workers if worker.cell is not None}
        if not busy:
            return []
        sentinels = [worker.process.sentinel for worker in busy.values()]
        wait([*busy, *sentinels], seconds)
        ended = []
        for pipe, worker in busy.items():
            cell = worker.cell
            assert cell is not None
            try:
                if not pipe.poll():
                    if worker.process.is_alive() or pipe.poll():  # its last words may have come in between
                        continue
                    raise EOFError
                outcome = pipe.recv()
            except (EOFError, OSError):
                outcome = Outcome("died", self._death(worker))
                self._remove(worker)
            worker.cell = None
            ended.append((cell, outcome))
        return ended

    def stop(self) -> None:
        """Ctrl-C to every process."""
        for worker in self._workers:
            if worker.process.is_alive() and worker.process.pid is not None:
                os.kill(worker.process.pid, signal.SIGINT)

    def close(self) -> None:
        """An idle process ends when its pipe does; one that does not end within seconds is killed."""
        for worker in self._workers:
            worker.pipe.close()
        until = time.monotonic() + 10
        for worker in self._workers:
            worker.process.join(max(0.0, until - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self._workers.clear()

    def _start(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs,))
        with _thread_variables(self.threads), _blocked():
            process.start()
        theirs.close()  # so that the end of the process is the end of the pipe
        return _Worker(process, ours)

    def _remove(self, worker: _Worker) -> None:
        worker.pipe.close()
        worker.process.join()
        self._workers.remove(worker)

    def _death(self, worker: _Worker) -> str:
        worker.process.join(5)
        code = worker.process.exitcode
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            return f"its process was ended by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
        return f"its process ended with code {code}"


@contextmanager
def _thread_variables(threads: int) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _blocked() -> Iterator[None]:
    """A process inherits that Ctrl-C is kept for later: one that is still importing would end in a traceback."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(pipe: Connection) -> None:
    """A process: cells come through the pipe, outcomes go back; the end of the pipe is its end."""
    os.setpgrp()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        with warnings_as_remarks():
            while (cell := _next(pipe)) is not None:
                _tell(pipe, run_cell(cell, log=True))
    except KeyboardInterrupt:
        _tell(pipe, Outcome("stopped"))


def _next(pipe: Connection) -> Cell | None:
    try:
        cell = pipe.recv()
    except (EOFError, OSError):
        return None
    assert isinstance(cell, Cell)
    return cell


def _tell(pipe: Connection, outcome: Outcome) -> None:
    with suppress(OSError):  # the sweep is gone
        pipe.send(outcome)


def _end_with_parent() -> None:
    """Where the sweep is killed, its cells stop as for Ctrl-C: saved, and free for the next sweep."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGINT)
