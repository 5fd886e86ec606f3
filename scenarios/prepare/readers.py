"""The reader for each kind of item."""

from __future__ import annotations

from pathlib import Path

from ffd_continual.scenarios.prepare.source import ItemError, Remarks, Source, inside
from ffd_continual.scenarios.prepare.stills import Archive, PictureFiles, folder_of_frames
from ffd_continual.scenarios.prepare.video import VideoFile


def open_source(root: Path, path: str, kind: str, files: tuple[str, ...], remarks: Remarks) -> Source:
    """The frames of what lies at `path` below `root`. Raises ItemError."""
    where = inside(root, path)
    if kind == "picture":
        return PictureFiles(root, [path], remarks)
    if not where.exists():
        raise ItemError("there is no such file")
    if kind == "frames":
        return folder_of_frames(root, path, files, remarks)
    if not where.is_file():
        raise ItemError("is no plain file")
    return Archive(where, path, files, remarks) if kind == "archive" else VideoFile(where, path, remarks)
