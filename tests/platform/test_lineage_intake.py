"""Faces that come to a lineage: which are meant, who is known already, and in which part they end."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from ffd_continual.lineage.intake import _choose, _flat, _open, _readable, place_incoming
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.folder import IDENTITY_PATTERN
from ffd_continual.scenarios.manifest import make_manifest

NOBODY = pd.DataFrame(
    {n: pd.Series(dtype="str") for n in ("dataset", "identity", "source_identity", "video", "sha256")}
)
NOBODY["part"] = pd.Series(dtype="str")


def _pictures(folder: Path, names: list[str]) -> Path:
    folder.mkdir(parents=True)
    for number, name in enumerate(names):
        cv2.imwrite(str(folder / name), np.full((32, 32, 3), number % 250, np.uint8))
    return folder


def _table(people: list[str], forgery: str = "warp", **columns: object) -> pd.DataFrame:
    rows = [{"path": f"{p}{i}.png", "label": int(forgery != "real"), "forgery": forgery, "identity": p}
            for i, p in enumerate(people)]  # fmt: skip
    table = make_manifest(pd.DataFrame(rows), ".").table
    return table.assign(sha256=[f"{i:064x}" for i in range(len(rows))], **columns)


def test_twenty_forged_faces_alone_are_placed_in_all_three_parts(tmp_path: Path) -> None:
    folder = _pictures(tmp_path / "few", [f"fake{i:02d}_a.png" for i in range(20)])
    manifest, guessed = _open(folder, "warp", False, IDENTITY_PATTERN)
    assert guessed
    table, notes = _choose(manifest, "warp", False)
    assert notes == []
    assert set(table["forgery"]) == {"warp"}
    read, notes = _readable(table.assign(path=[str(manifest.absolute(p)) for p in table["path"]]), False)
    assert read["sha256"].nunique() == 20
    placed, notes = place_incoming(read, NOBODY, 0, "few")
    counts = placed["split"].value_counts()
    assert counts.sum() == 20
    assert counts["train"] >= 10
    assert min(counts["valid"], counts["test"]) >= 1
    assert notes == []


def test_a_person_stays_in_the_part_where_the_lineage_has_them() -> None:
    people = ["anna", "bert", "carl", "dora", "emil", "fred"]
    known = pd.DataFrame(
        {"dataset": "", "identity": ["anna", "bert", "carl"], "source_identity": "", "video": "", "sha256": "",
         "part": ["test", "valid", "train"]}
    )  # fmt: skip
    for seed in range(5):
        placed, _ = place_incoming(_table(people), known, seed, "x")
        split = dict(zip(placed["identity"], placed["split"], strict=True))
        assert (split["anna"], split["bert"], split["carl"]) == ("test", "valid", "train")
    # Another data set's anna is another person.
    elsewhere = known.assign(dataset="other")
    found = {
        place_incoming(_table(people), elsewhere, s, "x")[0].set_index("identity")["split"]["anna"] for s in range(9)
    }
    assert len(found) > 1


def test_faces_that_tie_two_parts_are_left_out_and_known_pictures_found_by_content() -> None:
    known = pd.DataFrame(
        {"dataset": "", "identity": ["anna", "bert"], "source_identity": "", "video": "", "sha256": ["", f"{3:064x}"],
         "part": ["test", "train"]}
    )  # fmt: skip
    table = _table(["anna", "bert", "carl", "dora", "emil", "fred", "gina"])
    table.loc[0, "source_identity"] = "bert"  # bert's face (train) on anna (test)
    table.loc[5, "split"] = "train"
    placed, notes = place_incoming(table, known, 0, "x")
    assert "anna" not in set(placed["identity"])
    assert len(placed) == 6
    assert notes[0].startswith("1 of 7 faces are left out")
    assert placed.set_index("identity")["split"]["dora"] == "train"  # her picture is known from training


def test_three_people_are_needed() -> None:
    with pytest.raises(FFDError, match="at least three people"):
        place_incoming(_table(["anna", "anna", "bert"]), NOBODY, 0, "x")
    placed, _ = place_incoming(_table(["anna", "bert", "carl"]), NOBODY, 0, "x")
    assert sorted(placed["split"]) == ["test", "train", "valid"]


def test_unmeasured_takes_twenty_faces_of_one_person() -> None:
    table = _table(["anna"] * 20)
    with pytest.raises(FFDError, match=r"1 person .* at least three people.*--unmeasured"):
        place_incoming(table, NOBODY, 0, "few")
    placed, notes = place_incoming(table, NOBODY, 0, "few", unmeasured=True)
    assert (set(placed["split"]), len(placed), notes) == ({"train"}, 20, [])
    known = table.iloc[:1].assign(part="test")
    with pytest.raises(FFDError, match="whom this lineage tests on"):
        place_incoming(table, known, 0, "few", unmeasured=True)


def test_real_faces_are_placed_by_themselves() -> None:
    placed, _ = place_incoming(_table([f"p{i}" for i in range(9)], "real"), NOBODY, 0, "x")
    assert set(placed["label"]) == {0}
    assert set(placed["split"]) == {"train", "valid", "test"}


def _rows(*rows: tuple[str, int, str]) -> pd.DataFrame:
    return pd.DataFrame([{"path": p, "label": label, "forgery": f} for p, label, f in rows])


def test_which_rows_are_meant(tmp_path: Path) -> None:
    both = make_manifest(_rows(("a", 0, "real"), ("b", 1, "warp"), ("c", 1, "swap")), tmp_path)
    table, notes = _choose(both, "warp", False)
    assert table["path"].tolist() == ["a", "b"]
    assert "only warp is added" in notes[0]
    with pytest.raises(FFDError, match="no face of forgery 'warb', but warp, swap. Did you mean --forgery warp"):
        _choose(both, "warb", False)
    with pytest.raises(FFDError, match="holds real faces only"):
        _choose(make_manifest(_rows(("a", 0, "real")), tmp_path), "warp", False)
    with pytest.raises(FFDError, match="holds no real face"):
        _choose(make_manifest(_rows(("a", 1, "warp")), tmp_path), "real-x", True)
    with pytest.raises(FFDError, match=r"1 labels contradict .* first at row 2"):
        _choose(make_manifest(_rows(("a", 0, "real"), ("b", 0, "warp")), tmp_path), "warp", False)
    table, _ = _choose(make_manifest(_rows(("a", 0, "real"), ("b", 1, "forged")), tmp_path), "warp", False)
    assert table["forgery"].tolist() == ["real", "warp"]  # a folder called only "forged" is the forgery named


def test_trees_and_what_is_no_data(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    _pictures(tree / "real", ["a_1.png", "b_1.png"])
    _pictures(tree / "warp", ["a_2.png", "b_2.png"])
    manifest, guessed = _open(tree, "warp", False, IDENTITY_PATTERN)
    assert guessed
    assert sorted(manifest.table["identity"]) == ["a", "a", "b", "b"]
    only, _ = _open(tree, "real-x", True, IDENTITY_PATTERN)
    assert set(only.table["forgery"]) == {"real"}
    assert len(only) == 2
    shutil.rmtree(tree / "real")
    flat, _ = _open(tree, "warp", False, IDENTITY_PATTERN)
    assert set(flat.table["label"]) == {1}
    with pytest.raises(FFDError, match="nothing at"):
        _open(tmp_path / "none", "warp", False, IDENTITY_PATTERN)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FFDError, match="holds no pictures"):
        _flat(tmp_path / "empty", "warp", IDENTITY_PATTERN)
    (tmp_path / "unlabelled.csv").write_text("path\nreal/a_1.png\n")
    with pytest.raises(FFDError, match="required column 'label'"):
        _open(tmp_path / "unlabelled.csv", "warp", False, IDENTITY_PATTERN)


def test_unreadable_pictures(tmp_path: Path) -> None:
    folder = _pictures(tmp_path / "f", ["a_1.png", "b_1.png"])
    (folder / "c_1.png").write_bytes(b"no picture")
    table = _flat(folder, "warp", IDENTITY_PATTERN).table
    with pytest.raises(FFDError, match=r"1 of 3 new pictures cannot be read[\s\S]*c_1.png[\s\S]*--skip-unreadable"):
        _readable(table, False)
    kept, notes = _readable(table, True)
    assert len(kept) == 2
    assert notes == ["1 unreadable pictures are left out"]


def test_one_sub_folder_that_holds_all_is_no_video_and_several_are(tmp_path: Path) -> None:
    _pictures(tmp_path / "one" / "anything", [f"p{i}_a.png" for i in range(6)])
    for clip in ("x", "y"):
        _pictures(tmp_path / "two" / clip, [f"p{i}_a.png" for i in range(6)])
    alone, _ = _open(tmp_path / "one", "warp", False, IDENTITY_PATTERN)
    assert set(alone.table["video"]) == {""}
    assert place_incoming(alone.table, NOBODY, 0, "one")[0]["split"].nunique() == 3
    clips, _ = _open(tmp_path / "two", "warp", False, IDENTITY_PATTERN)
    assert set(clips.table["video"]) == {"x", "y"}
    tied = _table([f"p{i}" for i in range(6)], video="clip")
    with pytest.raises(FFDError, match="6 people in 1 group that videos, swapped faces or equal pictures tie"):
        place_incoming(tied, NOBODY, 0, "two")
