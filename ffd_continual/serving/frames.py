"""A video's frames, read in a process of their own: what an upload does to the decoder, it does not to the server.

    python -m ffd_continual.serving.frames PATH NUMBER

writes to stdout, for each of NUMBER frames spread over the video, one line of JSON {position, seconds, height, width}
and the frame's bytes (H, W, 3) RGB; at last {"end": [remarks], "frames": how many the video has}, or {"error": cause}.
The process may use `MEMORY` bytes, write no file, and is killed by the one that started it when time is up.
"""

from __future__ import annotations

import contextlib
import json
import resource
import sys
from pathlib import Path
from typing import BinaryIO

from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.prepare.source import Remarks, spread
from ffd_continual.scenarios.prepare.video import VideoFile

MEMORY = 3 * 2**30
MAX_FRAME, MAX_SIDE = 36_000_000, 10_000  # pixels: 8K has 33 million, 7680 across


def confine(memory: int = MEMORY) -> None:
    """From here on this process can take little memory, write no file and leave no core dump."""
    for kind, most in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0)):
        with contextlib.suppress(ValueError, OSError):  # some systems know no such limit
            resource.setrlimit(kind, (most, most))


def send(out: BinaryIO, path: Path, number: int) -> None:
    """Write the frames of the video there. Raises FFDError where it cannot be used."""
    remarks = Remarks()
    video = VideoFile(path, "the video", remarks)
    for position, picture in video.frames(spread(video.count, number)):
        height, width = picture.shape[:2]
        if height * width > MAX_FRAME or max(height, width) > MAX_SIDE:
            raise FFDError(f"its frames of {width} x {height} pixels are too large")
        seconds = None if video.times is None else round(float(video.times[position]), 3)
        line = {"position": position, "seconds": seconds, "height": height, "width": width}
        out.write(json.dumps(line).encode() + b"\n")
        out.write(picture.tobytes())
        out.flush()
    out.write(json.dumps({"end": [cause for _, cause in remarks.listed], "frames": video.count}).encode() + b"\n")
    out.flush()


def main(path: str, number: str) -> int:
    """The process; 0 when the answer was written, also when it is an error."""
    confine()
    out = sys.stdout.buffer
    try:
        send(out, Path(path), int(number))
    except (FFDError, MemoryError) as error:
        cause = "it needs too much memory" if isinstance(error, MemoryError) else str(error)
        out.write(json.dumps({"error": cause}).encode() + b"\n")
        out.flush()
    except BrokenPipeError:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
