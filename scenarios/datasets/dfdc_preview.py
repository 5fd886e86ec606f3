"""DFDC preview (DFDCP): dataset.json tells label, set and both persons of every video."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ffd_continual.scenarios.datasets.holdout import with_validation
from ffd_continual.scenarios.datasets.listing import About, Item, Listing, Wanted
from ffd_continual.scenarios.datasets.tree import Tree, bad_list, chosen, join, stem, unsafe

ABOUT = About(
    title="DFDC preview (DFDCP)",
    citation="Dolhansky et al., The Deepfake Detection Challenge (DFDC) Preview Dataset, arXiv:1910.08854, 2019",
    terms="The agreement of the Deepfake Detection Challenge, which you accept before the download.",
    url="https://ai.meta.com/datasets/dfdc/",
    layout="""\
dataset.json
original_videos/643049/643049_A_001.mp4
method_A/<target>/<target>_<scene>/<swapped>_<target>_<scene>_<take>.mp4
method_B/... in the same way; all of it may lie in dfdc_preview_set/""",
    source="keys label, set, target_id, swapped_id, source_video, augmentations as read in code that loads them; "
    "folders as in mapooon/SelfBlendedImages (data/datasets.md); which file `source_video` names is not verified "
    "against a download, so the file's own name is tried after it",
)
FORGERIES = ("method_a", "method_b")
_FOLDERS = {"original_videos": "real", "method_A": "method_a", "method_B": "method_b"}
_SETS = {"train": "train", "test": "test", "val": "valid", "validation": "valid"}
_LABELS = {"real": 0, "fake": 1}


def index(root: Path, wanted: Wanted) -> Listing:
    """What lies below ``root``. Raises FFDError without a dataset.json, or where it holds nothing that can be used."""
    tree = Tree(root, ABOUT.title)
    chosen(wanted.compressions, (), "compression", ABOUT.title)
    forgeries = chosen(wanted.forgeries, FORGERIES, "forgery", ABOUT.title)
    home = tree.home("dataset.json")
    path = join(home, "dataset.json")
    table = tree.json(path)
    if not isinstance(table, dict) or not table:
        raise bad_list(tree.root / path, None, "is no table from videos to labels", "Download the file again.")
    entries: dict[str, Mapping[str, object]] = {}
    notes: list[str] = []
    for name, entry in table.items():
        if why := _fault(str(name), entry):
            notes.append(f"{path}: left out {ascii(str(name))}: {why}")
        else:
            entries[str(name)] = entry
    if not entries:
        raise bad_list(
            tree.root / path, None, f"no entry can be used ({notes[0].split(': ', 2)[2]})", "Download it again."
        )
    originals = {stem(name): name for name, entry in entries.items() if entry["label"] == "real"}
    found, missing = [], []
    for name, entry in entries.items():
        item = _item(home, name, entry, originals)
        if item.label and item.forgery not in forgeries:
            continue
        if tree.is_file(item.path):
            found.append(item)
        else:
            missing.append(item.path)
    items, remarks = with_validation(found, ABOUT.title)
    return Listing(tuple(items), tuple(missing), (*tree.notes, *notes, *remarks))


def _fault(name: str, entry: object) -> str:
    """Why an entry cannot be used, or ""."""
    if why := unsafe(name):
        return f"its name {why}"
    if name.split("/")[0] not in _FOLDERS:
        return f"it is in none of {', '.join(_FOLDERS)}"
    if not isinstance(entry, dict):
        return "it has no table of its own"
    if entry.get("label") not in _LABELS:
        return f"its label is {entry.get('label')!r}, not real or fake"
    if entry.get("set") not in _SETS:
        return f"its set is {entry.get('set')!r}, not train or test"
    if (entry["label"] == "real") != (name.split("/")[0] == "original_videos"):
        return f"its label is {entry['label']!r}, against its folder"
    return ""


def _text(entry: Mapping[str, object], key: str) -> str:
    value = entry.get(key)
    return str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""


def _item(home: str, name: str, entry: Mapping[str, object], originals: Mapping[str, str]) -> Item:
    label = _LABELS[str(entry["label"])]
    base = stem(name)
    words = base.split("_")
    # <swapped>_<target>_<scene>_<take> for a fake, <target>_<scene>_<take> for a real video.
    target = _text(entry, "target_id") or words[label if len(words) > label else 0]
    swapped = (_text(entry, "swapped_id") or words[0]) if label else ""
    pair = ""
    if label:
        told = (stem(_text(entry, "source_video")), "_".join(words[1:]))
        pair = next((originals[one] for one in told if one in originals), "")
    altered = entry.get("augmentations")
    extra = {"augmentations": "+".join(map(str, altered))} if isinstance(altered, list) and altered else {}
    return Item(
        join(home, name),
        label,
        _FOLDERS[name.split("/")[0]],
        name.rpartition(".")[0],
        split=_SETS[str(entry["set"])],
        identity=target,
        source_identity=swapped,
        pair=pair.rpartition(".")[0],
        extra=extra,
    )
