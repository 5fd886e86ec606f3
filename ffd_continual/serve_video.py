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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from ffd_continual.opened import Opened
from ffd_continual.predict import Asked, faces_of
from ffd_continual.scenarios.pictures import Picture
from ffd_continual.serve_detector import Ready
from ffd_continual.serve_judge import Record, about, judge_faces, picture_uri
from ffd_continual.serve_upload import Upload, UploadError

LONGEST_LINE = 100_000  # bytes of a line of JSON
STRIP = 160  # pixels of a frame in the strip
LOOK = 0.2  # seconds between two looks at the clock and the client
WORKER = "ffd_continual.serve_frames"


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
    """The answer for a video: a record for all of it, one for every face of its judged frames, and the strip of frames.

    The video's score is that of the mean z over the largest face of each frame. Raises UploadError (422), Stopped.
    """
    detector = ready.detector
    faces: list[Asked] = []
    strip: list[Record] = []
    size = (0, 0)
    with reel(upload, frames, seconds, stop) as film:
        for frame in film.frames():
            size = frame.picture.shape[:2]
            found = faces_of(detector, frame.picture, cropped, frame.position)
            shown: Record = {"frame": frame.position, "seconds": frame.seconds, "faces": len(found)}
            strip.append(shown | ({"picture": picture_uri(frame.picture, STRIP)} if images else {}))
            faces += found
    if not strip:
        raise UploadError(422, f"no frame could be read within {seconds:.0f} seconds." if film.late else
                          "this video cannot be used: none of its frames can be decoded.")  # fmt: skip
    records = judge_faces(ready, faces, images)
    shared = about(detector)
    whole: Record = {"kind": "no face", "frames": len(strip), "note": "no face was found in any frame"}
    if records:
        whole = summed(detector, [record for record in records if record["face"] == 0], len(strip))
    notes = [whole["note"], *film.remarks]
    if film.late:
        notes.append(f"time was up after {seconds:.0f} seconds: {len(strip)} of {frames} frames were judged")
    whole["note"] = "; ".join(str(note) for note in notes if note) or None
    return {
        "kind": "video", "width": size[1], "height": size[0], "video_frames": film.count,
        "records": [{**shared, **whole}, *records], "strip": strip,
    }  # fmt: skip


def summed(detector: Opened, faces: Sequence[Record], frames: int) -> Record:
    """One face a frame as a video: mean z, decided as a face's; mean weights over known forgeries, mean novelty."""
    z = float(np.mean([face["z"] for face in faces]))
    named = [face["weights"] for face in faces if face["weights"]]
    weights = {name: round(float(np.mean([one[name] for one in named])), 6) for name in (named[0] if named else {})}
    novelty = [face["novelty"] for face in faces if face["novelty"] is not None]
    return {
        "kind": "video",
        "frames": frames,
        "score": round(float(detector.facts.calibration.apply(z)), 6),
        "z": round(z, 6),
        "decision": detector.rule.decide(z),
        "attribution": max(weights, key=lambda name: weights[name]) if weights else None,
        "weights": weights,
        "novelty": round(float(np.mean(novelty)), 6) if novelty else None,
        "note": f"{len(faces)} of {frames} frames have a face" if len(faces) < frames else None,
    }
