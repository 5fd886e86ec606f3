"""Pictures inside tar shards: the path `shards/000003.tar/clip/0001.jpg` names a member, wherever a picture is read.

Nothing is ever unpacked to disk. A shard's headers are read once a process, for the last `SHARDS` shards used; after
that a picture costs one seek. Members are found by exact name among plain files, so ".." in one leads nowhere.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from functools import lru_cache
from pathlib import PurePath

from ffd_continual.scenarios.errors import FFDError

SHARDS = 64
MAX_MEMBERS = 1_000_000
MAX_HEADER = 2**20  # bytes of a member's long name or attributes: an archive may claim gigabytes
_END = ".tar"
_LONG = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)


class ShardError(FFDError):
    """A shard that cannot be read, or lacks a member. ``cause`` is the message's middle."""


class CarefulInfo(tarfile.TarInfo):
    """A header that does not read a name of gigabytes into memory."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in _LONG and self.size > MAX_HEADER:
            raise tarfile.ReadError(f"a header of {self.size} bytes")
        return super()._proc_member(archive)  # type: ignore[misc, no-any-return]


def shard_member(path: str | os.PathLike[str]) -> tuple[str, str] | None:
    """(shard file, member's name) of a path into a shard; None for any other path."""
    text = PurePath(path).as_posix()
    at = text.find(f"{_END}/")
    while at >= 0:
        shard = text[: at + len(_END)]
        if os.path.isfile(shard):
            return shard, text[at + len(_END) + 1 :]
        at = text.find(f"{_END}/", at + 1)
    return None


@lru_cache(maxsize=SHARDS)
def _index(shard: str, size: int, changed: int) -> dict[str, tuple[int, int]]:
    """{member: (offset, bytes)}; the file's size and time of change are part of the key."""
    places: dict[str, tuple[int, int]] = {}
    with tarfile.open(shard, "r:", tarinfo=CarefulInfo) as archive:
        while (member := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined] # the list that tarfile keeps would double the index
            if member.isreg() and not member.issparse():
                places[member.name] = member.offset_data, member.size
            if len(places) > MAX_MEMBERS:
                raise tarfile.ReadError(f"more than {MAX_MEMBERS} members")
    return places


def _place(shard: str, member: str) -> tuple[int, int] | None:
    try:
        stat = os.stat(shard)
        return _index(shard, stat.st_size, stat.st_mtime_ns).get(member)
    except (OSError, tarfile.TarError) as error:
        raise ShardError(f"the shard {shard} cannot be read ({error})") from error


def read_member(shard: str, member: str) -> bytes:
    """The bytes of a member. Raises `ShardError` for an unreadable shard or an unknown member."""
    place = _place(shard, member)
    if place is None:
        raise ShardError("the shard holds no such file")
    try:
        with open(shard, "rb") as file:
            file.seek(place[0])
            return file.read(place[1])
    except OSError as error:
        raise ShardError(f"the shard {shard} cannot be read ({error.strerror or error})") from error


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Hash of a file's bytes, in a shard or not; plain files are streamed. Raises `ShardError` or OSError."""
    inside = shard_member(path)
    if inside is not None:
        return hashlib.sha256(read_member(*inside)).hexdigest()
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_exists(path: str | os.PathLike[str]) -> bool:
    """Whether there is a file, in a shard or not; an unreadable shard holds nothing."""
    inside = shard_member(path)
    if inside is None:
        return os.path.isfile(path)
    try:
        return _place(*inside) is not None
    except ShardError:
        return False


def file_stamp(path: str | os.PathLike[str]) -> tuple[int, int]:
    """(size, time of change in ns) of a file, or of the shard that holds it. Raises OSError."""
    inside = shard_member(path)
    stat = os.stat(path if inside is None else inside[0])
    return stat.st_size, stat.st_mtime_ns
