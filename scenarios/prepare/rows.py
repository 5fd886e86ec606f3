"""The manifest's rows of a finished item."""

from __future__ import annotations

import numpy as np

from ffd_continual.scenarios.datasets.listing import Item
from ffd_continual.scenarios.prepare.crops import points_text
from ffd_continual.scenarios.prepare.masks import Record


def _printable(text: str) -> str:
    """File names that are no UTF-8 reach Python as lone surrogates, which no table can hold."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def rows_of(item: Item, record: Record) -> list[dict[str, object]]:
    """The manifest's rows of an item, paths relative to the output folder."""
    still = item.kind == "picture"
    return [
        {
            "path": face["path"],
            "label": item.label,
            "forgery": item.forgery,
            "dataset": _printable(item.dataset),
            "split": item.split,
            "video": "" if still else _printable(item.video),
            "frame": None if still else face["number"],
            "identity": _printable(item.identity),
            "source_identity": _printable(item.source_identity),
            "pair": face["pair"],
            "mask": face["mask"],
            "landmarks": "" if face["landmarks"] is None else points_text(np.asarray(face["landmarks"], np.float32)),
            "date": item.date,
            "compression": item.compression,
            "sha256": face["sha256"],
            "track": str(face["track"]),
            **{name: _printable(str(value)) for name, value in item.extra.items()},
        }
        for face in record["faces"]
    ]
