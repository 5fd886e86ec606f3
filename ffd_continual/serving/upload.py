"""An upload on its way in: counted while it comes, kept in a temporary file that has no name, gone with its handle.

Nothing a client sends is ever used as a path or a name of a file. Bytes lie on disk, not in memory, so many slow
clients cost no memory; on Linux the file never has a name, so that not even a kill leaves it behind.
"""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ffd_continual.scenarios.errors import FFDError, is_full

PICTURE, VIDEO = "picture", "video"
HEAD = 16  # bytes that tell a picture's format
_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}
_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"II*\0", b"MM\0*", b"BM", b"GIF8")
HOW = "Send the file itself as the body: curl --data-binary @FILE -H 'Content-Type: image/jpeg' ..."


class UploadError(Exception):
    """An upload that is refused: HTTP status and what to say."""

    def __init__(self, status: int, text: str):
        super().__init__(text)
        self.status, self.text = status, text


@dataclass(frozen=True)
class Upload:
    """A body that came whole."""

    file: IO[bytes]
    size: int
    kind: str  # PICTURE or VIDEO

    def data(self) -> bytes:
        """All of it."""
        self.file.seek(0)
        return self.file.read()

    def close(self) -> None:
        """Delete it."""
        self.file.close()

    @contextmanager
    def place(self) -> Iterator[Path]:
        """A path for readers that need one, good as long as the upload is open."""
        self.file.flush()
        own = Path(f"/proc/self/fd/{self.file.fileno()}")
        if own.exists():
            yield own
            return
        with tempfile.NamedTemporaryFile(prefix="ffd-serve-") as copy:  # systems without /proc
            copy.write(self.data())
            copy.flush()
            yield Path(copy.name)


def read_bytes_limit(text: str) -> int:
    """ "50MB" as bytes (KB, MB, GB are powers of 1024). Raises FFDError."""
    found = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?) ?([kmg]?)b?", text.strip().lower())
    size = int(float(found.group(1)) * _UNITS[found.group(2)]) if found else 0
    if not 1024 <= size <= 4 * 2**30:
        raise FFDError(f"--max-upload {text!r}: give a size from 1KB to 4GB, such as 50MB.")
    return size


def in_words(size: int) -> str:
    """Bytes for people."""
    return f"{size / 2**20:.3g} MB" if size >= 2**20 else f"{size / 2**10:.3g} KB"


def told_kind(content_type: str) -> str | None:
    """PICTURE or VIDEO by a Content-Type, None where the content must tell. Raises UploadError (415) for others."""
    essence = content_type.partition(";")[0].strip().lower()
    if essence.startswith("image/"):
        return PICTURE
    if essence.startswith("video/"):
        return VIDEO
    if essence == "application/octet-stream":
        return None
    shown = (
        essence if re.fullmatch(r"[a-z0-9.+/-]{1,80}", essence) else "that" if essence else "a body of no Content-Type"
    )
    raise UploadError(415, f"a picture or a video is wanted, not {shown}. {HOW}")


def kind_of(start: bytes) -> str:
    """PICTURE where the first bytes are those of a picture format that can be read, else VIDEO."""
    webp = start[:4] == b"RIFF" and start[8:12] == b"WEBP"
    return PICTURE if webp or start.startswith(_STARTS) else VIDEO


def check_length(header: str | None, limit: int) -> None:
    """Refuse by Content-Length before a byte is read. Raises UploadError (400, 413)."""
    if header is None:
        return
    if not re.fullmatch(r"\d{1,18}", header):
        raise UploadError(400, "the Content-Length is no number.")
    if int(header) > limit:
        raise too_large(limit)


def too_large(limit: int) -> UploadError:
    """The refusal of a body over the limit."""
    return UploadError(
        413, f"the file is larger than the {in_words(limit)} that this server takes. Send a smaller one, or start it "
        "with a larger --max-upload."
    )  # fmt: skip


async def receive(body: AsyncIterator[bytes], limit: int, seconds: float, told: str | None) -> Upload:
    """Take a body in. Raises UploadError: 413 over `limit` bytes, 408 after `seconds`, 400 empty, 507 disk full."""
    file = tempfile.TemporaryFile(prefix="ffd-serve-")  # noqa: SIM115  (closed by Upload.close, or below)
    size, kept = 0, False
    try:
        async with asyncio.timeout(seconds):
            async for chunk in body:
                size += len(chunk)
                if size > limit:
                    raise too_large(limit)
                file.write(chunk)
        if size == 0:
            raise UploadError(400, f"the body is empty (0 bytes). {HOW}")
        file.seek(0)
        upload = Upload(file, size, told or kind_of(file.read(HEAD)))
        kept = True
        return upload
    except TimeoutError as error:
        raise UploadError(408, f"the upload took more than {seconds:.0f} seconds.") from error
    except OSError as error:
        if not is_full(error):
            raise
        raise UploadError(507, f"the disk for temporary files ({tempfile.gettempdir()}) is full.") from error
    finally:
        if not kept:
            file.close()


def temporary_folder_writable() -> None:
    """Raises FFDError where no temporary file can be made, before the first upload finds out."""
    try:
        tempfile.TemporaryFile().close()
    except OSError as error:
        raise FFDError(
            f"no temporary file can be made ({error.strerror or error}): uploads need one. Set TMPDIR to a folder "
            f"that can be written{'' if os.environ.get('TMPDIR') is None else ', now ' + os.environ['TMPDIR']}."
        ) from error
