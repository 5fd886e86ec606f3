"""Plain folders of photographs, uncropped: ROOT/real/... and ROOT/<forgery>/...; a folder below these is a video."""

from __future__ import annotations

from pathlib import Path

from ffd_continual.scenarios.datasets.listing import About, Item, Kind, Listing, Wanted
from ffd_continual.scenarios.datasets.names import unique
from ffd_continual.scenarios.datasets.plain import REAL, classes, empty, person
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
    found = classes(tree, wanted)
    items: list[Item] = []
    filled: set[str] = set()
    films = 0
    for one in found:
        paths = tree.walk(one.folder, PICTURE_SUFFIXES)
        films += len(tree.walk(one.folder, VIDEO_SUFFIXES))
        folders = {path.rpartition("/")[0] for path in paths} - {one.folder}
        flat = [path for path in paths if path.rpartition("/")[0] == one.folder]
        for path in [*flat, *sorted(folders, key=order)]:
            filled.add(one.folder)
            kind: Kind = "frames" if path in folders else "picture"
            video = path if kind == "frames" else path.rpartition(".")[0]
            who = person(video.removeprefix(f"{one.folder}/"))
            items.append(Item(path, int(one.forgery != REAL), one.forgery, video, kind, one.split, who))
    if not items:
        raise tree.nothing("pictures in real/ and <forgery>/")
    notes = (f"{films} video file(s) left out: `ffd prepare videos` reads those",) if films else ()
    return Listing(tuple(unique(items)), tuple(empty(found, filled)), (*tree.notes, *notes))
