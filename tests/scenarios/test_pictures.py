from __future__ import annotations

import errno
import os
import threading
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.pictures import (
    PictureError,
    read_mark,
    read_mask,
    read_picture,
    read_size,
    write_bytes,
    write_mask,
    write_picture,
)


def colours(height: int = 20, width: int = 30) -> np.ndarray:
    """A smooth picture: red grows to the right, green downwards, blue constant."""
    down, right = np.mgrid[0:height, 0:width]
    return np.stack([right * 8, down * 12, np.full_like(right, 60)], axis=2).astype(np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".webp"])
def test_lossless_forms_come_back_exactly(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    options: dict[str, Any] = {"lossless": True} if suffix == ".webp" else {}
    Image.fromarray(colours()).save(path, **options)
    read = read_picture(path)
    assert read.dtype == np.uint8
    assert np.array_equal(read, colours())
    assert read_size(path) == (20, 30)


def test_grey_palette_one_bit_and_cmyk(tmp_path: Path) -> None:
    grey = Image.fromarray(colours()[..., 0])
    grey.save(tmp_path / "grey.jpg", quality=100)
    assert np.abs(read_picture(tmp_path / "grey.jpg").astype(int) - colours()[..., :1]).max() <= 3
    Image.fromarray(colours()).quantize(200).save(tmp_path / "palette.png")
    assert np.abs(read_picture(tmp_path / "palette.png").astype(int) - colours()).mean() < 8
    grey.point(lambda value: 255 if value > 100 else 0).convert("1").save(tmp_path / "bit.png")
    assert set(np.unique(read_picture(tmp_path / "bit.png"))) == {0, 255}
    Image.fromarray(colours()).convert("CMYK").save(tmp_path / "ink.jpg", quality=100)
    assert np.abs(read_picture(tmp_path / "ink.jpg").astype(int) - colours()).mean() < 6


def test_sixteen_bits_span_the_whole_range(tmp_path: Path) -> None:
    deep = np.array([[0, 200, 257, 32896, 65535]], np.uint16)
    for name in ("deep.png", "deep.tif"):
        Image.fromarray(deep).save(tmp_path / name)
        assert read_picture(tmp_path / name)[0, :, 0].tolist() == [0, 1, 1, 128, 255]


def test_values_without_a_known_white_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0.0, 3.5]], np.float32)).save(tmp_path / "float.tif")
    Image.fromarray(np.array([[0, 70000]], np.int32)).save(tmp_path / "long.tif")
    for name in ("float.tif", "long.tif"):
        with pytest.raises(PictureError, match="no known white"):
            read_picture(tmp_path / name)


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    layer = np.dstack([colours(), np.full((20, 30), 255, np.uint8)])
    layer[:10, :, 3], layer[10:15, :, 3] = 0, 128
    Image.fromarray(layer, "RGBA").save(tmp_path / "a.png")
    read = read_picture(tmp_path / "a.png").astype(int)
    assert (read[:10] == 255).all()
    assert np.array_equal(read[15:], colours()[15:])
    assert np.abs(read[10:15] - (colours()[10:15] * (128 / 255) + 255 * (127 / 255))).max() <= 1.01
    cut = Image.new("P", (4, 1), 0)
    cut.putpalette([10, 20, 30, 40, 50, 60])
    cut.putpixel((0, 0), 1)
    cut.save(tmp_path / "cut.gif", transparency=1)
    assert read_picture(tmp_path / "cut.gif")[0, :2].tolist() == [[255, 255, 255], [10, 20, 30]]


def test_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (6, 5), colour) for colour in ((200, 0, 0), (0, 200, 0))]
    for name in ("a.gif", "a.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
        assert np.abs(read_picture(tmp_path / name).astype(int) - (200, 0, 0)).max() <= 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    upright = colours()
    # What a camera stores so that the viewer, undoing the orientation (EXIF 2.3, tag 0x0112), sees it upright.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_picture(tmp_path / "a.png"), upright)
    assert read_size(tmp_path / "a.png") == (20, 30)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_counts_as_none(tmp_path: Path) -> None:
    Image.fromarray(colours()).save(tmp_path / "a.png", exif=b"Exif\x00\x00MM\x00*\x00\x00\xff\xff broken")
    assert np.array_equal(read_picture(tmp_path / "a.png"), colours())
    assert read_size(tmp_path / "a.png") == (20, 30)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".gif", ".tif", ".bmp"])
