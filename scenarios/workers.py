"""Processes that make faces: spawned, so that they inherit no state, and deaf to Ctrl-C, which is their parent's."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.pool import Pool


@contextmanager
def worker_pool(count: int, prepare: Callable[[], None]) -> Iterator[Pool]:
    """A pool of `count` processes, each of which ran `prepare`; they end with the block, however it is left.

    A terminal sends Ctrl-C to all of them, and one that is still importing would end in a traceback. So they are
    started while it is ignored, which they inherit; a Ctrl-C within these milliseconds is lost.
    """
    ours = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if ours else None
    try:
        pool = multiprocessing.get_context("spawn").Pool(count, _prepare, (prepare,))
    finally:
        if ours:
            signal.signal(signal.SIGINT, before)
    with pool:
        yield pool


def _prepare(prepare: Callable[[], None]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    prepare()
