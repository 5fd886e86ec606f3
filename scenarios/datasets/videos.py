"""Plain folders of video files: ROOT/real/... and ROOT/<forgery>/..., flat or nested."""

from __future__ import annotations

from pathlib import Path

from ffd_continual.scenarios.datasets.listing import About, Item, Listing, Wanted
from ffd_continual.scenarios.datasets.names import unique
from ffd_continual.scenarios.datasets.plain import REAL, classes, empty, person
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
    found = classes(tree, wanted)
    items: list[Item] = []
    filled: set[str] = set()
    stills = 0
    for one in found:
        stills += len(tree.walk(one.folder, PICTURE_SUFFIXES))
        for path in tree.walk(one.folder, VIDEO_SUFFIXES):
            filled.add(one.folder)
            video = path.rpartition(".")[0]
            who = person(video.removeprefix(f"{one.folder}/"))
            items.append(Item(path, int(one.forgery != REAL), one.forgery, video, "video", one.split, who))
    if not items:
        raise tree.nothing("video files in real/ and <forgery>/")
    notes = (f"{stills} picture(s) left out: `ffd prepare pictures` reads those",) if stills else ()
    return Listing(tuple(unique(items)), tuple(empty(found, filled)), (*tree.notes, *notes))
