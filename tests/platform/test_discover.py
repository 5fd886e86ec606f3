"""Novelty, groups and their measures against counts by hand; the command on tiny faces."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from ffd_continual.cli import main
from ffd_continual.config import config_from
from ffd_continual.detecting.described import Described, describe_faces, distinct
from ffd_continual.detecting.discover import discover, known_standard
from ffd_continual.detecting.grouping import WAYS, group_faces, measure_grouping
from ffd_continual.detecting.inputs import as_input
from ffd_continual.detecting.measure import without
from ffd_continual.detecting.novelty import (
    Novelty,
    fit_whitening,
    mahalanobis_score,
    measure_flagging,
    neighbour_score,
    softmax_score,
)
from ffd_continual.detecting.opened import Opened
from ffd_continual.runs.folder import RunFolder
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.folder import open_faces


def described(features: np.ndarray, novelty: float = 1.0) -> Described:
    count = len(features)
    half, none = np.full(count, 0.5), np.zeros((count, 0))
    return Described(half, np.ones((count, 1)), np.full(count, novelty), features, features, none, features)


def test_softmax_novelty_is_one_minus_the_largest_class() -> None:
    faces = Described(
        np.array([0.9, 0.2, 0.5]), np.array([[0.5, 0.5], [1.0, 0.0], [1.0, 0.0]]), np.zeros(3), *[np.zeros((3, 2))] * 4
    )
    assert softmax_score(faces) == pytest.approx([1 - 0.45, 1 - 0.8, 1 - 0.5])


def test_mahalanobis_against_the_formula() -> None:
    rng = np.random.default_rng(0)
    stretch = np.array([1.0, 5.0, 0.2])
    classes = ["real"] * 400 + ["a"] * 400
    means = np.repeat([[0, 0, 0], [3.0, 0, 0]], 400, axis=0)
    stored = rng.normal(0, 1, (800, 3)) * stretch + means
    white = fit_whitening(stored, classes)
    queries = rng.normal(0, 3, (20, 3))
    inner = np.concatenate([stored[:400] - stored[:400].mean(0), stored[400:] - stored[400:].mean(0)])
    covariance = inner.T @ inner / 798
    covariance = 0.9 * covariance + 0.1 * np.diag(np.diag(covariance))
    inverse = np.linalg.inv(covariance)
    wanted = [
        min((q - c) @ inverse @ (q - c) / 3 for c in (stored[:400].mean(0), stored[400:].mean(0))) for q in queries
    ]
    assert mahalanobis_score(white, queries) == pytest.approx(wanted)
    # One direction tells the two classes apart, the first one; a scene that varies along the second hardly shows in it.
    kin = white.kin(np.array([[3.0, 0, 0], [0, 0, 0], [0, 5.0, 0]]))
    assert kin.shape == (3, 1)
    assert abs(kin[0, 0] - kin[1, 0]) > 10 * abs(kin[2, 0] - kin[1, 0])


def test_the_k_th_neighbour() -> None:
    stored = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    assert neighbour_score(stored, np.array([[2.0, 0.0]]), 1) == pytest.approx([0.0])
    assert neighbour_score(stored, np.array([[2.0, 0.0]]), 2) == pytest.approx([1.0])
    assert neighbour_score(stored, np.array([[2.0, 0.0]]), 9) == pytest.approx([2.0])


def test_flagging_by_hand() -> None:
    known, novel = np.arange(100) / 100, np.arange(20) / 20 + 0.5
    found = measure_flagging(known, novel, 0.955)
    assert found.fpr95 == pytest.approx((known >= 0.55).mean())
    assert found.false == pytest.approx(0.04)
    assert found.flagged == pytest.approx((novel > 0.955).mean())
    wins = np.mean([(n > k) + (n == k) / 2 for n in novel for k in known])
    assert found.auroc == pytest.approx(wins)


@pytest.mark.parametrize("way", WAYS)
def test_groups_that_are_there_are_found(way: str) -> None:
    rng = np.random.default_rng(1)
    centres = np.eye(6)[:3] * 8
    faces = np.concatenate(
        [centre + rng.normal(0, 0.3, (count, 6)) for centre, count in zip(centres, (30, 20, 10), strict=True)]
    )
    labels = group_faces(faces, way, 5)
    truth = ["a"] * 30 + ["b"] * 20 + ["c"] * 10
    found = measure_grouping(labels, truth)
    assert (found.groups, found.purity) == (3, 1.0)
    assert found.grouped > 0.7
    assert found.chance == 0.5
    assert pd.Series(labels[labels >= 0]).value_counts().sort_index().is_monotonic_decreasing
    assert (group_faces(faces[:3], way, 5) == -1).all()


def test_purity_by_hand_and_bad_input() -> None:
    found = measure_grouping(np.array([0, 0, 0, 1, 1, -1]), ["a", "a", "b", "b", "b", "a"])
    assert (found.groups, found.grouped, found.purity, found.chance) == (2, pytest.approx(5 / 6), 0.8, 0.5)
    empty = measure_grouping(np.array([-1, -1]), ["a", "b"])
    assert np.isnan(empty.purity)
    with pytest.raises(FFDError, match="Known: agglomerative"):
        group_faces(np.zeros((9, 2)), "kmeans")
    with pytest.raises(FFDError, match="2 faces or more"):
        group_faces(np.zeros((9, 2)), "hdbscan", 1)
    novelty = Novelty(described(np.random.default_rng(0).normal(0, 1, (20, 3))), ["real"] * 10 + ["a"] * 10)
    with pytest.raises(FFDError, match="no novelty score is called 'x'"):
        novelty.score("x", described(np.zeros((1, 3))))


def _world(kinds: list[str], each: int, seed: int) -> tuple[Described, list[str]]:
    """Faces whose scene fills the common features, where traces are faint; a known forgery's trace is plain in its own
    module and in residuals, a new one's in a direction of residuals alone."""
    rng, names = np.random.default_rng(seed), ["real", "a", "b", "c"]
    made = [kind for kind in kinds for _ in range(each)]
    scene, count = rng.normal(0, 10, (len(made), 40)), len(made)
    trace = np.zeros((count, 5))
    for row, kind in enumerate(made):
        trace[row, {"real": 0, "a": 1, "b": 2, "c": 3, "new": 4}[kind]] = 3.0
    common = np.concatenate([scene, trace / 3 + rng.normal(0, 1, trace.shape)], axis=1)
    special = np.concatenate([scene[:, :3], trace[:, 1:4] + rng.normal(0, 0.6, (count, 3))], axis=1)
    heard = 2 * trace[:, 1:4] - 3 + rng.normal(0, 1, (count, 3))
    residual = trace + rng.normal(0, 0.8, trace.shape)
    weights = np.full((count, len(names) - 1), 1 / 3)
    return Described(np.full(count, 0.9), weights, np.full(count, np.nan), common, special, heard, residual), made


