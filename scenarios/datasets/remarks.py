"""Remarks that several adapters make of their items."""

from __future__ import annotations

from collections.abc import Sequence

from ffd_continual.scenarios.datasets.listing import Item


def crossing(items: Sequence[Item]) -> list[str]:
    """Persons, as owner or source of a face, whom an official list puts into several splits (at most one remark)."""
    people: dict[str, set[str]] = {}
    for item in items:
        for person in {item.identity, item.source_identity} - {""}:
            people.setdefault(person, set()).add(item.split)
    both = [person for person, splits in people.items() if len(splits - {""}) > 1]
    if not both:
        return []
    return [
        f"{len(both)} person(s), such as {min(both)}, are in several splits by the official list: `ffd check` will "
        "name them. Use test alone (across data sets), empty the column split, or set scenario.leaks=allow and say so"
    ]


def without_pair(items: Sequence[Item]) -> list[str]:
    """Forged clips of which the original is not here (at most one remark)."""
    lone = [item.path for item in items if item.label and not item.pair]
    return [f"{len(lone)} forged clip(s) have no original here, such as {lone[0]}: they have no pair"] if lone else []
