from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.folder import assign_splits, index_folder, open_faces
from ffd_continual.scenarios.manifest import write_manifest
from ffd_continual.scenarios.pictures import write_picture

GREY = np.full((4, 4, 3), 120, np.uint8)


def tree(root: Path, *names: str) -> Path:
    for name in names:
        write_picture(root / name, GREY)
    return root


def people(root: Path, count: int, forgeries: tuple[str, ...] = ("swap", "warp")) -> Path:
    names = [f"{kind}/p{at:02d}_{shot}.png" for kind in ("real", *forgeries) for at in range(count) for shot in "ab"]
    return tree(root, *names)


def faces(count: int, **columns: list[str]) -> pd.DataFrame:
    base = {
        "path": [f"{at}.png" for at in range(count)],
        "label": [at % 2 for at in range(count)],
        "forgery": ["swap" if at % 2 else "real" for at in range(count)],
    }
    return pd.DataFrame(base | columns)


def test_flat_folder_splits_by_person(tmp_path: Path) -> None:
    assert set(index_folder(people(tmp_path, 30)).table["split"]) == {""}
    table = open_faces(tmp_path, seed=1).table
    assert len(table) == 180
    assert set(table["split"]) == {"train", "valid", "test"}
    assert (table.groupby("identity")["split"].nunique() == 1).all()
    assert table.groupby("split")["label"].nunique().eq(2).all()
    assert table["identity"].nunique() == 30
    assert table["frame"].isna().all()  # the number in "p03_a" counts persons
    assert list(table.loc[table["path"] == "warp/p03_b.png", ["label", "forgery", "identity"]].iloc[0]) == [
        1,
        "warp",
        "p03",
    ]


def test_nested_folder_is_a_video_and_frames_are_numbered(tmp_path: Path) -> None:
    names = [
        f"{kind}/clip{at}_x/f_{frame:03d}.png" for kind in ("real", "swap") for at in range(12) for frame in (0, 7)
    ]
    table = open_faces(tree(tmp_path, *names)).table
    assert set(table["frame"]) == {0, 7}
    assert set(table["video"]) == {f"clip{at}_x" for at in range(12)}
    # The frame's own stem "f" must not become the person, which would link everything.
    assert set(table["identity"]) == {f"clip{at}" for at in range(12)}
    assert (table.groupby("video")["split"].nunique() == 1).all()


def test_pattern_names_the_source_and_links_both_persons(tmp_path: Path) -> None:
    real = [f"real/{at:03d}/0.png" for at in range(40)]
    swaps = [f"swap/{at:03d}_{at + 1:03d}/0.png" for at in range(0, 40, 2)]
    root = tree(tmp_path, *real, *swaps)
    table = open_faces(root, identity_pattern=r"^(?P<identity>\d+)(?:_(?P<source>\d+))?/").table
    row = table[table["video"] == "004_005"].iloc[0]
    assert (row["identity"], row["source_identity"]) == ("004", "005")
    split = dict(zip(table["video"], table["split"], strict=True))
    assert all(
        split[f"{at:03d}"] == split[f"{at + 1:03d}"] == split[f"{at:03d}_{at + 1:03d}"] for at in range(0, 40, 2)
    )


def test_split_folders_are_honoured(tmp_path: Path) -> None:
    names = [f"{part}/{kind}/{part}{kind}.png" for part in ("train", "valid", "test") for kind in ("real", "swap")]
    table = index_folder(tree(tmp_path, *names)).table
    assert all(path.startswith(split) for path, split in zip(table["path"], table["split"], strict=True))
    tree(tmp_path, "warp/x.png")
    with pytest.raises(FFDError, match="holds the split 'test' beside 'warp'"):
        open_faces(tmp_path)


