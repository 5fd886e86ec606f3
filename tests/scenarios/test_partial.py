"""Cut and covered copies: the descriptor against the DCT written out, and what is found and what is not."""

from __future__ import annotations

import functools
import math
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from ffd_continual.cli import main
from ffd_continual.scenarios.manifest import write_manifest
from ffd_continual.scenarios.partial import ORDER, SIDE, Copies, agreement, describe, partial_copies, small_look
from ffd_continual.scenarios.perturb import PERTURBATIONS
from ffd_continual.scenarios.pictures import write_picture
from ffd_continual.scenarios.studio.portrait import studio_faces

PEOPLE = 12


@functools.cache
def faces() -> list[np.ndarray]:
    shots = studio_faces(PEOPLE, 1, 5, 144, 1)
    return [cv2.resize(face.image, (96, 96), interpolation=cv2.INTER_AREA) for face in shots]


def cut(face: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """Rows and columns of a 96 px face, enlarged again and compressed."""
    top, bottom, left, right = box
    part = np.ascontiguousarray(face[top:bottom, left:right])
    large = np.asarray(cv2.resize(part, (96, 96), interpolation=cv2.INTER_CUBIC), np.uint8)
    return PERTURBATIONS["jpeg"].apply(large, 60, 0, 0)


def covered(face: np.ndarray, top: int, left: int, height: int, width: int) -> np.ndarray:
    face = face.copy()
    face[top : top + height, left : left + width] = (20, 40, 160)
    return PERTURBATIONS["jpeg"].apply(face, 60, 0, 0)


@functools.cache
def copies_made() -> dict[str, np.ndarray]:
    return {
        "corner": cut(faces()[0], (0, 84, 0, 84)),
        "middle": cut(faces()[1], (6, 90, 5, 89)),
        "one side": cut(faces()[2], (0, 96, 13, 96)),
        "mirrored": cut(faces()[3], (8, 93, 3, 88))[:, ::-1].copy(),
        "logo": covered(faces()[4], 4, 66, 26, 26),
        "bar": covered(faces()[5], 80, 0, 14, 96),
        "glasses": covered(faces()[6], 36, 28, 14, 40),
    }


def found(pictures: list[np.ndarray], people: list[str]) -> Copies:
    return partial_copies([small_look(one) for one in pictures], pd.DataFrame({"path": people, "identity": people}))


def test_descriptor_is_the_dct_of_the_box() -> None:
    look = np.random.default_rng(0).uniform(0, 255, (1, SIDE, SIDE)).astype(np.float32)
    part = look[0, 16:48, 32:64].astype(float)
    low = np.zeros((ORDER, ORDER))
    for u in range(ORDER):
        for v in range(ORDER):
            for y in range(32):
                for x in range(32):
                    wave = math.cos(math.pi * u * (y + 0.5) / 32) * math.cos(math.pi * v * (x + 0.5) / 32)
                    low[u, v] += part[y, x] * wave
    expected = low.ravel()[1:] / np.linalg.norm(low.ravel()[1:])
    np.testing.assert_allclose(describe(look, (0.5, 0.25, 1.0, 0.75))[0], expected, atol=1e-4)


def test_agreement_counts_blocks() -> None:
    one = np.random.default_rng(1).uniform(0, 255, (SIDE, SIDE)).astype(np.float32)
    everywhere = np.ones_like(one)
    assert agreement(one, one * 0.7 + 20, everywhere) == (1.0, 64)
    half = one.copy()
    half[:, 32:] = half[::-1, 32:]
    share, count = agreement(one, half, everywhere)
    assert count == 64
    assert 0.36 < share <= 0.5
    shared = everywhere.copy()
    shared[:, 32:] = 0
    share, count = agreement(one, half, shared)
    assert count == 32
    assert share > 0.7


def test_cut_and_covered_copies_are_found_and_strangers_are_not() -> None:
    names = list(copies_made())
    copies = found(faces() + [copies_made()[name] for name in names], [f"p{i}" for i in range(PEOPLE)] + names)
    pairs = {pair: at for at, pair in enumerate(zip(copies.first.tolist(), copies.second.tolist(), strict=True))}
    assert set(pairs) == {(i, PEOPLE + i) for i in range(len(names))}
    turned = {names[pair[0]]: bool(copies.mirrored[at]) for pair, at in pairs.items()}
    assert [name for name, yes in turned.items() if yes] == ["mirrored"]
    kinds = {names[pair[0]]: bool(copies.cut[at]) for pair, at in pairs.items()}
    assert all(kinds[name] for name in ("corner", "middle", "one side", "mirrored"))


def test_rows_of_one_person_are_left_out() -> None:
    pictures = [*faces()[:4], copies_made()["corner"]]
    assert len(found(pictures, ["p0", "p1", "p2", "p3", "p0"]).first) == 0
    assert len(found(pictures, ["p0", "p1", "p2", "p3", "new"]).first) == 1
    assert len(found(pictures[:1], ["p0"]).first) == 0


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = []
    for i, (face, split) in enumerate(
        zip([*faces()[:6], copies_made()["corner"]], ["test", *["train"] * 6], strict=True)
    ):
        write_picture(tmp_path / f"{i}.png", face)
        rows.append({"path": f"{i}.png", "label": 0, "forgery": "real", "identity": f"p{i}", "split": split})
    write_manifest(pd.DataFrame(rows), tmp_path / "manifest.csv")
    path = str(tmp_path / "manifest.csv")
    assert main(["check", path]) == 0
    capsys.readouterr()
    assert main(["check", path, "--partial"]) == 2
    said = " ".join(capsys.readouterr().out.split())
    assert "line 2, path: in part the same picture as line 8 of another name, which is in train" in said
    assert "(cut: " in said
    assert main(["check", path, "--partial", "--no-pictures"]) == 2
    assert "leave out --no-pictures" in capsys.readouterr().err
