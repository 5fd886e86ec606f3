"""Processes that prepare items: one task each at a time, so that a decoder that dies takes one item with it.

`multiprocessing.Pool` waits for ever for the task of a process that crashed. Here the parent knows who held what: the
task is reported as lost and a new process takes the place. Workers are spawned, deaf to Ctrl-C, which is their
parent's, and end when the parent does, however that is.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Generic, TypeVar

from ffd_continual.scenarios.errors import FFDError

# What ends the whole work; of anything else the process dies, and with it only its task.
_ERRORS = (OSError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError)

Task = TypeVar("Task")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Lost(Generic[Task]):
    """A task whose process died over it. `code`: exit code, negative for a signal."""

    task: Task
    code: int | None


@dataclass
class _Worker(Generic[Task]):
    process: BaseProcess
    pipe: Connection
    task: Task | None = None
    there: bool = False


def _serve(pipe: Connection, begin: Callable[[], Callable[[Task], Answer]]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    work: Callable[[Task], Answer] | None = None
    pipe.send(None)  # there: from here on it is a task that is to blame
    while True:
        try:
            task = pipe.recv()
        except (EOFError, OSError):  # the parent is gone
            return
        try:
            work = work or begin()
            answer: tuple[bool, object] = (True, work(task))
        except (FFDError, *_ERRORS) as error:
            answer = (False, error)
        try:
            pipe.send(answer)
        except OSError:  # the parent was killed while this worked
            return


class Crew(Generic[Task, Answer]):
    """`count` processes, each of which calls `begin` once for the function that turns a task into an answer."""

    def __init__(self, count: int, begin: Callable[[], Callable[[Task], Answer]]) -> None:
        self._begin = begin
        self._workers: list[_Worker[Task]] = [self._hire() for _ in range(count)]

    def _hire(self) -> _Worker[Task]:
        """A new process, started while Ctrl-C is ignored, which it inherits until it can say so itself."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, self._begin), daemon=True)
        main = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGINT, signal.SIG_IGN) if main else None
        try:
            process.start()
        finally:
            if main:
                signal.signal(signal.SIGINT, before)
        theirs.close()
        return _Worker(process, ours)

    def run(self, tasks: Iterable[Task]) -> Iterator[Answer | Lost[Task]]:
        """Answers in the order of completion; no more tasks are drawn than there are free processes.

        An error of the work itself is raised here.
        """
        queue = iter(tasks)
        idle = list(self._workers)
        busy: list[_Worker[Task]] = []
        while True:
            while idle and (task := next(queue, None)) is not None:
                worker = idle.pop()
                worker.task = task
                with contextlib.suppress(OSError):  # died before it got the task: seen below
                    worker.pipe.send(task)
                busy.append(worker)
            if not busy:
                return
            ready = wait([one.pipe for one in busy])
            for worker in [one for one in busy if one.pipe in ready]:
                try:
                    said = worker.pipe.recv()
                except (EOFError, OSError):
                    said = ()
                if said is None:
                    worker.there = True
                    continue
                busy.remove(worker)
                held, worker.task = worker.task, None
                if not said:
                    worker.process.join()
                    if not worker.there:
                        raise RuntimeError(f"a process did not start (exit code {worker.process.exitcode})")
                    self._workers.remove(worker)
                    self._workers.append(self._hire())
                    idle.append(self._workers[-1])
                    if held is not None:
                        yield Lost(held, worker.process.exitcode)
                    continue
                idle.append(worker)
                good, answer = said
                if not good:
                    raise answer
                yield answer

    def close(self) -> None:
        """End all processes at once."""
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join()
            worker.pipe.close()