def test_hidden_files_and_others_are_counted_and_left_out(tmp_path: Path) -> None:
    people(tmp_path, 10)
    for name in ("real/Thumbs.db", "swap/notes.txt", "swap/.hidden.png", "list.txt"):
        (tmp_path / name).write_bytes(b"x")
    manifest = open_faces(tmp_path)
    assert len(manifest) == 60
    assert any("ignored 4 file(s)" in note for note in manifest.notes)


def test_a_link_that_goes_round_ends(tmp_path: Path) -> None:
    people(tmp_path, 10)
    (tmp_path / "real" / "again").symlink_to(tmp_path / "real", target_is_directory=True)
    assert len(open_faces(tmp_path)) == 60


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("swap/a.png",), "no folder 'real'"),
        (("Real/a.png", "swap/a.png"), r"is 'Real' it\? Rename"),
        (("real/a.png",), "real faces only"),
        (("real/a.png", "masks/a.png"), "mask column"),
        (("real/a_1.png", "swap/a_1.png"), "part would have no real face. There are 1 group"),
    ],
)
def test_bad_trees_say_what_is_wrong(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(FFDError, match=message):
        open_faces(tree(tmp_path, *names))


def test_missing_folder_empty_class_and_bad_pattern(tmp_path: Path) -> None:
    with pytest.raises(FFDError, match="there is no folder"):
        index_folder(tmp_path / "none")
    people(tmp_path, 10)
    for pattern, message in (("(", "no regular expression"), ("abc", "needs a group"), ("(zzz)", "matches no picture")):
        with pytest.raises(FFDError, match=message):
            index_folder(tmp_path, identity_pattern=pattern)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FFDError, match="empty holds no pictures"):
        index_folder(tmp_path)


def test_people_added_later_do_not_move_earlier_ones() -> None:
    few = faces(400, identity=[f"a{at // 2}" for at in range(400)])
    more = faces(800, identity=[f"a{at // 2}" if at < 400 else f"A{at // 2}" for at in range(800)])
    first, second = assign_splits(few, seed=3)["split"], assign_splits(more, seed=3)["split"]
    assert first.tolist() == second[:400].tolist()
    assert assign_splits(few, seed=4)["split"].tolist() != first.tolist()
    shuffled = few.sample(frac=1, random_state=0)
    assert assign_splits(shuffled, seed=3)["split"].sort_index().tolist() == first.tolist()


def test_shares_are_the_fractions_also_for_linked_groups() -> None:
    # Pairs of persons: naming a group by the lowest hash of its members would push it towards train.
    count = 4000
    identity = [f"p{at}" for at in range(count)]
    source = [f"p{at - 1}" if at % 2 else "" for at in range(count)]
    split = assign_splits(faces(count, identity=identity, source_identity=source), seed=0)["split"]
    shares = split.value_counts(normalize=True)
    assert shares["train"] == pytest.approx(0.7, abs=0.03)
    assert shares["test"] == pytest.approx(0.15, abs=0.03)


def test_every_kind_of_link_keeps_rows_together() -> None:
    base = faces(60, identity=[f"p{at // 2}" for at in range(60)], video=[""] * 60, pair=[""] * 60)
    base["sha256"] = ""
    for column, value in (("video", "v"), ("pair", "0.png"), ("sha256", "f" * 64), ("source_identity", "p0")):
        table = base.assign(source_identity="")
        table.loc[[0, 21, 43], column] = value
        for seed in range(5):
            assert assign_splits(table, seed)["split"].iloc[[0, 21, 43]].nunique() == 1, column


def test_by_video_lets_persons_cross() -> None:
    table = faces(200, identity=["one"] * 200, video=[f"v{at // 2}" for at in range(200)])
    with pytest.raises(FFDError, match="1 group"):
        assign_splits(table, 0)
    split = assign_splits(table, 0, by="video")
    assert (split.groupby("video")["split"].nunique() == 1).all()
    assert set(split["split"]) == {"train", "valid", "test"}


