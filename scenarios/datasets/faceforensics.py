"""FaceForensics++ (Roessler et al., ICCV 2019), with FaceShifter and, where asked for, DeepFakeDetection.

A forged clip 071_054 is made from the video 071, the target, and shows the face (or follows the expression) of 054:
identity "071", source_identity "054", pair the original 071 of the same compression.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ffd_continual.scenarios.datasets import dfd
from ffd_continual.scenarios.datasets.listing import About, Item, Listing, Wanted
from ffd_continual.scenarios.datasets.remarks import without_pair
from ffd_continual.scenarios.datasets.sequences import compressions, lacking, masks, sequence, video_name
from ffd_continual.scenarios.datasets.tree import Tree, bad_list, chosen, join

ABOUT = About(
    title="FaceForensics++",
    citation="A. Roessler, D. Cozzolino, L. Verdoliva, C. Riess, J. Thies, M. Niessner: FaceForensics++: Learning to "
    "Detect Manipulated Facial Images. ICCV 2019. FaceShifter: L. Li et al., CVPR 2020.",
    terms="FaceForensics Terms of Use: non-commercial research and education, no passing on; signed by the form.",
    url="https://github.com/ondyari/FaceForensics",
    layout="""\
ROOT/
  original_sequences/youtube/{raw,c23,c40}/videos/071.mp4
  manipulated_sequences/NAME/{raw,c23,c40}/videos/071_054.mp4
  manipulated_sequences/NAME/masks/videos/071_054.mp4      (not FaceShifter)
  splits/{train,val,test}.json    (dataset/splits of the authors' repository;
                                   also read from ROOT itself)
NAME: Deepfakes, Face2Face, FaceSwap, NeuralTextures, FaceShifter.
original_sequences/actors and manipulated_sequences/DeepFakeDetection are a
data set of their own, dfd.""",
    source="dataset/README.md, dataset/splits and dataset/extract_compressed_videos.py of the authors' repository; "
    "where masks lie is as the authors' download script writes them, not verified against a download",
)
FORGERIES = {
    "deepfakes": "Deepfakes",
    "face2face": "Face2Face",
    "faceswap": "FaceSwap",
    "neuraltextures": "NeuralTextures",
    "faceshifter": "FaceShifter",
}
ACTORS = "deepfakedetection"
SPLIT_FILES = {"train": "train.json", "valid": "val.json", "test": "test.json"}
SPLIT_FOLDERS = ("splits", "", "dataset/splits", "FaceForensics/dataset/splits")
DATASET = "faceforensics"
# Sequences that were cut from the same video of YouTube as the next number (dataset/conversion_dict.json).
SAME_VIDEO = (
    331, 524, 566, 605, 614, 618, 639, 685, 686, 755, 766, 769, 787, 837, 875, 883, 937, 942, 954, 967, 973, 982, 993,
)  # fmt: skip
_ADVICE = "Take train.json, val.json and test.json as they are from dataset/splits of the authors' repository."


def split_folder(tree: Tree, home: str) -> str | None:
    """Where the official split files lie, None where there are none. Raises FFDError if only some of them are there."""
    for folder in SPLIT_FOLDERS:
        where = join(home, folder)
        there = [name for name in SPLIT_FILES.values() if tree.is_file(join(where, name))]
        if len(there) == len(SPLIT_FILES):
            return where
        if there:
            lacks = ", ".join(name for name in SPLIT_FILES.values() if name not in there)
            raise bad_list(tree.root / where, None, f"holds {', '.join(there)}, but not {lacks}", _ADVICE)
    return None


def read_splits(tree: Tree, folder: str) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Video -> split, and the pairs of videos. Raises FFDError with file and line where a list is not official."""
    split_of: dict[str, str] = {}
    place: dict[str, str] = {}
    pairs: list[tuple[str, str]] = []
    for split, file in SPLIT_FILES.items():
        path = join(folder, file)
        for line, entry in tree.entries(path):
            if not (isinstance(entry, list) and len(entry) == 2 and all(isinstance(name, str) for name in entry)):
                wrong = f"{_short(entry)} is no pair of two videos such as ['071', '054']"
                raise bad_list(tree.root / path, line, wrong, _ADVICE)
            for name in entry:
                if not re.fullmatch(r"[0-9]{3}", name):
                    wrong = f"{_short(name)} is no video of FaceForensics++, which has three digits"
                    raise bad_list(tree.root / path, line, wrong, _ADVICE)
                if name in place:
                    raise bad_list(tree.root / path, line, f"video {name} is in {place[name]} already", _ADVICE)
                split_of[name], place[name] = split, f"{file}, line {line}"
            pairs.append((entry[0], entry[1]))
        if split not in split_of.values():
            raise bad_list(tree.root / path, None, "names no video", _ADVICE)
    return split_of, pairs


def _short(entry: object) -> str:
    text = ascii(entry)
    return text if len(text) <= 60 else text[:57] + "..."


