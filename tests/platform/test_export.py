"""A detector as an ONNX graph that answers as torch does, and a model card of the run's own numbers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from ffd_continual.cli import main
from ffd_continual.detecting.export import CARD, DESCRIPTION, MODEL, export_detector
from ffd_continual.detecting.model_card import card_text
from ffd_continual.detecting.opened import Opened, open_detector
from ffd_continual.scenarios.errors import FFDError


@pytest.mark.slow
def test_the_graph_answers_as_the_detector(
    iin_run: Path, iin_detector: Opened, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["export", str(iin_run), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "largest difference to torch" in said
    session = onnxruntime.InferenceSession(str(out / MODEL), providers=["CPUExecutionProvider"])
    words = json.loads((out / DESCRIPTION).read_text())
    assert words["outputs"] == [one.name for one in session.get_outputs()]
    assert set(words["outputs"]) == {"z", "p", "attribution", "novelty", "trace"}
    assert words["known"] == ["alpha", "beta"]
    assert max(words["checked"]["differences"].values()) <= 1e-4
    pictures = np.random.default_rng(0).integers(0, 255, (5, 48, 48, 3), np.uint8)
    for count in (1, 5):
        answers = session.run(None, {"image": pictures[:count].transpose(0, 3, 1, 2).astype(np.float32) / 255})
        by = dict(zip(words["outputs"], answers, strict=True))
        for at, verdict in enumerate(iin_detector.ask(list(pictures[:count]))):
            assert by["z"][at] == pytest.approx(verdict.z, abs=1e-4)
            assert by["p"][at] == pytest.approx(verdict.score, abs=1e-4)
            assert by["novelty"][at] == pytest.approx(verdict.novelty, abs=1e-3)
            assert by["attribution"][at] == pytest.approx(list(verdict.attribution.values()), abs=1e-4)
    assert "## The ONNX graph" in (out / CARD).read_text()
    assert main(["export", str(iin_run), "--out", str(out)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]


def test_a_missing_package_is_named(iin_detector: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ffd_continual.detecting.export.PACKAGES", ("json", "onnx_that_is_not_there"))
    with pytest.raises(FFDError, match=r"needs onnx_that_is_not_there: run pip install 'ffd-continual\[onnx\]'"):
        export_detector(iin_detector, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_the_card_tells_the_run_s_own_numbers(iin_run: Path, iin_detector: Opened, tmp_path: Path) -> None:
    card = card_text(iin_detector)
    summary = json.loads((iin_run / "summary.json").read_text())
    for figure in ("aa", "diagonal", "forgetting_signed", "unseen"):
        assert f"{summary['auc'][figure]:.3f}" in card
    assert "Taught, in this order: alpha, beta." in card
    assert "Never taught, tested only: gamma." in card
    assert f"{iin_detector.rule.forged:.3f}" in card
    copy = tmp_path / "run"
    shutil.copytree(iin_run, copy)
    summary["auc"]["aa"] = 0.123456
    (copy / "summary.json").write_text(json.dumps(summary))
    assert "0.123" in card_text(open_detector(copy))
    (copy / "summary.json").unlink()
    with pytest.raises(FFDError, match="cannot be read"):
        card_text(open_detector(copy))