def test_same_person_name_in_two_datasets_is_two_persons() -> None:
    table = faces(400, identity=[str(at // 4) for at in range(400)], dataset=["a", "a", "b", "b"] * 100)
    split = assign_splits(table, 0)
    assert split.groupby(["dataset", "identity"])["split"].nunique().max() == 1
    assert split.groupby("identity")["split"].nunique().max() > 1


def test_unnamed_faces_warn_and_equal_stems_stay_together() -> None:
    table = faces(100).assign(path=[f"{'swap' if at % 2 else 'real'}/{at // 2}.png" for at in range(100)])
    with pytest.warns(UserWarning, match="100 of 100 faces have neither identity nor video"):
        split = assign_splits(table, 0)["split"].to_numpy()
    assert (split[0::2] == split[1::2]).all()
    assert len(set(split)) == 3


def test_filled_splits_stay_and_pull_their_group() -> None:
    table = faces(60, identity=[f"p{at // 3}" for at in range(60)], split=[""] * 60)
    table.loc[0, "split"] = "test"
    for seed in range(4):
        assert assign_splits(table, seed)["split"].iloc[:3].tolist() == ["test"] * 3
    table.loc[1, "split"] = "train"
    with pytest.raises(FFDError, match="'identity p0' stand in test and train already"):
        assign_splits(table, 0)


def test_three_groups_are_enough_and_two_are_not() -> None:
    for seed in range(20):
        split = assign_splits(faces(6, identity=list("aabbcc")), seed)
        assert split.groupby("split")["label"].nunique().tolist() == [2, 2, 2]
    with pytest.raises(FFDError, match=r"would have no (real|forged) face. There are 2 group\(s\)"):
        assign_splits(faces(4, identity=list("aabb")), 0)


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (0.5, 0.5, 0.5), (-0.5, 1.0, 0.5)])
def test_wrong_fractions(fractions: tuple[float, ...]) -> None:
    with pytest.raises(FFDError, match="three numbers"):
        assign_splits(faces(10, identity=list("aabbccddee")), 0, fractions)


def test_a_share_of_nothing_leaves_that_part_empty() -> None:
    table = faces(200, identity=[f"p{at // 2}" for at in range(200)])
    assert set(assign_splits(table, 0, (0.8, 0.0, 0.2))["split"]) == {"train", "test"}
    with pytest.raises(FFDError, match="'identity' or 'video'"):
        assign_splits(table, 0, by="picture")


def test_open_faces_takes_manifest_folder_with_manifest_and_tree(tmp_path: Path) -> None:
    root = people(tmp_path / "faces", 20)
    tree_manifest = open_faces(root, seed=5)
    write_manifest(tree_manifest, tmp_path / "m.csv")
    from_file = open_faces(tmp_path / "m.csv")
    assert from_file.table["split"].tolist() == tree_manifest.table["split"].tolist()
    assert all(from_file.absolute(path).is_file() for path in from_file.table["path"])
    write_manifest(from_file.subset([0, 1]), root / "manifest.csv")
    assert len(open_faces(root)) == 2
    bare = open_faces(tmp_path / "m.csv").table.assign(split="")
    write_manifest(bare, tmp_path / "bare.parquet")
    assert set(open_faces(tmp_path / "bare.parquet", assign=False).table["split"]) == {""}
    assert open_faces(tmp_path / "bare.parquet", seed=5).table["split"].tolist() == from_file.table["split"].tolist()
    with pytest.raises(FFDError, match="there is nothing at"):
        open_faces(tmp_path / "none")


def test_names_that_are_no_text_are_named_before_a_table_is_made(tmp_path: Path) -> None:
    people(tmp_path, 3)
    os.rename(tmp_path / "swap" / "p01_a.png", os.fsencode(tmp_path / "swap") + b"/p01_\xff.png")
    with pytest.raises(FFDError, match=r"swap/p01_\\x\w*ff\.png is not in UTF-8") as caught:
        index_folder(tmp_path)
    str(caught.value).encode("utf-8")