def test_kinship_finds_what_the_scene_hides_from_mahalanobis() -> None:
    stored, classes = _world(["real", "a", "b", "c"], 80, 0)
    usual, _ = _world(["a", "b", "c"], 50, 1)
    known, _ = _world(["a", "b", "c"], 100, 2)
    new, _ = _world(["new"], 100, 3)
    real, _ = _world(["real"], 100, 4)
    novelty = Novelty(stored, classes, usual)
    assert novelty.ways()[0] == "softmax"  # this learner has no novelty of its own
    found = {}
    for way in novelty.ways():
        cut = float(np.quantile(novelty.score(way, usual), 0.95))
        found[way] = measure_flagging(novelty.score(way, known), novelty.score(way, new), cut)
    assert found["kinship"].auroc > 0.95
    assert found["kinship"].flagged > 0.8
    assert found["kinship"].false < 0.12
    assert found["mahalanobis-common"].auroc < 0.65
    assert found["softmax"].auroc == pytest.approx(0.5)
    apart = [
        measure_flagging(novelty.score(w, real), novelty.score(w, new), 0).auroc for w in ("kinship", "kinship-mixed")
    ]
    assert apart[1] > apart[0] + 0.05  # real faces are novel, too, unless they count as known
    spread = novelty.evidence(usual, mixed=False)
    assert novelty.score("kinship", usual) == pytest.approx(((spread - spread.mean(0)) / spread.std(0)).mean(1))
    families = novelty.families(new)
    assert families.shape == (100, 6)


