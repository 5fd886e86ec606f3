"""Every family and the making of whole data sets, on drawn faces."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from ffd_continual.scenarios.check import check_manifest
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.faces import Face
from ffd_continual.scenarios.forging import forge as forge_module
from ffd_continual.scenarios.forging.contract import FAMILIES, Family, Fitted, Forged, load_family
from ffd_continual.scenarios.forging.forge import ForgeConfig, forge_dataset
from ffd_continual.scenarios.forging.making import draw, finish_face, forge_faces, plan, split_people
from ffd_continual.scenarios.forging.portraits import Collected, Portrait, Portraits, parse_source
from ffd_continual.scenarios.forging.selfblend import self_blend
from ffd_continual.scenarios.manifest import read_manifest
from ffd_continual.scenarios.pictures import read_mark, read_picture

SIDE = 96


def drawn_landmarks(rng: np.random.Generator, side: int = SIDE) -> np.ndarray:
    """68 points of a frontal face, every person and shot a little different; the hull is half the width."""
    turn = np.linspace(0.05 * np.pi, 0.95 * np.pi, 17)
    jaw = np.stack([-np.cos(turn) * 0.25, np.sin(turn) * 0.30 - 0.03], 1)
    brow = np.stack([np.linspace(-0.2, -0.05, 5), -0.13 - 0.02 * np.sin(np.linspace(0, np.pi, 5))], 1)
    nose = np.concatenate(
        [
            np.stack([np.zeros(4), np.linspace(-0.08, 0.04, 4)], 1),
            np.stack([np.linspace(-0.04, 0.04, 5), [0.06] * 5], 1),
        ]
    )
    angle = np.array([np.pi, 4 * np.pi / 3, 5 * np.pi / 3, 0, np.pi / 3, 2 * np.pi / 3])
    eye = np.stack([np.cos(angle) * 0.04 - 0.11, np.sin(angle) * 0.018 - 0.08], 1)
    right_eye = eye + [0.22, 0]
    ring = np.linspace(np.pi, 3 * np.pi, 13)[:-1]
    lips = np.stack([np.cos(ring) * 0.08, np.sin(ring) * 0.03 + 0.14], 1)
    inner = np.stack([np.cos(ring[::3].repeat(2)) * 0.06, np.sin(ring[::3].repeat(2)) * 0.01 + 0.14], 1)
    inner += np.linspace(-0.004, 0.004, 8)[:, None]
    points = np.concatenate([jaw, brow, -brow[::-1] * [1, -1], nose, eye, right_eye, lips, inner])
    points = points * (1 + rng.normal(0, 0.02, 2)) + rng.normal(0, 0.003, points.shape) + 0.5
    return (points * side).astype(np.float32)


def drawn_face(person: int, shot: int = 0, grey: bool = False, side: int = SIDE) -> Face:
    rng = np.random.default_rng([person, shot])
    marks = drawn_landmarks(rng, side)
    image = np.full((side, side, 3), rng.uniform(40, 200, 3), np.float32)
    skin = np.array([205, 160, 135], np.float32) + rng.normal(0, 12, 3)
    layer = image.copy()
    cv2.fillConvexPoly(layer, cv2.convexHull(marks.astype(np.int32)), skin.tolist())
    for points, shade in ((marks[36:42], 60), (marks[42:48], 60), (marks[48:60], 110)):
        cv2.fillConvexPoly(layer, cv2.convexHull(points.astype(np.int32)), (shade, shade * 0.7, shade * 0.7))
    for line in (marks[17:22], marks[22:27], marks[27:31]):
        cv2.polylines(layer, [line.astype(np.int32)], False, (80, 60, 50), 2)
    layer = cv2.GaussianBlur(layer, (0, 0), 0.8) + rng.normal(0, 4, (side, side, 1))
    picture = np.clip(layer, 0, 255).astype(np.uint8)
    if grey:
        picture = np.repeat(picture.mean(2, keepdims=True).astype(np.uint8), 3, 2)
    return Face(picture, marks, f"person-{person:03d}", f"person-{person:03d}_{shot}")


PEOPLE = tuple(drawn_face(person) for person in range(12))


def ready(name: str) -> Family:
    """A family fitted on the drawn people, training cut to a few steps."""
    family = load_family(name)
    if hasattr(family, "network"):
        family.config = dataclasses.replace(family.config, steps=3)
    if isinstance(family, Fitted):
        family.fit(PEOPLE[:8], np.random.default_rng(5))
    return family


@pytest.mark.parametrize("name", FAMILIES)
def test_family_changes_the_mask_and_nothing_else(name: str) -> None:
    family, changed = ready(name), 0
    for person in (0, 3):
        target = PEOPLE[person]
        before = target.image.copy()
        forged = family.forge(target, PEOPLE, np.random.default_rng(person))
        assert forged is not None
        again = family.forge(target, PEOPLE, np.random.default_rng(person))
        assert again is not None
        np.testing.assert_array_equal(forged.image, again.image)
        assert forged.image.dtype == np.uint8
        assert forged.image.shape == target.image.shape
        assert set(np.unique(forged.mask)) == {0, 255}
        outside = forged.mask == 0
        assert outside.mean() > 0.3
        np.testing.assert_array_equal(forged.image[outside], target.image[outside])
        np.testing.assert_array_equal(target.image, before)
        assert forged.source_identity != target.identity
        changed += int((np.abs(forged.image.astype(int) - target.image).max(2) > 2).sum())
    assert changed > 60, "the forgery is no forgery: next to nothing changed"


@pytest.mark.parametrize("name", FAMILIES)
def test_grey_stays_grey(name: str) -> None:
    forged = ready(name).forge(drawn_face(40, grey=True), PEOPLE, np.random.default_rng(1))
    assert forged is not None
    assert (np.ptp(forged.image.astype(int), axis=2) == 0).all()


@pytest.mark.parametrize("name", ["swap", "morph", "parts", "resynthesis"])
def test_nobody_lends_his_face_to_himself(name: str) -> None:
    alone = [drawn_face(0, shot) for shot in range(4)]
    assert ready(name).forge(PEOPLE[0], alone, np.random.default_rng(0)) is None


def test_unfitted_family_says_so() -> None:
    for name in ("resynthesis", "upsampling", "superres", "eigenface"):
        with pytest.raises(FFDError, match="not been fitted"):
            load_family(name).forge(PEOPLE[0], PEOPLE, np.random.default_rng(0))


def test_families_are_found_by_name_and_typos_are_met() -> None:
    assert [load_family(name).name for name in FAMILIES] == list(FAMILIES)
    with pytest.raises(FFDError, match="did you mean morph"):
        load_family("morf")
    with pytest.raises(FFDError, match="no module"):
        load_family("nowhere.at_all:Thing")


def test_fitted_weights_depend_on_the_seed_only() -> None:
    one, two, other = (load_family("upsampling") for _ in range(3))
    for family, seed in ((one, 1), (two, 1), (other, 2)):
        family.config = dataclasses.replace(family.config, steps=2)  # type: ignore[attr-defined]
        family.fit(PEOPLE[:4], np.random.default_rng(seed))  # type: ignore[attr-defined]
    made = [f.forge(PEOPLE[0], PEOPLE, np.random.default_rng(0)).image for f in (one, two, other)]  # type: ignore[union-attr]
    np.testing.assert_array_equal(made[0], made[1])
    assert (made[0] != made[2]).any()


def test_self_blend_is_pure_and_varied() -> None:
    face = PEOPLE[2]
    masks = []
    for seed in range(12):
        image, mask = self_blend(face.image, face.landmarks, np.random.default_rng(seed))
        again, _ = self_blend(face.image, face.landmarks, np.random.default_rng(seed))
        np.testing.assert_array_equal(image, again)
        assert (image[mask == 0] == face.image[mask == 0]).all()
        masks.append(float((mask > 0).mean()))
    assert max(masks) > 2 * min(masks) > 0


def test_split_people_keeps_persons_whole_and_in_place() -> None:
    people = [f"p{i % 100}" for i in range(250)]
    splits = split_people(people, 3)
    assert len({(one, split) for one, split in zip(people, splits, strict=True)}) == 100
    share = splits.count("train") / len(splits)
    assert 0.55 < share < 0.85
    more = split_people([*people, *(f"q{i}" for i in range(40))], 3)
    assert more[:250] == splits
    assert split_people(people, 4) != splits
    assert sorted(split_people(["a", "b", "c"], 0)) == ["test", "train", "valid"]
    with pytest.raises(FFDError, match="3 or more"):
        split_people(["a", "b", "a"], 0)


def test_plan_keeps_so_many_a_family_and_differs_between_families() -> None:
    names = [face.name for face in PEOPLE]
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
    where = {face.identity: split for face, split in zip(PEOPLE, splits, strict=True)}
    spy = Spy()
    made = list(forge_faces(PEOPLE, splits, [spy], size=64, progress=False))
    assert len(made) == 12
    assert {where[one] for one in spy.fitted} == {"train"}
    for target, lent in spy.lent.items():
        assert lent
        assert {where[one] for one in lent} == {where[target]}
        assert target not in lent
    forged = made[0].forged
    assert forged is not None
    assert forged.image.shape == (64, 64, 3)
    real = finish_face(PEOPLE[0], 64).image
    assert (forged.image[forged.mask == 0] == real[forged.mask == 0]).all()


def test_forgeries_depend_on_seed_and_name_not_on_order_or_rest() -> None:
    splits = ["train"] * 12
    run = lambda **more: {  # noqa: E731
        (m.forgery, m.index): m.forged.image
        for m in forge_faces(PEOPLE, splits, ["warp", "selfblend"], size=64, progress=False, **more)
        if m.forged
    }
    whole, other = run(), run(seed=1)
    done = {("warp", face.name) for face in PEOPLE[:6]}
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
            for m in forge_faces(PEOPLE, splits, ["swap", "warp"], workers=n, progress=False)
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
    two_shots = [*PEOPLE, *(drawn_face(person, 1) for person in range(4))]
    collected = Collected([Portrait(face, "drawn") for face in two_shots], [], [Path("wall.jpg")])
    monkeypatch.setattr(forge_module, "collect_portraits", lambda *_: collected)
    return collected


def test_dataset_is_clean_marked_and_restartable(drawn_portraits: Collected, tmp_path: Path) -> None:
    config = ForgeConfig(families=("warp", "swap"), size=64, progress=False)
    sources = [Portraits(tmp_path, "drawn")]
    made = forge_dataset(sources, tmp_path / "whole", config)
    manifest = read_manifest(made.manifest)
    errors = [fault for fault in check_manifest(manifest) if "warning" not in str(fault).lower()]
    assert errors == []
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
