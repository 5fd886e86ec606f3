"""The parts of preparing that need no video: names, tracks, crops, which frames correspond, archives, the journal."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ffd_continual.scenarios.datasets.listing import Item
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.pictures import encode_picture
from ffd_continual.scenarios.prepare import stills
from ffd_continual.scenarios.prepare.crew import Crew, Lost
from ffd_continual.scenarios.prepare.crops import Window, cut, rescaled, whole, window
from ffd_continual.scenarios.prepare.journal import NAME, Journal, read_line
from ffd_continual.scenarios.prepare.matching import matched
from ffd_continual.scenarios.prepare.settings import PrepareConfig
from ffd_continual.scenarios.prepare.source import ItemError, Remarks, inside, natural, numbers_of, slug
from ffd_continual.scenarios.prepare.stills import Archive, folder_of_frames
from ffd_continual.scenarios.prepare.tracks import Tracker, overlap
from ffd_continual.scenarios.prepare.waves import levels


def test_names_that_leave_the_data_set_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "in").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(b"x")
    (root / "out.png").symlink_to(tmp_path / "secret.png")
    (root / "fine.png").symlink_to(root / "in")
    (tmp_path / "root-2").mkdir()
    (root / "beside").symlink_to(tmp_path / "root-2")  # a name that only begins like the root's
    for name, cause in (
        ("../secret.png", "leads out"),
        ("in/../../secret.png", "leads out"),
        ("in\\..\\x", "leads out"),
        (str(tmp_path / "secret.png"), "leads out"),
        ("out.png", "a link out"),
        ("beside", "a link out"),
        ("", "no usable name"),
        ("a\0b", "no usable name"),
    ):
        with pytest.raises(ItemError, match=cause):
            inside(root, name)
    assert inside(root, "fine.png") == root / "fine.png"
    assert inside(root, "not/there.png") == root / "not/there.png"


def test_slugs_are_safe_and_never_meet() -> None:
    assert slug("manipulated_sequences/Deepfakes/c23/071_054") == "manipulated_sequences/Deepfakes/c23/071_054"
    odd = [
        "a b",
        "a\nb",
        "a.b",
        "../x",
        "..",
        "/abs",
        "é",
        "e\u0301",
        "a/",
        "a//b",
        "-a",
        "a" * 300,
        "a" * 301,
        "\udcff",
    ]
    slugs = [slug(name) for name in [*odd, "x/" * 40]]
    assert len(set(slugs)) == len(slugs)
    for made in slugs:
        assert all(part and part not in ("..", ".") and len(part) < 90 for part in made.split("/"))
        assert made.isascii()
        assert not set(made) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-/")


def test_order_and_numbers_of_names() -> None:
    assert sorted(["f10", "f2", "f1", "e"], key=natural) == ["e", "f1", "f2", "f10"]
    assert numbers_of(["a/07.png", "a/9.png"]).tolist() == [7, 9]
    assert numbers_of(["a/1.png", "b/1.png"]).tolist() == [0, 1]
    assert numbers_of(["x.png", "y3.png"]).tolist() == [0, 1]


def test_a_track_follows_its_face_past_a_crossing_and_a_gap() -> None:
    tracker = Tracker()
    for frame in range(10):
        left, right = (10.0 + 8 * frame, 10.0, 40.0, 50.0), (200.0 - 6 * frame, 14.0, 60.0, 70.0)
        boxes = [right, left] if frame % 2 else [left, right]  # the detector's order says nothing
        if frame == 4:
            boxes = [right]
        tracks = tracker.join(frame, boxes)
        if frame == 4:
            assert tracks == [1]
        else:
            assert tracks == ([1, 0] if frame % 2 else [0, 1])
    tracker.join(10, [(400.0, 300.0, 300.0, 300.0)])  # one large box in one frame
    assert tracker.main(1) == {2: 0}
    assert tracker.main(2) == {2: 0, 1: 1}
    assert len(tracker.tracks) == 3
    assert tracker.tracks[0].frames == [0, 1, 2, 3, 5, 6, 7, 8, 9]


def test_a_face_that_jumps_its_own_width_is_the_same_and_a_far_or_other_sized_one_is_not() -> None:
    tracker = Tracker()
    assert tracker.join(0, [(0.0, 0.0, 40.0, 40.0)]) == [0]
    assert tracker.join(1, [(38.0, 0.0, 40.0, 40.0)]) == [0]
    assert tracker.join(2, [(118.0, 0.0, 40.0, 40.0)]) == [1]
    assert tracker.join(3, [(130.0, 0.0, 200.0, 200.0)]) == [2]
    distant = Tracker()  # frames long apart: by size, the largest to the heaviest
    assert distant.join(0, [(0.0, 0.0, 40.0, 40.0), (300.0, 0.0, 60.0, 60.0)], apart=True) == [0, 1]
    assert distant.join(1, [(100.0, 200.0, 44.0, 44.0), (500.0, 200.0, 58.0, 58.0)], apart=True) == [0, 1]
    assert distant.join(2, [(700.0, 0.0, 300.0, 300.0)], apart=True) == [2]
    assert overlap((0, 0, 2, 2), (1, 1, 2, 2)) == pytest.approx(1 / 7)
    assert overlap((0, 0, 2, 2), (5, 5, 2, 2)) == 0


def test_a_crop_is_a_square_about_the_box_and_mirrors_the_border() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (40, 50, 3), np.uint8)
    where = window((10, 8, 20, 10), 1.3)
    assert where == Window(7, 0, 26)
    assert np.array_equal(cut(image, where, 26), image[0:26, 7:33])
    outside = Window(-5, 30, 20)
    padded = np.pad(image, ((20, 20), (20, 20), (0, 0)), mode="reflect")
    assert np.array_equal(cut(image, outside, 20), padded[50:70, 15:35])
    assert whole(30, 40) == Window(0, -5, 40)
    assert cut(image[:1, :1], Window(-3, -3, 8), 8).shape == (8, 8, 3)
    points = np.array([[7.0, 0.0], [32.0, 25.0]], np.float32)
    assert np.allclose(where.to_crop(points, 26), [[0, 0], [25, 25]])
    assert np.allclose(where.to_frame(where.to_crop(points, 61), 61), points, atol=1e-4)
    assert rescaled((10, 20, 30, 40), (100, 200), (50, 400)) == (20, 10, 60, 20)


class _Fake:
    """A source of frames that are never read."""

    def __init__(self, times: list[float] | None, numbers: list[int]) -> None:
        self.count = len(numbers)
        self.numbers = np.array(numbers, np.int64)
        self.times: np.ndarray | None = None if times is None else np.array(times, np.float64)

    def frames(self, wanted: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        raise AssertionError(f"frames {wanted} were read")


def _real(times: list[float] | None, numbers: list[int], count: int) -> dict[str, Any]:
    clock = times if times is not None else [None] * len(numbers)
    faces = [{"number": n, "seconds": t, "track": 0} for n, t in zip(numbers, clock, strict=True)]
    return {"faces": faces, "count": count, "seconds": None if times is None else (count - 1) / 25}


def _plan(found: dict[int, Any] | None) -> dict[int, tuple[int, bool]]:
    assert found is not None
    return {at: (matches[0].face["number"], matches[0].same) for at, matches in found.items()}


def test_equal_counts_correspond_by_position_whatever_the_clock() -> None:
    forged = _Fake([at / 30 for at in range(50)], list(range(50)))
    real = _real([10 / 25, 40 / 25], [10, 40], 50)
    assert _plan(matched(forged, real, "video")) == {10: (10, True), 40: (40, True)}


def test_other_counts_correspond_by_time() -> None:
    forged = _Fake([at / 12.5 for at in range(25)], list(range(25)))  # every other frame of the real video
    real = _real([10 / 25, 31 / 25], [10, 31], 50)
    assert _plan(matched(forged, real, "video")) == {5: (10, True), 15: (31, False)}  # 31 was dropped
    short = _Fake([at / 25 for at in range(20)], list(range(20)))  # ends early: no stale box for its last frame
    assert _plan(matched(short, _real([0.4, 1.6], [10, 40], 50), "video")) == {10: (10, True)}
    hardly = _Fake([at / 30 for at in range(49)], list(range(49)))  # one frame lost, and another rate stated
    assert _plan(matched(hardly, _real([0.4, 1.6], [10, 40], 50), "video")) == {10: (10, True), 40: (40, True)}


def test_a_real_video_of_fewer_frames_lends_its_boxes_at_its_times() -> None:
    forged = _Fake([at / 25 for at in range(50)], list(range(50)))
    real = _real([5 / 12.5, 20 / 12.5], [5, 20], 25) | {"seconds": 24 / 12.5}
    assert _plan(matched(forged, real, "video")) == {10: (5, True), 40: (20, True)}


def test_pictures_correspond_by_number_and_only_the_same_one_is_a_pair() -> None:
    forged = _Fake(None, [3, 14, 28, 40])
    assert _plan(matched(forged, _real(None, [3, 14, 29], 3), "frames")) == {
        0: (3, True),
        1: (14, True),
        2: (29, False),
    }
    assert matched(_Fake(None, [7, 8]), _real(None, [3, 14, 29], 3), "frames") is None


def test_a_picture_is_matched_with_a_picture_only() -> None:
    picture = _Fake(None, [0])
    assert _plan(matched(picture, _real(None, [9], 1), "picture")) == {0: (9, True)}
    assert matched(picture, _real([0.0, 0.4], [0, 10], 50), "picture") is None


def test_only_the_first_remarks_of_an_item_are_named() -> None:
    remarks = Remarks()
    for number in range(105):
        remarks.add(f"a.tar/{number}", "refused: a link")
    assert len(remarks.all("a.tar")) == 101
    assert remarks.all("a.tar")[-1] == ("a.tar", "5 more were left out of it")


def test_waves_put_every_counterpart_first_and_survive_circles() -> None:
    def item(video: str, pair: str = "") -> Item:
        return Item(f"{video}.mp4", int(bool(pair)), "x" if pair else "real", video, pair=pair)

    waves = levels([item("b", "a"), item("c", "b"), item("a"), item("d", "gone"), item("e", "f"), item("f", "e")])
    depth = {one.video: at for at, wave in enumerate(waves) for one in wave}
    assert (depth["a"], depth["b"], depth["c"], depth["d"]) == (0, 1, 2, 0)
    assert {depth["e"], depth["f"]} == {0, 1}
    assert [one.video for one in waves[0]] == ["a", "d", *(v for v in "ef" if depth[v] == 0)]


def _png(shade: int) -> bytes:
    return encode_picture(np.full((20, 20, 3), shade, np.uint8), ".png")


def _tar(path: Path, members: list[tuple[tarfile.TarInfo, bytes]], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for info, data in members:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def _member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_an_archive_is_read_in_order_and_its_hostile_members_are_refused_by_name(tmp_path: Path, mode: str) -> None:
    good = [(_member(f"clip/{at}.png"), _png(at * 10)) for at in (10, 2, 1)]
    bad = [
        (_member("../evil.png"), _png(1)),
        (_member("/abs.png"), _png(1)),
        (_member("clip/link.png", tarfile.SYMTYPE, "/etc/passwd"), b""),
        (_member("clip/hard.png", tarfile.LNKTYPE, "clip/1.png"), b""),
        (_member("clip/pipe.png", tarfile.FIFOTYPE), b""),
        (_member("clip/note.txt"), b"no picture"),
        (_member("clip/.hidden.png"), _png(1)),
        (_member("clip/broken.png"), b"no png"),
    ]
    path = _tar(tmp_path / "a.tar", [good[0], *bad, *good[1:]], mode)
    remarks = Remarks()
    source = Archive(path, "a.tar", (), remarks)
    assert source.names == ["clip/1.png", "clip/2.png", "clip/10.png", "clip/broken.png"]
    got = {at: int(picture.mean()) for at, picture in source.frames([0, 2, 3])}
    assert got == {0: 10, 2: 100}
    named = dict(remarks.listed)
    assert named["a.tar/../evil.png"] == named["a.tar//abs.png"] == "refused: its name leads out of the archive"
    assert named["a.tar/clip/link.png"] == named["a.tar/clip/hard.png"] == "refused: a link"
    assert named["a.tar/clip/pipe.png"] == "refused: a device or pipe"
    assert "no JPEG, PNG" in named["a.tar/clip/broken.png"]
    assert len(named) == 6
    assert sorted(os.listdir(tmp_path)) == ["a.tar"]


def test_an_archive_of_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stills, "MAX_MEMBER", 1000)
    members = [(_member("big.png"), b"x" * 2000), (_member("1.png"), _png(7))]
    remarks = Remarks()
    source = Archive(_tar(tmp_path / "a.tar.gz", members), "a.tar.gz", (), remarks)
    assert source.names == ["1.png"]
    assert remarks.listed[0][0] == "a.tar.gz/big.png"
    monkeypatch.setattr(stills, "MAX_UNPACKED", 1500)
    with pytest.raises(ItemError, match="holds no picture"):
        Archive(_tar(tmp_path / "b.tar.gz", [(_member("0.txt"), b"x" * 5000), *members]), "b", (), remarks)
    long = _member("x" * 3_000_000 + ".png")  # a header of megabytes
    remarks = Remarks()
    assert Archive(_tar(tmp_path / "c.tar", [members[1], (long, _png(1))], "w"), "c.tar", (), remarks).count == 1
    assert "header of" in remarks.listed[0][1]


def test_broken_archives(tmp_path: Path) -> None:
    (tmp_path / "no.tar").write_bytes(b"nothing of the kind" * 100)
    with pytest.raises(ItemError, match="no readable archive"):
        Archive(tmp_path / "no.tar", "no.tar", (), Remarks())
    path = _tar(tmp_path / "cut.tar.gz", [(_member(f"{at}.png"), _png(at) + os.urandom(5000)) for at in range(9)])
    path.write_bytes(path.read_bytes()[:20_000])
    remarks = Remarks()
    source = Archive(path, "cut.tar.gz", (), remarks)
    assert 1 <= source.count < 9
    assert "broken after" in remarks.listed[0][1]
    assert len(dict(source.frames(range(source.count)))) >= source.count - 1


def test_frames_of_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "clip"
    folder.mkdir()
    for at in (1, 2, 10):
        (folder / f"f{at}.png").write_bytes(_png(at * 10))
    (folder / ".hidden.png").write_bytes(_png(1))
    (folder / "new\nline.png").write_bytes(b"")
    (tmp_path.parent / "outside.png").write_bytes(_png(9))
    (folder / "zlink.png").symlink_to(tmp_path.parent / "outside.png")
    remarks = Remarks()
    source = folder_of_frames(tmp_path, "clip", (), remarks)
    assert [name.rsplit("/")[-1] for name in source.names] == [
        "f1.png",
        "f2.png",
        "f10.png",
        "new\nline.png",
        "zlink.png",
    ]
    assert {at: int(picture.mean()) for at, picture in source.frames(range(5))} == {0: 10, 1: 20, 2: 100}
    assert [path for path, _ in remarks.listed] == ["clip/new\nline.png", "clip/zlink.png"]
    assert "empty" in remarks.listed[0][1]
    assert "a link out" in remarks.listed[1][1]
    assert folder_of_frames(tmp_path, "clip", ("f10.png", "f1.png"), remarks).numbers.tolist() == [10, 1]


def test_the_journal_forgets_half_a_line_and_minds_its_settings(tmp_path: Path) -> None:
    out, config = tmp_path / "out", PrepareConfig()
    journal = Journal(out, "videos", config)
    journal.add({"video": "a", "faces": []}, "k1")
    journal.add({"video": "b", "faces": [1]}, "k2")
    journal.add({"video": "a", "faces": [2]}, "k3")
    journal.close()
    with (out / NAME).open("ab") as file:
        file.write(b'{"video":"c","fac')
    again = Journal(out, "videos", config)
    assert again.key("a") == "k3"
    assert "c" not in again
    assert again.record("a")["faces"] == [2]
    again.add({"video": "c", "faces": [3]}, "k4")
    with pytest.raises(FFDError, match="another `ffd prepare` is at work"):
        Journal(out, "videos", config)
    place = again.place("c")
    assert place is not None
    assert read_line(place)["faces"] == [3]
    again.close()
    assert all(json.loads(line) for line in (out / NAME).read_text().splitlines())
    with pytest.raises(FFDError, match="begun with another frames, size"):
        Journal(out, "videos", PrepareConfig(frames=8, size=64))
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").touch()
    with pytest.raises(FFDError, match="not empty"):
        Journal(other, "videos", config)


def test_a_process_that_dies_takes_only_its_task_with_it() -> None:
    crew: Crew[str, int] = Crew(2, partial(partial, eval))  # the work: evaluate a text
    deadly = "__import__('os')._exit(7)"
    try:
        answers = list(crew.run([deadly if n == 3 else f"{n} * {n}" for n in range(8)]))
        assert sorted(a for a in answers if isinstance(a, int)) == [n * n for n in range(8) if n != 3]
        lost = [a for a in answers if isinstance(a, Lost)]
        assert [(one.task, one.code) for one in lost] == [(deadly, 7)]
        with pytest.raises(ZeroDivisionError):
            list(crew.run(["1 / 0"]))
    finally:
        crew.close()
