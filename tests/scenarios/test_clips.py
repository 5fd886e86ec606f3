"""Clips of studio portraits in FaceForensics++'s layout: movement, consistency over frames, files, resuming."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from ffd_continual.cli import main
from ffd_continual.commands import clips as clips_command
from ffd_continual.scenarios.datasets.listing import Wanted, adapter
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.faces import Face
from ffd_continual.scenarios.forging.geometry import similarity
from ffd_continual.scenarios.forging.portraits import Portraits
from ffd_continual.scenarios.pictures import write_picture
from ffd_continual.scenarios.prepare import clips
from ffd_continual.scenarios.prepare.clip_camera import Camera, CameraConfig, cut_face, paste, side_of
from ffd_continual.scenarios.prepare.clip_people import pair_up
from ffd_continual.scenarios.prepare.clip_writer import factor_of
from ffd_continual.scenarios.prepare.clips import ClipsConfig, make_clips
from ffd_continual.scenarios.studio.portrait import render_portrait
from ffd_continual.terminal import wrapped

PEOPLE = 7
FRAMES = 5
CONFIG = ClipsConfig(
    families=(("deepfakes", "swap"), ("neuraltextures", "inpaint")),
    compressions=("c23", "c40"),
    progress=False,
    camera=CameraConfig(height=112, frames=FRAMES),
)


@pytest.fixture(scope="module")
def portraits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("portraits")
    for person in range(PEOPLE):
        write_picture(folder / f"p{person}_a.png", render_portrait(person, 0, 160).image)
    write_picture(folder / "p0_b.png", render_portrait(0, 1, 160).image)
    write_picture(folder / "wall_a.png", np.full((160, 160, 3), 128, np.uint8))
    (folder / "torn_a.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    return folder


@pytest.fixture(scope="module")
def made(portraits: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, clips.ClipsMade]:
    out = tmp_path_factory.mktemp("clips") / "ff"
    return out, make_clips([Portraits(portraits, "studio")], out, CONFIG)


def frames_of(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_official_layout_is_indexed(made: tuple[Path, clips.ClipsMade]) -> None:
    out, told = made
    assert len(told.cast.people) == 6
    assert len(told.cast.alone) == 1  # seven people: one has no partner
    assert [path.name for path in told.cast.faceless] == ["wall_a.png"]
    assert [path.name for path, _ in told.cast.unreadable] == ["torn_a.jpg"]
    assert {split: len(pairs) for split, pairs in told.cast.pairs.items()} == {"train": 1, "valid": 1, "test": 1}
    listing = adapter("faceforensics").index(out, Wanted(forgeries=("deepfakes", "neuraltextures")))
    assert listing.missing == ()
    assert len(listing.items) == (6 + 2 * 6) * 2
    for item in listing.items:
        assert item.split in ("train", "valid", "test")
        if item.label:
            assert item.pair
            assert (out / item.mask).is_file()
            assert told.cast.partner[item.identity] == item.source_identity
    people = json.loads((out / "clips.json").read_text())["people"]
    assert sorted(people) == ["000", "001", "002", "003", "004", "005"]
    assert "p0_b.png" not in {one["picture"] for one in people.values()}


def test_a_clip_is_real_h264_that_moves_and_says_if_it_is_forged(made: tuple[Path, clips.ClipsMade]) -> None:
    out, told = made
    partner = told.cast.partner["000"]
    real = out / "original_sequences/youtube/c23/videos/000.mp4"
    fake = out / f"manipulated_sequences/Deepfakes/c23/videos/000_{partner}.mp4"
    for path, comment in ((real, ""), (fake, "ffd_continual: forged (deepfakes)")):
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            assert (stream.codec_context.name, stream.average_rate, stream.height) == ("h264", Fraction(25), 112)
            assert container.metadata.get("comment", "") == comment
        assert len(frames_of(path)) == FRAMES
    first, *_, last = frames_of(real)
    # In 5 frames the camera has moved little, and yet more than the noise that is left.
    assert np.abs(cv2.GaussianBlur(first, (0, 0), 2).astype(int) - cv2.GaussianBlur(last, (0, 0), 2)).mean() > 0.3
    harder = out / "original_sequences/youtube/c40/videos/000.mp4"
    assert harder.stat().st_size < 0.6 * real.stat().st_size


def test_the_forgery_lies_in_the_mask_and_stays_over_the_clip(
    made: tuple[Path, clips.ClipsMade], portraits: Path
) -> None:
    """Aligned by the landmarks, what the forgery changed is the same in every frame, but for noise."""
    _, told = made
    job = clips._Job(Path("unused"), CONFIG, told.cast.people, clips._families(CONFIG))
    target = clips._film(job, "000")
    first = target.shoot(0)[1]
    for method in ("deepfakes", "neuraltextures"):
        task = clips._Task(method, "000", told.cast.partner["000"])
        changes, masks = [], []
        for number, pictures in enumerate(clips._frames(job, task)):
            real, marks = target.shoot(number)
            mask = pictures[-1]
            assert np.array_equal(pictures[0][mask == 0], real[mask == 0])
            assert 0.01 < (mask > 0).mean() < 0.6
            change = cv2.GaussianBlur(pictures[0].astype(np.float32) - real, (0, 0), 1)
            still = similarity(marks, first)
            changes.append(cv2.warpAffine(change, still, real.shape[1::-1]))
            masks.append(cv2.warpAffine(mask, still, real.shape[1::-1]) > 127)
        inside = np.logical_and.reduce(masks)
        size = np.mean([np.abs(change[inside]).mean() for change in changes])
        jump = max(np.abs(a[inside] - b[inside]).mean() for a, b in zip(changes[1:], changes[:-1], strict=True))
        assert jump < 0.35 * size, (method, jump, size)


def test_stopped_and_resumed_with_other_workers_gives_the_same_bytes(
    made: tuple[Path, clips.ClipsMade], portraits: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out, _ = made
    count = 0
    true_run = clips._run

    def run_until(given: object) -> bool:
        nonlocal count
        count += 1
        if count > 4:
            raise KeyboardInterrupt
        return true_run(given)  # type: ignore[arg-type]

    monkeypatch.setattr(clips, "_run", run_until)
    with pytest.raises(KeyboardInterrupt):
        make_clips([Portraits(portraits, "studio")], tmp_path / "again", CONFIG)
    monkeypatch.setattr(clips, "_run", true_run)
    told = make_clips([Portraits(portraits, "studio")], tmp_path / "again", CONFIG)
    assert (told.made, told.kept) == (14, 4)
    ours = {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    theirs = {path.relative_to(tmp_path / "again"): path for path in (tmp_path / "again").rglob("*") if path.is_file()}
    assert ours.keys() == theirs.keys()
    assert all(theirs[name].read_bytes() == data for name, data in ours.items())


@pytest.mark.slow
def test_two_processes_give_the_same_bytes(made: tuple[Path, clips.ClipsMade], portraits: Path, tmp_path: Path) -> None:
    out, _ = made
    two = tmp_path / "two"
    options = ["--families", "deepfakes=swap,neuraltextures=inpaint", "--frames", str(FRAMES), "--height", "112"]
    assert main(["clips", f"studio={portraits}", "--out", str(two), "--workers", "2", "--quiet", *options]) == 0
    for path in (path for path in out.rglob("*.mp4")):
        assert (two / path.relative_to(out)).read_bytes() == path.read_bytes()


def test_other_settings_and_foreign_folders_are_refused(made: tuple[Path, clips.ClipsMade], portraits: Path) -> None:
    out, _ = made
    source = [Portraits(portraits, "studio")]
    changed = ClipsConfig(families=CONFIG.families, progress=False, camera=CameraConfig(height=96, frames=FRAMES))
    with pytest.raises(FFDError, match="other people or settings"):
        make_clips(source, out, changed)
    with pytest.raises(FFDError, match="not empty"):
        make_clips(source, portraits, CONFIG)
    with pytest.raises(FFDError, match="no forgery 'deepfake'"):
        make_clips(source, out, ClipsConfig(families=(("deepfake", "swap"),)))
    with pytest.raises(FFDError, match=r"1 pair\(s\)"):
        make_clips(source, out, ClipsConfig(people=2, progress=False))


@pytest.mark.parametrize("text", ["deepfakes", "deepfakes=", "=swap,deepfakes=warp"])
def test_families_on_the_command_line(text: str, portraits: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["clips", str(portraits), "--out", str(portraits / "x"), "--families", text]) == 2
    assert re.search("no FORGERY=FAMILY|no forgery ''", capsys.readouterr().err)


def test_camera_is_a_pure_function_and_keeps_grey_grey() -> None:
    face = render_portrait(3, 0, 128)
    config = CameraConfig(height=96, frames=4)
    ours, again = (Camera(face.image, face.landmarks, "000", 5, config) for _ in range(2))
    for number in (3, 0):
        assert np.array_equal(ours.shoot(number)[0], again.shoot(number)[0])
    assert not np.array_equal(ours.shoot(0)[0], Camera(face.image, face.landmarks, "001", 5, config).shoot(0)[0])
    grey = np.repeat(np.asarray(cv2.cvtColor(face.image, cv2.COLOR_RGB2GRAY), np.uint8)[..., None], 3, 2)
    frame = Camera(grey, face.landmarks, "000", 5, config).shoot(2)[0]
    assert np.array_equal(frame[..., 0], frame[..., 1])
    assert np.array_equal(frame[..., 0], frame[..., 2])


def test_camera_moves_landmarks_with_the_picture() -> None:
    """A white dot at a landmark is where the camera says that landmark is."""
    face = render_portrait(3, 0, 128)
    image = np.zeros_like(face.image)
    x, y = np.round(face.landmarks[30]).astype(int)
    image[y - 1 : y + 2, x - 1 : x + 2] = 255
    marks = face.landmarks.copy()
    marks[30] = x, y
    camera = Camera(image, marks, "007", 1, CameraConfig(height=120, frames=9, noise=(0, 0)))
    for number in range(9):
        frame, points = camera.shoot(number)
        weight = frame[..., 1].astype(float)
        centre = [float((grid * weight).sum() / weight.sum()) for grid in np.mgrid[: frame.shape[0], : frame.shape[1]]]
        assert np.abs(np.array(centre[::-1]) - points[30]).max() < 0.25


def faces_at(*corners: tuple[int, int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    face = render_portrait(4, 0, 96)
    for left, top in corners:
        frame = np.random.default_rng(0).integers(0, 256, (120, 160, 3)).astype(np.uint8)
        yield frame, np.asarray(face.landmarks + np.array([left, top]), np.float32)


def test_cut_and_paste_beyond_the_border() -> None:
    for frame, marks in faces_at((30, 10), (-30, -25), (100, 60)):
        side = side_of(marks)
        cut = cut_face(frame, marks, side, "a", "a")
        assert cut.face.image.shape == (side, side, 3)
        back = cut.face.landmarks + np.array([cut.left, cut.top])
        assert np.allclose(back, marks, atol=1e-4)
        mask = np.zeros((side, side), np.uint8)
        mask[5:-5, 5:-5] = 255
        same, whole = paste(frame, cut.face.image, mask, cut)
        assert np.array_equal(same, frame)  # the crop is not resampled
        other, whole = paste(frame, 255 - cut.face.image, mask, cut)
        assert np.array_equal((other != frame).any(2), whole > 0)


def test_pairs_are_alike_and_nobody_is_in_two() -> None:
    base = render_portrait(1, 0, 96)
    brighter = Face(np.clip(base.image.astype(int) + 9, 0, 255).astype(np.uint8), base.landmarks, "b", "b")
    grey = np.repeat(np.asarray(cv2.cvtColor(base.image, cv2.COLOR_RGB2GRAY), np.uint8)[..., None], 3, 2)
    bent = base.landmarks.copy()
    bent[:17, 0] += 40
    faces = [base, Face(grey, base.landmarks, "g", "g"), Face(base.image, bent, "t", "t"), brighter]
    assert pair_up(faces) == [(0, 3)]  # the grey one and the turned one fit nobody
    assert pair_up([]) == []
    smile = base.landmarks.copy()
    smile[65:68, 1] += 8
    laughs = [Face(base.image, smile, name, name) for name in "xy"]
    pairs = pair_up([laughs[0], base, laughs[1], Face(base.image, base.landmarks, "c", "c")])
    assert sorted(pairs) == [(0, 2), (1, 3)]  # open mouths go with open ones


def test_constant_rate_factors() -> None:
    assert [factor_of(name) for name in ("raw", "c23", "c40")] == [0, 23, 40]
    for wrong in ("c99", "23", "crf23", ""):
        with pytest.raises(FFDError, match="not known"):
            factor_of(wrong)


def test_summary_fits_the_terminal(made: tuple[Path, clips.ClipsMade]) -> None:
    out, told = made
    text = wrapped(clips_command.summary(told, CONFIG, Path("data/clips")))
    assert max(map(len, text.splitlines())) <= 80
    assert "6 people in pairs: 1 train, 1 valid, 1 test" in text
    assert "wall_a.png" in text
