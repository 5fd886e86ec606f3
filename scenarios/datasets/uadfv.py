"""UADFV (Yang, Li, Lyu, ICASSP 2019): 49 videos of YouTube and a forged one of each.

A forged clip 0000_fake is made from 0000: identity "0000", pair 0000.
"""

from __future__ import annotations

import re
from pathlib import Path

from ffd_continual.scenarios.datasets.listing import About, Item, Listing, Wanted
from ffd_continual.scenarios.datasets.tree import Tree, chosen, join

ABOUT = About(
    title="UADFV",
    citation="X. Yang, Y. Li, S. Lyu: Exposing Deep Fakes Using Inconsistent Head Poses. ICASSP 2019. "
    "Y. Li, M.-C. Chang, S. Lyu: In Ictu Oculi. WIFS 2018.",
    terms="research only; ask the authors (the links of the papers change).",
    url="https://arxiv.org/abs/1811.00661",
    layout="""\
ROOT/
  real/0000.mp4
  fake/0000_fake.mp4
or frames: real/frames/0000/000.png, fake/frames/0000_fake/000.png""",
    source="as code that reads it has it (SCLBD/DeepfakeBench, preprocessing/rearrange.py); not verified against a "
    "download",
)
FORGERY = "fakeapp"
DATASET = "uadfv"


def index(root: Path, wanted: Wanted) -> Listing:
    """All clips. Raises FFDError for a tree without `real` and `fake`."""
    tree = Tree(root, ABOUT.title)
    chosen(wanted.forgeries, (FORGERY,), "forgery", ABOUT.title)
    chosen(wanted.compressions, (), "compression", ABOUT.title)
    home = tree.home("real", "fake")
    real, fake = (tree.clips(join(home, name), frames=join(home, name, "frames")) for name in ("real", "fake"))
    items: list[Item] = []
    for name, clip in real.items():
        if not re.fullmatch(r"[0-9]{4}", name):
            tree.leave_out(clip.path, "no real clip's name, such as 0000")
            continue
        items.append(Item(clip.path, 0, "real", name, clip.kind, identity=name, dataset=DATASET))
    for name, clip in fake.items():
        found = re.fullmatch(r"([0-9]{4})_fake", name)
        if found is None:
            tree.leave_out(clip.path, "no forged clip's name, such as 0000_fake")
            continue
        pair = found[1] if found[1] in real else ""
        items.append(Item(clip.path, 1, FORGERY, name, clip.kind, identity=found[1], pair=pair, dataset=DATASET))
    if not items:
        raise tree.nothing("clips such as real/0000.mp4 and fake/0000_fake.mp4")
    reals = [item.identity for item in items if not item.label]
    missing = [join(home, "fake", f"{name}_fake.mp4") for name in reals if f"{name}_fake" not in fake]
    missing += [join(home, "real", f"{item.identity}.mp4") for item in items if item.label and not item.pair]
    notes = (
        "no official list of a split",
        "all forged clips are reported to show one and the same swapped-in face; it is not entered as a person, or "
        "nothing could be split",
    )
    return Listing(tuple(items), tuple(missing), (*notes, *tree.notes))
