"""Data sets without an official split: all of them for testing, where that is asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ffd_continual.scenarios.datasets.listing import Item, Listing
from ffd_continual.scenarios.prepare.prepare import prepare_listing
from ffd_continual.scenarios.prepare.settings import PrepareConfig


def test_what_has_no_split_is_test(tmp_path: Path, plant: Callable[..., None]) -> None:
    root = tmp_path / "root"
    plant(root, "a.png", "b.png", "splits/train.json.png")
    items = (
        Item("a.png", 0, "real", "a", kind="picture", identity="1", split="train", cropped=True),
        Item("b.png", 1, "swap", "b", kind="picture", identity="2", source_identity="3", cropped=True),
    )
    listing = Listing(items, lists=("splits/train.json.png",))
    made = prepare_listing(
        listing, root, tmp_path / "out", "x", PrepareConfig(size=64), split_by="test", progress=False
    )
    assert made.table.set_index("forgery")["split"].to_dict() == {"real": "train", "swap": "test"}
    assert any("1 faces had no split: all are test" in note for note in made.notes)
    copied = tmp_path / "out/splits/train.json.png"
    assert copied.read_bytes() == (root / "splits/train.json.png").read_bytes()