def test_a_file_cut_short_anywhere_is_refused_with_its_path(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (60, 60, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / f"whole{suffix}")
    data = (tmp_path / f"whole{suffix}").read_bytes()
    for share in (0.02, 0.3, 0.6, 0.9):
        path = tmp_path / f"cut{share}{suffix}"
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(PictureError, match=f"cut{share}"):
            read_picture(path)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_bytes_give_pixels_or_a_picture_error(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    refused = 0
    for suffix in (".jpg", ".png", ".webp", ".gif", ".tif", ".bmp"):
        out = BytesIO()
        Image.fromarray(colours()).save(out, {".jpg": "JPEG", ".tif": "TIFF"}.get(suffix, suffix[1:].upper()))
        for trial in range(60):
            data = bytearray(out.getvalue())
            for at in rng.integers(0, len(data), 6):
                data[at] = rng.integers(0, 256)
            path = tmp_path / f"{trial}{suffix}"
            path.write_bytes(bytes(data))
            try:
                assert min(read_size(path)) > 0
                assert read_mark(path) is None
                read = read_picture(path)
            except PictureError:
                refused += 1
            else:
                assert read.ndim == 3
    assert refused > 20


def test_files_that_are_no_pictures(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("not a picture at all")
    # PostScript would start another program to be drawn.
    (tmp_path / "script.jpg").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    for name, cause in (
        ("empty.jpg", "0 bytes"),
        ("text.jpg", "no JPEG"),
        ("script.jpg", "no JPEG"),
        ("none.jpg", "no such file"),
        ("", "it is a folder"),
    ):
        with pytest.raises(PictureError, match=cause):
            read_picture(tmp_path / name)


@pytest.mark.filterwarnings("error")  # Pillow's own warning would be noise in a terminal
def test_over_large_pictures_are_refused_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("1", (10_000, 10_001)).save(tmp_path / "big.png")
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(PictureError, match="100 megapixels"):
        read_picture(tmp_path / "big.png")


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".png"])
def test_forged_pictures_carry_their_mark(tmp_path: Path, suffix: str) -> None:
    for forgery in ("swap", "ünlike (two) 2"):
        path = tmp_path / "new" / f"a{suffix}"
        write_picture(path, colours(), forged=forgery)
        assert read_mark(path) == forgery
        assert b"ffd_continual: forged" in path.read_bytes()
    write_picture(tmp_path / f"b{suffix}", colours())
    assert read_mark(tmp_path / f"b{suffix}") is None
    assert np.array_equal(read_picture(tmp_path / f"b{suffix}"), read_picture(tmp_path / "new" / f"a{suffix}"))


def test_jpeg_keeps_full_colour_and_obeys_quality(tmp_path: Path) -> None:
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, ::2], stripes[:, 1::2] = (255, 0, 0), (0, 0, 255)
    write_picture(tmp_path / "a.jpg", stripes, quality=98)
    assert np.abs(read_picture(tmp_path / "a.jpg").astype(int) - stripes).mean() < 8  # 4:2:0 gives about 90
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    sizes = []
    for quality in (30, 95):
        write_picture(tmp_path / "n.jpg", noise, quality=quality)
        sizes.append((tmp_path / "n.jpg").stat().st_size)
    assert sizes[0] < sizes[1] / 2


def test_png_and_masks_come_back_exactly(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", colours()[:, ::-1], forged="swap")
    assert np.array_equal(read_picture(tmp_path / "a.png"), colours()[:, ::-1])
    mask = np.zeros((7, 9), np.uint8)
    mask[2:4, 3:8] = 255
    write_mask(tmp_path / "m.png", mask)
    assert np.array_equal(read_mask(tmp_path / "m.png"), mask)
    write_mask(tmp_path / "m.png", mask // 2)
    assert read_mask(tmp_path / "m.png").max() == 0


def test_wrong_arrays_and_suffixes(tmp_path: Path) -> None:
    wrong: list[np.ndarray] = [colours().astype(np.float32), colours()[..., 0], np.zeros((4, 4, 4), np.uint8)]
    for image in (*wrong, colours()[:0]):
        with pytest.raises(PictureError, match="need uint8"):
            write_picture(tmp_path / "a.png", image)
    for path in ("a.gif", "a"):
        with pytest.raises(PictureError, match="suffix"):
            write_picture(tmp_path / path, colours())
    with pytest.raises(PictureError, match="blur"):
        write_mask(tmp_path / "m.jpg", colours()[..., 0])
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_old_file_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    write_bytes(path, b"old")

    def full(self: Path, data: bytes) -> int:
        with open(self, "wb") as file:
            file.write(data[:3])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(FFDError, match="disk is full"):
        write_picture(path, colours())
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]
    assert path.read_bytes() == b"old"


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(FFDError, match="cannot write"):
        write_picture(tmp_path / "file" / "a.png", colours())


def test_readers_never_see_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_picture(path, colours())
    stop = threading.Event()

    def rewrite() -> None:
        while not stop.is_set():
            write_picture(path, colours())

    writer = threading.Thread(target=rewrite)
    writer.start()
    try:
        assert all(np.array_equal(read_picture(path), colours()) for _ in range(200))
    finally:
        stop.set()
        writer.join()
