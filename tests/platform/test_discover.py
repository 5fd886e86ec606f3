"""The command and its measuring on tiny faces: groups, going on after a kill, a lineage, bad input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from ffd_continual.cli import main
from ffd_continual.config import config_from
from ffd_continual.detecting.described import Described, describe_faces
from ffd_continual.detecting.discover import discover, known_standard
from ffd_continual.detecting.inputs import as_input
from ffd_continual.detecting.measure import without
from ffd_continual.detecting.opened import Opened
from ffd_continual.lineage.adopt import adopt
from ffd_continual.runs.folder import RunFolder
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.folder import open_faces


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


def test_a_lineage_has_what_is_needed_without_the_data(
    iin_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def short(folder: Path) -> None:
        (folder / "report").mkdir()
        (folder / "report" / "report.html").write_text("<p>a report</p>")

    monkeypatch.setattr("ffd_continual.lineage.adopt.write_report", short)
    lineage, away = tmp_path / "lineage", tmp_path / "away"
    suspects = shutil.copytree(iin_run.parent / "data" / "gamma", tmp_path / "suspects")
    data = iin_run.parent / "data"
    adopt(iin_run, lineage)
    data.rename(away)
    try:
        words = ["discover", str(lineage), str(suspects), "--cropped", "--mixed", "--out", str(tmp_path / "out")]
        assert main(words) == 0
    finally:
        away.rename(data)
    said = " ".join(capsys.readouterr().out.split())
    assert "24 faces" in said
    assert "(kinship-mixed, " in said
    assert json.loads((tmp_path / "out" / "discover.json").read_text())["way"] == "kinship-mixed"


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
    monkeypatch.setattr("ffd_continual.finish.write_report", lambda folder, **_: folder)
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
