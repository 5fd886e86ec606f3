"""Looking into folders that are not trusted, and lists with their line numbers."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ffd_continual.scenarios.datasets.tree import Tree, chosen, order, unsafe
from ffd_continual.scenarios.errors import FFDError


def tree(root: Path) -> Tree:
    return Tree(root, "the set")


def touch(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"")


def test_a_link_inside_is_followed_once_and_one_that_leads_out_is_not(tmp_path: Path) -> None:
    root, other = tmp_path / "set", tmp_path / "set-2"  # set-2 begins as set does
    touch(root, "a/1.mp4", "b/2.mp4")
    touch(other, "3.mp4")
    (root / "a/again").symlink_to(root)  # would go round for ever
    (root / "inside").symlink_to(root / "b")
    (root / "outside").symlink_to(other)
    (root / "a/9.mp4").symlink_to(other / "3.mp4")
    here = tree(root)
    assert {os.path.basename(path) for path in here.walk("", {".mp4"})} == {"1.mp4", "2.mp4"}
    assert not here.has("outside/3.mp4")
    assert not here.is_folder("outside")
    assert here.is_folder("inside")
    assert len(here.notes) == 1
    assert "left out 2 name(s): a link that leads out" in here.notes[0]


def test_hidden_files_are_no_part_of_a_data_set(tmp_path: Path) -> None:
    touch(tmp_path, "a/._1.mp4", "a/.DS_Store", "__MACOSX/a/1.mp4", ".cache/2.mp4", "a/1.MP4", "a/1.txt")
    here = tree(tmp_path)
    assert here.walk("", {".mp4"}) == ["a/1.MP4"]
    assert here.notes == ()


@pytest.mark.parametrize(
    ("name", "why"),
    [("../x", "leads out"), ("a/../../x", "leads out"), ("/etc/x", "absolute"), ("C:/x", "absolute"), ("", "empty"),
     ("a\nb", "control"), ("a\\b", "backslash"), ("a\x1b[31m", "control"), ("a\u202eb", "control"),
     ("a\udcff", "UTF-8"), ("a" * 1001, "longer")],
)  # fmt: skip
def test_unsafe_names(name: str, why: str) -> None:
    assert why in unsafe(name)


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="./\\:aA\n", max_size=9))
def test_a_safe_name_stays_below_any_root(name: str) -> None:
    if not unsafe(name):
        assert os.path.normpath(f"/root/set/{name}").startswith("/root/set")


def test_names_that_are_no_utf8_are_left_out_by_name(tmp_path: Path) -> None:
    touch(tmp_path, "1.mp4")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.mp4")).write_bytes(b"")
    here = tree(tmp_path)
    assert here.files("", {".mp4"}) == ["1.mp4"]
    assert "udcff" in here.notes[0]
    here.notes[0].encode()


def test_order_is_by_number() -> None:
    names = ["id2_1", "id10_1", "id2_11", "id2_2", "a", "id2"]
    wanted = ["a", "id2", "id2_1", "id2_2", "id2_11", "id10_1"]
    random.Random(0).shuffle(names)
    assert sorted(names, key=order) == wanted


def test_one_of_two_files_with_one_name(tmp_path: Path) -> None:
    touch(tmp_path, "videos/071.mp4", "videos/071.avi", "images/071/0.png", "images/054/0.png")
    here = tree(tmp_path)
    found = here.clips("videos", frames="images")
    assert {name: (clip.path, clip.kind) for name, clip in found.items()} == {
        "071": ("videos/071.avi", "video"),
        "054": ("images/054", "frames"),
    }
    assert "071.mp4" in here.notes[0]


def test_entries_tell_their_lines(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('\n[ ["1",\n "2"],\n\n["3", "4"], 5\n]\n')
    assert tree(tmp_path).entries("a.json") == [(2, ["1", "2"]), (5, ["3", "4"]), (5, 5)]
    (tmp_path / "a.json").write_text("[]")
    assert tree(tmp_path).entries("a.json") == []


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"[1,\n2", "a.json, line 2: is no JSON"), (b"[NaN]", "NaN is no JSON number"), (b"\xff", "no UTF-8"),
     (b"[" * 100_000, "is no JSON"), (b"", "line 1: is no JSON")],
)  # fmt: skip
def test_broken_json_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(FFDError, match=message):
        tree(tmp_path).json("a.json")


def test_table(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(' name ,label\r\n"x,y", 1\r\n\r\nz,0,more\r\n', encoding="utf-8-sig")
    assert tree(tmp_path).table("a.csv", ["name"]) == [
        (2, {"name": "x,y", "label": "1"}),
        (4, {"name": "z", "label": "0"}),
    ]
    with pytest.raises(FFDError, match=r"a\.csv, line 1: the header lacks split; it has name, label"):
        tree(tmp_path).table("a.csv", ["name", "split"])
    (tmp_path / "b.csv").write_text(f"name\n{'x' * 200_000}\n")
    with pytest.raises(FFDError, match=r"b\.csv, line 2: is no CSV"):
        tree(tmp_path).table("b.csv", ["name"])


def test_a_file_is_no_root(tmp_path: Path) -> None:
    touch(tmp_path, "a.zip")
    with pytest.raises(FFDError, match=r"a\.zip is a file, not a folder"):
        tree(tmp_path / "a.zip")


def test_chosen_names_the_nearest() -> None:
    assert chosen((), ("c23", "c40"), "compression", "X") == ("c23", "c40")
    assert chosen(("C40",), ("c23", "c40"), "compression", "X") == ("c40",)
    with pytest.raises(FFDError, match=r"X has no compression 'c4'. Did you mean 'c40'\? Known: c23, c40"):
        chosen(("c4",), ("c23", "c40"), "compression", "X")
    with pytest.raises(FFDError, match="Known: none, it has a single compression"):
        chosen(("c4",), (), "compression", "X")


def test_a_name_is_left_out_once_however_often_it_is_met(tmp_path: Path) -> None:
    touch(tmp_path, "a/1\n.mp4", "a/2.mp4")
    here = tree(tmp_path)
    for _ in range(3):
        here.files("a", {".mp4"})
    assert "left out 1 name(s)" in here.notes[0]


def test_what_is_no_plain_file_is_not_read(tmp_path: Path) -> None:
    """Reading a pipe would wait for ever."""
    os.mkfifo(tmp_path / "1.csv")
    (tmp_path / "2.csv").symlink_to(tmp_path / "gone.csv")
    touch(tmp_path, "3.csv")
    here = tree(tmp_path)
    assert here.walk("", {".csv"}) == here.files("", {".csv"}) == ["3.csv"]
    assert not here.is_file("1.csv")
