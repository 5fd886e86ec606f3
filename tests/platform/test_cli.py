"""What a user gets wrong ends in one message and exit code 2; odd but readable pictures end in a report."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from ffd_continual import cli

Ffd = Callable[..., tuple[int, str]]


@pytest.fixture
def ffd(capsys: pytest.CaptureFixture[str]) -> Ffd:
    """`ffd` with these words: exit code and what it said on stderr, without progress bars."""

    def call(*words: str) -> tuple[int, str]:
        capsys.readouterr()
        code = cli.main(words)
        shown = capsys.readouterr().err
        at = shown.find("ffd: ")
        return code, shown[at:] if at >= 0 else ""

    return call


@pytest.fixture
def config(small_config: dict[str, Any], tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(small_config))
    return path


@pytest.fixture
def faces(tiny_faces: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    shutil.copytree(tiny_faces.parent, tmp_path / "faces")
    return tmp_path / "faces" / "manifest.csv"


def _assert_refused(answer: tuple[int, str], *words: str) -> None:
    code, message = answer
    assert code == 2
    assert message.startswith("ffd: ")
    assert message.count("ffd: ") == 1
    assert "Traceback" not in message
    for word in words:
        assert word in message


def _edit(manifest: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Path:
    change(pd.read_csv(manifest, dtype=str).fillna("")).to_csv(manifest, index=False)
    return manifest


def test_what_is_no_configuration(ffd: Ffd, config: Path, tmp_path: Path) -> None:
    _assert_refused(ffd("run", "demoo"), "no configuration 'demoo'", "Did you mean 'demo'")
    _assert_refused(ffd("run", str(config), "--set", "train.step=3"), "unknown key train.step", "'steps'")
    _assert_refused(ffd("run", str(config), "--set", "learner.name=plian"), "no learner is named 'plian'", "'plain'")
    own = ffd("run", str(config), "--set", "learner.name=mine.here:Mine")
    _assert_refused(own, "'mine.here' cannot be imported", "PYTHONPATH=. ffd")
    _assert_refused(ffd("run", str(config), "--set", "train.steps=three"), "train.steps must be a whole number")
    _assert_refused(
        ffd("run", str(config), "--set", "train.device=tpu", "--out", str(tmp_path / "a")), "train.device=tpu"
    )
    config.write_text("learner: [")
    _assert_refused(ffd("run", str(config)), "not readable YAML")


def test_what_is_no_data(ffd: Ffd, config: Path, tmp_path: Path) -> None:
    out = ("--quiet", "--out", str(tmp_path / "run"))
    _assert_refused(
        ffd("run", str(config), "--data", str(tmp_path / "nowhere"), *out), "there is nothing at", "nowhere"
    )
    (tmp_path / "empty").mkdir()
    _assert_refused(ffd("run", str(config), "--data", str(tmp_path / "empty"), *out), str(tmp_path / "empty"))
    for name in ("real", "alpha"):
        (tmp_path / "hollow" / name).mkdir(parents=True)
    _assert_refused(ffd("run", str(config), "--data", str(tmp_path / "hollow"), *out), str(tmp_path / "hollow"))
    _assert_refused(ffd("run", str(config), "--data", str(config), *out), "the suffix '.yaml' is not known")


def test_classes_that_are_missing(ffd: Ffd, config: Path, faces: Path, tmp_path: Path) -> None:
    out = ("--quiet", "--data", str(faces), "--out", str(tmp_path / "run"))
    _assert_refused(ffd("run", str(config), "--set", "scenario.order=[omega]", *out), "'omega'", "alpha, beta, gamma")
    _edit(faces, lambda t: t[(t["split"] != "valid") | (t["label"] == "1")])
    _assert_refused(ffd("run", str(config), *out), "valid stream of 'alpha' has no real face", "add people")
    _edit(faces, lambda t: t[t["label"] == "1"])
    _assert_refused(ffd("run", str(config), *out), "train stream of 'alpha' has no real face")


def test_manifests_with_wrong_cells(ffd: Ffd, config: Path, faces: Path, tmp_path: Path) -> None:
    out = ("--quiet", "--data", str(faces), "--out", str(tmp_path / "run"))
    _edit(faces, lambda t: t.assign(label=["maybe", *t["label"][1:]]))
    _assert_refused(ffd("run", str(config), *out), "line 2, label: 'maybe'", "neither 0 / real nor 1 / forged")
    _edit(faces, lambda t: t.rename(columns={"label": "labl"}))
    _assert_refused(ffd("run", str(config), *out), "required column 'label' is missing", "'labl'")


def test_broken_pictures_end_the_run_or_are_left_out(ffd: Ffd, config: Path, faces: Path, tmp_path: Path) -> None:
    for name in ("real/p000.png", "alpha/p001.png"):
        picture = faces.parent / name
        picture.write_bytes(picture.read_bytes()[:100])
    out = ("--quiet", "--data", str(faces), "--out")
    _assert_refused(
        ffd("run", str(config), *out, str(tmp_path / "a")), "2 of ", "p000.png", "p001.png", "unreadable=skip"
    )
    skip = ("--set", "scenario.unreadable=skip")
    code, _ = ffd("run", str(config), *skip, *out, str(tmp_path / "b"))
    assert code == 0
    assert len(pd.read_csv(tmp_path / "b" / "skipped.csv")) == 2
    maybe = ("--set", "scenario.unreadable=maybe")
    _assert_refused(
        ffd("run", str(config), *maybe, *out, str(tmp_path / "d")), "scenario.unreadable must be one of error, skip"
    )
    for picture in (faces.parent / "alpha").glob("*.png"):
        picture.write_bytes(b"")
    _assert_refused(ffd("run", str(config), *skip, *out, str(tmp_path / "c")), "'alpha' has no forged face")


def test_runs_that_cannot_go_on(ffd: Ffd, config: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    _assert_refused(ffd("resume", str(run)), "is not a run folder")
    run.mkdir()
    (run / "config.yaml").write_text("learner: {name: iin, older: 1}\nstrategy: naive\n")
    _assert_refused(ffd("resume", str(run)), "run/config.yaml", "another version", "unknown key learner.older")
    _assert_refused(ffd("run", str(config), "--quiet", "--out", str(run)), "holds no run (config.yaml lies there)")
    shutil.rmtree(run)
    assert ffd("run", str(config), "--quiet", "--out", str(run))[0] == 0
    _assert_refused(ffd("run", str(config), "--quiet", "--out", str(run)), "holds a run already", "ffd resume")
    (run / "predictions" / "after_001.parquet").write_bytes(b"PAR1")
    _assert_refused(ffd("resume", str(run)), "after_001.parquet is damaged", "Delete it")
    (run / "predictions" / "after_001.parquet").unlink()
    tensors = run / "checkpoints" / "after_000" / "tensors.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:1000])
    _assert_refused(ffd("resume", str(run)), "not a whole checkpoint", "after_000", "Delete that folder")
    shutil.rmtree(tensors.parent)
    assert ffd("resume", str(run))[0] == 0  # what the message says to do helps


def test_words_of_the_command_line(ffd: Ffd, capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["fly"], ["run"], ["list", "birds"]):
        with pytest.raises(SystemExit) as caught:
            cli.main(words)
        assert caught.value.code == 2
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])
    assert caught.value.code == 0
    capsys.readouterr()
    for kind in ("learners", "strategies", "configs", "families", "cameras", "scenarios"):
        assert cli.main(["list", kind]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines
        assert all(len(line) <= 79 for line in lines)


def test_a_reader_that_has_seen_enough_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as shut, monkeypatch.context() as patch:
        patch.setattr("sys.stdout", shut)
        assert cli.main(["list", "cameras"]) == 0


def test_no_memory_is_a_message(ffd: Ffd, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = [MemoryError("Unable to allocate 196 TiB"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]

    def fail(*_: Any) -> None:
        raise errors.pop()

    monkeypatch.setattr("ffd_continual.commands.run.start", fail)
    for _ in range(2):
        _assert_refused(
            ffd("run", str(config), "--quiet", "--out", str(tmp_path / "run")), "out of memory", "train.batch"
        )


def test_ctrl_c_is_130(ffd: Ffd, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ffd_continual.commands.run.start", stop)
    code, message = ffd("run", str(config), "--quiet", "--out", str(tmp_path / "run"))
    assert code == 130
    assert "ffd resume" in message


def _as(path: Path, kind: str) -> None:
    """Write a picture again in another form, under its old name (the content decides)."""
    image = Image.open(path).convert("RGB")
    if kind == "cmyk":
        image.convert("CMYK").save(path, "JPEG")
    elif kind == "grey":
        image.convert("L").save(path, "PNG")
    elif kind == "deep":
        Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257).save(path, "PNG")
    elif kind == "alpha":
        image.putalpha(Image.new("L", image.size, 200))
        image.save(path, "PNG")
    else:
        image.save(path, "GIF", save_all=True, append_images=[Image.new("RGB", image.size)])


def test_odd_pictures_run(ffd: Ffd, config: Path, faces: Path, tmp_path: Path) -> None:
    kinds = ("cmyk", "grey", "deep", "alpha", "animated")
    for folder in ("real", "alpha"):
        for number, path in enumerate(sorted((faces.parent / folder).glob("*.png"))):
            _as(path, kinds[number % len(kinds)])
    controls = ("--set", "evaluation.controls=true")
    code, message = ffd("run", str(config), *controls, "--data", str(faces), "--quiet", "--out", str(tmp_path / "run"))
    assert (code, message) == (0, "")
    assert (tmp_path / "run" / "controls.json").exists()
    assert (tmp_path / "run" / "report" / "report.html").exists()
