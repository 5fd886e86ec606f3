"""Whole data sets: splits, sources, workers, restarts and files, on rendered portraits."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ffd_continual.commands.forge import summary
from ffd_continual.scenarios.check import check_manifest
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.faces import Face
from ffd_continual.scenarios.forging import forge as forge_module
from ffd_continual.scenarios.forging.contract import Forged
from ffd_continual.scenarios.forging.forge import ForgeConfig, forge_dataset
from ffd_continual.scenarios.forging.making import draw, finish_face, forge_faces, plan, split_people
from ffd_continual.scenarios.forging.portraits import (
    Collected,
    Portrait,
    Portraits,
    collect_portraits,
    listed,
    parse_source,
)
from ffd_continual.scenarios.manifest import read_manifest
from ffd_continual.scenarios.pictures import read_mark, read_picture
from ffd_continual.scenarios.studio.portrait import render_portrait


@functools.cache
def people(count: int = 12, shot: int = 0) -> tuple[Face, ...]:
    return tuple(render_portrait(person, shot, 64) for person in range(count))


def test_split_people_keeps_persons_whole_and_in_place() -> None:
    names = [f"p{i % 100}" for i in range(250)]
    splits = split_people(names, 3)
    assert len({(one, split) for one, split in zip(names, splits, strict=True)}) == 100
    share = splits.count("train") / len(splits)
    assert 0.55 < share < 0.85
    more = split_people([*names, *(f"q{i}" for i in range(40))], 3)
    assert more[:250] == splits
    assert split_people(names, 4) != splits
    assert sorted(split_people(["a", "b", "c"], 0)) == ["test", "train", "valid"]
    with pytest.raises(FFDError, match="3 or more"):
        split_people(["a", "b", "a"], 0)


def test_plan_keeps_so_many_a_family_and_differs_between_families() -> None:
    names = [face.name for face in people()]
    tasks = plan(names, ["warp", "swap"], 0, 5)
    chosen = [{index for index, number in tasks if number == family} for family in (0, 1)]
    assert [len(one) for one in chosen] == [5, 5]
    assert chosen[0] != chosen[1]
    assert len(plan(names, ["warp", "swap"], 0, None)) == 24


@dataclasses.dataclass
class Spy:
    """Notes whom it was shown, and marks a pixel."""

    name: str = "spy"
    fitted: tuple[str, ...] = ()
    lent: dict[str, set[str]] = dataclasses.field(default_factory=dict)

    def fit(self, faces: Sequence[Face], rng: np.random.Generator) -> None:
        self.fitted = tuple(face.identity for face in faces)

    def forge(self, target: Face, others: Sequence[Face], rng: np.random.Generator) -> Forged | None:
        self.lent[target.identity] = {face.identity for face in others}
        image, mask = target.image.copy(), np.zeros(target.image.shape[:2], np.uint8)
        image[10:13, 10:13], mask[10:13, 10:13] = 255, 255
        return Forged(image, mask, others[0].identity if others else "")


def test_sources_and_training_stay_within_the_split() -> None:
    splits = ["train"] * 6 + ["valid"] * 3 + ["test"] * 3
    where = {face.identity: split for face, split in zip(people(), splits, strict=True)}
    spy = Spy()
    made = list(forge_faces(people(), splits, [spy], size=64, progress=False))
    assert len(made) == 12
    assert {where[one] for one in spy.fitted} == {"train"}
    for target, lent in spy.lent.items():
        assert lent
        assert {where[one] for one in lent} == {where[target]}
        assert target not in lent
    forged = made[0].forged
    assert forged is not None
    assert forged.image.shape == (64, 64, 3)
    real = finish_face(people()[0], 64).image
    assert (forged.image[forged.mask == 0] == real[forged.mask == 0]).all()


def test_forgeries_depend_on_seed_and_name_not_on_order_or_rest() -> None:
    splits = ["train"] * 12

    def run(**more: Any) -> dict[tuple[str, int], np.ndarray]:
        made = forge_faces(people(), splits, ["warp", "selfblend"], size=64, progress=False, **more)
        return {(m.forgery, m.index): m.forged.image for m in made if m.forged}

    whole, other = run(), run(seed=1)
    done = {("warp", face.name) for face in people()[:6]}
    rest = run(done=done)
    assert len(rest) == len(whole) - 6
    for key, image in rest.items():
        np.testing.assert_array_equal(image, whole[key])
    assert any((other[key] != whole[key]).any() for key in whole)


@pytest.mark.slow
def test_any_number_of_workers_gives_the_same_bytes() -> None:
    splits = ["train"] * 12
    one, two = (
        [
            m.forged.image.tobytes()
            for m in forge_faces(people(), splits, ["swap", "eigenface", "upsampling"], workers=n, progress=False)
            if m.forged
        ]
        for n in (1, 2)
    )
    assert one == two


def test_draw_is_a_pure_function_of_its_names() -> None:
    assert draw(1, "a", "b").integers(2**40) == draw(1, "a", "b").integers(2**40)
    assert draw(1, "a", "b").integers(2**40) != draw(1, "ab").integers(2**40)


@pytest.fixture
def drawn_portraits(monkeypatch: pytest.MonkeyPatch) -> Collected:
    """`forge_dataset` finds the drawn people in place of photographs."""
    collected = Collected([Portrait(face, "drawn") for face in (*people(), *people(4, 1))], [], [Path("wall.jpg")])
    monkeypatch.setattr(forge_module, "collect_portraits", lambda *_: collected)
    return collected


def test_dataset_is_clean_marked_and_restartable(drawn_portraits: Collected, tmp_path: Path) -> None:
    config = ForgeConfig(families=("warp", "swap"), size=64, progress=False)
    sources = [Portraits(tmp_path, "drawn")]
    made = forge_dataset(sources, tmp_path / "whole", config)
    manifest = read_manifest(made.manifest)
    assert check_manifest(manifest) == []
    assert max(len(line) for line in summary(made).splitlines()[:4]) <= 80
    assert "no face found in: 1 picture" in summary(made)
    table = manifest.table
    assert set(table["forgery"]) == {"real", "warp", "swap"}
    assert (table["forgery"] == "warp").sum() == 16
    row = table[table["forgery"] == "swap"].iloc[0]
    assert read_mark(manifest.absolute(row["path"])) == "swap"
    assert read_mark(manifest.absolute(row["pair"])) is None
    assert row["source_identity"] not in ("", row["identity"])
    split_of = dict(zip(table["identity"], table["split"], strict=True))
    assert all(split_of[r["source_identity"]] == r["split"] for _, r in table.iterrows() if r["source_identity"])

    forge_dataset(sources, tmp_path / "broken", config)  # a run, then damaged as by a kill
    journal = tmp_path / "broken" / "forge.jsonl"
    lines = journal.read_text().splitlines()
    journal.write_text("\n".join(lines[:9]) + '\n{"forge')
    for path in sorted((tmp_path / "broken" / "swap").iterdir())[:5]:
        path.unlink()
    (tmp_path / "broken" / "manifest.parquet").unlink()
    again = forge_dataset(sources, tmp_path / "broken", config)
    assert again.table["sha256"].tolist() == table["sha256"].tolist()
    with pytest.raises(FFDError, match="another seed"):
        forge_dataset(sources, tmp_path / "broken", dataclasses.replace(config, seed=1))


def test_real_and_forged_files_differ_only_under_the_mask(drawn_portraits: Collected, tmp_path: Path) -> None:
    config = ForgeConfig(families=("retouch",), size=64, suffix=".png", progress=False)
    manifest = read_manifest(forge_dataset([Portraits(tmp_path, "drawn")], tmp_path / "out", config).manifest)
    for _, row in manifest.table[manifest.table["forgery"] == "retouch"].iterrows():
        forged, real = (read_picture(manifest.absolute(row[name])) for name in ("path", "pair"))
        mask = cv2.imread(str(manifest.absolute(row["mask"])), cv2.IMREAD_GRAYSCALE)
        assert mask is not None
        assert (forged[mask == 0] == real[mask == 0]).all()
        assert (forged[mask > 0] != real[mask > 0]).any()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": 8}, "--size 8"),
        ({"per_family": 0}, "--per-family 0"),
        ({"families": ()}, "at least one"),
        ({"families": ("warp", "warp")}, "once each"),
        ({"suffix": ".gif"}, "suffix"),
    ],
)
def test_wrong_settings_are_refused(
    change: dict[str, object], words: str, drawn_portraits: Collected, tmp_path: Path
) -> None:
    with pytest.raises(FFDError, match=words):
        forge_dataset([Portraits(tmp_path, "drawn")], tmp_path / "o", dataclasses.replace(ForgeConfig(), **change))  # type: ignore[arg-type]


def test_foreign_folder_is_not_written_into(drawn_portraits: Collected, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FFDError, match="not empty"):
        forge_dataset([Portraits(tmp_path, "drawn")], tmp_path, ForgeConfig(families=("warp",), progress=False))


def test_sources_are_folders_with_or_without_a_name(tmp_path: Path) -> None:
    folder = tmp_path / "my faces"
    folder.mkdir()
    assert parse_source(f"set1={folder}") == Portraits(folder, "set1")
    assert parse_source(str(folder)).dataset == "my-faces"
    with pytest.raises(FFDError, match="is no folder"):
        parse_source(str(tmp_path / "missing"))


def test_names_in_bytes_become_text_that_a_manifest_holds(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/p\xff_1.png")).write_bytes(b"x")
    ((path, _, person, name),) = listed(Portraits(tmp_path, "set"))
    assert path.is_file()
    assert (person.encode(), name.encode()) == (rb"set-p\udcff", rb"set-p\udcff_1")


def test_unreadable_pictures_are_listed_and_empty_folders_refused(tmp_path: Path) -> None:
    with pytest.raises(FFDError, match="no pictures in"):
        collect_portraits([Portraits(tmp_path, "none")], 96, progress=False)
    (tmp_path / "a_1.jpg").write_text("no picture")
    (tmp_path / "b_1.jpg").write_bytes(b"")
    with pytest.raises(FFDError, match=r"2 picture\(s\) cannot be read.*--skip-bad"):
        forge_dataset([Portraits(tmp_path, "x")], tmp_path / "out", ForgeConfig(families=("warp",), progress=False))
    with pytest.raises(FFDError, match="no regular expression"):
        collect_portraits([Portraits(tmp_path, "x", "(")], 96, progress=False)
