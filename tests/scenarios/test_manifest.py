from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.manifest import make_manifest, read_manifest, write_manifest
from ffd_continual.scenarios.manifest_cells import COLUMNS


def full(count: int = 6) -> pd.DataFrame:
    at = range(count)
    return pd.DataFrame(
        {
            "path": [f'faces/{i}, "ü" \n.png' for i in at],
            "label": [i % 2 for i in at],
            "forgery": ["swap" if i % 2 else "real" for i in at],
            "dataset": "NA",
            "split": [("train", "valid", "test", "")[i % 4] for i in at],
            "video": [f"00{i}" for i in at],
            "frame": [None if i == 2 else float(i) for i in at],
            "identity": "null",
            "source_identity": ["", "b"] * (count // 2),
            "pair": ["", "../p.png"] * (count // 2),
            "mask": ["", "/m.png"] * (count // 2),
            "landmarks": [json.dumps([[i + 0.5, j * 1.25] for j in range(68)]) for i in at],
            "profile": "phone",
            "date": "2024-03-05",
            "compression": "c23, crf 23",
            "sha256": "A" * 64,
            "skin": [i % 3 for i in at],
            "light": ["dim", None] * (count // 2),
        }
    )


@pytest.mark.parametrize("minimal", [False, True])
def test_csv_and_parquet_read_back_equal(tmp_path: Path, minimal: bool) -> None:
    table = full()[["path", "label", "forgery"]] if minimal else full()
    manifests = []
    for name in ("m.csv", "m.parquet"):
        written = write_manifest(table, tmp_path / name)
        read = read_manifest(tmp_path / name)
        pd.testing.assert_frame_equal(written.table, read.table)
        assert (written.lines.tolist(), written.unit) == (read.lines.tolist(), read.unit)
        manifests.append(read)
    pd.testing.assert_frame_equal(manifests[0].table, manifests[1].table)
    columns = list(manifests[0].table.columns)
    assert columns == [*COLUMNS] + ([] if minimal else ["skin", "light"])
    assert manifests[0].root == tmp_path
    again = write_manifest(manifests[1], tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "m.csv").read_bytes()
    pd.testing.assert_frame_equal(again.table, manifests[0].table)


def test_cells_are_typed_and_kept_as_written(tmp_path: Path) -> None:
    write_manifest(full(), tmp_path / "m.csv")
    manifest = read_manifest(tmp_path / "m.csv")
    table = manifest.table
    assert str(table["label"].dtype) == "int64"
    assert str(table["frame"].dtype) == "Int64"
    assert table["frame"].isna().tolist() == [False, False, True, False, False, False]
    assert table["video"].tolist()[1] == "001"
    assert (table["identity"][0], table["dataset"][0]) == ("null", "NA")
    assert table["path"][0] == 'faces/0, "ü" \n.png'
    assert table["sha256"][0] == "a" * 64
    assert (manifest.forgeries, manifest.subgroups) == (("swap",), ("skin", "light"))
    assert table["light"].tolist() == ["dim", ""] * 3
    points = manifest.landmarks(3)
    assert points is not None
    assert points.dtype == np.float32
    assert points.shape == (68, 2)
    assert points[2].tolist() == [3.5, 2.5]
    assert make_manifest(full()[["path", "label", "forgery"]], tmp_path).landmarks(0) is None
    assert manifest.absolute(table["pair"][1]) == tmp_path / "../p.png"
    assert manifest.absolute(table["mask"][1]) == Path("/m.png")


def test_lines_are_those_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text('\ufeffpath,label,forgery\n"a\nb.png",real,\n\nc.png,forged,swap\nd.png,1,swap\n', encoding="utf-8")
    manifest = read_manifest(path)
    assert manifest.lines.tolist() == [2, 5, 6]
    assert manifest.table["label"].tolist() == [0, 1, 1]
    assert manifest.table["forgery"].tolist() == ["real", "swap", "swap"]
    part = manifest.subset(manifest.table["label"].to_numpy() == 1)
    assert [part.place(0), part.place(1)] == ["line 5", "line 6"]
    assert manifest.subset([2, 0]).table["path"].tolist() == ["d.png", "a\nb.png"]


def test_a_moved_manifest_still_finds_its_files(tmp_path: Path) -> None:
    manifest = write_manifest(full(), tmp_path / "m.csv")
    moved = write_manifest(manifest, tmp_path / "deep" / "er" / "m.parquet")
    for name in ("path", "pair", "mask"):
        for old, new in zip(manifest.table[name], moved.table[name], strict=True):
            assert (old == "") == (new == "")
            assert manifest.absolute(old).resolve() == moved.absolute(new).resolve() or not old
    assert moved.table["path"][0].startswith("../../faces/")


def test_missing_column_names_the_nearest() -> None:
    table = full().rename(columns={"label": "Lable"})
    with pytest.raises(FFDError, match="'label' is missing. The nearest it has is 'Lable'"):
        make_manifest(table, ".")
    with pytest.raises(FFDError, match="'forgery' is missing. Columns found: path, label"):
        make_manifest(full()[["path", "label"]], ".")
    doubled = pd.concat([full(), full()[["split"]]], axis=1)
    with pytest.raises(FFDError, match="'split' appears twice"):
        make_manifest(doubled, ".")


def test_extra_columns_get_a_note_with_the_likely_name() -> None:
    table = full().drop(columns="identity").rename(columns={"skin": "identty"})
    notes = make_manifest(table, ".").notes
    assert any("'identty'" in note and "did you mean 'identity'?" in note for note in notes)
    assert any("'light'" in note and "did you mean" not in note for note in notes)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("label", "fake", "neither 0 / real nor 1 / forged"),
        ("label", 2, "neither 0 / real"),
        ("label", None, "neither 0 / real"),
        ("path", " ", "is empty"),
        ("forgery", "", "empty though the face is forged"),
        ("frame", "1.5", "no whole frame number"),
        ("frame", -1, "no whole frame number"),
        ("split", "val", "did you mean 'valid'"),
        ("landmarks", "[[1, 2], [3, 4]]", "at least three"),
        ("landmarks", "[[1, 2], [3, 4], [5]]", "at least three"),
        ("landmarks", "[[1, 2], [3, 4], [5, NaN]]", "at least three"),
        ("landmarks", "[[1, 2], [3, 4], [5, true]]", "at least three"),
        ("landmarks", '[["1", 2], [3, 4], [5, 6]]', "at least three"),
        ("landmarks", "[[1, 2], [3, 4], [5, 1e999]]", "at least three"),
        ("landmarks", "1 2 3", "at least three"),
        ("date", "5.3.2024", "no ISO date"),
        ("date", "2021-13", "no day of the calendar"),
        ("date", "2023-02-29", "no day of the calendar"),
        ("path", "a\0b.png", "null character"),
        ("sha256", "abc", "no SHA-256"),
    ],
)
def test_wrong_cells_are_named_with_their_row(column: str, value: object, message: str) -> None:
    table = full().astype({column: object})
    table.at[3, column] = value
    with pytest.raises(FFDError, match=rf"1 wrong cell\(s\)[\s\S]*row 4, {column}: .*{message}"):
        make_manifest(table, ".")


def test_the_first_wrong_rows_are_listed_and_the_others_counted() -> None:
    table = full(20).assign(split="nowhere")
    table.loc[1, "date"] = "yesterday"
    with pytest.raises(FFDError) as caught:
        make_manifest(table, ".", "m")
    text = str(caught.value)
    assert text.startswith("m: 21 wrong cell(s).")
    assert text.count("\n  row ") == 5
    assert text.endswith("and 16 more")
    assert text.index("row 1,") < text.index("row 2, split") < text.index("row 3,")


def test_landmark_lists_and_dates_of_parquet_become_text(tmp_path: Path) -> None:
    table = full(2)
    table["landmarks"] = [[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], None]
    table["date"] = pd.to_datetime(["2024-03-05T00:00:00", "2024-03-06T07:08:09"])
    table["identity"] = [b"anna", "\u00e9mile".encode()]
    table.to_parquet(tmp_path / "m.parquet")
    manifest = read_manifest(tmp_path / "m.parquet")
    assert manifest.table["date"].tolist() == ["2024-03-05", "2024-03-06T07:08:09"]
    assert manifest.table["identity"].tolist() == ["anna", "\u00e9mile"]
    points = manifest.landmarks(0)
    assert points is not None
    assert points.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert manifest.landmarks(1) is None


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("m.csv", b"path;label;forgery\na;0;real\n", "separated by semicolons"),
        ("m.csv", b"path,label,forgery\na,0\n", "line 2 has 2 cells, the header has 3"),
        ("m.csv", "path,label,forgery\nä,0,real\n".encode("latin-1"), "no UTF-8"),
        ("m.csv", b'path,label,forgery\n"a,0,real\n', "no proper CSV"),
        ("m.csv", b"path,label,forgery\n", "no rows"),
        ("m.csv", b"", "'path' is missing"),
        ("m.parquet", b"PAR1 no", "no readable Parquet"),
        ("m.xlsx", b"x", "suffix '.xlsx' is not known"),
    ],
)
def test_files_that_are_no_manifest(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(FFDError, match=message):
        read_manifest(tmp_path / name)


def test_missing_file_and_wrong_suffix_to_write(tmp_path: Path) -> None:
    with pytest.raises(FFDError, match="there is no manifest"):
        read_manifest(tmp_path / "none.csv")
    with pytest.raises(FFDError, match="ends in .csv or .parquet"):
        write_manifest(full(), tmp_path / "m.txt")
    assert list(tmp_path.iterdir()) == []