def test_a_closed_module_is_gone_from_all_that_modules_say() -> None:
    faces, _ = _world(["a", "b"], 3, 0)
    less = faces.closed(1)
    assert np.array_equal(less.heard, faces.heard[:, [0, 2]])
    assert np.array_equal(less.special, faces.special[:, [0, 1, 4, 5]])
    assert np.array_equal(less.common, faces.common)
    none = Novelty(described(np.random.default_rng(0).normal(0, 1, (20, 3))), ["real"] * 10 + ["a"] * 10)
    assert "max-logit" not in none.ways()
    assert none.evidence(none.stored, mixed=False).shape == (20, 2)
    assert np.isfinite(none.score("kinship", none.stored)).all()


def test_a_picture_counts_once_for_a_forgery() -> None:
    one, other = np.zeros((4, 4, 3), np.uint8), np.ones((4, 4, 3), np.uint8)
    rows = pd.DataFrame({"label": [0, 0, 1, 1, 0], "forgery": ["", "", "a", "b", ""]})
    kept, faces = distinct(rows, [one, one, one, one, other])
    assert kept.index.tolist() == [0, 2, 3, 4]
    assert [int(face[0, 0, 0]) for face in faces] == [0, 0, 0, 1]


def test_one_new_forgery_alone_is_one_group() -> None:
    rng = np.random.default_rng(0)
    faces = rng.normal(0, 0.4, (60, 8)) + np.eye(8)[0] * 3  # the origin is what is known
    assert set(group_faces(faces)) == {0}


def test_withholding_a_forgery(tiny_config: dict[str, object]) -> None:
    config = without(config_from(tiny_config), "alpha")
    assert config.scenario.order == ("beta",)
    assert config.scenario.unseen == ("alpha", "gamma")


def test_the_command_writes_groups_that_add_can_take(
    iin_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # So little was learnt that no score means anything here: every face counts as novel, and one reach takes all.
    monkeypatch.setattr("ffd_continual.detecting.discover.QUANTILE", 0.0)
    monkeypatch.setattr("ffd_continual.detecting.grouping.REACH", 3.0)
    suspects = tmp_path / "suspects"
    shutil.copytree(iin_run.parent / "data" / "gamma", suspects)
    (suspects / "broken.png").write_bytes(b"no picture")
    out = tmp_path / "out"
    words = ["discover", str(iin_run), str(suspects), "--cropped", "--out", str(out), "--name", "strange"]
    assert main(words) == 1
    said = capsys.readouterr().out
    assert "24 faces" in said
    assert "left out: cannot read the picture" in " ".join(said.split())
    assert all(len(line) <= 80 or "/" in line for line in said.splitlines())
    faces = pd.read_csv(out / "faces.csv", keep_default_na=False)
    manifest = open_faces(out, assign=False)
    grouped = faces[faces["group"] != ""]
    assert len(grouped) == len(manifest) > 5
    assert set(manifest.table["forgery"]) == {"strange-01"}
    assert set(manifest.table["label"]) == {1}
    assert all(manifest.absolute(path).is_file() for path in manifest.table["path"])
    assert len(list((out / "crops").iterdir())) == len(grouped)  # crops of other faces are not kept
    assert (out / "strange-01.png").is_file()
    assert json.loads((out / "discover.json").read_text())["detector"].startswith(RunFolder(iin_run).path.name)
    assert main(words) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["discover", "--out", str(tmp_path / "x")]) == 2
    assert "give a lineage or run" in " ".join(capsys.readouterr().err.split())


