"""Processes that make faces: spawned, so that they inherit no state, and deaf to Ctrl-C, which is their parent's."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Any

from ffd_continual.scenarios.errors import FFDError


class _Deaf(SpawnProcess):
    """A terminal sends Ctrl-C to all processes, and one that is still importing would end in a traceback: it is started
    while the signal is ignored, which it inherits. A Ctrl-C within these milliseconds is lost."""

    @staticmethod
    def _Popen(process_obj: BaseProcess) -> Any:  # noqa: N802
        ours = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGINT, signal.SIG_IGN) if ours else None
        try:
            return SpawnProcess._Popen(process_obj)  # type: ignore[attr-defined, unused-ignore]
        finally:
            if ours:
                signal.signal(signal.SIGINT, before)


class _Alone(_Deaf):
    """One that does not run the parent's script again: what the script says outside of `if __name__ == "__main__"`
    would be done in every process."""

    @staticmethod
    def _Popen(process_obj: BaseProcess) -> Any:  # noqa: N802
        script = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            return _Deaf._Popen(process_obj)
        finally:
            sys.modules["__main__"] = script


class _Context(SpawnContext):
    def __init__(self, process: type[SpawnProcess]) -> None:
        self.Process = process  # type: ignore[misc, assignment, unused-ignore]
        super().__init__()


@contextmanager
def worker_pool(count: int, prepare: Callable[[], None], script: bool = False) -> Iterator[ProcessPoolExecutor]:
    """`count` processes, each of which ran `prepare`; they end with the block, however it is left.

    `script`: what is sent to them may be defined in the script that runs, which they run too, then. Raises FFDError
    where one of them dies.
    """
    context = _Context(_Deaf if script else _Alone)
    pool = ProcessPoolExecutor(count, context, _prepare, (prepare,))
    try:
        yield pool
    except BrokenProcessPool as error:
        hint = "; a script that starts them must do so under if __name__ == '__main__'" if script else ""
        raise FFDError(
            f"one of {count} processes that make faces died (out of memory?){hint}. Run it again, with fewer of them."
        ) from error
    finally:
        if sys.exc_info()[0]:
            for process in list((pool._processes or {}).values()):
                process.terminate()
        pool.shutdown(cancel_futures=True)


def _prepare(prepare: Callable[[], None]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    prepare()


def _end_with_parent() -> None:
    """A killed parent ends nothing, and who waits for its tasks would wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
