"""A detector in use: opened without its data, asked by Python and by the command line, fed with bad input."""

from __future__ import annotations

import io
import json
import shutil
import threading
import time
import tracemalloc
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ffd_continual.cli import main
from ffd_continual.detecting.framing import forged_framing, frame_face
from ffd_continual.detecting.inputs import walk_inputs
from ffd_continual.detecting.opened import Opened, open_detector
from ffd_continual.detecting.predict import Asking, Judging
from ffd_continual.runs.facts import Framing
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.faces import crop_face
from ffd_continual.scenarios.pictures import read_picture


def test_an_opened_detector_judges_as_the_run_did_and_needs_no_data(iin_run: Path, tmp_path: Path) -> None:
    told = pd.read_parquet(iin_run / "predictions" / "after_002.parquet")
    alone = tmp_path / "alone"
    for name in ("config.yaml", "detector.json"):
        alone.mkdir(exist_ok=True)
        shutil.copyfile(iin_run / name, alone / name)
    shutil.copytree(iin_run / "checkpoints" / "after_001", alone / "checkpoints" / "after_001")
    text = (alone / "config.yaml").read_text().replace("manifest.csv", "gone.csv")
    (alone / "config.yaml").write_text(text)
    opened = open_detector(alone)
    verdicts = opened.judge([read_picture(path) for path in told["path"]])
    assert np.allclose([v.z for v in verdicts], told["z"], atol=1e-5)
    assert np.allclose([v.score for v in verdicts], told["p"], atol=1e-5)
    assert opened.facts.threshold == pytest.approx(told["threshold"].iloc[0])
    assert np.allclose([v.novelty or 0 for v in verdicts], told["novelty"], atol=1e-4)
    assert [v.record()["attribution"] for v in verdicts] == told["attribution"].tolist()
    assert opened.known == ("alpha", "beta")
    for verdict in verdicts:
        assert sum(verdict.attribution.values()) == pytest.approx(1, abs=1e-5)
        assert verdict.trace is not None
        assert verdict.trace.shape == (48, 48)
        assert verdict.decision == opened.rule.decide(verdict.z)
    assert opened.version.startswith("alone@")


def test_one_answer_whatever_the_company_and_the_thread(iin_detector: Opened, iin_run: Path) -> None:
    told = pd.read_parquet(iin_run / "predictions" / "after_002.parquet")
    crops = [read_picture(path) for path in told["path"].iloc[:20]]
    together = [v.z for v in iin_detector.judge(crops)]
    found: dict[int, list[float]] = {}

    def ask(turn: int) -> None:
        found[turn] = [iin_detector.judge([crop])[0].z for crop in crops]

    threads = [threading.Thread(target=ask, args=(turn,)) for turn in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for turn in range(3):
        assert np.allclose(found[turn], together, atol=1e-5)


def test_faces_are_framed_as_the_data_frames_them() -> None:
    picture = np.asarray(
        cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (300, 320, 3), np.uint8), (0, 0), 4), np.uint8
    )
    marks = np.random.default_rng(1).uniform(100, 180, (68, 2)).astype(np.float32)
    wide = crop_face(picture, marks, 128)
    low, high = wide.landmarks.min(0), wide.landmarks.max(0)
    centre = ((low + high) / 2 + 0.5) / 128
    measured = Framing(float((high - low).max()) / 128, float(centre[0]), float(centre[1]))
    assert (measured.extent, measured.x, measured.y) == pytest.approx((0.5, 0.5, 0.54), abs=0.01)
    for framing in (measured, forged_framing(1.0)):
        assert np.abs(frame_face(picture, marks, framing, 128).astype(int) - wide.image).mean() < 2
    inner = frame_face(picture, marks, forged_framing(0.75), 96)
    assert np.abs(inner.astype(int) - wide.image[16:112, 16:112]).mean() < 2
    outside = frame_face(picture, marks - 90, forged_framing(1.0), 64)  # beyond the border: mirrored, not cut
    assert outside.shape == (64, 64, 3)


