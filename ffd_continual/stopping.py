"""Ctrl-C while a learner trains: the step is finished and saved, then the run stops; a second one stops it at once."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Stopping:
    """Inside its block the first SIGINT only sets `asked`; the second raises KeyboardInterrupt as usual.

    Processes forked inside the block (data workers) inherit this, so that the step under way gets its batch. In other
    threads than the main one, which alone may set handlers, the block changes nothing.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: Any = None

    def __enter__(self) -> Stopping:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        if multiprocessing.parent_process() is None:  # not a data worker
            # Not print: the signal may have come in the middle of one.
            os.write(2, b"\nffd: stopping after this step (Ctrl-C again: at once)\n")
