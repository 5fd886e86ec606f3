"""Looking into a data set's folders without trusting them, and reading official list files with their line numbers.

What several adapters share. Names on disk and in lists come from a download: hidden files are skipped, a link that
leads out of the root is not followed, a name that could break a path, a table or a terminal is refused, and each of
these is counted and said once in `Tree.notes`; the rest goes on. Paths are text with "/", relative to the root.
"""

from __future__ import annotations

import csv
import difflib
import json
import os
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NoReturn

from ffd_continual.scenarios.datasets.listing import Kind
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.pictures import PICTURE_SUFFIXES

__all__ = [
    "PICTURE_SUFFIXES",
    "VIDEO_SUFFIXES",
    "Clip",
    "Tree",
    "bad_list",
    "chosen",
    "join",
    "order",
    "stem",
    "unsafe",
]

VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv"})
MAX_LIST_BYTES = 512 * 2**20  # the largest official list known here has some 20 MB
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff\\\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_NUMBER = re.compile(r"(\d+)")


def unsafe(name: str) -> str:
    """Why a relative path is refused, or "" where it is safe: it must stay below the root and be printable."""
    if not name.strip():
        return "is empty"
    if _CONTROL.search(name):
        return "holds a control character, a backslash or bytes that are no UTF-8"
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        return "is absolute"
    if ".." in PurePosixPath(name).parts:
        return "leads out of its folder"
    if len(name.encode()) > 1000:
        return "is longer than 1000 bytes"
    return ""


def order(name: str) -> tuple[tuple[str, int], ...]:
    """Sorting key by which "id2" stands before "id10"."""
    parts = _NUMBER.split(name)
    texts, numbers = parts[0::2], [int(n) for n in parts[1::2]] + [-1]
    return (*zip(texts, numbers, strict=True), (name, -1))


def join(*parts: str) -> str:
    """A path of those parts that are not empty."""
    return "/".join(part for part in parts if part)


def stem(path: str) -> str:
    """File name without its suffix."""
    return PurePosixPath(path).stem


def chosen(asked: Sequence[str], known: Sequence[str], what: str, title: str) -> tuple[str, ...]:
    """Those of ``known`` that were asked for, all where nothing was. Raises FFDError that names the nearest."""
    plain = {name.lower(): name for name in known}
    for name in asked:
        if name.lower() not in plain:
            near = difflib.get_close_matches(name.lower(), plain, 1, 0.5)
            hint = f" Did you mean {plain[near[0]]!r}?" if near else ""
            names = ", ".join(known) or f"none, it has a single {what}"
            raise FFDError(f"{title} has no {what} {name!r}.{hint} Known: {names}.")
    return tuple(known) if not asked else tuple(n for n in known if n.lower() in {a.lower() for a in asked})


def bad_list(path: Path | str, line: int | None, wrong: str, advice: str) -> FFDError:
    """The error of a list that is not the official one, to be raised; ``line`` counts from 1."""
    where = f"{path}, line {line}" if line is not None else str(path)
    return FFDError(f"{where}: {wrong}. {advice}")


@dataclass(frozen=True)
class Clip:
    """A video file or a folder of its frames, by its path from the root."""

    path: str
    kind: Kind


