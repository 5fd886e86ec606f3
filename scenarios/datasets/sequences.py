"""The tree of FaceForensics++, which DeepFakeDetection shares and DeeperForensics points to.

original_sequences/NAME/COMPRESSION/videos/*.mp4, manipulated_sequences/NAME/COMPRESSION/videos/*.mp4 and
manipulated_sequences/NAME/masks/videos/*.mp4; frames that the authors' script extracts lie in `images` beside `videos`.
One mask serves all compressions.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from ffd_continual.scenarios.datasets.tree import Clip, Tree, chosen, join

COMPRESSIONS = ("raw", "c23", "c40")
_FOLDERS: Mapping[str, tuple[str, ...]] = {"raw": ("raw", "c0"), "c23": ("c23",), "c40": ("c40",)}


def sequence(tree: Tree, base: str, compression: str) -> dict[str, Clip]:
    """Clips of original_sequences/NAME or manipulated_sequences/NAME in one compression, by name."""
    found: dict[str, Clip] = {}
    for folder in _FOLDERS[compression]:
        for name, clip in tree.clips(join(base, folder, "videos"), frames=join(base, folder, "images")).items():
            found.setdefault(name, clip)
    return found


def masks(tree: Tree, base: str) -> dict[str, Clip]:
    """Masks of manipulated_sequences/NAME, by the name of the clip; older downloads have them without `videos`."""
    return tree.clips(join(base, "masks", "videos"), join(base, "masks"), frames=join(base, "masks", "images"))


def compressions(tree: Tree, bases: Sequence[str], asked: Sequence[str], title: str) -> tuple[str, ...]:
    """Those that were asked for, else those of which any of ``bases`` has a folder. Raises FFDError for an unknown."""
    if asked:
        return chosen(asked, COMPRESSIONS, "compression", title)
    there = {name for base in bases for name in tree.folders(base)}
    return tuple(name for name in COMPRESSIONS if there.intersection(_FOLDERS[name]))


def video_name(clip: str, *parts: str) -> str:
    """The manifest's name of a clip: what stands first names the (target) video, as official splits do."""
    return "-".join((clip, *parts))


def lacking(there: Collection[str], listed: Sequence[str], folder: str, suffix: str = ".mp4") -> list[str]:
    """Paths that an official list names and the disk lacks; the folder alone where nothing of it is there."""
    if not there:
        return [folder + "/"]
    return [join(folder, name + suffix) for name in listed if name not in there]
