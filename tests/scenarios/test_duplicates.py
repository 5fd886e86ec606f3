"""Near-duplicates: hashes against loops over their definition, both searches, and what `ffd check` makes of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from ffd_continual.cli import main
from ffd_continual.scenarios import duplicates
from ffd_continual.scenarios.benign import EDITS
from ffd_continual.scenarios.check import check_manifest
from ffd_continual.scenarios.duplicates import dhashes, look_at, near_duplicates, phashes, related
from ffd_continual.scenarios.faults import Fault
from ffd_continual.scenarios.manifest import make_manifest, write_manifest
from ffd_continual.scenarios.perturb import PERTURBATIONS
from ffd_continual.scenarios.pictures import write_picture
from ffd_continual.scenarios.studio.portrait import studio_faces

Picture = np.ndarray


@pytest.fixture(scope="module")
def faces() -> list[Picture]:
    made = studio_faces(8, 1, 5, 160, 1)
    return [cv2.resize(face.image, (96, 96), interpolation=cv2.INTER_AREA) for face in made]


def by_definition(grey: Picture) -> int:
    """pHash with the DCT-II written out: X[u, v] = a_u a_v sum x[i, j] cos(pi (2i + 1) u / 2N) cos(...)."""
    small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(float)
    low = np.zeros((8, 8))
    for u in range(8):
        for v in range(8):
            total = 0.0
            for i in range(32):
                for j in range(32):
                    across = math.cos(math.pi * (2 * j + 1) * v / 64)
                    total += small[i, j] * math.cos(math.pi * (2 * i + 1) * u / 64) * across
            low[u, v] = total * math.sqrt((1 if u else 0.5) * (1 if v else 0.5)) / 16
    flat = low.ravel().tolist()
    middle = sorted(flat[1:])[31]
    return int("".join("1" if value > middle else "0" for value in flat), 2)


def test_phash_is_that_of_its_definition(faces: list[Picture]) -> None:
    for face in faces[:3]:
        grey = np.asarray(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY), np.uint8)
        assert phashes(grey) == (by_definition(grey), by_definition(grey[:, ::-1].copy()))


def test_dhash_compares_neighbours(faces: list[Picture]) -> None:
    grey = np.asarray(cv2.cvtColor(faces[0], cv2.COLOR_RGB2GRAY), np.uint8)
    small = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA)
    bits = ["1" if int(small[r, c + 1]) > int(small[r, c]) else "0" for r in range(8) for c in range(8)]
    assert dhashes(grey)[0] == int("".join(bits), 2)
    assert dhashes(grey) == dhashes(grey[:, ::-1].copy())[::-1]
    rising = np.tile(np.arange(72, dtype=np.uint8) * 3, (64, 1))
    assert dhashes(rising) == (2**64 - 1, 0)


CHANGES: dict[str, Callable[[Picture], Picture]] = {
    "jpeg": lambda face: PERTURBATIONS["jpeg"].apply(face, 30, 0, 0),
    "smaller": lambda face: cv2.resize(face, (61, 61), interpolation=cv2.INTER_AREA),
    "larger": lambda face: cv2.resize(face, (150, 150), interpolation=cv2.INTER_CUBIC),
    "grey": lambda face: PERTURBATIONS["saturation"].apply(face, 0.0, 0, 0),
    "noise": lambda face: PERTURBATIONS["noise"].apply(face, 8, 0, 0),
    "lighter": lambda face: np.clip(face.astype(int) * 0.9 + 30, 0, 255).astype(np.uint8),
    "sepia": EDITS["sepia"].apply,
}


@pytest.mark.parametrize("name", CHANGES)
def test_copies_are_found_and_nothing_else(name: str, faces: list[Picture]) -> None:
    table = pd.DataFrame({"path": [f"{i}.png" for i in range(16)], "identity": [f"p{i}" for i in range(16)]})
    looks = [look_at(face) for face in faces] + [look_at(CHANGES[name](face)) for face in faces]
    found = near_duplicates(looks, table)
    assert sorted(zip(found.first.tolist(), found.second.tolist(), strict=True)) == [(i, i + 8) for i in range(8)]
    assert (found.correlation >= duplicates.CORRELATION).all()
    assert not found.mirrored.any()


@pytest.mark.parametrize("name", CHANGES)
def test_mirrored_copies_are_found_and_nothing_else(name: str, faces: list[Picture]) -> None:
    table = pd.DataFrame({"path": [f"{i}.png" for i in range(16)], "identity": [f"p{i}" for i in range(16)]})
    turned = [CHANGES[name](face[:, ::-1].copy()) for face in faces]
    # The copies stand before half of the faces: found whichever comes first in the table.
    looks = [look_at(face) for face in [*turned[:4], *faces, *turned[4:]]]
    found = near_duplicates(looks, table)
    pairs = [(i, i + 4) for i in range(4)] + [(i + 4, i + 8) for i in range(4, 8)]
    assert sorted(zip(found.first.tolist(), found.second.tolist(), strict=True)) == pairs
    assert found.mirrored.all()


def test_a_symmetric_face_is_one_pair(faces: list[Picture]) -> None:
    half = faces[0][:, :48]
    face = np.concatenate([half, half[:, ::-1]], 1)
    table = pd.DataFrame({"path": ["a.png", "b.png", "c.png"]})
    found = near_duplicates([look_at(p) for p in (face, faces[1], CHANGES["jpeg"](face))], table)
    assert (found.first.tolist(), found.second.tolist()) == ([0], [2])


def test_both_searches_find_the_same_pairs() -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**63, 5000, dtype=np.uint64)
    for k in range(0, 400, 2):  # 0 to 12 bits apart
        flipped = rng.choice(64, k % 13, replace=False)
        hashes[k + 1] = hashes[k] ^ np.uint64(sum(1 << int(b) for b in flipped))
    truth = {
        (i, j) for i in range(400) for j in range(i + 1, 400) if bin(int(hashes[i]) ^ int(hashes[j])).count("1") <= 8
    }
    assert len(truth) > 100
    turned = hashes[::-1].copy()  # any other hashes: of picture j those of 4999 - j
    found: dict[int, list[set[tuple[int, int]]]] = {}
    for limit in (10**9, 0):  # always brute force, always FAISS
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(duplicates, "BRUTE_BELOW", limit)
            patch.setattr(duplicates, "QUERIES", 700)
            found[limit] = [
                {(int(i), int(j)) for a, b in duplicates._near(hashes, 8, among) for i, j in zip(a, b, strict=True)}
                for among in (None, turned)
            ]
    assert found[0] == found[10**9]
    plain, crossed = found[0]
    assert {(i, j) for i, j in plain if j < 400} == truth
    # Each pair both ways round, and each picture with itself under its other place.
    either = plain | {(j, i) for i, j in plain} | {(i, i) for i in range(5000)}
    assert crossed == {(i, 4999 - j) for i, j in either if i != 4999 - j}


def test_flat_and_unknown_pictures_resemble_nothing() -> None:
    assert look_at(np.full((40, 40, 3), 90, np.uint8)) is None
    table = pd.DataFrame({"path": ["a", "b"]})
    assert len(near_duplicates([None, None], table).first) == 0


def test_who_is_related() -> None:
    table = pd.DataFrame(
        [
            ("real/071.png", "", "071", "", "o/071"),
            ("df/071_054.png", "real/071.png", "071", "054", "df/071_054"),
            ("real/054.png", "", "054", "", "o/054"),
            ("real/900.png", "", "900", "", "o/900"),
            ("other/071.png", "", "071", "", "o/071"),
            ("x.png", "", "", "", ""),
            ("y.png", "x.png", "", "", ""),
        ],
        columns=["path", "pair", "identity", "source_identity", "video"],
    ).assign(dataset=["ff"] * 4 + ["celeb"] + ["ff"] * 2)
    pairs = [(i, j) for i in range(7) for j in range(i + 1, 7)]
    first, second = (np.array(side) for side in zip(*pairs, strict=True))
    told = dict(zip(pairs, related(table, first, second).tolist(), strict=True))
    assert {pair for pair, yes in told.items() if yes} == {(0, 1), (1, 2), (5, 6)}


@pytest.fixture
def table(tmp_path: Path, faces: list[Picture]) -> pd.DataFrame:
    """Six people, two a split, each with a real face and a forgery of it that changes the mouth only."""
    rows = []
    for person, split in enumerate(["train", "train", "valid", "valid", "test", "test"]):
        forged = faces[person].copy()
        forged[62:70, 40:56] = cv2.GaussianBlur(forged[62:70, 40:56], (0, 0), 2)
        for forgery, picture in (("real", faces[person]), ("swap", forged)):
            write_picture(tmp_path / forgery / f"{person}.png", picture)
            pair = "" if forgery == "real" else f"real/{person}.png"
            row = {"path": f"{forgery}/{person}.png", "label": int(forgery != "real"), "forgery": forgery, "pair": pair}
            rows.append({**row, "identity": f"p{person}", "split": split})
    return pd.DataFrame(rows)


def read(path: Path) -> Picture:
    picture = cv2.imread(str(path))
    assert picture is not None
    return picture[..., ::-1].copy()


def near(table: pd.DataFrame, root: Path, **settings: bool) -> list[Fault]:
    found = check_manifest(make_manifest(table, root), progress=False, **settings)
    return [fault for fault in found if fault.kind.startswith("near-duplicate")]


def copied(table: pd.DataFrame, root: Path, source: str, name: str, **cells: object) -> pd.DataFrame:
    """The table with one row more, of a re-encoded copy of a picture."""
    write_picture(root / name, CHANGES["jpeg"](read(root / source)), quality=85)
    row = {"path": name, "label": 0, "forgery": "real", "pair": "", "identity": "new", "split": "train"} | cells
    return pd.concat([table, pd.DataFrame([row])], ignore_index=True)


def test_a_forged_face_may_resemble_its_pair(table: pd.DataFrame, tmp_path: Path) -> None:
    looks = [look_at(read(tmp_path / path)) for path in table["path"]]
    strangers = table.assign(identity=[f"x{i}" for i in range(12)], pair="")
    assert len(near_duplicates(looks, strangers).first) == 6  # they do look alike,
    assert near(table, tmp_path) == []  # and nobody complains


def test_a_copy_in_another_split_is_a_fault_with_both_rows(table: pd.DataFrame, tmp_path: Path) -> None:
    found = near(copied(table, tmp_path, "real/4.png", "copy.jpg"), tmp_path)
    faults = [fault for fault in found if not fault.warning]
    # Test is measured with what train has learnt: its two faces of person 4 are named, with the copy's row.
    assert [(f.row, f.column, f.kind) for f in faults if f.kind.endswith("splits")] == [
        (9, "path", "near-duplicate-in-two-splits"),
        (10, "path", "near-duplicate-in-two-splits"),
    ]
    assert all("row 13" in f.message and "in train" in f.message and "in test" in f.message for f in faults[:2])
    # The forgery of person 4 resembles a real picture that is not its pair.
    assert [(f.row, f.kind) for f in faults if f.kind.endswith("label")] == [(10, "near-duplicate-label")]


def test_a_mirrored_copy_in_another_split_is_a_fault(table: pd.DataFrame, tmp_path: Path) -> None:
    picture = cv2.imread(str(tmp_path / "real/4.png"))
    assert picture is not None
    assert cv2.imwrite(str(tmp_path / "turned.png"), picture[:, ::-1])
    faults = [fault for fault in near(copied(table, tmp_path, "turned.png", "copy.jpg"), tmp_path) if not fault.warning]
    assert [(f.row, f.kind) for f in faults if f.kind.endswith("splits")] == [
        (9, "near-duplicate-in-two-splits"),
        (10, "near-duplicate-in-two-splits"),
    ]
    assert all("row 13" in f.message and "(mirrored, " in f.message for f in faults[:2])


def test_within_a_split_they_are_counted_only(table: pd.DataFrame, tmp_path: Path) -> None:
    more = copied(table, tmp_path, "real/0.png", "copy.jpg")
    more = more[more["path"] != "swap/0.png"].reset_index(drop=True)
    (only,) = near(more, tmp_path)
    assert only.warning
    assert only.row is None
    assert only.message.startswith("2 faces")


def test_the_same_person_video_or_pair_is_no_near_duplicate(table: pd.DataFrame, tmp_path: Path) -> None:
    assert near(copied(table, tmp_path, "real/4.png", "copy.jpg", identity="p4", split="test"), tmp_path) == []
    lent = copied(
        table, tmp_path, "real/4.png", "copy.jpg", source_identity="p4", split="test", label=1, forgery="swap"
    )
    assert near(lent, tmp_path) == []


def test_equal_bytes_are_reported_once_and_elsewhere(table: pd.DataFrame, tmp_path: Path) -> None:
    (tmp_path / "same.png").write_bytes((tmp_path / "real" / "4.png").read_bytes())
    row = {"path": "same.png", "label": 0, "forgery": "real", "pair": "", "identity": "new", "split": "train"}
    more = pd.concat([table, pd.DataFrame([row])], ignore_index=True)
    kinds = {fault.kind for fault in check_manifest(make_manifest(more, tmp_path), progress=False) if fault.row == 9}
    assert "near-duplicate-in-two-splits" not in kinds
    found = check_manifest(make_manifest(more, tmp_path), progress=False)
    assert "picture-in-two-splits" in {fault.kind for fault in found}


def test_command_and_its_switches(table: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "manifest.csv"
    write_manifest(copied(table, tmp_path, "real/4.png", "copy.jpg"), path)
    assert main(["check", str(path)]) == 2
    said = capsys.readouterr().out
    assert "near-duplicate-in-two-splits: 2 faults" in said
    assert "line 10" in said
    assert "line 14" in said
    for switch in ("--no-duplicates", "--no-pictures"):
        assert main(["check", str(path), switch]) == 0
        assert "near-duplicate" not in capsys.readouterr().out


def test_a_thousand_faces_take_little() -> None:
    import time

    rng = np.random.default_rng(1)
    base = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)
    looks = []
    for _ in range(1000):
        noise = rng.integers(-60, 60, (8, 8, 3))
        looks.append(look_at(cv2.resize(np.clip(base + noise, 0, 255).astype(np.uint8), (64, 64))))
    table = pd.DataFrame({"path": [f"{i}" for i in range(1000)]})
    began = time.process_time()
    near_duplicates(looks, table)
    assert time.process_time() - began < 3
