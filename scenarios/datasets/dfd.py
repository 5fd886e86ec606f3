"""DeepFakeDetection (Google and Jigsaw, 2019): consenting actors, in FaceForensics++'s tree or alone.

A forged clip 01_02__meeting_serious__YVGY8LOK is made from 01__meeting_serious, the target's, and shows the face of
actor 02: identity "01", source_identity "02". 28 actors are swapped in all ways, so nearly all clips hang together.
"""

from __future__ import annotations

import re
from pathlib import Path

from ffd_continual.scenarios.datasets.listing import About, Item, Listing, Wanted
from ffd_continual.scenarios.datasets.remarks import without_pair
from ffd_continual.scenarios.datasets.sequences import compressions, masks, sequence, video_name
from ffd_continual.scenarios.datasets.tree import VIDEO_SUFFIXES, Clip, Tree, chosen, join, stem

ABOUT = About(
    title="DeepFakeDetection",
    citation="N. Dufour, A. Gully, P. Karlsson, A. V. Vorbyov, T. Leung, J. Childs, C. Bregler: Deepfakes Detection "
    "Dataset by Google & Jigsaw. 2019.",
    terms="FaceForensics Terms of Use: non-commercial research and education, no passing on; signed by the form.",
    url="https://github.com/ondyari/FaceForensics/tree/master/dataset/DeepFakeDetection",
    layout="""\
ROOT/                 (FaceForensics++'s tree, or a folder with these alone)
  original_sequences/actors/{raw,c23,c40}/videos/01__meeting_serious.mp4
  manipulated_sequences/DeepFakeDetection/
    {raw,c23,c40}/videos/01_02__meeting_serious__YVGY8LOK.mp4
    masks/videos/01_02__meeting_serious__YVGY8LOK.mp4
or actors/ and DeepFakeDetection/ directly in ROOT;
or, as others pass it on, without compressions:
  DFD_original_sequences/*.mp4, DFD_manipulated_sequences/*.mp4""",
    source="dataset/extract_compressed_videos.py and dataset/DeepFakeDetection/README.md of the FaceForensics++ "
    "repository; that the first actor is the target is read by analogy with FaceForensics++, and the flat form as it "
    "is used elsewhere: neither verified against a download",
)
FORGERY = "deepfakedetection"
DATASET = "dfd"
_REAL = re.compile(r"([0-9]{2})__(.+)")
_FORGED = re.compile(r"([0-9]{2})_([0-9]{2})__(.+)__[0-9A-Z]+")
_PLACES = (
    ("original_sequences/actors", "manipulated_sequences/DeepFakeDetection"),
    ("actors", "DeepFakeDetection"),
)
_FLAT = (("DFD_original_sequences", "DFD_original sequences"), ("DFD_manipulated_sequences",))


def present(tree: Tree, home: str) -> bool:
    """Whether any folder of the data set lies in FaceForensics++'s tree at ``home``."""
    return any(tree.is_folder(join(home, base)) for base in _PLACES[0])


def clips(tree: Tree, home: str, asked: tuple[str, ...]) -> Listing:
    """All clips below ``home``; what the tree's notes say is left to the caller."""
    items: list[Item] = []
    missing: list[str] = []
    for real, forged in _PLACES:
        bases = join(home, real), join(home, forged)
        if not any(tree.is_folder(base) for base in bases):
            continue
        for level in compressions(tree, bases, asked, ABOUT.title):
            found = [sequence(tree, base, level) for base in bases]
            missing += [join(base, level, "videos/") for base, there in zip(bases, found, strict=True) if not there]
            items += _items(tree, found[0], found[1], masks(tree, bases[1]), level)
    flat = [
        {stem(p): Clip(p, "video") for f in names for p in tree.walk(join(home, f), VIDEO_SUFFIXES)} for names in _FLAT
    ]
    if any(flat) and not asked:
        items += _items(tree, flat[0], flat[1], {}, "")
    notes = without_pair(items)
    if items:
        notes.append(
            "no official split, and nearly all actors hang together by swaps, so splits by person may be impossible: "
            "prepare it with --split-by test (for testing alone), or with --split-by video and say so"
        )
    return Listing(tuple(items), tuple(missing), tuple(notes))


def _items(
    tree: Tree, originals: dict[str, Clip], forged: dict[str, Clip], mask_of: dict[str, Clip], level: str
) -> list[Item]:
    items = []
    parts = (level,) if level else ()
    for name, clip in originals.items():
        who = _REAL.fullmatch(name)
        if who is None:
            tree.leave_out(clip.path, "no actor's clip, such as 01__meeting_serious")
            continue
        video = video_name(name, *parts)
        items.append(Item(clip.path, 0, "real", video, clip.kind, "", who[1], compression=level, dataset=DATASET))
    for name, clip in forged.items():
        who = _FORGED.fullmatch(name)
        if who is None:
            tree.leave_out(clip.path, "no forged clip's name, such as 01_02__meeting_serious__YVGY8LOK")
            continue
        original = f"{who[1]}__{who[3]}"
        mask = mask_of.get(name)
        items.append(
            Item(
                path=clip.path,
                label=1,
                forgery=FORGERY,
                video=video_name(name, *parts),
                kind=clip.kind,
                identity=who[1],
                source_identity=who[2],
                pair=video_name(original, *parts) if original in originals else "",
                mask=mask.path if mask and mask.kind == clip.kind else "",
                compression=level,
                dataset=DATASET,
            )
        )
    return items


def index(root: Path, wanted: Wanted) -> Listing:
    """All clips. Raises FFDError for a tree without any, and for another forgery than deepfakedetection."""
    tree = Tree(root, ABOUT.title)
    chosen(wanted.forgeries, (FORGERY,), "forgery", ABOUT.title)
    home = tree.home(*(base for place in _PLACES for base in place), *(name for names in _FLAT for name in names))
    listing = clips(tree, home, wanted.compressions)
    if not listing.items:
        raise tree.nothing("clips such as original_sequences/actors/c23/videos/01__meeting_serious.mp4")
    return Listing(listing.items, listing.missing, listing.notes + tree.notes)
