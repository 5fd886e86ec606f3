"""WildDeepfake: sequences of faces that are cut out already, packed by source video into archives."""

from __future__ import annotations

from pathlib import Path

from ffd_continual.scenarios.datasets.holdout import with_validation
from ffd_continual.scenarios.datasets.listing import About, Item, Kind, Listing, Wanted
from ffd_continual.scenarios.datasets.tree import PICTURE_SUFFIXES, Tree, chosen, join, order

ABOUT = About(
    title="WildDeepfake",
    citation="Zi et al., WildDeepfake: A Challenging Real-World Dataset for Deepfake Detection, ACM MM 2020",
    terms="For research; ask its authors for access (form in their repository).",
    url="https://github.com/OpenTAI/wild-deepfake",
    layout="""\
real_train/N.tar.gz, fake_train/N.tar.gz, real_test/..., fake_test/...
all of it may lie in deepfake_in_the_wild/
an archive holds folders of face pictures, one a sequence
unpacked: real_train/N/.../SEQUENCE/*.png""",
    source="folders and archives as read in code that loads the authors' release; how deep the sequences lie inside an "
    "archive is not verified against a download, so any depth is read",
)
FORGERY = "wild"  # collected from the internet: who made a face, and how, is not known
_PARTS = {"real_train": (0, "train"), "fake_train": (1, "train"), "real_test": (0, "test"), "fake_test": (1, "test")}
_ARCHIVES = (".tar.gz", ".tgz", ".tar")


def index(root: Path, wanted: Wanted) -> Listing:
    """What lies below ``root``: an archive, or a folder of a sequence, is an item; parts that lack are missing."""
    tree = Tree(root, ABOUT.title)
    chosen(wanted.compressions, (), "compression", ABOUT.title)
    chosen(wanted.forgeries, (FORGERY,), "forgery", ABOUT.title)
    home = tree.home(*_PARTS)
    found: list[Item] = []
    missing: list[str] = []
    for part, (label, split) in _PARTS.items():
        folder = join(home, part)
        packed = [path for path in tree.files(folder, {".gz", ".tgz", ".tar"}) if path.endswith(_ARCHIVES)]
        names = [path.rpartition("/")[2].split(".tar")[0].removesuffix(".tgz") for path in packed]
        unpacked = tree.folders(folder)
        for path, name in zip(packed, names, strict=True):
            if name not in unpacked:  # both: unpacked already, the archive would double it
                found.append(_item(path, label, split, f"{part}/{name}", f"{part}/{name}", "archive"))
        for name in unpacked:
            for sequence in _sequences(tree, f"{folder}/{name}"):
                below = sequence.removeprefix(f"{folder}/")
                found.append(_item(sequence, label, split, f"{part}/{below}", f"{part}/{name}", "frames"))
        if not packed and not unpacked:
            missing.append(part)
    if not found:
        raise tree.nothing("archives or folders of faces in real_train, fake_train, real_test, fake_test")
    items, remarks = with_validation(found, ABOUT.title)
    return Listing(tuple(items), tuple(missing), (*tree.notes, *remarks))


def _item(path: str, label: int, split: str, video: str, group: str, kind: Kind) -> Item:
    # Nobody says who is seen; what came from one source video stays together under that video's name.
    return Item(path, label, FORGERY if label else "real", video, kind, split, group, cropped=True)


def _sequences(tree: Tree, folder: str) -> list[str]:
    """Folders below ``folder``, itself included, that hold pictures."""
    return sorted({path.rpartition("/")[0] for path in tree.walk(folder, PICTURE_SUFFIXES)}, key=order)
