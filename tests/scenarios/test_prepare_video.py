"""Frames out of real video files: which ones, when, and what becomes of files that are odd or broken."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.prepare import video as module
from ffd_continual.scenarios.prepare.source import ItemError, Remarks, spread
from ffd_continual.scenarios.prepare.video import VideoFile

Writer = Callable[..., Path]


def greys(count: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """Frame i is grey i * 10."""
    return [np.full((height, width, 3), 10 * at, np.uint8) for at in range(count)]


def shades(source: VideoFile, wanted: list[int]) -> dict[int, int]:
    """{position: which frame the picture shows}."""
    return {at: round(float(picture.mean()) / 10) for at, picture in source.frames(wanted)}


def test_frames_are_spread_over_the_whole() -> None:
    assert spread(100, 4) == [12, 37, 62, 87]
    assert spread(3, 32) == [0, 1, 2]
    assert spread(0, 32) == []
    assert spread(9, 1) == [4]
    for count in (33, 100, 299, 5000):
        chosen = spread(count, 32)
        assert len(set(chosen)) == 32
        assert chosen[0] < count / 32
        assert chosen[-1] >= count * 31 / 32 - 1
        gaps = np.diff(chosen)
        assert gaps.max() - gaps.min() <= 1
    with pytest.raises(FFDError, match="--frames 0 is out of range"):
        spread(10, 0)


def test_the_wanted_frames_and_no_others(tmp_path: Path, video_writer: Writer) -> None:
    remarks = Remarks()
    source = VideoFile(video_writer(tmp_path / "a.mp4", greys(24)), "a.mp4", remarks)
    assert source.count == 24
    assert shades(source, [1, 9, 23]) == {1: 1, 9: 9, 23: 23}
    assert source.times is not None
    assert np.allclose(source.times, np.arange(24) / 25)
    assert remarks.listed == []


def test_a_container_that_does_not_know_its_count(tmp_path: Path, video_writer: Writer) -> None:
    path = video_writer(tmp_path / "a.webm", greys(20), "libvpx-vp9")
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == 0
    source = VideoFile(path, "a.webm", Remarks())
    assert source.count == 20
    assert shades(source, [0, 19]) == {0: 0, 19: 19}


def test_a_container_that_states_a_wrong_count(tmp_path: Path, video_writer: Writer) -> None:
    path = video_writer(tmp_path / "a.avi", greys(20), "mpeg4")
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.find(b"avih") + 8 + 16, 7)
    struct.pack_into("<I", data, data.find(b"strh") + 8 + 32, 7)
    path.write_bytes(data)
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == 7
    source = VideoFile(path, "a.avi", Remarks())
    assert source.count == 20
    assert shades(source, [19]) == {19: 19}


def test_a_varying_frame_rate(tmp_path: Path, video_writer: Writer) -> None:
    stamps = [0, 40, 100, 300, 310, 900, 1000, 1033, 1500, 3000]
    source = VideoFile(video_writer(tmp_path / "v.mp4", greys(10), stamps=stamps), "v.mp4", Remarks())
    assert source.count == 10
    assert source.times is not None
    assert np.allclose(source.times, np.array(stamps) / 1000, atol=2e-3)
    assert shades(source, list(range(10))) == {at: at for at in range(10)}


@pytest.mark.parametrize(
    ("matrix", "turned"),
    [
        ((0, 1, -1, 0), lambda picture: np.rot90(picture, -1)),  # shown turned clockwise by a quarter
        ((0, -1, 1, 0), lambda picture: np.rot90(picture, 1)),
        ((-1, 0, 0, -1), lambda picture: np.rot90(picture, 2)),
    ],
)
def test_rotation_flags_are_obeyed(
    tmp_path: Path, video_writer: Writer, matrix: tuple[int, ...], turned: Callable[[np.ndarray], np.ndarray]
) -> None:
    upright = np.full((48, 64, 3), 30, np.uint8)
    upright[:16, :16] = 220  # a bright corner
    path = video_writer(tmp_path / "r.mp4", [upright] * 4)
    data = bytearray(path.read_bytes())
    a, b, c, d = (value * 65536 for value in matrix)
    struct.pack_into(">9i", data, data.find(b"tkhd") + 44, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    picture = dict(VideoFile(path, "r.mp4", Remarks()).frames([2]))[2]
    expected = turned(upright)
    assert picture.shape == expected.shape
    assert np.abs(picture.astype(int) - expected).max() < 40


def test_a_title_that_is_no_utf8_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "title.mkv"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "QQQQQQ"
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(greys(1)[0], format="rgb24")))
        container.mux(stream.encode())
    data = path.read_bytes()
    assert data.count(b"QQQQQQ") == 1
    path.write_bytes(data.replace(b"QQQQQQ", b"M\xfcller"))
    with pytest.raises(UnicodeDecodeError):
        av.open(str(path))
    assert VideoFile(path, "title.mkv", Remarks()).count == 1


def test_odd_sizes(tmp_path: Path, video_writer: Writer) -> None:
    source = VideoFile(video_writer(tmp_path / "o.webm", greys(5, 49, 65), "libvpx-vp9"), "o.webm", Remarks())
    assert [picture.shape for _, picture in source.frames([0, 4])] == [(49, 65, 3)] * 2


def test_a_file_without_pictures_says_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = 16000, Fraction(1, 16000), 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(ItemError, match="holds no video, only audio"):
        VideoFile(path, "song.mp4", Remarks())


def test_files_of_no_frames(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(ItemError, match=r"empty \(0 bytes\)"):
        VideoFile(tmp_path / "empty.mp4", "empty.mp4", Remarks())
    (tmp_path / "text.mp4").write_text("no video at all\n" * 50)
    with pytest.raises(ItemError, match=r"cannot be opened|no readable video"):
        VideoFile(tmp_path / "text.mp4", "text.mp4", Remarks())
    for name, codec in (("none.mkv", "libvpx-vp9"), ("none.avi", "mpeg4")):
        with av.open(str(tmp_path / name), "w") as container:
            stream = container.add_stream(codec, rate=25)
            assert isinstance(stream, av.VideoStream)
            stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
            container.start_encoding()
        with pytest.raises(ItemError, match="ends before its first frame|holds no frame"):
            VideoFile(tmp_path / name, name, Remarks())


@pytest.mark.parametrize(("name", "codec"), [("t.mp4", "libx264"), ("t.webm", "libvpx-vp9")])
def test_a_truncated_file_gives_what_can_be_decoded(
    tmp_path: Path, video_writer: Writer, name: str, codec: str
) -> None:
    rng = np.random.default_rng(3)
    noise = [np.clip(picture + rng.integers(0, 60, picture.shape), 0, 255).astype(np.uint8) for picture in greys(20)]
    path = video_writer(tmp_path / name, noise, codec)  # an .mp4 that has its index at the front
    whole = dict(VideoFile(path, name, Remarks()).frames(list(range(20))))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    remarks = Remarks()
    source = VideoFile(path, name, remarks)
    assert 8 <= source.count < 16
    got = dict(source.frames(spread(source.count, 4)))
    assert len(got) == 4
    for at, picture in got.items():
        assert np.array_equal(picture, whole[at])
    assert any("cut short" in cause or "broken after" in cause for _, cause in remarks.listed)


def test_a_truncated_file_without_its_index_fails_by_name(tmp_path: Path, video_writer: Writer) -> None:
    path = video_writer(tmp_path / "t.mp4", greys(20))
    data = path.read_bytes()
    path.write_bytes(data[: data.find(b"moov") + 60])
    with pytest.raises(ItemError, match=r"no readable video|cannot be opened|holds no"):
        VideoFile(path, "t.mp4", Remarks())


def test_damage_in_the_middle_shifts_no_frame_and_lets_no_smear_through(tmp_path: Path, video_writer: Writer) -> None:
    """Frames that hang on damaged ones are left out up to the next key frame; the others are what they were."""
    rng = np.random.default_rng(3)
    noise = [np.clip(picture + rng.integers(0, 60, picture.shape), 0, 255).astype(np.uint8) for picture in greys(20)]
    path = video_writer(tmp_path / "d.mp4", noise, options={"g": "5", "bf": "0"})
    whole = dict(VideoFile(path, "d.mp4", Remarks()).frames(list(range(20))))
    data = bytearray(path.read_bytes())
    begin = data.find(b"mdat") + (len(data) - data.find(b"mdat")) // 3
    data[begin : begin + 200] = bytes(200)
    path.write_bytes(data)
    remarks = Remarks()
    got = dict(VideoFile(path, "d.mp4", remarks).frames(list(range(20))))
    assert 14 <= len(got) < 20
    assert {0, 1, 2, 3, 4, 15, 19} <= got.keys()
    assert all(np.array_equal(picture, whole[at]) for at, picture in got.items())
    assert remarks.listed == [("d.mp4", f"{20 - len(got)} of 20 frames cannot be decoded")]


def test_a_playlist_called_mp4_opens_nothing(tmp_path: Path, video_writer: Writer) -> None:
    secret = video_writer(tmp_path / "secret.ts", greys(5), options={"g": "1"})
    lines = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{secret}\n#EXT-X-ENDLIST\n"
    (tmp_path / "list.mp4").write_text(lines)
    (tmp_path / "concat.mp4").write_text(f"ffconcat version 1.0\nfile '{secret}'\n")
    for name in ("list.mp4", "concat.mp4"):
        with pytest.raises(ItemError):
            VideoFile(tmp_path / name, name, Remarks())


def test_too_many_pixels(tmp_path: Path, video_writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    path = video_writer(tmp_path / "large.mp4", greys(2))
    monkeypatch.setattr(module, "MAX_PIXELS", 64 * 48 - 1)
    with pytest.raises(ItemError, match="refused: 64 x 48 pixels"):
        VideoFile(path, "large.mp4", Remarks())


def test_one_frame_at_a_time_is_held(tmp_path: Path, video_writer: Writer) -> None:
    path = video_writer(tmp_path / "long.mp4", greys(25, 240, 320) * 6)
    source = VideoFile(path, "long.mp4", Remarks())
    tracemalloc.start()
    seen = sum(1 for _ in source.frames(list(range(150))))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seen == 150
    assert peak < 6 * 240 * 320 * 3  # all would be 150 pictures
