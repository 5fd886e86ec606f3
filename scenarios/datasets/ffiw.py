"""FFIW-10K (Zhou, Wang, Liang, Shen, CVPR 2021): videos with several people of whom one or few are forged.

source is the real video, target the forged one of the same name, target_mask where it was forged. Persons are not
named. A forged frame shows pristine faces too, so faces need their masks to be told apart.
"""

from __future__ import annotations

from pathlib import Path

from ffd_continual.scenarios.datasets.listing import About, Item, Listing, Wanted
from ffd_continual.scenarios.datasets.tree import Tree, chosen, join

ABOUT = About(
    title="FFIW-10K",
    citation="T. Zhou, W. Wang, Z. Liang, J. Shen: Face Forensics in the Wild. CVPR 2021.",
    terms="Terms to Use of FFIW10K, by the authors' form: research only.",
    url="https://github.com/tfzhou/FFIW",
    layout="""\
ROOT/    (FFIW10K-v1-release; FFIW10K-v1-release-test may lie beside it)
  source/{train,val,test}/val_00000000.mp4                   real
  target/{train,val,test}/val_00000000.mp4                   forged
  target_mask/{train,val,test}/val_00000000_mask.mp4
or the clips in a folder `videos` of each""",
    source="README.md of the authors' repository for the folders; the test archive and the names of clips and masks as "
    "code that reads them has them, not verified against a download",
)
FORGERY = "ffiw"
DATASET = "ffiw"
_SPLITS = {"train": "train", "val": "valid", "test": "test"}
_PARTS = ("source", "target", "target_mask")


def _homes(tree: Tree) -> list[str]:
    """Folders with source or target, at most two levels down: the test archive unpacks into a folder in a folder."""
    found = []
    level = [""]
    for _ in range(3):
        inside = [home for home in level if any(tree.is_folder(join(home, part)) for part in _PARTS[:2])]
        found += inside
        level = [join(home, name) for home in level if home not in inside for name in tree.folders(home)]
    return found


def index(root: Path, wanted: Wanted) -> Listing:
    """All clips; the authors' val is `valid`. Raises FFDError for a tree without source and target."""
    tree = Tree(root, ABOUT.title)
    chosen(wanted.forgeries, (FORGERY,), "forgery", ABOUT.title)
    chosen(wanted.compressions, (), "compression", ABOUT.title)
    items: list[Item] = []
    missing: list[str] = []
    done: set[str] = set()
    for home in _homes(tree):
        for name, split in _SPLITS.items():
            real, fake, mask = (tree.clips(join(home, part, name), join(home, part, name, "videos")) for part in _PARTS)
            for clip_name, clip in real.items():
                video = f"{name}-{clip_name}"
                if f"real {video}" in done:
                    tree.leave_out(clip.path, "the same clip lies elsewhere already")
                    continue
                done.add(f"real {video}")
                items.append(Item(clip.path, 0, "real", video, split=split, dataset=DATASET))
            for clip_name, clip in fake.items():
                video = f"{name}-{clip_name}"
                if f"fake {video}" in done:
                    tree.leave_out(clip.path, "the same clip lies elsewhere already")
                    continue
                done.add(f"fake {video}")
                white = mask.get(f"{clip_name}_mask") or mask.get(clip_name)
                pair = video if clip_name in real else ""
                items.append(
                    Item(
                        path=clip.path,
                        label=1,
                        forgery=FORGERY,
                        video=f"{video}-forged",
                        split=split,
                        pair=pair,
                        mask=white.path if white else "",
                        dataset=DATASET,
                    )
                )
            missing += [join(home, "source", name, f"{clip}.mp4") for clip in fake if clip not in real]
            missing += [join(home, "target", name, f"{clip}.mp4") for clip in real if clip not in fake]
            missing += [
                join(home, "target_mask", name, f"{clip}_mask.mp4")
                for clip in fake
                if clip not in mask and f"{clip}_mask" not in mask
            ]
    if not items:
        raise tree.nothing("source and target with train, val or test")
    return Listing(tuple(items), tuple(missing), (*_notes(items), *tree.notes))


def _notes(items: list[Item]) -> list[str]:
    notes = [
        "persons are not named: groups are a clip and its forgery, and a person may be in several of them",
        "forged clips show pristine faces too: tell them by their masks (scenario.relabel_below), or measure by video",
    ]
    splits = {item.split for item in items}
    if "test" not in splits:
        notes.append(
            "no test part: the authors give it as an archive of its own (FFIW10K-v1-release-test); papers without it "
            "test on val, which is `valid` here"
        )
    return notes
