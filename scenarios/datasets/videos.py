"""Plain folders of video files: ROOT/real/... and ROOT/<forgery>/..., flat or nested."""

from __future__ import annotations

from pathlib import Path

from ffd_continual.scenarios.datasets.listing import About, Kind, Listing, Wanted
from ffd_continual.scenarios.datasets.plain import listed
from ffd_continual.scenarios.datasets.tree import PICTURE_SUFFIXES, VIDEO_SUFFIXES, Tree

ABOUT = About(
    title="plain folders of videos",
    citation="your own",
    terms="Yours.",
    url="",
    layout="""\
real/anna_01.mp4, <forgery>/anna_01.mp4     the person before the first "_"
real/anna/holiday.mp4                       or the outermost folder's
train/real/..., valid/..., test/...         fix the splits""",
    source="docs/manifest.md, as for folders of crops",
)


def index(root: Path, wanted: Wanted) -> Listing:
    """What lies below ``root``. Raises FFDError for a tree that is laid out otherwise, or holds no video."""
    tree = Tree(root, ABOUT.title)

    def found_in(folder: str) -> list[tuple[str, str, Kind]]:
        return [(path, path.rpartition(".")[0], "video") for path in tree.walk(folder, VIDEO_SUFFIXES)]

    return listed(
        tree, wanted, found_in, lambda folder: len(tree.walk(folder, PICTURE_SUFFIXES)),
        lacks="video files in real/ and <forgery>/", remark="picture(s) left out: `ffd prepare pictures` reads those",
    )  # fmt: skip