def index(root: Path, wanted: Wanted) -> Listing:
    """All clips, in the order originals, forgeries; forgeries: `FORGERIES`, and deepfakedetection only if asked for.

    Raises FFDError for a tree or split files that are not the official ones.
    """
    tree = Tree(root, ABOUT.title)
    home = tree.home("original_sequences", "manipulated_sequences")
    names = chosen(wanted.forgeries, (*FORGERIES, ACTORS), "forgery", ABOUT.title)
    forged = {name: join(home, "manipulated_sequences", FORGERIES[name]) for name in names if name in FORGERIES}
    real = join(home, "original_sequences", "youtube")
    folder = split_folder(tree, home)
    split_of, pairs = read_splits(tree, folder) if folder is not None else ({}, [])
    listing = _clips(tree, real, forged, wanted, split_of, pairs) if forged else Listing(())
    if ACTORS in wanted.forgeries:
        actors = dfd.clips(tree, home, wanted.compressions)
        listing = Listing(listing.items + actors.items, listing.missing + actors.missing, listing.notes + actors.notes)
    elif not wanted.forgeries and dfd.present(tree, home):
        note = "the actors of DeepFakeDetection are left out: they are a data set of their own, `ffd prepare dfd ROOT`"
        listing = Listing(listing.items, listing.missing, (*listing.notes, f"{note} (or --forgeries {ACTORS})"))
    if not listing.items:
        raise tree.nothing("clips such as original_sequences/youtube/c23/videos/071.mp4")
    lists = () if folder is None else tuple(join(folder, name) for name in SPLIT_FILES.values())
    return Listing(listing.items, listing.missing, listing.notes + tree.notes, lists)


def _clips(
    tree: Tree,
    real: str,
    forged: dict[str, str],
    wanted: Wanted,
    split_of: dict[str, str],
    pairs: list[tuple[str, str]],
) -> Listing:
    items: list[Item] = []
    missing: list[str] = []
    mask_of = {forgery: masks(tree, base) for forgery, base in forged.items()}
    both_ways = [f"{a}_{b}" for pair in pairs for a, b in (pair, pair[::-1])]
    for level in compressions(tree, (real, *forged.values()), wanted.compressions, ABOUT.title):
        originals = sequence(tree, real, level)
        missing += lacking(originals, sorted(split_of), join(real, level, "videos"))
        for name, clip in originals.items():
            if not re.fullmatch(r"[0-9]{3}", name):
                tree.leave_out(clip.path, "no original's name, which has three digits")
                continue
            split = split_of.get(name, "")
            video = video_name(name, level)
            items.append(Item(clip.path, 0, "real", video, clip.kind, split, name, compression=level, dataset=DATASET))
        for forgery, base in forged.items():
            clips = sequence(tree, base, level)
            missing += lacking(clips, both_ways, join(base, level, "videos"))
            for name, clip in clips.items():
                people = re.fullmatch(r"([0-9]{3})_([0-9]{3})", name)
                if people is None:
                    tree.leave_out(clip.path, "no forged clip's name, such as 071_054")
                    continue
                target, source = people.groups()
                if split_of.get(target) != split_of.get(source):
                    tree.leave_out(clip.path, "its two videos are not in the same official split")
                    continue
                mask = mask_of[forgery].get(name)
                items.append(
                    Item(
                        path=clip.path,
                        label=1,
                        forgery=forgery,
                        video=video_name(name, forgery, level),
                        kind=clip.kind,
                        split=split_of.get(target, ""),
                        identity=target,
                        source_identity=source,
                        pair=video_name(target, level) if target in originals else "",
                        mask=mask.path if mask and mask.kind == clip.kind else "",
                        compression=level,
                        dataset=DATASET,
                    )
                )
    return Listing(tuple(items), tuple(missing), tuple(_notes(items, split_of)))


def _notes(items: list[Item], split_of: dict[str, str]) -> Iterator[str]:
    if not split_of:
        yield (
            f"no official split files ({', '.join(SPLIT_FILES.values())} in ROOT/splits): figures will not be "
            "those of the official split"
        )
    elif strays := [item.path for item in items if not item.split]:
        yield f"{len(strays)} clip(s) are in no official split, such as {strays[0]}"
    both = [(f"{first:03}", f"{first + 1:03}") for first in SAME_VIDEO]
    if shared := [f"{a}/{b}" for a, b in both if {a, b} <= split_of.keys() and split_of[a] != split_of[b]]:
        yield (
            f"{len(shared)} pairs of originals stand in two official splits and were cut from one video of YouTube: "
            f"{', '.join(shared)}; their numbers differ, so `ffd check` cannot see it"
        )
    yield from without_pair(items)
    if bare := [item.path for item in items if item.label and not item.mask and item.forgery != "faceshifter"]:
        yield f"{len(bare)} forged clip(s) have no mask of the authors here, such as {bare[0]}"
