"""Plain folders of photographs, uncropped: ROOT/real/... and ROOT/<forgery>/...; a folder below these is a video."""

from __future__ import annotations

from pathlib import Path

from ffd_continual.scenarios.datasets.listing import About, Kind, Listing, Wanted
from ffd_continual.scenarios.datasets.plain import listed
from ffd_continual.scenarios.datasets.tree import PICTURE_SUFFIXES, VIDEO_SUFFIXES, Tree, order

ABOUT = About(
    title="plain folders of pictures",
    citation="your own",
    terms="Yours.",
    url="",
    layout="""\
real/anna_01.jpg, <forgery>/anna_01.jpg     the person before the first "_"
real/anna_clip2/0001.png                    a folder: frames of one video
train/real/..., valid/..., test/...         fix the splits""",
    source="docs/manifest.md, as for folders of crops",
)


def index(root: Path, wanted: Wanted) -> Listing:
    """What lies below ``root``. Raises FFDError for a tree that is laid out otherwise, or holds no picture."""
    tree = Tree(root, ABOUT.title)

    def found_in(folder: str) -> list[tuple[str, str, Kind]]:
        paths = tree.walk(folder, PICTURE_SUFFIXES)
        deeper = {path.rpartition("/")[0] for path in paths} - {folder}
        flat = [path for path in paths if path.rpartition("/")[0] == folder]
        single: list[tuple[str, str, Kind]] = [(path, path.rpartition(".")[0], "picture") for path in flat]
        return single + [(path, path, "frames") for path in sorted(deeper, key=order)]

    return listed(
        tree, wanted, found_in, lambda folder: len(tree.walk(folder, VIDEO_SUFFIXES)),
        lacks="pictures in real/ and <forgery>/", remark="video file(s) left out: `ffd prepare videos` reads those",
    )  # fmt: skip