def test_what_was_described_before_a_kill_is_not_described_again(
    iin_detector: Opened, iin_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ffd_continual.detecting.discover.QUANTILE", 0.0)
    monkeypatch.setattr("ffd_continual.detecting.grouping.REACH", 3.0)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    files = [broken, *sorted((iin_run.parent / "data" / "gamma").glob("*.png"))]
    inputs = [as_input(path) for path in files]
    standard = known_standard(iin_detector)
    whole = discover(iin_detector, inputs, tmp_path / "whole", standard, cropped=True)
    assert len(whole.faces) == 24
    asked: list[int] = []

    def stopping(detector: Opened, faces: list[Any]) -> Described:
        asked.append(len(faces))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return describe_faces(detector, faces)

    monkeypatch.setattr("ffd_continual.detecting.suspects.describe_faces", stopping)
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        discover(iin_detector, inputs, out, standard, cropped=True)
    assert asked == [16, 8]
    assert not (out / "discover.json").exists()
    with pytest.raises(FFDError, match="begun with other files"):
        discover(iin_detector, inputs[1:], out, standard, cropped=True)
    with pytest.raises(FFDError, match="begun with other files: where .* there is no more"):
        discover(iin_detector, inputs[:3], out, standard, cropped=True)
    with pytest.raises(FFDError, match="begun with cropped True, now it is False"):
        discover(iin_detector, inputs, out, standard)
    found = discover(iin_detector, inputs, out, standard, cropped=True)
    assert asked == [16, 8, 8]  # the first sixteen were kept
    assert found.unreadable == whole.unreadable
    assert len(found.unreadable) == 1
    for name in ("faces.csv", "manifest.csv", "new-01.png"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not (out / "parts").exists()
    with pytest.raises(FFDError, match="is there already"):
        discover(iin_detector, inputs, out, standard, cropped=True)


def test_a_full_disk_is_no_bad_picture_and_a_damaged_part_is_told(
    iin_detector: Opened, iin_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = [as_input(path) for path in sorted((iin_run.parent / "data" / "gamma").glob("*.png"))]
    standard = known_standard(iin_detector)

    def full(path: Path, picture: object) -> None:
        raise FFDError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("ffd_continual.detecting.suspects.write_picture", full)
        with pytest.raises(FFDError, match="the disk is full"):
            discover(iin_detector, inputs, tmp_path / "out", standard, cropped=True)
    (tmp_path / "out" / "parts" / "000000.safetensors").write_bytes(b"half")
    with pytest.raises(FFDError, match="is damaged"):
        discover(iin_detector, inputs, tmp_path / "out", standard, cropped=True)


def test_a_finished_run_is_measured_without_training(
    iin_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["discover", "--measure", str(iin_run), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "never taught (1)" in said
    assert all(len(line) <= 80 or "/" in line for line in said.splitlines())
    table = pd.read_csv(tmp_path / "out" / "discover.csv").set_index("score")
    assert set(table["withheld"]) == {"gamma"}  # two known forgeries: closing one would leave one
    assert table["auroc"].between(0, 1).all()
    assert (table["low"] <= table["auroc"]).all()
    assert table["reals"].between(0, 1).all()
    assert main(["discover", "--measure", str(iin_run), "--out", str(tmp_path / "x"), "--withhold", "delta"]) == 2
    assert "known are gamma" in " ".join(capsys.readouterr().err.split())
    assert main(["discover", "--measure", str(iin_run), "--out", str(tmp_path / "x"), "--set", "train.steps=1"]) == 2


@pytest.mark.slow
def test_measuring_goes_on_where_it_was(
    tiny_config: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ffd_continual.finish.write_report", lambda folder: folder)
    tiny_config["scenario"] |= {"order": ["alpha", "beta", "gamma"], "unseen": [], "size": 32}
    tiny_config["train"] |= {"steps": 2, "batch": 8}
    tiny_config["evaluation"] = {"bootstrap": 0, "samples": 0, "controls": False}
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(tiny_config))
    words = ["discover", "--measure", str(config), "--out", str(tmp_path / "out")]
    assert main(words) == 0
    table = pd.read_csv(tmp_path / "out" / "discover.csv")
    assert set(table["withheld"]) == {"alpha", "beta", "gamma"}
    assert {"learner", "softmax", "mahalanobis-common", "neighbour-special", "kinship"} <= set(table["score"])
    assert table["auroc"].between(0, 1).all()
    said = capsys.readouterr().out
    assert "trained without (3)" in said
    before = (tmp_path / "out" / "discover.csv").read_bytes()
    (tmp_path / "out" / "without-beta" / "discovery.json").unlink()
    assert main(words) == 0
    assert (tmp_path / "out" / "discover.csv").read_bytes() == before
    tiny_config["scenario"]["order"] = ["alpha", "beta"]
    config.write_text(yaml.safe_dump(tiny_config))
    assert main(words) == 2
    assert "fewer than 3 forgeries" in " ".join(capsys.readouterr().err.split())
