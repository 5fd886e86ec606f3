"""DFDC and its preview in miniature.

Layout after Kaggle's data page (metadata.json: label, split, original), polimi-ispl/icpr2020dfdc (dfdc_train_part_N),
SCLBD/DeepfakeBench (train/, test/labels.csv) and mapooon/SelfBlendedImages (the preview's folders, videos/).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from ffd_continual.scenarios.datasets.listing import Item, Listing, Wanted, adapter
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.splits import assign_splits

Plant = Callable[..., None]
ByPath = Callable[[Listing], dict[str, Item]]


def part(root: Path, plant: Plant, folder: str, originals: list[str], fakes: dict[str, str]) -> None:
    """A part as Kaggle packs it: every video, and a metadata.json."""
    told: dict[str, object] = {f"{name}.mp4": {"label": "REAL", "split": "train"} for name in originals}
    told |= {f"{n}.mp4": {"label": "FAKE", "split": "train", "original": f"{o}.mp4"} for n, o in fakes.items()}
    plant(root, *(f"{folder}/{name}" for name in told))
    (root / folder / "metadata.json").write_text(json.dumps(told))


@pytest.fixture
def root(tmp_path: Path, plant: Plant) -> Path:
    part(tmp_path, plant, "train/dfdc_train_part_0", ["aa", "bb"], {"ca": "aa", "cb": "aa", "cc": "bb"})
    part(tmp_path, plant, "train/dfdc_train_part_11", ["dd"], {"ea": "dd"})
    plant(tmp_path, "validation/va.mp4", "validation/vb.mp4", "test/ta.mp4", "test/videos/tb.mp4")
    (tmp_path / "validation/labels.csv").write_text("filename,label\nva.mp4,0\nvb.mp4,1\n")
    (tmp_path / "test/metadata.json").write_text('{"ta.mp4": {"is_fake": 1}, "tb.mp4": {"is_fake": 0}}')
    return tmp_path


def test_dfdc_official_tree(root: Path, by_path: ByPath) -> None:
    listing = adapter("dfdc").index(root, Wanted())
    found = by_path(listing)
    assert len(found) == 11
    fake = found["train/dfdc_train_part_0/cb.mp4"]
    assert (fake.label, fake.forgery, fake.pair, fake.identity, fake.split) == (1, "dfdc", "aa", "aa", "train")
    real = found["train/dfdc_train_part_0/aa.mp4"]
    assert (real.label, real.forgery, real.video, real.identity, real.pair) == (0, "real", "aa", "aa", "")
    assert {path: (found[path].label, found[path].split) for path in found if not path.startswith("train")} == {
        "validation/va.mp4": (0, "valid"), "validation/vb.mp4": (1, "valid"),
        "test/ta.mp4": (1, "test"), "test/videos/tb.mp4": (0, "test"),
    }  # fmt: skip
    assert len(listing.missing) == 48
    assert "dfdc_train_part_1" in listing.missing
    assert not {"dfdc_train_part_0", "dfdc_train_part_11"} & set(listing.missing)


def test_dfdc_of_kaggle_alone_is_split_by_original(tmp_path: Path, plant: Plant, by_path: ByPath) -> None:
    part(tmp_path, plant, "train_sample_videos", ["aa", "bb"], {"ca": "aa"})
    for number in range(6):
        names = [f"r{number}{n}" for n in range(3)]
        part(tmp_path, plant, f"dfdc_train_part_{number}", names, {f"f{name}": name for name in names})
    part(tmp_path, plant, "dfdc_train_part_07/dfdc_train_part_7", ["aa"], {"ca": "aa", "cx": "gone"})
    listing = adapter("dfdc").index(tmp_path, Wanted())
    items = by_path(listing)
    assert {item.split for item in listing.items} == {""}
    # The sample repeats videos of the parts, which come first; the original of `cx` is not here.
    assert "dfdc_train_part_07/dfdc_train_part_7/aa.mp4" in items
    assert "train_sample_videos/aa.mp4" not in items
    assert any("2 video(s) stand in two folders" in note for note in listing.notes)
    orphan = items["dfdc_train_part_07/dfdc_train_part_7/cx.mp4"]
    assert (orphan.pair, orphan.identity) == ("", "gone")
    assert "dfdc_train_part_7" not in listing.missing
    columns = ("path", "label", "video", "identity", "pair", "split")
    table = assign_splits(pd.DataFrame([{name: getattr(one, name) for name in columns} for one in items.values()]), 0)
    assert table.groupby("identity")["split"].nunique().max() == 1
    assert set(table["split"]) == {"train", "valid", "test"}


def test_dfdc_bad_lines_are_named_and_the_rest_goes_on(tmp_path: Path, plant: Plant) -> None:
    plant(tmp_path, *(f"dfdc_train_part_3/{name}.mp4" for name in ("good", "nan", "odd", "both", "unlisted")))
    (tmp_path / "dfdc_train_part_3/metadata.json").write_text(
        '{"good.mp4": {"label": "REAL", "original": NaN}, "nan.mp4": {"label": NaN}, "odd.mp4": {"label": "MAYBE"},'
        ' "both.mp4": {"label": "REAL", "original": "good.mp4"}, "../up.mp4": {"label": "FAKE"}, "list.mp4": [1],'
        ' "lost.mp4": {"label": "FAKE", "original": "good.mp4"}}'
    )
    listing = adapter("dfdc").index(tmp_path, Wanted())
    assert [item.path for item in listing.items] == ["dfdc_train_part_3/good.mp4"]
    told = "\n".join(listing.notes)
    for name, cause in (("nan.mp4", "nan"), ("odd.mp4", "'MAYBE'"), ("both.mp4", "REAL and made from"),
                        ("../up.mp4", "leads out"), ("list.mp4", "None")):  # fmt: skip
        assert any(name in note and cause in note for note in listing.notes), (name, told)
    assert "unlisted.mp4" in told
    assert "dfdc_train_part_3/lost.mp4" in listing.missing


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("dfdc_train_part_0/metadata.json", '{"a.mp4": {"label": "REAL"}', "line 1: is no JSON"),
        ("dfdc_train_part_0/metadata.json", "[]", "no table from file names"),
        ("dfdc_train_part_0/metadata.json", '{"a.mp4": {"label": NaN}}', "no line can be used"),
        ("test/labels.csv", "name,label\na.mp4,0\n", "lacks filename"),
    ],
)
def test_dfdc_broken_list_fails_by_name(tmp_path: Path, plant: Plant, file: str, text: str, says: str) -> None:
    plant(tmp_path, str(Path(file).parent / "a.mp4"))
    (tmp_path / file).write_text(text)
    with pytest.raises(FFDError, match=says) as caught:
        adapter("dfdc").index(tmp_path, Wanted())
    assert file in str(caught.value)


def test_dfdc_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(FFDError, match="nothing of it"):
        adapter("dfdc").index(tmp_path, Wanted())
    with pytest.raises(FFDError, match="Known: dfdc"):
        adapter("dfdc").index(tmp_path, Wanted(forgeries=("dfcd",)))


Told = dict[str, object]


def told(label: str, group: str, target: str, swapped: str | None = None, source: str | None = None) -> Told:
    entry: Told = {"label": label, "set": group, "augmentations": [], "target_id": target}
    return entry | {"swapped_id": swapped} | ({"source_video": source} if source else {})


@pytest.fixture
def preview(tmp_path: Path, plant: Plant) -> Path:
    """Targets 100, 200, 300 in train, swapped among two groups; 900 in test."""
    table = {
        "original_videos/100/100_A_001.mp4": told("real", "train", "100"),
        "original_videos/200/200_A_001.mp4": told("real", "train", "200"),
        "original_videos/300/300_C_002.mp4": told("real", "train", "300"),
        "original_videos/900/900_A_001.mp4": told("real", "test", "900"),
        "method_A/100/100_A/200_100_A_001.mp4": told("fake", "train", "100", "200"),
        "method_B/300/300_C/400_300_C_002.mp4": told("fake", "train", "300", "400", "300_C_002"),
        "method_B/900/900_A/901_900_A_007.mp4": told("fake", "test", "900", "901"),
    }
    plant(tmp_path, *(f"dfdc_preview_set/{name}" for name in table))
    (tmp_path / "dfdc_preview_set/dataset.json").write_text(json.dumps(table))
    return tmp_path


def test_preview_official_tree(preview: Path, by_path: ByPath) -> None:
    listing = adapter("dfdc_preview").index(preview, Wanted())
    found = by_path(listing)
    assert len(found) == 7
    assert not listing.missing
    fake = found["dfdc_preview_set/method_A/100/100_A/200_100_A_001.mp4"]
    assert (fake.label, fake.forgery, fake.identity, fake.source_identity) == (1, "method_a", "100", "200")
    assert fake.pair == found["dfdc_preview_set/original_videos/100/100_A_001.mp4"].video
    other = found["dfdc_preview_set/method_B/300/300_C/400_300_C_002.mp4"]
    assert other.pair == "original_videos/300/300_C_002"
    alone = found["dfdc_preview_set/method_B/900/900_A/901_900_A_007.mp4"]
    assert (alone.pair, alone.split) == ("", "test")
    # Part of train is kept apart for validation; 100 and 200 are swapped and stay together.
    parts = {item.identity: item.split for item in listing.items if item.split != "test"}
    assert set(parts.values()) == {"train", "valid"}
    assert parts["100"] == parts["200"] != parts["300"]
    only = adapter("dfdc_preview").index(preview, Wanted(forgeries=("method_b",)))
    assert {item.forgery for item in only.items} == {"real", "method_b"}


def test_preview_partial_and_bad_entries(preview: Path) -> None:
    (preview / "dfdc_preview_set/method_A/100/100_A/200_100_A_001.mp4").unlink()
    file = preview / "dfdc_preview_set/dataset.json"
    table = json.loads(file.read_text())
    table["method_A/1/1_A/2_1_A_1.mp4"] = told("real", "train", "1")
    table["method_A/1/1_A/3_1_A_1.mp4"] = told("fake", "holdout", "1")
    file.write_text(json.dumps(table))
    listing = adapter("dfdc_preview").index(preview, Wanted())
    assert listing.missing == ("dfdc_preview_set/method_A/100/100_A/200_100_A_001.mp4",)
    assert len(listing.items) == 6
    assert any("2_1_A_1.mp4" in note and "against its folder" in note for note in listing.notes)
    assert any("3_1_A_1.mp4" in note and "'holdout'" in note for note in listing.notes)
    file.write_text('{"original_videos/a.mp4": {"label": "perhaps"}}')
    with pytest.raises(FFDError, match=r"dataset\.json.*no entry can be used.*'perhaps'"):
        adapter("dfdc_preview").index(preview, Wanted())
    file.write_text('{"original_videos/a.mp4": {"label": NaN}}')
    with pytest.raises(FFDError, match=r"dataset\.json.*NaN"):
        adapter("dfdc_preview").index(preview, Wanted())
