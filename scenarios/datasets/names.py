"""Names of videos: who is seen, as FaceForensics++, DeepFakeDetection and Celeb-DF name theirs; and unique ones.

Other collections (DeepfakeBench, DF40) keep these names for the frames they cut out of them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from ffd_continual.scenarios.datasets.listing import Item

_RULES = (
    re.compile(r"^(?P<target>\d{3})(?:_(?P<source>\d{3}))?$"),  # FaceForensics++: 071, 071_054
    re.compile(r"^(?P<target>\d{2})(?:_(?P<source>\d{2}))?__(?P<scene>.+?)(?:__[0-9A-Z]{8})?$"),  # DeepFakeDetection
    re.compile(r"^(?P<target>id\d+)(?:_(?P<source>id\d+))?_(?P<scene>\d{4})$"),  # Celeb-DF: id0_0003, id0_id16_0003
)


def persons(name: str) -> tuple[str, str, str]:
    """(target, source, name of the pristine video) of a video's name, each "" where it does not tell.

    The pristine video is told for forged names only: 071_054 -> ("071", "054", "071").
    """
    for rule in _RULES:
        found = rule.match(name)
        if found is None:
            continue
        parts = found.groupdict(default="")
        target, source, scene = parts["target"], parts["source"], parts.get("scene", "")
        joint = "__" if "__" in name else "_"
        pristine = f"{target}{joint}{scene}" if scene else target
        return target, source, pristine if source else ""
    return "", "", ""


def unique(items: Iterable[Item]) -> list[Item]:
    """The items, a repeated `video` (a.png beside a.jpg) told apart by "~2", "~3" in their order."""
    seen: Counter[str] = Counter()
    result = []
    for item in items:
        seen[item.video] += 1
        again = seen[item.video]
        result.append(item if again == 1 else replace(item, video=f"{item.video}~{again}"))
    return result