class Tree:
    """A data set's root. Every question is answered from the disk; remarks gather in `notes`."""

    def __init__(self, root: Path, title: str) -> None:
        """Raises FFDError where ``root`` is no folder that can be read; ``title`` names the data set in messages."""
        self.root, self.title = Path(root), title
        self._left: dict[str, dict[str, None]] = {}  # reason -> names
        if not self.root.is_dir():
            what = "is a file, not a folder" if self.root.exists() else "does not exist"
            raise FFDError(f"{title}: {self.root} {what}. Give the folder into which the data set was unpacked.")
        self._real = os.path.realpath(self.root)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out, a sentence a reason, with how many and one example."""
        return tuple(
            f"left out {len(names)} name(s): {reason}, such as '{next(iter(names))}'"
            for reason, names in self._left.items()
        )

    def leave_out(self, name: str, reason: str) -> None:
        """Remember a name that is refused; `notes` tells how many and the first."""
        # By its ASCII form: the name may be refused for what it would do to a terminal.
        self._left.setdefault(reason, {})[ascii(name)[1:-1] if _CONTROL.search(name) else name] = None

    def _inside(self, path: str) -> bool:
        real = os.path.realpath(path)
        return real == self._real or real.startswith(self._real.rstrip(os.sep) + os.sep)

    def _entries(self, folder: str) -> list[os.DirEntry[str]]:
        found = []
        try:
            with os.scandir(self.root / folder) as listing:
                for entry in listing:
                    name = join(folder, entry.name)
                    if entry.name.startswith(".") or entry.name == "__MACOSX":
                        continue
                    if why := unsafe(name):
                        self.leave_out(name, f"the name {why}")
                    elif entry.is_symlink() and not self._inside(entry.path):
                        self.leave_out(name, "a link that leads out of the data set (give the folder it leads to)")
                    else:
                        found.append(entry)
        except OSError as error:
            raise FFDError(
                f"{self.title}: cannot look into {self.root / folder}: {error.strerror or error}."
            ) from error
        return sorted(found, key=lambda entry: order(entry.name))

    def has(self, path: str) -> bool:
        """Whether a safe file or folder of that name lies below the root."""
        where = self.root / path
        return not unsafe(path) and os.path.exists(where) and self._inside(str(where))

    def is_folder(self, path: str) -> bool:
        """Whether it is a folder below the root; "" is the root."""
        return not path or (self.has(path) and (self.root / path).is_dir())

    def is_file(self, path: str) -> bool:
        """Whether it is a file below the root."""
        return self.has(path) and (self.root / path).is_file()

    def folders(self, folder: str = "") -> list[str]:
        """Names of the sub-folders, numbers in order; none where there is no such folder."""
        return [e.name for e in self._entries(folder) if e.is_dir()] if self.is_folder(folder) else []

    def names(self, folder: str) -> list[str]:
        """Names of all files directly in a folder, numbers in order."""
        return [e.name for e in self._entries(folder) if e.is_file()] if self.is_folder(folder) else []

    def files(self, folder: str, suffixes: Collection[str]) -> list[str]:
        """Paths from the root of the files directly in ``folder`` with one of ``suffixes`` (lower case)."""
        return [join(folder, name) for name in self.names(folder) if _suffix(name) in suffixes]

    def clips(self, *folders: str, frames: str = "") -> dict[str, Clip]:
        """Videos by their names without suffix, the first folder's first; and folders of frames in ``frames`` beside.

        A name that a folder holds twice (071.mp4 and 071.avi) is left out the second time, with a note.
        """
        found: dict[str, Clip] = {}
        for folder in folders:
            for path in self.files(folder, VIDEO_SUFFIXES):
                if found.setdefault(stem(path), Clip(path, "video")).path != path:
                    self.leave_out(path, "another file has that name and place")
        for name in self.folders(frames) if frames else ():
            found.setdefault(name, Clip(f"{frames}/{name}", "frames"))
        return found

    def walk(self, folder: str, suffixes: Collection[str]) -> list[str]:
        """As `files`, of ``folder`` and all below it. A link to a folder above is not walked round for ever."""
        return list(self._walk(folder, suffixes, set())) if self.is_folder(folder) else []

    def _walk(self, folder: str, suffixes: Collection[str], seen: set[str]) -> Iterator[str]:
        real = os.path.realpath(self.root / folder)
        if real in seen:
            return
        seen.add(real)
        for entry in self._entries(folder):
            path = join(folder, entry.name)
            if entry.is_dir():
                yield from self._walk(path, suffixes, seen)
            elif entry.is_file() and _suffix(entry.name) in suffixes:
                yield path

    def home(self, *marks: str) -> str:
        """The folder that holds the official tree: "" or one sub-folder of the root, that has one of ``marks``.

        Archives unpack into a folder of their own; both it and the one above are accepted. Raises FFDError naming
        what was expected and what is there.
        """
        for below in ("", *self.folders()):
            if any(self.has(join(below, mark)) for mark in marks):
                return below
        raise self.nothing("one of " + ", ".join(marks) if len(marks) > 1 else marks[0])

    def nothing(self, expected: str) -> FFDError:
        """The error of a tree in which nothing of the data set was found, to be raised."""
        there = sorted(e.name for e in self._entries(""))
        shown = ", ".join(there[:6]) + (f" and {len(there) - 6} more" if len(there) > 6 else "")
        return FFDError(
            f"{self.title}: nothing of it is in {self.root}: expected {expected}, and it holds {shown or 'nothing'}. "
            "Give the folder into which the data set was unpacked; `ffd prepare DATASET --about` tells its layout."
        )

    def text(self, path: str) -> str:
        """An official list as text. Raises FFDError where it cannot be read, is too large or no UTF-8."""
        where = self.root / path
        try:
            if where.stat().st_size > MAX_LIST_BYTES:
                raise FFDError(f"{where} has more than {MAX_LIST_BYTES >> 20} MiB: that is no list. Download it again.")
            return where.read_bytes().decode("utf-8-sig")
        except OSError as error:
            raise FFDError(f"cannot read the list {where}: {error.strerror or error}.") from error
        except UnicodeDecodeError as error:
            raise FFDError(f"the list {where} is no UTF-8 text (byte {error.start}). Download it again.") from error

    def lines(self, path: str) -> list[tuple[int, str]]:
        """(line number from 1, trimmed text) of every line that is not blank."""
        return [(n, line.strip()) for n, line in enumerate(self.text(path).splitlines(), 1) if line.strip()]

    def json(self, path: str) -> object:
        """A JSON file, NaN and Infinity refused. Raises FFDError with the line."""
        where = self.root / path

        def refuse(word: str) -> NoReturn:
            raise ValueError(f"{word} is no JSON number")

        try:
            value: object = json.loads(self.text(path), parse_constant=refuse)
        except json.JSONDecodeError as error:
            raise bad_list(where, error.lineno, f"is no JSON ({error.msg})", "Download the file again.") from error
        except (ValueError, RecursionError) as error:
            raise bad_list(where, None, f"is no JSON that can be used ({error})", "Download the file again.") from error
        return value

    def entries(self, path: str) -> list[tuple[int, object]]:
        """(line number from 1, element) of a JSON file that is one list."""
        where = self.root / path
        if not isinstance(self.json(path), list):
            raise bad_list(where, None, "is no JSON list", "Download the file again.")
        text, decoder, found = self.text(path), json.JSONDecoder(), []
        at = text.index("[") + 1
        while text[(at := _after(text, at))] != "]":
            value, end = decoder.raw_decode(text, at)
            found.append((text.count("\n", 0, at) + 1, value))
            at = end
        return found

    def table(self, path: str, columns: Sequence[str], delimiter: str = ",") -> list[tuple[int, dict[str, str]]]:
        """(line number, row) of a CSV file with a header. Raises FFDError where one of ``columns`` is not in it."""
        reader = csv.DictReader(self.text(path).splitlines(), delimiter=delimiter, restkey="", restval="")
        where = self.root / path
        try:
            header = [str(name).strip() for name in reader.fieldnames or ()]
            absent = [name for name in columns if name not in header]
            if absent:
                has = ", ".join(header[:8]) or "nothing"
                raise bad_list(
                    where, 1, f"the header lacks {', '.join(absent)}; it has {has}", "Take the official file."
                )
            reader.fieldnames = header
            # Lists are cut at line ends first, so `line_num` is the line even in files that end lines with CR.
            return [
                (reader.line_num, {k: v.strip() for k, v in row.items() if k and isinstance(v, str)}) for row in reader
            ]
        except csv.Error as error:
            raise bad_list(where, reader.reader.line_num, f"is no CSV ({error})", "Download the file again.") from error


def _after(text: str, at: int) -> int:
    """Where the next element or the end of a JSON list begins."""
    found = re.compile(r"[\s,]*").match(text, at)
    return found.end() if found else at


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()
