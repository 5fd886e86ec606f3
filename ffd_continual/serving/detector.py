"""The detector that the page asks: the promoted version of a lineage, followed when another one is promoted."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from ffd_continual.detecting.evidence import Evidence, gather
from ffd_continual.detecting.opened import Opened, open_detector
from ffd_continual.lineage.lineage import is_lineage, open_lineage
from ffd_continual.scenarios.errors import FFDError

AGAIN = 15.0  # seconds until a version that could not be opened is tried once more
_WATCHED = ("detector.json", "exemplars.parquet", "version.json")  # what erasure or a rewritten run changes

Mark = tuple[int | None, tuple[int, ...]]


def _changed_at(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


@dataclass(frozen=True)
class Choice:
    """How the detector is opened and decides; None: the defaults of `ffd predict`."""

    fpr: float | None = None
    band: float | None = None
    device: str | None = None


@dataclass(frozen=True)
class Ready:
    """An opened detector with the stored faces to compare with, or why there are none."""

    detector: Opened
    evidence: Evidence | None
    without: str | None = None


@dataclass
class InUse:
    """Opens once, and again when the promoted version or its files change. Safe from several threads."""

    path: Path
    choice: Choice = field(default_factory=Choice)
    neighbours: bool = True

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._tried: tuple[Mark, float] | None = None  # what could not be opened, and when
        self.problem: str | None = None
        self._mark = self._look()
        self._opened = self._open(self._mark)

    @property
    def lineage(self) -> bool:
        """Whether it is a lineage (else a run folder)."""
        return is_lineage(self.path)

    def _look(self) -> Mark:
        """What tells whether the opened one is still the one in use. Raises FFDError."""
        if self.lineage:
            lineage = open_lineage(self.path)
            number = lineage.promoted()
            watched = [lineage.run(number) / name for name in _WATCHED]
            watched += [lineage.folder(n) / "faces.parquet" for n in lineage.chain(number)]  # kept faces of them all
        else:
            number, watched = None, [self.path / name for name in _WATCHED]
        return number, tuple(_changed_at(path) for path in watched)

    def _open(self, mark: Mark) -> Ready:
        detector = open_detector(self.path, mark[0], self.choice.fpr, self.choice.band, self.choice.device)
        if not self.neighbours:
            return Ready(detector, None, "neighbours are left out: the server was started with --no-neighbours")
        try:
            return Ready(detector, gather(detector))
        except FFDError as error:  # judging needs no stored faces
            return Ready(detector, None, str(error))

    def current(self) -> Ready:
        """The detector in use. A version that cannot be opened is told in `problem`; the one before goes on judging."""
        if not self._lock.acquire(blocking=False):
            return self._opened  # another thread is opening the new one
        try:
            mark = self._look()
            if mark == self._mark:
                self.problem = None
            elif self._tried is None or self._tried[0] != mark or time.monotonic() - self._tried[1] > AGAIN:
                self._tried = (mark, time.monotonic())
                self._opened, self._mark, self.problem = self._open(mark), mark, None
        except FFDError as error:
            self.problem = (
                f"{self._opened.detector.version} goes on judging, since what is promoted cannot be opened: {error}"
            )
        finally:
            self._lock.release()
        return self._opened
