"""The five calls, as the module's own example makes them; videos; measuring on other data."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest

from ffd_continual import api
from ffd_continual.api import evaluate, gather, load, neighbours, predict
from ffd_continual.cli import main
from ffd_continual.detecting.evidence import BOTH
from ffd_continual.detecting.opened import Opened
from ffd_continual.lineage.adopt import adopt
from ffd_continual.measuring.metrics import auc
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.folder import open_faces
from ffd_continual.scenarios.pictures import read_picture


def film(path: Path, pictures: list[np.ndarray], rate: int = 10) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(rate))
        stream.height, stream.width, stream.pix_fmt = *pictures[0].shape[:2], "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.mark.slow
def test_the_module_s_example_runs(iin_run: Path, portraits: Path, tmp_path: Path) -> None:
    for old, new in (("real", "real"), ("gamma", "newfake")):
        shutil.copytree(iin_run.parent / "data" / old, tmp_path / "new" / new)
    adopt(iin_run, tmp_path / "lineage")
    lines = (api.__doc__ or "").splitlines()
    text = textwrap.dedent("\n".join(line for line in lines if line.startswith("    ")))
    replaced = {
        "runs/demo": iin_run, "photo.jpg": portraits, "folder": portraits.parent, "lineages/mine": tmp_path / "lineage",
        "data/mine": iin_run.parent / "data", "data/newfake": tmp_path / "new",
    }  # fmt: skip
    for name, place in replaced.items():
        text = text.replace(f'"{name}"', repr(str(place)))
    script = tmp_path / "example.py"  # the documentation's own lines, as a user runs them
    script.write_text(text + "\nprint(type(outcome).__name__, outcome.number)\n", encoding="utf-8")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert str(portraits) in done.stdout
    assert "Interval(value=" in done.stdout
    assert done.stdout.rstrip().endswith("Outcome 2")
    grown = load(tmp_path / "lineage", version=2)
    assert grown.known == ("alpha", "beta", "newfake")
    assert grown.version.startswith("v2@")
    assert gather(grown).kind == BOTH


def test_a_video_is_summed_up(iin_detector: Opened, portraits: Path, tmp_path: Path) -> None:
    picture = read_picture(portraits)
    blank = np.full_like(picture, 128)
    path = film(tmp_path / "a.mp4", [picture] * 4 + [blank] * 4)
    records = list(predict(iin_detector, path))
    frames, video = records[:-1], records[-1]
    assert [r["kind"] for r in frames] == ["face"] * 8  # two persons in each of four frames
    assert (video["kind"], video["frames"]) == ("video", 8)
    largest = [r["z"] for r in frames if r["face"] == 0]
    assert len(largest) == 4
    assert video["z"] == pytest.approx(np.mean(largest), abs=1e-5)
    assert video["decision"] == iin_detector.rule.decide(video["z"])
    nobody = list(predict(iin_detector, film(tmp_path / "b.mp4", [blank] * 3)))
    assert [(r["kind"], r["note"], r.get("z")) for r in nobody] == [("video", "no face was found", None)]
    (tmp_path / "c.mp4").write_bytes(b"no video")
    assert next(predict(iin_detector, tmp_path / "c.mp4"))["kind"] == "error"


def test_evaluate_gives_the_figures_of_the_run(iin_run: Path, iin_detector: Opened) -> None:
    found = evaluate(iin_detector, iin_run.parent / "data", samples=20)
    faces = found.faces
    assert found.frame["auc"].value == pytest.approx(auc(faces["label"], faces["z"]))
    assert found.video is None
    assert set(found.forgeries) == {"alpha", "beta", "gamma"}
    assert set(faces["split"]) == {"test"}
    summary = json.loads((iin_run / "summary.json").read_text())
    taught = (found.forgeries["alpha"].value + found.forgeries["beta"].value) / 2
    assert taught == pytest.approx(summary["auc"]["aa"], abs=1e-6)
    assert found.means["learnt"].value == pytest.approx(taught)
    assert found.means["never learnt"] == found.forgeries["gamma"]
    some = evaluate(iin_detector, iin_run.parent / "data", samples=20, only=["beta"])
    assert some.forgeries == {"beta": found.forgeries["beta"]}
    assert set(some.means) == {"learnt"}
    called = faces["z"] >= iin_detector.facts.threshold
    shares = called.groupby(faces["label"]).mean()
    assert (found.decided["alarms"].value, found.decided["found"].value) == pytest.approx((shares[0], shares[1]))
    manifest = open_faces(iin_run.parent / "data")
    with pytest.raises(FFDError, match="no forged face in split 'test'"):
        evaluate(iin_detector, manifest.subset((manifest.table["label"] == 0).to_numpy()))
    with pytest.raises(FFDError, match="split must be one of"):
        evaluate(iin_detector, manifest, split="tset")
    with pytest.raises(FFDError, match="no forgery delta; it has alpha, beta, gamma"):
        evaluate(iin_detector, manifest, only=["beta", "delta"])


def test_the_command_evaluate_says_what_was_measured(
    iin_run: Path,
    iin_detector: Opened,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(iin_run.parent)
    data, out = "data", tmp_path / "faces.csv"
    given = ["evaluate", "run", data, "--samples", "50"]
    assert main([*given, "--only", "alpha,gamma", "--out", str(out)]) == 0
    said = capsys.readouterr().out.splitlines()
    found = evaluate(iin_detector, data, samples=50, only=["alpha", "gamma"])
    faces, (alpha, gamma) = pd.read_csv(out), found.forgeries.values()
    count = int((faces["forgery"] == "alpha").sum())
    assert f"{'alpha *':24s}{count:7d}    {alpha.value:.3f} [{alpha.low:.3f}, {alpha.high:.3f}]" in said
    assert f"{'mean, never learnt':31s}    {gamma.value:.3f} [{gamma.low:.3f}, {gamma.high:.3f}]" in said
    assert any(line.startswith("AUC ") and f"{found.frame['auc'].value:.3f}" in line for line in said)
    assert max(map(len, said[:-1])) <= 80
    assert faces["z"].to_numpy() == pytest.approx(found.faces["z"].to_numpy())
    assert main([*given, "--out", "faces.xlsx"]) == 2
    assert "ends in .parquet or .csv" in capsys.readouterr().err


def test_neighbours_are_the_nearest_by_hand(iin_run: Path, iin_detector: Opened) -> None:
    stored = gather(iin_detector)
    path = str(iin_run.parent / "data" / "alpha" / "p023.png")
    near = neighbours(iin_detector, path, 3, cropped=True, evidence=stored)
    feature = iin_detector.judge([read_picture(path)])[0].feature
    unit = stored.features / np.linalg.norm(stored.features, axis=1, keepdims=True)
    distance = 1 - unit @ feature / np.linalg.norm(feature)
    order = np.argsort(distance)[:3]
    assert [n.path for n in near] == [stored.paths[i] for i in order]
    assert [n.distance for n in near] == pytest.approx(distance[order].tolist(), abs=1e-5)
    own = neighbours(iin_detector, stored.paths[0], 1, cropped=True, evidence=stored)[0]
    assert [own.path, own.distance] == [stored.paths[0], pytest.approx(0, abs=1e-5)]


def test_arrays_are_judged_and_wrong_ones_refused(iin_detector: Opened, portraits: Path) -> None:
    picture = read_picture(portraits)
    records = list(predict(iin_detector, [picture, portraits, picture[:200, :300]]))
    assert [r["path"] for r in records][:2] == ["array 0", "array 0"]
    assert records[0]["z"] == pytest.approx(records[2]["z"], abs=1e-5)
    assert records[-1]["path"] == "array 1"
    for wrong in (picture.astype(np.float32), picture[..., 0], picture[:0]):
        with pytest.raises(FFDError, match="a picture is uint8 RGB"):
            list(predict(iin_detector, wrong))
