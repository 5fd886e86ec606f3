"""DF40: forty methods, their faces cut out already; most are fake only, the real ones are FF++'s and Celeb-DF's.

The easiest way to both classes is the authors' JSON files, which the adapter `deepfakebench` reads; this one reads the
folders alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ffd_continual.scenarios.datasets.holdout import with_validation
from ffd_continual.scenarios.datasets.listing import About, Item, Kind, Listing, Wanted
from ffd_continual.scenarios.datasets.names import persons, unique
from ffd_continual.scenarios.datasets.tree import PICTURE_SUFFIXES, VIDEO_SUFFIXES, Tree, chosen, join, order, stem

ABOUT = About(
    title="DF40",
    citation="Yan et al., DF40: Toward Next-Generation Deepfake Detection, NeurIPS 2024",
    terms="CC BY-NC 4.0; the real faces keep the terms of FaceForensics++ and Celeb-DF.",
    url="https://github.com/YZY-stack/DF40",
    layout="""\
DF40_train/<method>/ff/frames/000_003/*.png   training: domain ff
DF40/<method>/ff/frames/..., cdf/frames/...   test; also test/, DF40_test/
DF40/heygen/real/..., DF40/heygen/fake/...    real faces of its own
DF40/heygen/fake/*.mp4                        videos: read where no folder of
                                              frames has their name
DF40/e4e/cdf/Celeb-real/inversions/*.jpg      pictures of no video""",
    source="README.md and DeepfakeBench_DF40/preprocessing/rearrange.py of YZY-stack/DF40; where they disagree (issues "
    "29, 33, 36, 41), any depth between the method's folder and the pictures is read; not verified against a download",
)
METHODS = (
    "fsgan", "faceswap", "simswap", "inswap", "blendface", "uniface", "mobileswap", "e4s", "facedancer", "deepfacelab",
    "fomm", "facevid2vid", "wav2lip", "mraa", "one_shot_free", "pirender", "tpsm", "lia", "danet", "sadtalker", "mcnet",
    "hyperreenact", "heygen", "vqgan", "stylegan2", "stylegan3", "styleganxl", "sd2.1", "ddim", "rddm", "pixart", "dit",
    "sit", "midjourney", "whichisreal", "collabdiff", "e4e", "stargan", "starganv2", "styleclip",
)  # fmt: skip
_ALSO = {"dagan": "danet", "mobile_swap": "mobileswap", "collaborative_diffusion": "collabdiff"}
_SPLITS = {"train": "train", "df40_train": "train", "test": "test", "df40_test": "test", "df40": "test"}
_DOMAINS = {"ff": "faceforensics", "ffpp": "faceforensics", "cdf": "celebdf", "cdfv2": "celebdf"}
_ASIDE = ("landmarks", "masks", "landmark", "mask")
# Folders that say where pictures lie, not which video they are of.
_STRUCTURE = frozenset({"frames", "fake", "real", "inversions", "images", "celeb-real", "youtube-real", *_DOMAINS})


def index(root: Path, wanted: Wanted) -> Listing:
    """What lies below ``root``: folders of methods, or folders train and test of them. Missing are absent methods."""
    tree = Tree(root, ABOUT.title)
    chosen(wanted.compressions, (), "compression", ABOUT.title)
    forgeries = chosen(wanted.forgeries, METHODS, "method", ABOUT.title)
    places = list(_methods(tree))
    if not any(method in METHODS for _, method, _ in places):
        expected = "folders of methods (simswap, fomm, ...), or DF40_train and DF40 with such folders"
        raise tree.nothing(expected)
    found: list[Item] = []
    for folder, method, split in places:
        if method in forgeries or (method not in METHODS and not wanted.forgeries):
            found += _items(tree, folder, method, split)
    present = {method for _, method, _ in places}
    missing = [method for method in forgeries if method not in present]
    notes = []
    if odd := sorted(present - set(METHODS)):
        notes.append(f"not among the forty methods, taken as forgeries of that name: {', '.join(odd)}")
    if not any(item.label == 0 for item in found):
        notes.append("no real faces are here: those of most methods are FaceForensics++'s and Celeb-DF's own")
    if videos := sum(item.kind == "video" for item in found):
        notes.append(f"{videos} videos without cut-out faces: faces are found in them, others come cut out already")
    items, remarks = with_validation(unique(found), ABOUT.title)
    return Listing(tuple(items), tuple(missing), (*tree.notes, *notes, *remarks))


def _methods(tree: Tree) -> Iterator[tuple[str, str, str]]:
    """(folder, method, split) of every method's folder; "" where no folder above tells the split."""
    tops = [(name, _SPLITS[name.lower()]) for name in tree.folders() if name.lower() in _SPLITS]
    for top, split in tops or [("", "")]:
        for name in tree.folders(top):
            plain = name.lower()
            below = join(top, name)
            yield below, _ALSO.get(plain, plain), split


def _items(tree: Tree, base: str, method: str, split: str) -> list[Item]:
    """A folder of pictures is a video, or each picture an item where the folder's name is no video's.

    The authors' original videos (heygen's forged ones come as such only, issue 29) count where nothing was cut from
    them: no folder of frames, of the same method and kind, has their name.
    """
    folders: dict[str, list[str]] = {}
    for path in tree.walk(base, PICTURE_SUFFIXES):
        above = path.rpartition("/")[0]
        if not any(part.lower() in _ASIDE for part in above.split("/")):
            folders.setdefault(above, []).append(path)
    items = []
    for folder in sorted(folders, key=order):
        parts, forgery, dataset = _told(folder, base, method)
        if parts and parts[-1] not in _STRUCTURE:
            items.append(_item(folder, folder.rpartition("/")[2], "frames", forgery, dataset, split))
        else:
            items += [_item(path, stem(path), "picture", forgery, dataset, split) for path in folders[folder]]
    cut = {(item.forgery, item.dataset, item.path.rpartition("/")[2]) for item in items if item.kind == "frames"}
    for path in sorted(tree.walk(base, VIDEO_SUFFIXES), key=order):
        _, forgery, dataset = _told(path.rpartition("/")[0], base, method)
        if (forgery, dataset, stem(path)) not in cut:
            items.append(_item(path, stem(path), "video", forgery, dataset, split))
    return items


def _told(folder: str, base: str, method: str) -> tuple[list[str], str, str]:
    """(folders below the method's in small letters, forgery, data set) of a folder."""
    parts = [part.lower() for part in folder.removeprefix(base).split("/") if part]
    domain = next((_DOMAINS[part] for part in parts if part in _DOMAINS), "")
    # A method's own folder "real" holds pristine faces; "Celeb-real" names what a forgery was made from.
    return parts, "real" if "real" in parts else method, domain or f"df40-{method}"


def _item(path: str, name: str, kind: Kind, forgery: str, dataset: str, split: str) -> Item:
    identity, source, _ = persons(name)
    video = path if kind == "frames" else path.rpartition(".")[0]
    label, cropped = int(forgery != "real"), kind != "video"
    return Item(path, label, forgery, video, kind, split, identity, source, dataset=dataset, cropped=cropped)
