"""What an adapter answers: the videos and pictures of a data set as its authors ship it, before any face is cut out.

An adapter is a file of this folder with `ABOUT` and `index(root, wanted) -> Listing`. It reads folder names, official
split files and label files; it opens no video and no picture. Every path is relative to the data set's root with "/".
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, cast

from ffd_continual.scenarios.errors import FFDError

Kind = Literal["video", "picture", "frames", "archive"]


@dataclass(frozen=True)
class About:
    """What a person must know of a data set. ``layout`` is the official tree as text, ``source`` where that is told."""

    title: str
    citation: str
    terms: str
    url: str
    layout: str
    source: str


@dataclass(frozen=True)
class Wanted:
    """What the user asked for; empty takes everything there is."""

    compressions: tuple[str, ...] = ()
    forgeries: tuple[str, ...] = ()


@dataclass(frozen=True)
class Item:
    """One video, picture, folder of frames or archive of frames.

    ``video`` names it within the data set and is unique; ``pair`` is the `video` of the real item it was made from;
    ``mask`` an item of the same kind, white where the forgery changed the face; ``files`` picks frames of a folder, in
    order (empty: all pictures in it, by name); ``cropped`` says that each picture is a face crop already.
    """

    path: str
    label: int
    forgery: str
    video: str
    kind: Kind = "video"
    split: str = ""
    identity: str = ""
    source_identity: str = ""
    pair: str = ""
    mask: str = ""
    compression: str = ""
    date: str = ""
    dataset: str = ""
    cropped: bool = False
    files: tuple[str, ...] = ()
    extra: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Listing:
    """``items`` that are there; ``missing``: paths that the official listing names and the disk lacks; remarks.

    ``lists``: paths of official split files; `ffd prepare` copies them to OUT/splits, where protocols look for them.
    """

    items: tuple[Item, ...]
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()


class Adapter(Protocol):
    """A module of this folder."""

    ABOUT: About

    def index(self, root: Path, wanted: Wanted) -> Listing:
        """What lies below ``root``. Raises FFDError for a tree or a split file that is not the official one."""
        ...


def adapters() -> tuple[str, ...]:
    """Names of all adapters."""
    import ffd_continual.scenarios.datasets as room

    found = (m.name for m in pkgutil.iter_modules(room.__path__) if not m.name.startswith("_"))
    return tuple(sorted(name for name in found if hasattr(_module(name), "ABOUT")))


def adapter(name: str) -> Adapter:
    """The adapter called ``name``. Raises FFDError that names the known ones and the nearest."""
    known = adapters()
    if name not in known:
        near = difflib.get_close_matches(name, known, 1, 0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise FFDError(f"there is no data set {name!r}.{hint} Known: {', '.join(known)}.")
    return cast(Adapter, _module(name))


def _module(name: str) -> object:
    return importlib.import_module(f"ffd_continual.scenarios.datasets.{name}")
