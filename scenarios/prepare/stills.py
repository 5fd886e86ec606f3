"""Frames that are pictures: single files, folders of them, and tar archives, which are read and never unpacked.

Of an archive's members only plain files with a picture's suffix are read, straight into memory. A member that is a
link or a device, or whose name is absolute or holds "..", is refused by name; the rest goes on.
"""

from __future__ import annotations

import lzma
import os
import tarfile
import zlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from ffd_continual.scenarios.pictures import PICTURE_SUFFIXES, Picture, PictureError, read_picture
from ffd_continual.scenarios.prepare.source import ItemError, Positions, Remarks, Seconds, inside, natural, numbers_of
from ffd_continual.scenarios.shard_paths import CarefulInfo

MAX_MEMBER = 64 * 2**20  # bytes of one picture in an archive
MAX_HELD = 512 * 2**20  # bytes of all pictures taken from one archive
MAX_UNPACKED = 64 * 2**30  # bytes that one compressed archive may unfold to
MAX_MEMBERS = 2_000_000
_BROKEN = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError)


class PictureFiles:
    """A `Source` of one picture, or of the pictures of a folder in the order of their names."""

    times: Seconds | None = None

    def __init__(self, root: Path, names: Sequence[str], remarks: Remarks) -> None:
        self.root, self.remarks = root, remarks
        self.names = list(names)
        self.count = len(self.names)
        self.numbers: Positions = numbers_of(self.names)
        if not self.names:
            raise ItemError("holds no picture")

    def frames(self, wanted: Sequence[int]) -> Iterator[tuple[int, Picture]]:
        """As `Source.frames`; pictures that cannot be read are noted by name."""
        for position in wanted:
            name = self.names[position]
            try:
                picture = read_picture(inside(self.root, name))
            except PictureError as error:
                self.remarks.add(name, short(error))
                continue
            except ItemError as error:
                self.remarks.add(name, str(error))
                continue
            yield position, picture


def short(error: PictureError) -> str:
    """The cause alone of "cannot read the picture PATH: CAUSE. ADVICE."."""
    return error.cause or str(error)


def folder_of_frames(root: Path, path: str, files: Sequence[str], remarks: Remarks) -> PictureFiles:
    """The pictures of the folder `path` below `root`: `files` in their order, or all by name."""
    folder = inside(root, path)
    if files:
        return PictureFiles(root, [f"{path}/{name}" for name in files], remarks)
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries]
    except OSError as error:
        raise ItemError(f"cannot be looked into: {error.strerror or error}") from error
    shown = [name for name in names if not name.startswith(".") and is_picture(name)]
    return PictureFiles(root, [f"{path}/{name}" for name in sorted(shown, key=natural)], remarks)


def is_picture(name: str) -> bool:
    """By suffix."""
    return os.path.splitext(name)[1].lower() in PICTURE_SUFFIXES


class Archive:
    """A `Source` of the pictures in a .tar, .tar.gz, .tar.bz2 or .tar.xz, in the order of their names."""

    times: Seconds | None = None

    def __init__(self, path: Path, name: str, files: Sequence[str], remarks: Remarks) -> None:
        self.path, self.name, self.remarks = path, name, remarks
        places: dict[str, int] = {}
        for number, member, _ in self._members(remarks):
            cause = _refused(member)
            if cause:
                remarks.add(f"{name}/{member.name}", cause)
            elif member.isreg() and is_picture(member.name) and not _hidden(member.name):
                places[member.name] = number  # of members of one name the last counts, as for tar itself
        missing = [one for one in files if one not in places]
        if missing:
            remarks.add(name, f"{len(missing)} of the listed files are not in it, such as {missing[0]}")
        self.names = [one for one in files if one in places] if files else sorted(places, key=natural)
        if not self.names:
            raise ItemError("holds no picture")
        self._places = [places[one] for one in self.names]
        self.count = len(self.names)
        self.numbers: Positions = numbers_of(self.names)

    def _members(self, remarks: Remarks) -> Generator[tuple[int, tarfile.TarInfo, tarfile.TarFile], None, None]:
        """(number, header, open archive) as they come; where it is broken the list ends with a remark.

        Raises ItemError for a file that is no archive at all.
        """
        number = -1
        try:
            with tarfile.open(self.path, "r:*", tarinfo=CarefulInfo) as archive:
                while (member := archive.next()) is not None:
                    number += 1
                    archive.members = []  # type: ignore[attr-defined] # otherwise a list of all headers grows
                    if archive.offset > MAX_UNPACKED or number >= MAX_MEMBERS:
                        remarks.add(self.name, "refused from here on: it unfolds to too much")
                        return
                    yield number, member, archive
        except _BROKEN as error:
            if number < 0:
                raise ItemError(f"is no readable archive: {' '.join(str(error).split())[:120]}") from error
            remarks.add(self.name, f"broken after {number + 1} members: {error}")

    def frames(self, wanted: Sequence[int]) -> Iterator[tuple[int, Picture]]:
        """As `Source.frames`. The wanted files are held as they are packed, since archives have an order of theirs."""
        position = {self._places[at]: at for at in wanted}
        held: dict[int, bytes] = {}
        size = 0
        # What is broken was said by the first reading.
        with closing(self._members(Remarks())) as members:
            for number, member, archive in members:
                if number not in position:
                    continue
                size += member.size
                if size > MAX_HELD:
                    self.remarks.add(f"{self.name}/{member.name}", "refused: too many bytes wanted at once")
                    break
                try:
                    file = archive.extractfile(member)
                    held[position[number]] = file.read() if file else b""
                except _BROKEN as error:
                    self.remarks.add(f"{self.name}/{member.name}", f"broken: {error}")
                    break
                if len(held) == len(position):
                    break
        for at in wanted:
            if at not in held:
                continue
            name = f"{self.name}/{self.names[at]}"
            try:
                yield at, read_picture(name, held.pop(at))
            except PictureError as error:
                self.remarks.add(name, short(error))


def _hidden(name: str) -> bool:
    return any(part.startswith(".") and part != "." for part in name.split("/"))


def _refused(member: tarfile.TarInfo) -> str:
    """Why a member is not looked at, "" if it may be."""
    if member.issym() or member.islnk():
        return "refused: a link"
    if member.isdev():
        return "refused: a device or pipe"
    if member.name.startswith("/") or ".." in member.name.replace("\\", "/").split("/"):
        return "refused: its name leads out of the archive"
    if member.isreg() and member.size > MAX_MEMBER:
        return f"refused: {member.size} bytes are more than {MAX_MEMBER // 2**20} MB"
    if member.issparse():
        return "refused: a sparse file"
    return ""
