"""DiffusionFace: whole faces by eleven diffusion models, against the photographs they were trained on."""

from __future__ import annotations

import re
from pathlib import Path

from ffd_continual.scenarios.datasets.holdout import with_validation
from ffd_continual.scenarios.datasets.listing import About, Item, Listing, Wanted
from ffd_continual.scenarios.datasets.names import unique
from ffd_continual.scenarios.datasets.tree import PICTURE_SUFFIXES, Tree, chosen, stem

ABOUT = About(
    title="DiffusionFace",
    citation="Chen et al., DiffusionFace: Towards a Comprehensive Dataset for Diffusion-Based Face Forgery Analysis, "
    "arXiv:2403.18471, 2024",
    terms="For research; the photographs keep the terms of Multi-Modal-CelebA-HQ.",
    url="https://github.com/Rapisurazurite/DiffFace",
    layout="""\
<model>/.../*.png              a folder a model: ADM, DDIM, DDPM, LDM, PNDM, ...
real/... or Multi-Modal-CelebA-HQ/.../*.jpg
a folder train, val or test anywhere on the way gives the split""",
    source="the paper names the models and the source of the real faces; how the published archives are laid out is "
    "told nowhere that could be read, so this is not verified against a download: every folder of pictures but the "
    "real ones counts as a model",
)
_REAL = re.compile(r"real|original|pristine|(multi-?modal|mm)-?celeba.*|celeba(-?hq)?|ffhq")
_SPLITS = {"train": "train", "val": "valid", "valid": "valid", "validation": "valid", "test": "test"}
_MIDDLE = frozenset({"fake", "images", "image", "generated", "diffface", "diffusionface", *_SPLITS})
_CLASSES = frozenset({"unconditional", "conditional"})  # the paper's; a model's folder in one of them tells more


def index(root: Path, wanted: Wanted) -> Listing:
    """Every picture below ``root``. Raises FFDError where there is none, or none that is forged."""
    tree = Tree(root, ABOUT.title)
    chosen(wanted.compressions, (), "compression", ABOUT.title)
    items: list[Item] = []
    for path in tree.walk("", PICTURE_SUFFIXES):
        parts = [_plain(part) for part in path.split("/")[:-1]]
        split = next((_SPLITS[part] for part in parts if part in _SPLITS), "")
        models = [part for part in parts if part not in _MIDDLE]
        if not models:
            tree.leave_out(path, "a picture in no model's folder")
            continue
        real = any(_REAL.fullmatch(part) for part in models)
        # A conditional model's picture is called like the photograph it started from: both stay on one side.
        person = stem(path) if stem(path).isdigit() else ""
        items.append(
            Item(
                path,
                int(not real),
                "real" if real else next((part for part in models if part not in _CLASSES), models[0]),
                path.rpartition(".")[0],
                "picture",
                split,
                identity=person,
                dataset="diffusionface",
            )  # fmt: skip
        )
    known = sorted({item.forgery for item in items if item.label})
    if not known:
        raise tree.nothing("a folder of pictures for each diffusion model, such as ADM or DDPM")
    asked = chosen(wanted.forgeries, known, "model", ABOUT.title)
    kept = [item for item in items if not item.label or item.forgery in asked]
    missing = [] if any(not item.label for item in kept) else ["real/ (the photographs: Multi-Modal-CelebA-HQ)"]
    moved, remarks = with_validation(unique(kept), ABOUT.title)
    return Listing(tuple(moved), tuple(missing), (*tree.notes, *remarks))


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")
