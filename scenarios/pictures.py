"""Pictures in and out: every readable form becomes uint8 RGB, every written file is whole and says if it is forged.

In memory a picture is ``np.uint8 (H, W, 3)`` RGB and a mask ``np.uint8 (H, W)``. Reading goes through Pillow with a
closed list of formats (no PostScript, no plugin that starts another program) and looks at the header's size before a
pixel is decoded.

Choices that change pixels, so that they are known:

* transparency is laid on white;
* 16-bit grey is divided by 257, so that 65535 becomes 255; 32-bit and floating point grey has no known white: refused;
* CMYK goes through Pillow's plain formula and an embedded colour profile is not applied;
* EXIF orientation is applied; of an animation the first frame is taken.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import struct
import uuid
import warnings
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from ffd_continual.scenarios.errors import FFDError, is_full
from ffd_continual.scenarios.shard_paths import ShardError, read_member, shard_member

Picture = npt.NDArray[np.uint8]
PathLike = str | os.PathLike[str]

MAX_PIXELS = 100_000_000
PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif"})
_JPEG_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe"})
# Pillow loads plugins lazily and fails on an allowed format that is not loaded yet: each is imported above by name.
_FORMATS = tuple(
    plugin.format
    for plugin in (
        JpegImagePlugin.JpegImageFile,
        PngImagePlugin.PngImageFile,
        WebPImagePlugin.WebPImageFile,
        TiffImagePlugin.TiffImageFile,
        BmpImagePlugin.BmpImageFile,
        GifImagePlugin.GifImageFile,
    )
)
_MARK = re.compile(r"ffd_continual: forged \((.*)\)", re.DOTALL)
_EXIF_DESCRIPTION, _EXIF_SOFTWARE = 0x010E, 0x0131
# What Pillow's decoders raise on broken files; anything else is a fault of this program and must surface.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError, RuntimeError)
_BAD_EXIF = (OSError, SyntaxError, ValueError, KeyError, TypeError, EOFError, struct.error)
_BROKEN_DATA = (*_BROKEN, struct.error, zlib.error, MemoryError)


class PictureError(FFDError):
    """A picture file that cannot be used: the message names the path, the cause and what to do."""

    cause = ""  # the cause alone, for lists that name the path elsewhere


def _fail(path: Path, cause: str, advice: str) -> PictureError:
    error = PictureError(f"cannot read the picture {path}: {cause}. {advice}.")
    error.cause = cause
    return error


def _open(path: PathLike, data: bytes | None = None) -> Image.Image:
    """The opened file (or its bytes, called `path`), its pixels still undecoded. Raises `PictureError`."""
    where = Path(path)
    again = "Copy it again, or remove its row from the manifest"
    try:
        inside = shard_member(where) if data is None else None
        data = read_member(*inside) if inside else data
        with warnings.catch_warnings():  # Pillow's own limit lies below MAX_PIXELS
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(where if data is None else io.BytesIO(data), formats=_FORMATS)
    except ShardError as error:
        raise _fail(where, str(error), "Check the path (a manifest's is relative to its folder)") from error
    except FileNotFoundError as error:
        raise _fail(
            where, "there is no such file", "Check the path (a manifest's is relative to its folder)"
        ) from error
    except IsADirectoryError as error:
        raise _fail(where, "it is a folder", "Give the path of a picture file") from error
    except PermissionError as error:
        raise _fail(where, "reading it is not permitted", "Change its permissions") from error
    except UnidentifiedImageError as error:
        if (where.stat().st_size if data is None else len(data)) == 0:
            raise _fail(where, "the file is empty (0 bytes)", again) from error
        cause = "its content is no JPEG, PNG, WebP, TIFF, BMP or GIF, whatever its name says"
        raise _fail(where, cause, "Convert it to PNG or JPEG, or remove it") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _fail(where, f"it has more than {MAX_PIXELS // 10**6} megapixels", "Crop or shrink it first") from error
    except _BROKEN_DATA as error:
        raise _fail(where, f"its header is broken ({error})", again) from error
    width, height = picture.size
    if width * height > MAX_PIXELS:
        picture.close()
        cause = f"{width} x {height} pixels are more than {MAX_PIXELS // 10**6} megapixels"
        raise _fail(where, cause, "Crop or shrink it first")
    if width < 1 or height < 1:
        picture.close()
        raise _fail(where, f"it has no pixels ({width} x {height})", again)
    return picture


def _upright(picture: Image.Image) -> Image.Image:
    """The picture turned as its EXIF orientation asks; unreadable EXIF counts as none."""
    try:
        turned = ImageOps.exif_transpose(picture)
    except _BAD_EXIF:
        return picture
    return turned if turned is not None else picture


def _to_rgb(picture: Image.Image, path: Path) -> Image.Image:
    mode = picture.mode
    if mode.startswith("I;16") or mode == "I":
        grey = np.asarray(picture).astype(np.int64)
        if grey.min() < 0 or grey.max() > 65535:
            raise _fail(path, "its 32-bit values have no known white", "Convert it to 8 or 16 bits a channel")
        eight = ((grey + 128) // 257).astype(np.uint8)
        return Image.fromarray(eight).convert("RGB")
    if mode == "F":
        raise _fail(path, "floating point values have no known white", "Convert it to 8 or 16 bits a channel")
    if mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layer).convert("RGB")
    return picture.convert("RGB")


def read_picture(path: PathLike, data: bytes | None = None) -> Picture:
    """The picture as uint8 RGB ``(H, W, 3)``, upright, whatever its colour model, depth or container.

    ``data``: the file's bytes where they are in memory already; then ``path`` is only what messages call it. A path
    may lead into a tar shard (`shard_paths`).
    Raises `PictureError` for a missing, empty, truncated, disguised or over-large (> 100 megapixels) file.
    """
    where = Path(path)
    with _open(where, data) as picture:
        try:
            picture.load()
            upright = _to_rgb(_upright(picture), where)
        except PictureError:
            raise
        except _BROKEN_DATA as error:
            advice = "Copy it again, or remove its row from the manifest"
            raise _fail(where, f"its pixels are truncated or damaged ({error})", advice) from error
        return np.array(upright, dtype=np.uint8)


def read_mask(path: PathLike) -> Picture:
    """A mask file of any kind as ``(H, W)`` of 0 and 255, cut at half brightness. Raises `PictureError`."""
    grey = read_picture(path).max(axis=2)
    return np.where(grey >= 128, 255, 0).astype(np.uint8)


def read_size(path: PathLike, data: bytes | None = None) -> tuple[int, int]:
    """``(height, width)`` of the upright picture, from the header alone; ``data`` as in `read_picture`.

    Raises `PictureError`.
    """
    with _open(path, data) as picture:
        width, height = picture.size
        try:
            sideways = picture.getexif().get(0x0112) in (5, 6, 7, 8)
        except _BAD_EXIF:
            sideways = False
    return (width, height) if sideways else (height, width)


def read_mark(path: PathLike) -> str | None:
    """The forgery named in a file's own metadata by `write_picture`, or None. Raises `PictureError`.

    A missing mark proves nothing: any re-encoding may drop it.
    """
    with _open(path) as picture:
        texts = [value for value in picture.info.values() if isinstance(value, (str, bytes))]
        with contextlib.suppress(*_BAD_EXIF):
            texts.append(str(picture.getexif().get(_EXIF_DESCRIPTION, "")))
    for text in texts:
        found = _MARK.fullmatch(text.decode("utf-8", "replace") if isinstance(text, bytes) else text)
        if found:
            return found.group(1)
    return None


def write_bytes(path: PathLike, data: bytes) -> None:
    """Write a file whole or not at all: into a temporary neighbour, then renamed. Raises `FFDError`."""
    where = Path(path)
    part = where.parent / f".{uuid.uuid4().hex[:12]}.part"
    try:
        where.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_bytes(data)
            os.replace(part, where)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        if is_full(error):
            raise FFDError(f"the disk is full: cannot write {where}. Free some space and run again.") from error
        cause = error.strerror or str(error)
        raise FFDError(f"cannot write {where}: {cause}. Choose a folder that can be written.") from error


def _check_pixels(image: Picture, path: Path, planes: int) -> None:
    good = image.dtype == np.uint8 and image.ndim == planes and 0 not in image.shape
    if not good or (planes == 3 and image.shape[2] != 3):
        want = "(H, W, 3) RGB" if planes == 3 else "(H, W)"
        raise PictureError(f"cannot write {path}: need uint8 {want}, got {image.dtype} of shape {image.shape}.")


def encode_picture(image: Picture, suffix: str, forged: str | None = None, quality: int = 95) -> bytes:
    """The bytes of uint8 RGB ``(H, W, 3)`` as ".jpg" (4:4:4, ``quality`` 1-100), ".webp" (``quality``) or ".png".

    ``forged`` names the forgery that made the picture; it is written into the file's metadata (JPEG comment, EXIF
    description, PNG text) as ``ffd_continual: forged (<forgery>)``, so that a forged face says so wherever it ends up.
    Raises `PictureError` for wrong arrays or suffixes.
    """
    _check_pixels(image, Path(f"*{suffix}"), 3)
    mark = None if forged is None else f"ffd_continual: forged ({forged})"
    out = io.BytesIO()
    picture = Image.fromarray(np.ascontiguousarray(image))
    exif = Image.Exif()
    if mark is not None:
        exif[_EXIF_DESCRIPTION], exif[_EXIF_SOFTWARE] = mark, "ffd_continual"
    if suffix in _JPEG_SUFFIXES:
        if mark is None:
            picture.save(out, "JPEG", quality=quality, subsampling=0)
        else:
            picture.save(out, "JPEG", quality=quality, subsampling=0, comment=mark.encode(), exif=exif)
    elif suffix == ".png":
        texts = PngImagePlugin.PngInfo()
        if mark is not None:
            texts.add_text("Description", mark)
            texts.add_text("Software", "ffd_continual")
        picture.save(out, "PNG", pnginfo=texts)
    elif suffix == ".webp":
        picture.save(out, "WEBP", quality=quality, exif=exif)
    else:
        raise PictureError(f"the suffix {suffix!r} is not known. Use .jpg, .png or .webp.")
    return out.getvalue()


def write_picture(path: PathLike, image: Picture, forged: str | None = None, quality: int = 95) -> None:
    """Write a picture whole, in the form of the path's suffix (`encode_picture`); folders are made.

    Raises `PictureError` for wrong arrays or suffixes, `FFDError` when the disk refuses.
    """
    where = Path(path)
    try:
        data = encode_picture(image, where.suffix.lower(), forged, quality)
    except PictureError as error:
        raise PictureError(f"cannot write {where}: {error}") from error
    write_bytes(where, data)


def write_mask(path: PathLike, mask: Picture) -> None:
    """Write a mask ``(H, W)`` uint8 as PNG, value for value. Raises as `write_picture`."""
    where = Path(path)
    _check_pixels(mask, where, 2)
    if where.suffix.lower() != ".png":
        raise PictureError(f"cannot write the mask {where}: JPEG would blur its edges. Use .png.")
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(mask)).save(out, "PNG")
    write_bytes(where, out.getvalue())
