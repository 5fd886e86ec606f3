"""Whether a listing can become a manifest, told before hours of work: names, labels, splits, dates, extra columns."""

from __future__ import annotations

from dataclasses import replace

from ffd_continual.scenarios.datasets.listing import Item, Listing
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.manifest_cells import COLUMNS, REAL, cell_parsers

_SHOWN = 5
OWN = ("track",)  # columns that preparing adds


def checked_items(listing: Listing, dataset: str) -> list[Item]:
    """The items with `dataset` and "real" filled in. Raises FFDError that lists the first wrong ones."""
    parsers = cell_parsers()
    wrong: list[str] = []
    seen: set[str] = set()
    items: list[Item] = []
    if not listing.items:
        raise FFDError(f"the data set {dataset!r} has no item here: nothing of the official layout was found.")
    for item in listing.items:
        faults: list[str] = []
        if not item.video:
            faults.append("has no name (video)")
        if item.video in seen:
            faults.append("is listed twice")
        seen.add(item.video)
        forgery = item.forgery or ("" if item.label else REAL)
        if item.label not in (0, 1):
            faults.append(f"has the label {item.label!r}, neither 0 nor 1")
        elif not forgery or (item.label == 0) != (forgery == REAL):
            faults.append(f"has label {item.label} and forgery {item.forgery!r}")
        if item.kind not in ("video", "picture", "frames", "archive"):
            faults.append(f"is of the unknown kind {item.kind!r}")
        for name, value in (("split", item.split), ("date", item.date)):
            try:
                parsers[name](value)
            except ValueError as error:
                faults.append(f"has the {name} {value!r}, which {error}")
        for name in item.extra:
            if name in COLUMNS or name in OWN or not str(name).strip():
                faults.append(f"has an extra column {name!r}, a name that is taken")
        wrong += [f"  {item.video or item.path!r} {fault}" for fault in faults]
        items.append(replace(item, forgery=forgery, dataset=item.dataset or dataset, extra=dict(item.extra)))
    if wrong:
        more = f"\n  and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        shown = "\n".join(wrong[:_SHOWN])
        raise FFDError(f"the listing of {dataset!r} cannot become a manifest:\n{shown}{more}")
    return items
