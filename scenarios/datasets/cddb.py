"""CDDB, the continual deepfake detection benchmark: pictures of twelve generators, each with its own real ones.

Several generators make no faces (rooms, animals, streets): their pictures are taken as they are, nothing is cut out.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ffd_continual.scenarios.datasets.holdout import with_validation
from ffd_continual.scenarios.datasets.listing import About, Item, Listing, Wanted
from ffd_continual.scenarios.datasets.names import unique
from ffd_continual.scenarios.datasets.tree import PICTURE_SUFFIXES, Tree, chosen, join

ABOUT = About(
    title="CDDB",
    citation="Li et al., A Continual Deepfake Detection Benchmark: Dataset, Methods, and Essentials, WACV 2023",
    terms="Not stated in the repository; the sources' own terms hold (see its paper).",
    url="https://github.com/Coral79/CDDB",
    layout="""\
gaugan/train/0_real/*.png    gaugan/train/1_fake/*.png    gaugan/val/...
cyclegan/train/horse/0_real/*.png    a class of objects in between
all of it may lie in CDDB/""",
    source="names of the generators, splits and classes as in the authors' code (Coral79/CDDB: README.md, "
    "LUCIR/data/datasets.py, iCaRL/README.md)",
)
GENERATORS = (
    "gaugan", "biggan", "cyclegan", "imle", "deepfake", "crn", "wild", "glow", "stargan_gf", "stylegan",
    "whichfaceisreal", "san",
)  # fmt: skip
_SPLITS = ("train", "val", "test")
_LABELS = {"0_real": 0, "1_fake": 1}


def index(root: Path, wanted: Wanted) -> Listing:
    """What lies below ``root``; `Wanted.forgeries` are generators and bring their own real pictures only.

    Raises FFDError where no generator's folder is there, or one holds other folders than the official ones.
    """
    tree = Tree(root, ABOUT.title)
    chosen(wanted.compressions, (), "compression", ABOUT.title)
    home = tree.home(*GENERATORS)
    items: list[Item] = []
    missing: list[str] = []
    notes: list[str] = []
    for generator in chosen(wanted.forgeries, GENERATORS, "generator", ABOUT.title):
        base = join(home, generator)
        if not tree.is_folder(base):
            missing.append(generator)
            continue
        found = _generator(tree, base, generator, missing)
        items += _divided(found, generator, notes)
    if not items:
        raise tree.nothing("<generator>/train/0_real and 1_fake with pictures")
    return Listing(tuple(items), tuple(missing), (*tree.notes, *notes))


def _generator(tree: Tree, base: str, generator: str, missing: list[str]) -> list[Item]:
    """Every picture of a generator, its split as its folder is called."""
    items: list[Item] = []
    for split in _SPLITS:
        folder = f"{base}/{split}"
        if not tree.is_folder(folder):
            if split != "test":
                missing.append(f"{generator}/{split}")
            continue
        below = tree.folders(folder)
        classes = [""] if set(below) <= set(_LABELS) else [name for name in below if name not in _LABELS]
        for one in classes:
            inside = join(folder, one)
            for name, label in _LABELS.items():
                if not tree.is_folder(f"{inside}/{name}"):
                    missing.append(f"{inside}/{name}".removeprefix(base.removesuffix(generator)))
                for path in tree.walk(f"{inside}/{name}", PICTURE_SUFFIXES):
                    video = path.removeprefix(base.removesuffix(generator)).rpartition(".")[0]
                    items.append(
                        Item(
                            path,
                            label,
                            generator if label else "real",
                            video,
                            "picture",
                            split,
                            dataset=f"cddb-{generator}",
                            cropped=True,
                            extra={"object": one} if one else {},
                        )  # fmt: skip
                    )
            for odd in sorted(set(tree.folders(inside)) - set(_LABELS)) if one else ():
                tree.leave_out(f"{inside}/{odd}", "a folder that is neither 0_real nor 1_fake")
    return items


def _divided(items: list[Item], generator: str, notes: list[str]) -> list[Item]:
    """The manifest's splits: where there is no test folder, val is what the authors test on."""
    names = {item.split for item in items}
    tested = "test" in names
    means = {"train": "train", "val": "valid" if tested else "test", "test": "test"}
    moved = [replace(item, split=means[item.split]) for item in items]
    result, remarks = with_validation(unique(moved), f"cddb {generator}")
    notes += remarks
    return result
