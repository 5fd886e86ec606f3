from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ffd_continual.commands.check import add_arguments, run
from ffd_continual.scenarios.check import check_manifest
from ffd_continual.scenarios.faults import Fault
from ffd_continual.scenarios.manifest import make_manifest, write_manifest
from ffd_continual.scenarios.pictures import write_mask, write_picture


@pytest.fixture
def table(tmp_path: Path) -> pd.DataFrame:
    """18 faces of 9 people in three splits, every column right."""
    rng = np.random.default_rng(0)
    rows = []
    for at, split in enumerate(["train"] * 3 + ["valid"] * 3 + ["test"] * 3):
        for forgery in ("real", "swap"):
            path = f"{forgery}/{at}.png"
            write_picture(tmp_path / path, rng.integers(0, 256, (12, 10, 3)).astype(np.uint8))
            rows.append(
                {
                    "path": path,
                    "label": int(forgery == "swap"),
                    "forgery": forgery,
                    "split": split,
                    "identity": f"p{at}",
                    "video": f"v{at}",
                    "pair": f"real/{at}.png" if forgery == "swap" else "",
                    "mask": "mask.png" if forgery == "swap" else "",
                    "landmarks": "[[1, 1], [8, 1], [4, 9]]",
                    "sha256": hashlib.sha256((tmp_path / path).read_bytes()).hexdigest(),
                }
            )
    write_mask(tmp_path / "mask.png", np.zeros((12, 10), np.uint8))
    return pd.DataFrame(rows)


def faults(table: pd.DataFrame, root: Path, pictures: bool = True) -> list[Fault]:
    found = check_manifest(make_manifest(table, root), pictures, progress=False)
    return [fault for fault in found if not fault.warning]


def kinds(found: list[Fault]) -> list[tuple[int | None, str, str]]:
    return [(fault.row, fault.column, fault.kind) for fault in found]


def test_a_clean_manifest_has_nothing(table: pd.DataFrame, tmp_path: Path) -> None:
    for workers in (1, 3):
        assert check_manifest(make_manifest(table, tmp_path), workers=workers, progress=False) == []


def test_missing_and_broken_files_are_all_listed(table: pd.DataFrame, tmp_path: Path) -> None:
    table.loc[1, "path"] = "gone.png"
    table.loc[3, "mask"] = "gone.png"
    table.loc[5, "pair"] = "gone.png"
    (tmp_path / "real/4.png").write_bytes(b"no picture")
    table.loc[8, "sha256"] = ""
    found = kinds(faults(table, tmp_path))
    assert found == [
        (2, "path", "missing-file"),
        (4, "mask", "missing-mask"),
        (6, "pair", "missing-pair"),
        (9, "path", "unreadable-picture"),
        (10, "pair", "unreadable-picture"),
    ]
    without = kinds(faults(table, tmp_path, pictures=False))
    assert without == found[:3]


def test_other_sizes_hashes_and_landmarks_outside(table: pd.DataFrame, tmp_path: Path) -> None:
    write_mask(tmp_path / "small.png", np.zeros((12, 9), np.uint8))
    table.loc[1, "mask"] = "small.png"
    table.loc[3, "pair"] = "small.png"
    table.loc[4, "sha256"] = "0" * 64
    table.loc[6, "landmarks"] = "[[11, 1], [18, 1], [14, 9]]"
    assert kinds(faults(table, tmp_path)) == [
        (2, "mask", "mask-size"),
        (4, "pair", "pair-size"),
        (5, "sha256", "sha256-mismatch"),
        (7, "landmarks", "landmarks-outside"),
    ]


def test_labels_that_contradict(table: pd.DataFrame, tmp_path: Path) -> None:
    table.loc[0, "label"] = 1
    table.loc[3, "label"] = 0
    assert kinds(faults(table, tmp_path, False)) == [
        (1, "label", "contradictory-label"),
        (4, "label", "contradictory-label"),
    ]


def test_one_picture_with_two_labels_by_path_and_by_content(table: pd.DataFrame, tmp_path: Path) -> None:
    table.loc[1, ["path", "sha256"]] = ["./real/../real/0.png", ""]
    found = kinds(faults(table, tmp_path))
    assert found == [(2, "path", "duplicate-row"), (2, "label", "contradictory-label")]
    (tmp_path / "copy.png").write_bytes((tmp_path / "real/1.png").read_bytes())
    table.loc[3, ["path", "sha256"]] = ["copy.png", ""]
    assert (4, "label", "contradictory-label") in kinds(faults(table, tmp_path))


