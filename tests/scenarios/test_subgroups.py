"""Tables of persons: what they may say, how they join a listing, and how the studio's reach a manifest of clips."""

from __future__ import annotations

from pathlib import Path

import pytest

from ffd_continual.cli import main
from ffd_continual.scenarios.datasets.listing import Item, Listing
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.manifest import read_manifest
from ffd_continual.scenarios.studio.person import draw_person
from ffd_continual.scenarios.studio_set import studio_people
from ffd_continual.scenarios.subgroups import join_people, read_people, write_people

ITEMS = (
    Item("a.mp4", 0, "real", "clips/a", identity="anna"),
    Item("b.mp4", 1, "swap", "clips/b", identity="anna", source_identity="bert"),
    Item("c.mp4", 0, "real", "clips/c", identity="cora"),
)


def table(folder: Path, text: str) -> Path:
    path = folder / "people.csv"
    path.write_text(text, "utf-8")
    return path


def test_cells_go_to_the_person_who_is_seen(tmp_path: Path) -> None:
    people = read_people(table(tmp_path, "skin,identity,age\nlight,anna,40\ndark,bert,20\n"))
    joined = join_people(Listing(ITEMS, notes=("before",)), people)
    assert [dict(item.extra) for item in joined.items] == [
        {"skin": "light", "age": "40"},
        {"skin": "light", "age": "40"},
        {"skin": "", "age": ""},
    ]
    assert joined.notes[0] == "before"
    assert "2 of 3 items" in joined.notes[1]
    assert "1 lines" in joined.notes[2]


def test_videos_are_found_by_name_or_its_last_part(tmp_path: Path) -> None:
    people = read_people(table(tmp_path, "video,sex\nclips/a,f\nc,m\n"))
    assert [item.extra["sex"] for item in join_people(Listing(ITEMS), people).items] == ["f", "", "m"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it is empty"),
        ("name,skin\nanna,light\n", "identity"),
        ("identity\nanna\n", "at least one"),
        ("identity,label\nanna,1\n", "'label' cannot be added"),
        ("identity,age\nanna,4\nanna,5\n", "line 3: 'anna' is told twice"),
        ("identity,age\nanna\n", "line 2: 1 cells"),
        ("identity,age\n,3\n", "line 2: no name"),
    ],
)
def test_bad_tables_are_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(FFDError, match=said):
        read_people(table(tmp_path, text))


def test_a_table_of_others_is_refused_with_an_example(tmp_path: Path) -> None:
    with pytest.raises(FFDError, match="it says 'anne', the data set for instance 'anna'"):
        join_people(Listing(ITEMS), read_people(table(tmp_path, "identity,age\nanne,3\n")))
    with pytest.raises(FFDError, match="cannot read"):
        read_people(tmp_path / "nothing.csv")


def test_written_tables_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_bytes(write_people(("skin", "age"), {"a,b": {"skin": "dark"}, "c": {"age": "3"}}))
    assert read_people(path).cells == {"a,b": {"skin": "dark", "age": ""}, "c": {"skin": "", "age": "3"}}


def test_the_studio_tells_what_it_draws() -> None:
    told = studio_people(40, 2)
    assert list(told)[:2] == ["studio-200000", "studio-200001"]
    for number, (_, row) in enumerate(told.items()):
        person = draw_person(200_000 + number)
        assert int(row["age"]) == round(person.age)
        assert row["glasses"] == ("yes" if person.glasses else "no")
    assert {row["skin"] for row in told.values()} == {"light", "medium", "dark"}
    assert {row["sex"] for row in told.values()} == {"female", "male"}


@pytest.mark.slow
def test_studio_clips_carry_their_people_to_the_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clips, out = tmp_path / "clips", tmp_path / "faces"
    options = ["--frames", "2", "--height", "128", "--compressions", "c23", "--families", "deepfakes=swap"]
    assert main(["clips", "studio", "--people", "14", "--out", str(clips), "--workers", "1", "--quiet", *options]) == 0
    assert "people.csv" in capsys.readouterr().out
    people = read_people(clips / "people.csv")
    more = ["--people", str(clips / "people.csv"), "--frames", "2", "--workers", "1", "--quiet"]
    assert main(["prepare", "faceforensics", str(clips), "--out", str(out), *more]) == 0
    rows = read_manifest(out / "manifest.parquet").table
    assert len(rows) > 0
    for name in ("skin", "age", "sex", "glasses"):
        assert rows[name].tolist() == [people.cells[who][name] for who in rows["identity"]]
