"""DeepfakeTIMIT (Korshunov, Marcel, 2018): 16 pairs of people of VidTIMIT, swapped both ways at two qualities.

A forged clip fadg0/sa1-video-fram1.avi is made from fadg0's sentence sa1 and shows the face of fram1: identity "fadg0",
source_identity "fram1". The real videos are VidTIMIT's, which is a download of its own.
"""

from __future__ import annotations

import re
from pathlib import Path

from ffd_continual.scenarios.datasets.listing import About, Item, Kind, Listing, Wanted
from ffd_continual.scenarios.datasets.remarks import without_pair
from ffd_continual.scenarios.datasets.tree import PICTURE_SUFFIXES, Tree, chosen, join

ABOUT = About(
    title="DeepfakeTIMIT",
    citation="P. Korshunov, S. Marcel: DeepFakes: a New Threat to Face Recognition? Assessment and Detection. "
    "arXiv 1812.08685, 2018. Real videos: C. Sanderson, VidTIMIT.",
    terms="Idiap's licence of DeepfakeTIMIT and VidTIMIT's own: research, no passing on.",
    url="https://www.idiap.ch/en/scientific-research/data/deepfaketimit",
    layout="""\
ROOT/
  DeepfakeTIMIT/{higher_quality,lower_quality}/fadg0/sa1-video-fram1.avi
    (or these two folders in ROOT)
  VidTIMIT/fadg0/video/sa1/001, 002, ...   (frames: JPEG without suffix)
    (or VidTIMIT/fadg0/sa1.avi; or fadg0/ in ROOT)""",
    source="https://conradsanderson.id.au/vidtimit for the real part; the forged part as code that reads it has it; "
    "not verified against a download",
)
FORGERIES = ("higher_quality", "lower_quality")
DATASET = "deepfaketimit"
_SUBJECT = re.compile(r"[fm][a-z]{3}[0-9]")
_FORGED = re.compile(r"(s[aix][0-9]+)-video-([fm][a-z]{3}[0-9])")
_FRAME = re.compile(r"[0-9]{3,}")
_SENTENCES = 10  # of each person (README of VidTIMIT)


def index(root: Path, wanted: Wanted) -> Listing:
    """All clips; the quality is the forgery. Raises FFDError for a tree without the two folders."""
    tree = Tree(root, ABOUT.title)
    chosen(wanted.compressions, (), "compression", ABOUT.title)
    forgeries = chosen(wanted.forgeries, FORGERIES, "forgery", ABOUT.title)
    homes = [home for home in ("", *tree.folders()) if any(tree.is_folder(join(home, name)) for name in FORGERIES)]
    if not homes:
        raise tree.nothing("higher_quality and lower_quality")
    items = _reals(tree)
    known = {item.video for item in items}
    missing: list[str] = []
    for forgery in forgeries:
        base = join(homes[0], forgery)
        people = tree.folders(base)
        missing += [f"{base}/"] if not people else []
        for person in people:
            clips = tree.clips(join(base, person))
            for name, clip in clips.items():
                found = _FORGED.fullmatch(name)
                if found is None or not _SUBJECT.fullmatch(person):
                    tree.leave_out(clip.path, "no clip's name, such as fadg0/sa1-video-fram1.avi")
                    continue
                video = f"{person}-{found[1]}"
                items.append(
                    Item(
                        path=clip.path,
                        label=1,
                        forgery=forgery,
                        video=f"{video}-{found[2]}-{forgery}",
                        identity=person,
                        source_identity=found[2],
                        pair=video if video in known else "",
                        dataset=DATASET,
                    )
                )
    notes = ["no official list of a split; each pair of people is a group"]
    if not known:
        notes.append("no real videos: they are VidTIMIT's, a download of its own, to be unpacked into ROOT/VidTIMIT")
    short = sorted({item.identity for item in items if item.label} - _complete(items, len(forgeries)))
    if short:
        notes.append(f"fewer than {_SENTENCES} sentences of {len(short)} forged person(s), such as {short[0]}")
    return Listing(tuple(items), tuple(missing), (*notes, *without_pair(items), *tree.notes))


def _complete(items: list[Item], qualities: int) -> set[str]:
    count: dict[str, int] = {}
    for item in items:
        count[item.identity] = count.get(item.identity, 0) + item.label
    return {person for person, number in count.items() if number >= _SENTENCES * qualities}


def _reals(tree: Tree) -> list[Item]:
    """VidTIMIT's sequences: folders of frames, or videos that somebody made of them."""
    items: list[Item] = []
    for home in ("VidTIMIT", "vidtimit", "real", ""):
        for person in tree.folders(home):
            if not _SUBJECT.fullmatch(person):
                continue
            base = join(home, person)
            for folder in tree.folders(join(base, "video")):
                path = join(base, "video", folder)
                frames = tree.names(path)
                files = tuple(name for name in frames if _FRAME.fullmatch(name))
                plain = any(Path(name).suffix.lower() in PICTURE_SUFFIXES for name in frames)
                if files or plain:
                    items.append(_real(path, person, folder, "frames", files))
            for name, clip in tree.clips(base).items():
                items.append(_real(clip.path, person, name, clip.kind))
        if items:
            break
    return items


def _real(path: str, person: str, sequence: str, kind: Kind, files: tuple[str, ...] = ()) -> Item:
    return Item(path, 0, "real", f"{person}-{sequence}", kind, identity=person, dataset=DATASET, files=files)
