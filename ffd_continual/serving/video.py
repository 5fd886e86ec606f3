"""Judging an uploaded video: frames from a process that can be stopped, faces judged as they come.

Axes: H, W of a frame.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ffd_continual.detecting.inputs import Input
from ffd_continual.detecting.predict import Job, faces_of, sum_up
from ffd_continual.scenarios.pictures import Picture
from ffd_continual.serving.detector import Ready
from ffd_continual.serving.judge import NAME, Record, about, judge_faces, picture_uri
from ffd_continual.serving.upload import Upload, UploadError

LONGEST_LINE = 100_000  # bytes of a line of JSON
STRIP = 160  # pixels of a frame in the strip
LOOK = 0.2  # seconds between two looks at the clock and the client
WORKER = "ffd_continual.serving.frames"


class Stopped(Exception):
    """The client went away, or the server ends."""


@dataclass(frozen=True)
class Frame:
    """One frame of a video."""

    position: int
    seconds: float | None  # from the first frame; None where the video has no clock
    picture: Picture  # (H, W, 3)


@dataclass
class Reel:
    """Frames as they come; afterwards, what there is to say of the video."""

    process: subprocess.Popen[bytes]
    deadline: float  # of time.monotonic()
    stop: threading.Event
    count: int | None = None  # frames of the whole video, known at its end
    late: bool = False  # time was up before the last frame
    remarks: tuple[str, ...] = ()

    def frames(self) -> Iterator[Frame]:
        """One at a time, until the last or until time is up. Raises UploadError (422) for what is no video."""
        while True:
            try:
                told = json.loads(self._line())
                if "error" in told:
                    raise UploadError(422, f"this video cannot be used: {told['error']}.")
                if "end" in told:
                    self.remarks, self.count = tuple(told["end"]), int(told["frames"])
                    return
                shape = int(told["height"]), int(told["width"]), 3
                data = self._take(shape[0] * shape[1] * 3)
            except TimeoutError:
                self.late = True
                return
            except EOFError as error:
                raise UploadError(422, "this video cannot be used: it breaks the decoder.") from error
            yield Frame(int(told["position"]), told["seconds"], np.frombuffer(data, np.uint8).reshape(shape))

    def _line(self) -> bytes:
        made = bytearray()
        while not made.endswith(b"\n"):
            made += self._take(1)
            if len(made) > LONGEST_LINE:
                raise EOFError
        return bytes(made)

    def _take(self, size: int) -> bytearray:
        """Exactly so many bytes. Raises TimeoutError at the deadline, EOFError at the end, Stopped when told to."""
        assert self.process.stdout is not None
        handle = self.process.stdout.fileno()
        made = bytearray()
        while len(made) < size:
            if self.stop.is_set():
                raise Stopped
            left = self.deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            if select.select([handle], [], [], min(LOOK, left))[0]:
                got = os.read(handle, min(size - len(made), 1 << 20))
                if not got:
                    raise EOFError
                made += got
        return made


@contextmanager
def reel(upload: Upload, number: int, seconds: float, stop: threading.Event) -> Iterator[Reel]:
    """`number` frames spread over an uploaded video, for at most `seconds`; the process is gone on leaving."""
    with upload.place() as path:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", WORKER, str(path), str(number)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            pass_fds=[upload.file.fileno()],
            start_new_session=True,  # Ctrl-C is the server's to handle
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        try:
            yield Reel(process, time.monotonic() + seconds, stop)
        finally:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


def judge_video(
    ready: Ready, upload: Upload, frames: int, seconds: float, cropped: bool, images: bool, stop: threading.Event
) -> Record:
    """The answer for a video: a record for every face of its judged frames, at last one for the whole, as `ffd predict`
    writes them; and the strip of frames. Raises UploadError (422), Stopped."""
    detector, job = ready.detector, Job(Input(Path(NAME), video=True))
    strip: list[Record] = []
    size = (0, 0)
    with reel(upload, frames, seconds, stop) as film:
        for frame in film.frames():
            size = frame.picture.shape[:2]
            found = faces_of(detector, frame.picture, cropped, frame.position)
            shown: Record = {"frame": frame.position, "seconds": frame.seconds, "faces": len(found)}
            strip.append(shown | ({"picture": picture_uri(frame.picture, STRIP)} if images else {}))
            job.frames += 1
            job.faces += found
    if not strip and film.late:
        raise UploadError(422, f"no frame of this video could be read within {seconds:.0f} seconds.")
    if not strip:
        raise UploadError(422, "this video cannot be used: none of its frames can be decoded.")
    notes = list(film.remarks)
    if film.late:
        notes.append(f"time was up after {seconds:.0f} seconds: {len(strip)} of {frames} frames were judged")
    job.note = "; ".join(notes) or None
    records, verdicts = judge_faces(ready, job.faces, images)
    return {
        "kind": "video", "width": size[1], "height": size[0], "video_frames": film.count,
        "records": [*records, about(detector) | sum_up(detector, job, verdicts)], "strip": strip,
    }  # fmt: skip