def test_person_crossing_as_identity_and_as_source(table: pd.DataFrame, tmp_path: Path) -> None:
    table["source_identity"] = ""
    table.loc[6, "identity"] = "p0"  # valid
    table.loc[13, "source_identity"] = "p0"  # test
    table.loc[15, "source_identity"] = "p6"  # test, as p6: no fault
    found = faults(table, tmp_path, False)
    assert kinds(found) == [
        (7, "identity", "identity-in-two-splits"),
        (14, "source_identity", "identity-in-two-splits"),
    ]
    assert found[0].message == "person 'p0' is in valid here and in train at row 1 (2 there)"


def test_same_name_in_another_dataset_is_no_crossing(table: pd.DataFrame, tmp_path: Path) -> None:
    table["identity"] = "p"
    table["dataset"] = table["split"]
    assert faults(table, tmp_path, False) == []


def test_video_pair_and_picture_crossing(table: pd.DataFrame, tmp_path: Path) -> None:
    table.loc[6, "video"] = "v0"
    table.loc[15, "pair"] = "real/2.png"
    (tmp_path / "real/8.png").write_bytes((tmp_path / "real/0.png").read_bytes())
    table.loc[16, "sha256"] = ""
    assert kinds(faults(table, tmp_path)) == [
        (7, "video", "video-in-two-splits"),
        (16, "pair", "pair-in-two-splits"),
        (17, "path", "picture-in-two-splits"),
    ]


def test_warnings_for_empty_and_one_class_splits(table: pd.DataFrame, tmp_path: Path) -> None:
    one = table[(table["split"] == "train") | ((table["split"] == "valid") & (table["label"] == 0))]
    found = check_manifest(make_manifest(one.assign(identity="", video=""), tmp_path), False, progress=False)
    assert all(fault.warning and fault.row is None for fault in found)
    assert [(fault.kind, fault.message) for fault in found] == [
        ("one-class-split", "the split valid has no forged face"),
        ("empty-split", "the split test is empty"),
        ("forgery-not-in-split", "swap is in train but not in valid"),
        ("forgery-not-in-split", "swap is in train but not in test"),
        ("unknown-person", "9 of 9 faces have neither identity nor video: leaks between splits stay unseen"),
    ]


def command(*words: str) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args(words))


def test_command_clean_then_faulty(table: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.csv"
    write_manifest(table, path)
    assert command(str(path)) == 0
    assert "no faults, 0 warning(s)" in capsys.readouterr().out
    table.loc[[1, 3], "path"] = ["a_very_long_folder_name/" * 6 + "x.png", "gone.png"]
    write_manifest(table, path)
    assert command(str(path)) == 2
    text = capsys.readouterr().out
    assert "missing-file: 2 faults" in text
    assert "line 3, path" in text
    assert "line 5, path" in text
    assert max(map(len, text.splitlines())) <= 80


def test_command_json(table: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table.loc[0, "forgery"] = "swap"
    write_manifest(table, tmp_path / "m.parquet")
    assert command(str(tmp_path / "m.parquet"), "--json", "--no-pictures") == 2
    found = json.loads(capsys.readouterr().out)
    assert (found["faces"], found["faults"], found["warnings"]) == (18, 1, 0)
    assert found["found"][0]["row"] == 1
    assert found["found"][0]["kind"] == "contradictory-label"


def test_command_on_a_folder(table: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mask.png").unlink()
    assert command(str(tmp_path)) == 0
    assert "18 of 18 faces have no split yet" in capsys.readouterr().out.replace("\n    ", " ")
    assert command(str(tmp_path), "--identity-pattern", "()") == 0
    assert "18 of 18 faces have neither identity" in capsys.readouterr().out.replace("\n    ", " ")
    for at in range(2, 9):
        for kind in ("real", "swap"):
            (tmp_path / kind / f"{at}.png").unlink()
    assert command(str(tmp_path)) == 2
    assert "cannot-split: 1 fault" in capsys.readouterr().out
