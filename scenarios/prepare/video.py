"""Frames of a video file by PyAV: counted by its packets, decoded in order, converted only where wanted.

The container's own frame count is not believed: packets are counted, and their time stamps sorted, which also gives
every frame's time where the frame rate varies. A first pass reads packets and decodes nothing; a second decodes up to
the last wanted frame and holds one frame at a time. Files are opened as files only, in a closed list of formats: a
playlist that is called .mp4 may not make the decoder open other files or addresses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np

from ffd_continual.scenarios.pictures import MAX_PIXELS, Picture
from ffd_continual.scenarios.prepare.source import ItemError, Positions, Remarks, Seconds

FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,ivf,flv,asf,ogg,mxf,gif,rm,dv,nut"
)
OPTIONS = {"protocol_whitelist": "file", "format_whitelist": FORMATS}
MAX_PACKETS = 20_000_000  # four days at 60 frames a second
_BROKEN = (av.error.FFmpegError, EOFError, MemoryError, UnicodeError)


def _cause(error: BaseException) -> str:
    if isinstance(error, EOFError):
        return "it ends before its first frame"
    return str(getattr(error, "strerror", "") or error) or type(error).__name__


@contextmanager
def _opened(path: Path) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """The container and its first video stream that is no cover picture. Raises ItemError."""
    try:
        if path.stat().st_size == 0:
            raise ItemError("the file is empty (0 bytes)")
        container = av.open(f"file:{path.absolute()}", options=OPTIONS, metadata_errors="replace")
    except OSError as error:
        raise ItemError(f"cannot be opened: {_cause(error)}") from error
    except _BROKEN as error:
        raise ItemError(f"is no readable video: {_cause(error)}") from error
    with container:
        streams = [one for one in container.streams.video if not one.disposition & av.stream.Disposition.attached_pic]
        if not streams:
            kinds = sorted({str(one.type) for one in container.streams})
            raise ItemError(f"holds no video, only {', '.join(kinds) or 'nothing'}")
        stream = streams[0]
        context = stream.codec_context
        if context is None:
            raise ItemError("its codec is not known here")
        if context.width * context.height > MAX_PIXELS:
            raise ItemError(
                f"refused: {context.width} x {context.height} pixels are more than {MAX_PIXELS // 10**6} megapixels"
            )
        context.options = {"max_pixels": str(MAX_PIXELS)}
        context.thread_count = 1  # the work is spread over processes, one video each
        yield container, stream


def _stated(container: av.container.InputContainer, stream: av.VideoStream) -> int:
    """How many frames the file says it has, only to notice that its end is missing; 0 where it says nothing."""
    if stream.frames:
        return int(stream.frames)
    if len(container.streams) > 1 or not container.duration or not stream.average_rate:
        return 0
    # From a length in seconds: rounded, so the last tenth or two frames may be missing unnoticed.
    return max(int(container.duration / av.time_base * float(stream.average_rate) * 0.9) - 2, 0)


class VideoFile:
    """A `Source` of a video. Reads all packets once on construction; raises ItemError where there is no frame."""

    def __init__(self, path: Path, name: str, remarks: Remarks) -> None:
        self.path, self.name, self.remarks = path, name, remarks
        stamps: list[int] = []
        count = hidden = 0
        with _opened(path) as (container, stream):
            try:
                for packet in container.demux(stream):
                    if packet.size == 0 or packet.is_discard:
                        hidden += packet.size > 0
                        continue
                    count += 1
                    if packet.pts is not None:
                        stamps.append(packet.pts)
                    if count > MAX_PACKETS:
                        raise ItemError(f"refused: more than {MAX_PACKETS} frames")
            except _BROKEN as error:
                remarks.add(name, f"broken after {count} frames: {_cause(error)}")
            base = stream.time_base
            stated = _stated(container, stream)
        if count == 0:
            raise ItemError("holds no frame")
        if stated > count + hidden:
            remarks.add(name, f"cut short: {count} of {stated} frames are there")
        self.count = count
        self.numbers: Positions = np.arange(count, dtype=np.int64)
        # Time stamps name frames best, but raw streams have none and some files repeat them: then frames are counted.
        ordered = np.unique(np.asarray(stamps, np.int64))
        known = len(ordered) == count and base is not None
        self._stamps = ordered if known else None
        self.times: Seconds | None = (ordered - ordered[0]) * float(base) if known and base is not None else None

    def frames(self, wanted: Sequence[int]) -> Iterator[tuple[int, Picture]]:
        """As `Source.frames`; what cannot be decoded is left out and noted once. Raises ItemError where that is all."""
        given: set[int] = set()
        for position, picture in self._decoded(wanted, self._stamps):
            given.add(position)
            yield position, picture
        if not given and wanted and self._stamps is not None:
            # Stamps of packets and frames disagree: count instead.
            for position, picture in self._decoded(wanted, None):
                given.add(position)
                yield position, picture
        if wanted and not given:
            raise ItemError("none of its frames can be decoded")
        if len(given) < len(wanted):
            self.remarks.add(self.name, f"{len(wanted) - len(given)} of {len(wanted)} frames cannot be decoded")

    def _decoded(self, wanted: Sequence[int], stamps: Positions | None) -> Iterator[tuple[int, Picture]]:
        left = {int(stamps[at]) if stamps is not None else at: at for at in wanted}
        last = max(left, default=-1)
        seen = 0
        with _opened(self.path) as (container, stream):
            for frame, sound in _all_frames(container, stream):
                key = frame.pts if stamps is not None else seen
                seen += 1
                position = left.pop(key, None) if key is not None else None
                if position is not None and sound:
                    yield position, _picture(frame)
                if not left or (key is not None and key > last):
                    return


def _all_frames(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[tuple[av.VideoFrame, bool]]:
    """(frame, sound) past packets that do not decode.

    A decoder hides damage by grey smears, which every frame up to the next key frame inherits: none of them is sound.
    """
    sound = True
    try:
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except (av.error.InvalidDataError, av.error.UndefinedError):
                sound = False
                continue
            for frame in frames:
                sound = not frame.is_corrupt and (sound or frame.key_frame)
                yield frame, sound
    except _BROKEN:
        return


def _picture(frame: av.VideoFrame) -> Picture:
    """uint8 RGB, turned as the file's rotation flag asks (quarter turns only)."""
    if frame.width * frame.height > MAX_PIXELS:
        raise ItemError(f"refused: a frame of {frame.width} x {frame.height} pixels")
    image = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image