def test_the_command_on_good_and_bad_files(
    iin_run: Path, portraits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copyfile(portraits, folder / "a.png")
    Image.fromarray(np.full((80, 80, 3), 200, np.uint8)).save(folder / "b_empty.png")
    (folder / "c_broken.jpg").write_bytes(portraits.read_bytes()[:3000])
    (folder / "d_zero.png").touch()
    Image.fromarray(np.zeros((50, 40), np.uint8)).save(folder / "e_grey.png")
    out = tmp_path / "out.jsonl"
    words = ["predict", str(iin_run), str(folder), str(tmp_path / "no.jpg"), "--out", str(out)]
    assert main([*words, "--overlay", str(tmp_path / "overlay"), "--neighbours", "2"]) == 1  # some cannot be read
    records = [json.loads(line) for line in out.read_text().splitlines()]
    kinds = [(Path(r["path"]).name, r["kind"]) for r in records]
    assert kinds == [
        ("a.png", "face"), ("a.png", "face"), ("b_empty.png", "no face"), ("c_broken.jpg", "error"),
        ("d_zero.png", "error"), ("e_grey.png", "no face"), ("no.jpg", "error"),
    ]  # fmt: skip
    large, small = records[:2]
    assert large["box"][0] < 300 < 380 < small["box"][0]
    assert (large["face"], small["face"]) == (0, 1)
    assert large["decision"] in ("real", "forged", "no decision")
    assert len(large["neighbours"]) == 2
    assert large["neighbours"][0]["distance"] <= large["neighbours"][1]["distance"]
    assert "empty (0 bytes)" in records[4]["error"]
    assert "no such file" in records[6]["error"]
    shown = read_picture(tmp_path / "overlay" / large["overlay"])
    assert shown.shape == (256, 512, 3)
    said = capsys.readouterr().err
    for words_said in ("2 faces", "2 without a face", "3 that cannot be read", "8 exemplars"):
        assert words_said in said
    assert all(len(line) <= 80 for line in said.splitlines() if "reading faces" not in line and "WARN" not in line)

    # The same command goes on: a cut file ends as the whole one did.
    whole = out.read_bytes()
    out.write_bytes(whole[: len(whole) // 2])
    assert main([*words, "--overlay", str(tmp_path / "overlay"), "--neighbours", "2"]) == 1
    assert out.read_bytes() == whole
    # A list on stdin, crops, CSV.
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{folder}/b_empty.png\n"))
    assert main(["predict", str(iin_run), "-", "--cropped", "--out", str(tmp_path / "o.csv"), "--band", "0.2"]) == 0
    table = pd.read_csv(tmp_path / "o.csv")
    assert table["kind"].tolist() == ["face"]
    assert "no face is found in this crop" in table["note"][0]
    assert table["band"].tolist() == [0.2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--fpr", "0.0001"], "asks for more than the"),
        (["--at", "3"], "is a run folder, which has no versions"),
        (["--out", "x.xlsx"], "the suffix tells the format"),
        (["--neighbours", "-1"], "counts faces"),
        (["--overlay", "{folder}/in"], "lies inside the input"),
    ],
)
def test_what_cannot_be_asked(
    iin_run: Path, tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    filled = [word.format(folder=tmp_path) for word in words]
    assert main(["predict", str(iin_run), str(tmp_path), *filled]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_folders_that_hold_no_finished_run(iin_run: Path, tmp_path: Path) -> None:
    with pytest.raises(FFDError, match="is not a run folder"):
        open_detector(tmp_path)
    copy = tmp_path / "run"
    shutil.copytree(iin_run, copy)
    (copy / "detector.json").unlink()
    with pytest.raises(FFDError, match="has no detector.json"):
        open_detector(copy)
    shutil.rmtree(copy / "checkpoints")
    with pytest.raises(FFDError, match="has learnt no experience yet"):
        open_detector(copy)


@pytest.fixture(autouse=True)
def _in_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_lost_stored_faces_are_told(
    iin_run: Path, portraits: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    data = iin_run.parent / "data"
    moved = iin_run.parent / "moved"
    data.rename(moved)
    try:
        assert main(["predict", str(iin_run), str(portraits), "--neighbours", "1"]) == 2
        assert "there is no" in " ".join(capsys.readouterr().err.split())
        shutil.copytree(moved, data)
        for path in (data / "real").glob("*.png"):
            path.unlink()
        assert main(["predict", str(iin_run), str(portraits), "--neighbours", "1"]) == 0
        said: Any = capsys.readouterr()
        assert "more cannot be read" in " ".join(said.err.split())
        near = [json.loads(line)["neighbours"][0] for line in said.out.splitlines()]
        assert all(n["forgery"] != "real" for n in near)
    finally:
        shutil.rmtree(data, ignore_errors=True)
        moved.rename(data)


def test_long_narrow_pictures_cost_little_and_stop_nothing(
    iin_detector: Opened, portraits: Path, tmp_path: Path
) -> None:
    for width, height in ((1, 60_000), (40_000, 20), (1, 30_000), (32_000, 3), (1, 1), (2, 1)):
        Image.new("L", (width, height), 90).save(tmp_path / f"{width:05d}x{height}.png")
    shutil.copy(portraits, tmp_path / "z.png")
    judging = Judging(iin_detector, Asking())
    tracemalloc.start()
    began = time.process_time()
    records = [record for some in judging.records(walk_inputs([str(tmp_path)])) for record in some]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    kinds = [(Path(record["path"]).name, record["kind"]) for record in records]
    assert kinds == [
        ("00001x1.png", "no face"), ("00001x30000.png", "no face"), ("00001x60000.png", "error"),
        ("00002x1.png", "no face"), ("32000x3.png", "no face"), ("40000x20.png", "error"), ("z.png", "face"),
        ("z.png", "face"),
    ]  # fmt: skip
    assert "1 x 60000 pixels are too long and narrow. Crop or shrink it first." in records[2]["error"]
    assert peak < 100e6, "a band laid around one of them alone would be 700 MB"
    assert time.process_time() - began < 20
    squeezed = list(Judging(iin_detector, Asking(cropped=True)).records(walk_inputs([str(tmp_path / "32000x3.png")])))
    assert "32000 x 3 pixels, no square: it is squeezed" in squeezed[0][0]["note"]
    assert "no face is found" in squeezed[0][0]["note"]
