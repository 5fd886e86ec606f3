"""Records on disk: formats, going on after a cut, and what is refused."""

from __future__ import annotations

import io
import json
import resource
from pathlib import Path

import pandas as pd
import pytest

from ffd_continual.detecting.inputs import Input, walk_inputs
from ffd_continual.detecting.journal import COLUMNS, Journal
from ffd_continual.detecting.predict import left_to_do
from ffd_continual.scenarios.errors import FFDError

SETTINGS = {"version": "v1", "fpr": 0.05, "band": 0.05}


def record(path: str, face: int = 0) -> dict[str, object]:
    return {"path": path, "kind": "face", "face": face, "box": [1.0, 2.0], "weights": {"a": 0.5}, "z": -1.5, **SETTINGS}


def test_formats_hold_the_same(tmp_path: Path) -> None:
    for name in ("a.jsonl", "a.csv", "a.parquet"):
        journal = Journal(tmp_path / name, SETTINGS)
        journal.write([record("x"), record("x", 1), {"path": 'y,"\n', "kind": "error", "error": "e", **SETTINGS}])
        journal.close(True)
    lines = pd.read_json(tmp_path / "a.jsonl", lines=True)
    csv, parquet = pd.read_csv(tmp_path / "a.csv"), pd.read_parquet(tmp_path / "a.parquet")
    for table in (lines, csv, parquet):
        assert tuple(table.columns) == COLUMNS
        assert table["path"].tolist() == ["x", "x", 'y,"\n']
        assert table["z"].tolist()[:2] == [-1.5, -1.5]
        assert table["z"].isna().tolist() == [False, False, True]
    assert json.loads(csv["weights"][0]) == json.loads(parquet["weights"][0]) == lines["weights"][0] == {"a": 0.5}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.csv", "a.jsonl", "a.parquet"]
    with pytest.raises(FFDError, match="is there already"):
        Journal(tmp_path / "a.csv", SETTINGS)
    with pytest.raises(FFDError, match="known are .jsonl"):
        Journal(tmp_path / "a.xlsx", SETTINGS)


@pytest.mark.parametrize("cut", [1, 30, 400])
def test_a_cut_file_goes_on_behind_the_last_whole_input(tmp_path: Path, cut: int) -> None:
    out = tmp_path / "a.jsonl"
    journal = Journal(out, SETTINGS)
    journal.write([record("x"), record("y"), record("y", 1), record("z"), record("z", 1)])
    journal.close(False)
    whole = out.read_bytes()
    out.write_bytes(whole[:-cut])
    again = Journal(out, SETTINGS)
    inputs = [Input(Path(name), False) for name in "xyz"]
    left = [one.name for one in left_to_do(iter(inputs), again.done(), out)]
    assert left[-1] == "z"
    assert left in (["z"], ["y", "z"])
    again.write([record("y"), record("y", 1)] if left == ["y", "z"] else [])
    again.write([record("z"), record("z", 1)])
    again.close(True)
    assert out.read_bytes() == whole


def test_other_settings_and_other_inputs_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    journal = Journal(out, SETTINGS)
    journal.write([record("x"), record("y"), record("z")])
    journal.close(True)
    with pytest.raises(FFDError, match="begun with fpr 0.05, now it is 0.1"):
        Journal(out, {**SETTINGS, "fpr": 0.1})

    def going_on(names: str) -> list[str]:
        again = Journal(out, SETTINGS)
        return [one.name for one in left_to_do((Input(Path(n), False) for n in names), again.done(), out)]

    with pytest.raises(FFDError, match="holds y where q comes now"):
        going_on("xq")
    with pytest.raises(FFDError, match="holds y, which is not among the inputs"):
        going_on("x")
    assert going_on("xyzw") == ["z", "w"]
    assert len(out.read_text().splitlines()) == 3
    out.write_text("no json\n")
    with pytest.raises(FFDError, match="line 1, is no record"):
        Journal(out, SETTINGS)
    Journal(out, SETTINGS, overwrite=True).close(True)
    assert out.read_bytes() == b""


def test_inputs_are_walked_in_order(tmp_path: Path) -> None:
    for name in ("b/2.PNG", "b/1.jpg", "a/film.mp4", "a/notes.txt", ".hidden/x.jpg", "b/.secret.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    listed = io.StringIO(f"{tmp_path}/b/1.jpg\n\n{tmp_path}/b/1.jpg\nodd.bin\n")
    found = list(walk_inputs([str(tmp_path), "-"], listed))
    names = [str(one.path).removeprefix(f"{tmp_path}/") for one in found]
    assert names == ["a/film.mp4", "b/1.jpg", "b/2.PNG", "b/1.jpg", "odd.bin"]
    assert [one.video for one in found] == [True, False, False, False, False]
    assert Input(Path("a\udcff"), False).name == "a\\udcff"


def test_a_full_disk_is_told_with_the_files_name(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "a.jsonl", {})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, before[1]))
    try:
        with pytest.raises(FFDError, match=r"disk is full: cannot write .*a\.jsonl"):
            journal.write([{"path": "p" * 100}])
        journal.close(False)  # its buffer cannot be written either: that must not hide the message
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
