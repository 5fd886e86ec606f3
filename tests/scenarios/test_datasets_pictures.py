"""CDDB, DiffusionFace and plain folders in miniature, and the validation part of data sets that name none.

CDDB's layout after its authors' code (Coral79/CDDB: LUCIR/data/datasets.py, iCaRL/README.md); DiffusionFace's models
after its paper; plain folders after docs/manifest.md.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ffd_continual.scenarios.datasets.holdout import held_out
from ffd_continual.scenarios.datasets.listing import Item, Listing, Wanted, adapter
from ffd_continual.scenarios.datasets.names import persons
from ffd_continual.scenarios.errors import FFDError

Plant = Callable[..., None]
ByPath = Callable[[Listing], dict[str, Item]]


@pytest.fixture
def cddb(tmp_path: Path, plant: Plant) -> Path:
    for label in ("0_real", "1_fake"):
        plant(tmp_path, *(f"CDDB/gaugan/train/{label}/{n}.png" for n in range(12)), f"CDDB/gaugan/val/{label}/a.png")
        for split in ("train", "val", "test"):
            plant(tmp_path, f"CDDB/cyclegan/{split}/horse/{label}/a.png", f"CDDB/cyclegan/{split}/apple/{label}/a.png")
    plant(tmp_path, "CDDB/wild/train/1_fake/a.jpg")
    return tmp_path


def test_cddb(cddb: Path, by_path: ByPath) -> None:
    listing = adapter("cddb").index(cddb, Wanted())
    found = by_path(listing)
    horse = found["CDDB/cyclegan/val/horse/1_fake/a.png"]
    assert (horse.label, horse.forgery, horse.kind, horse.split) == (1, "cyclegan", "picture", "valid")
    assert (horse.dataset, horse.cropped, horse.extra) == ("cddb-cyclegan", True, {"object": "horse"})
    # Without a folder test, val is what is tested on, as by the authors; some of train is then kept apart.
    assert found["CDDB/gaugan/val/0_real/a.png"].split == "test"
    assert found["CDDB/gaugan/val/0_real/a.png"].forgery == "real"
    parts = [item.split for path, item in found.items() if path.startswith("CDDB/gaugan/train")]
    assert len(parts) == 24
    assert set(parts) == {"train", "valid"}
    assert {"stylegan", "wild/val", "wild/train/0_real"} <= set(listing.missing)
    only = adapter("cddb").index(cddb, Wanted(forgeries=("gaugan",)))
    assert {item.dataset for item in only.items} == {"cddb-gaugan"}
    assert len(only.items) == 26
    with pytest.raises(FFDError, match="no generator 'gogan'"):
        adapter("cddb").index(cddb, Wanted(forgeries=("gogan",)))


def test_diffusionface(tmp_path: Path, plant: Plant, by_path: ByPath) -> None:
    for split in ("train", "val", "test"):
        plant(tmp_path, f"ADM/{split}/{split}1.png", f"SDv1.5/{split}/0012{len(split)}.png")
        plant(tmp_path, f"Multi-Modal-CelebA-HQ/{split}/0012{len(split)}.jpg")
    plant(tmp_path, "stray.png", "Unconditional/DDPM/9.png")
    listing = adapter("diffusionface").index(tmp_path, Wanted())
    found = by_path(listing)
    assert len(found) == 10
    assert found["Unconditional/DDPM/9.png"].forgery == "ddpm"
    model = found["SDv1.5/val/00123.png"]
    assert (model.label, model.forgery, model.split, model.identity) == (1, "sdv1.5", "valid", "00123")
    photo = found["Multi-Modal-CelebA-HQ/val/00123.jpg"]
    assert (photo.label, photo.forgery, photo.identity) == (0, "real", "00123")
    assert any("stray.png" in note for note in listing.notes)
    assert {i.forgery for i in adapter("diffusionface").index(tmp_path, Wanted(forgeries=("adm",))).items} == {
        "real", "adm",
    }  # fmt: skip


def test_plain_pictures(tmp_path: Path, plant: Plant, by_path: ByPath) -> None:
    plant(tmp_path, "real/anna_01.jpg", "real/bert_clip/1.png", "real/bert_clip/2.png", "swap/anna_01.png")
    plant(tmp_path, "swap/anna_01.jpg", "swap/film.mp4")
    (tmp_path / "warp").mkdir()
    listing = adapter("pictures").index(tmp_path, Wanted())
    found = by_path(listing)
    assert set(found) == {"real/anna_01.jpg", "real/bert_clip", "swap/anna_01.png", "swap/anna_01.jpg"}
    clip = found["real/bert_clip"]
    assert (clip.kind, clip.identity, clip.label, clip.cropped) == ("frames", "bert", 0, False)
    fake = found["swap/anna_01.png"]
    assert (fake.kind, fake.identity, fake.label, fake.forgery) == ("picture", "anna", 1, "swap")
    assert listing.missing == ("warp/",)
    assert any("1 video file(s)" in note for note in listing.notes)


def test_plain_videos(tmp_path: Path, plant: Plant, by_path: ByPath) -> None:
    for split in ("train", "val", "test"):
        plant(tmp_path, f"{split}/real/anna/v1.2_day.mp4", f"{split}/swap/anna_bert.avi", f"{split}/morph/x.mp4")
    listing = adapter("videos").index(tmp_path, Wanted(forgeries=("swap",)))
    found = by_path(listing)
    assert set(found) == {f"{s}/{p}" for s in ("train", "val", "test") for p in (
        "real/anna/v1.2_day.mp4", "swap/anna_bert.avi")}  # fmt: skip
    assert {item.identity for item in listing.items} == {"anna"}
    assert found["val/swap/anna_bert.avi"].split == "valid"


@pytest.mark.parametrize(
    ("paths", "says"),
    [
        (["reals/a.mp4", "swap/a.mp4"], "Is it 'reals'"),
        (["real/a.mp4", "swap/a.mp4", "masks/a.mp4"], "'masks' would be a forgery"),
        (["train/real/a.mp4", "swap/a.mp4"], "beside 'swap'"),
        (["real/a.png", "swap/a.png"], "expected video files"),
    ],
)
def test_plain_tree_laid_out_otherwise(tmp_path: Path, plant: Plant, paths: list[str], says: str) -> None:
    plant(tmp_path, *paths)
    with pytest.raises(FFDError, match=says):
        adapter("videos").index(tmp_path, Wanted())


def test_held_out_keeps_groups_whole() -> None:
    rows = [{f"p{n}", f"p{n + 1}"} if n % 3 else {f"p{n}"} for n in range(300)]  # p1-p2-p3, p4-p5-p6, ...; p0 alone
    out = held_out(rows)
    side: dict[str, bool] = {}
    for row, held in zip(rows, out, strict=True):
        for name in row:
            assert side.setdefault(name, held) == held
    assert 0.08 < sum(out) / len(out) < 0.24
    assert held_out(rows[::-1]) == out[::-1]  # a group's side does not depend on the order
    assert sorted(held_out([{"a"}, {"b"}])) == [False, True]  # two groups: one on each side
    assert held_out([{"a", "b"}, {"b", "c"}, set()]) == [False, False, False]  # all linked: nothing to keep apart


def test_held_out_holds_every_kind_where_it_can() -> None:
    for size in (4, 6, 9):
        rows = [{f"{size}-{kind}-{n}"} for kind in ("real", "a", "b") for n in range(size)]
        kinds = [kind for kind in ("real", "a", "b") for _ in range(size)]
        out = held_out(rows, kinds)
        assert {kind for kind, held in zip(kinds, out, strict=True) if held} == {"real", "a", "b"}
        assert {kind for kind, held in zip(kinds, out, strict=True) if not held} == {"real", "a", "b"}
    # A kind of one group stays in training.
    out = held_out([{"p"}, {"q"}, {"r"}, {"s"}], ["real", "real", "real", "rare"])
    assert not out[3]
    assert 1 <= sum(out) <= 2


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("071", ("071", "", "")),
        ("071_054", ("071", "054", "071")),
        ("id0_0003", ("id0", "", "")),
        ("id0_id16_0003", ("id0", "id16", "id0_0003")),
        ("01__exit_phone_room", ("01", "", "")),
        ("01_02__exit_phone_room__YVGY8LOK", ("01", "02", "01__exit_phone_room")),
        ("00170", ("", "", "")),
        ("aagfhgtpmv", ("", "", "")),
    ],
)
def test_persons(name: str, told: tuple[str, str, str]) -> None:
    assert persons(name) == told
