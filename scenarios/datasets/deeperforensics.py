"""DeeperForensics-1.0 (Jiang et al., CVPR 2020): 100 actors' faces on the 1,000 videos of FaceForensics++.

A forged clip 000_M101 is made from the video 000 of FaceForensics++ and shows the actor M101: identity "000",
source_identity "M101". The real part are FaceForensics++'s originals in c23, not the actors' source videos.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from ffd_continual.scenarios.datasets.listing import About, Item, Listing, Wanted
from ffd_continual.scenarios.datasets.remarks import crossing
from ffd_continual.scenarios.datasets.sequences import lacking
from ffd_continual.scenarios.datasets.tree import Tree, bad_list, chosen, join, stem

ABOUT = About(
    title="DeeperForensics-1.0",
    citation="L. Jiang, R. Li, W. Wu, C. Qian, C. C. Loy: DeeperForensics-1.0: A Large-Scale Dataset for Real-World "
    "Face Forgery Detection. CVPR 2020.",
    terms="Terms of Use of DeeperForensics-1.0, by the authors' form: non-commercial research, no passing on.",
    url="https://github.com/EndlessSora/DeeperForensics-1.0",
    layout="""\
ROOT/
  manipulated_videos/end_to_end/000_M101.mp4
    (the same names in reenact_postprocess, end_to_end_level_{1..5},
     end_to_end_random_level, end_to_end_mix_{2,3,4}_distortions)
  lists/splits/{train,val,test}.txt        (one 000_M101.mp4 a line)
  source_videos/...                        (not read: not the real part)
  target_videos/000.mp4                    (FaceForensics++'s originals in c23,
     to be added; or original_sequences/youtube/c23/videos/000.mp4)""",
    source="dataset/README.md of the authors' repository; that lines of the splits are bare names is as code that "
    "reads them has it, not verified against a download",
)
DATASET = "deeperforensics"
CLEAN = "clean"
_FORGERIES = ("end_to_end", "reenact_postprocess")
_CONDITIONS: Mapping[str, tuple[str, str]] = {  # folder -> forgery, perturbation
    "end_to_end": ("end_to_end", CLEAN),
    "reenact_postprocess": ("reenact_postprocess", CLEAN),
    **{f"end_to_end_level_{at}": ("end_to_end", f"level_{at}") for at in range(1, 6)},
    "end_to_end_random_level": ("end_to_end", "random_level"),
    **{f"end_to_end_mix_{at}_distortions": ("end_to_end", f"mix_{at}_distortions") for at in range(2, 5)},
}
_REALS = ("target_videos", "original_sequences/youtube/c23/videos")
_SPLITS = {"train": "train.txt", "valid": "val.txt", "test": "test.txt"}
_NAME = re.compile(r"([0-9]{3})_([MW][0-9]{3})")


def read_splits(tree: Tree, folder: str) -> dict[str, str]:
    """Clip -> split. Raises FFDError with file and line where a list is not the official one."""
    split_of: dict[str, str] = {}
    place: dict[str, str] = {}
    advice = "Take train.txt, val.txt and test.txt of lists/splits as they were downloaded."
    for split, file in _SPLITS.items():
        path = join(folder, file)
        for line, text in tree.lines(path):
            name = stem(text)
            if not _NAME.fullmatch(name):
                wrong = f"{ascii(text[:60])} is no clip such as 000_M101.mp4"
                raise bad_list(tree.root / path, line, wrong, advice)
            if name in place:
                raise bad_list(tree.root / path, line, f"{name} stands in {place[name]} already", advice)
            split_of[name], place[name] = split, f"{file}, line {line}"
    return split_of


def index(root: Path, wanted: Wanted) -> Listing:
    """All clips; `compression` is the perturbation of a forged clip (clean, level_1, ...), c23 for the real ones.

    Raises FFDError for a tree without manipulated_videos and for split files that are not the official ones.
    """
    tree = Tree(root, ABOUT.title)
    forgeries = chosen(wanted.forgeries, _FORGERIES, "forgery", ABOUT.title)
    levels = tuple(dict.fromkeys(level for _, level in _CONDITIONS.values()))
    asked = chosen(wanted.compressions, levels, "perturbation", ABOUT.title)
    home = tree.home("manipulated_videos", "lists")
    folder = join(home, "lists/splits")
    lists = [name for name in _SPLITS.values() if tree.is_file(join(folder, name))]
    if lists and len(lists) < len(_SPLITS):
        wrong = f"holds {', '.join(lists)} only"
        raise bad_list(tree.root / folder, None, wrong, "Take all of train.txt, val.txt and test.txt.")
    split_of = read_splits(tree, folder) if lists else {}
    reals = tree.clips(*(join(home, name) for name in _REALS))
    targets: dict[str, set[str]] = {}
    for name, split in split_of.items():
        targets.setdefault(name[:3], set()).add(split)
    items: list[Item] = []
    for name, clip in reals.items():
        if not re.fullmatch(r"[0-9]{3}", name):
            tree.leave_out(clip.path, "no original's name, which has three digits")
            continue
        sides = targets.get(name, set())
        split = next(iter(sides)) if len(sides) == 1 else ""
        if len(sides) > 1:
            tree.leave_out(clip.path, "an original whose forgeries stand in several official splits")
            continue
        items.append(Item(clip.path, 0, "real", name, "video", split, name, compression="c23", dataset=DATASET))
    known = {item.video for item in items}
    missing: list[str] = []
    for place, (forgery, level) in _CONDITIONS.items():
        base = join(home, "manipulated_videos", place)
        if forgery not in forgeries or level not in asked:
            continue
        clips = tree.clips(base)
        missing += lacking(clips, list(split_of), base)
        for name, clip in clips.items():
            who = _NAME.fullmatch(name)
            if who is None:
                tree.leave_out(clip.path, "no forged clip's name, such as 000_M101")
                continue
            items.append(
                Item(
                    path=clip.path,
                    label=1,
                    forgery=forgery,
                    video=f"{name}-{place}",
                    split=split_of.get(name, ""),
                    identity=who[1],
                    source_identity=who[2],
                    pair=who[1] if who[1] in known else "",
                    compression=level,
                    dataset=DATASET,
                )
            )
    if not items:
        raise tree.nothing("clips such as manipulated_videos/end_to_end/000_M101.mp4")
    return Listing(tuple(items), tuple(missing), (*_notes(tree, home, items, split_of), *tree.notes))


def _notes(tree: Tree, home: str, items: list[Item], split_of: dict[str, str]) -> list[str]:
    notes = []
    if all(item.label for item in items):
        notes.append(
            "no real video: the real part are the originals of FaceForensics++ in c23; copy (cp -rl takes no room) "
            "its original_sequences/youtube/c23/videos to ROOT/target_videos"
        )
    if tree.is_folder(join(home, "source_videos")):
        notes.append("source_videos is not read: its authors say that it is not the real part for detection")
    if not split_of:
        notes.append("no lists/splits: no official split")
    return notes + crossing(items)
