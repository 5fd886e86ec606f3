"""H.264 files as FaceForensics++ names them: raw, c23, c40, c + the encoder's constant rate factor."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.faces import Picture
from ffd_continual.scenarios.pictures import write_bytes

MASK_FACTOR = 12  # edges of a mask stay sharp
# x264's macroblock tree over B-frames gave other bytes from time to time for the same pictures, in one process.
STEADY = "mbtree=0"


def factor_of(compression: str) -> int:
    """The constant rate factor, 0 (lossless) for "raw". Raises FFDError."""
    found = re.fullmatch(r"c(\d{1,2})", compression)
    if compression == "raw":
        return 0
    if found is None or int(found.group(1)) > 51:
        raise FFDError(f"--compressions {compression!r} is not known: choose raw, c23, c40, or c and 0 to 51")
    return int(found.group(1))


def write_clips(frames: Iterable[Sequence[Picture]], targets: Sequence[tuple[Path, int, str]], rate: int) -> None:
    """Write several videos at once, frame by frame; each file is written whole or not at all.

    `frames` yields one picture (H, W, 3) or mask (H, W) a target; `targets` are (path, constant rate factor, comment).
    The bytes depend on the pictures alone. Raises FFDError when the disk refuses.
    """
    buffers = [io.BytesIO() for _ in targets]
    outputs = [av.open(buffer, "w", format="mp4") for buffer in buffers]
    streams: list[av.VideoStream] = []
    for number, pictures in enumerate(frames):
        last: Picture | None = None
        for at, picture in enumerate(pictures):
            if number == 0:
                outputs[at].metadata["comment"] = targets[at][2]
                streams.append(_stream(outputs[at], targets[at][1], rate, picture.shape))
            if picture is not last:  # the same frame in several compressions is converted once
                shown, last = _shown(picture, number, rate), picture
            outputs[at].mux(streams[at].encode(shown))
    for output, stream in zip(outputs, streams, strict=True):
        output.mux(stream.encode())
        output.close()
    for (path, _, _), buffer in zip(targets, buffers, strict=True):
        write_bytes(path, buffer.getvalue())


def _shown(picture: Picture, number: int, rate: int) -> av.VideoFrame:
    image = picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, 2)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24").reformat(format="yuv420p")
    frame.pts, frame.time_base = number, Fraction(1, rate)
    return frame


def _stream(output: av.container.OutputContainer, factor: int, rate: int, shape: tuple[int, ...]) -> av.VideoStream:
    stream = output.add_stream("libx264", rate=rate, options={"crf": str(factor), "x264-params": STEADY})
    stream.height, stream.width = shape[:2]
    stream.pix_fmt = "yuv420p"
    stream.thread_count = 1  # more threads cut the picture elsewhere, and the bytes differ
    return stream
