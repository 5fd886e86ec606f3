"""The source probe: names sources that differ, none that do not; what sources alone say, worked by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ffd_continual.config import config_from
from ffd_continual.finish import finish_run
from ffd_continual.reporting.data import read_run
from ffd_continual.reporting.extras import source_sentence, source_words
from ffd_continual.runs.assemble import assemble
from ffd_continual.runs.folder import RunFolder
from ffd_continual.runs.source_probe import asked_faces, guess_sources, label_by_source, source_probe
from ffd_continual.scenarios.streams import Scenario


def _rows(cells: list[tuple[str, str, str, str, int]]) -> pd.DataFrame:
    """From (stream, experience, data set, camera, label)."""
    return pd.DataFrame(cells, columns=["stream", "experience", "dataset", "profile", "label"])


def test_label_by_source_by_hand() -> None:
    # Training: a's data set x is forged in 3 of 4 faces, y in 1 of 4; b holds both labels equally.
    train = [("train", "a", "x", "c", label) for label in (1, 1, 1, 0)]
    train += [("train", "a", "y", "c", label) for label in (1, 0, 0, 0)]
    train += [("train", "b", "x", "c", label) for label in (1, 1, 0, 0)]
    # Test a: forged x, x, y against real x, y, y. Of nine pairs x > y wins 2 x 2 = 4, equals are 2 x 1 + 1 x 2 = 4,
    # y < x loses 1: AUC (4 + 2) / 9.
    test = [("test", "a", d, "c", 1) for d in ("x", "x", "y")] + [("test", "a", d, "c", 0) for d in ("x", "y", "y")]
    test += [("test", "b", "x", "c", 1), ("test", "b", "x", "c", 0)]
    # Never learnt: x is forged in 5 of 8 training faces, y in 1 of 4, z in none known: the mean 6 of 12. Forged x, z
    # against real y, z: x beats both, z beats y and equals z: 3.5 of 4.
    unseen = [("unseen", "u", "x", "c", 1), ("unseen", "u", "z", "c", 1)]
    unseen += [("unseen", "u", "y", "c", 0), ("unseen", "u", "z", "c", 0)]
    rows = _rows(train + test + unseen)
    found = label_by_source(rows, Scenario(rows, ("a", "b"), ("u",), ("real", "a", "b", "u"), {}))
    assert found["a"] == pytest.approx(6 / 9)
    assert found["b"] == pytest.approx(0.5)
    assert found["u"] == pytest.approx(3.5 / 4)
    # All of test: scores .75 .75 .25 .5 against .75 .25 .25 .5. Wins: 2 x 3 + 0 + 2 = 8, equals 2 + 2 + 1 = 5 of 16.
    assert found["all"] == pytest.approx((8 + 2.5) / 16)


def test_sources_that_differ_are_named_and_others_are_not() -> None:
    rng = np.random.default_rng(0)
    people = np.array([f"p{i // 2}" for i in range(240)])
    source = rng.integers(0, 3, 240)
    noise = rng.normal(size=(240, 20))
    assert guess_sources(noise, source, people) == pytest.approx(1 / 3, abs=0.12)
    shifted = noise + 6.0 * np.eye(3, 20)[source]
    assert guess_sources(shifted, source, people) > 0.95
    # nine faces in ten from one source: naming it always is no better than chance
    rare = (np.arange(240) % 10 == 0).astype(np.int64)
    assert guess_sources(np.zeros((240, 3)), rare, people) == pytest.approx(0.5, abs=0.01)
    assert np.isnan(guess_sources(noise, np.zeros(240, np.int64), people))
    assert np.isnan(guess_sources(noise[:8], source[:8], people[:8]))
    # a person known by heart is of no use: features are the person's own, sources are drawn for each person
    own = np.array([rng.normal(size=50) for _ in range(120)])[np.arange(240) // 2] * 5
    by_person = rng.integers(0, 2, 120)[np.arange(240) // 2]
    assert guess_sources(own, by_person, people) == pytest.approx(0.5, abs=0.17)


def test_only_pictures_of_one_experience_are_asked() -> None:
    rows = pd.DataFrame(
        {
            "stream": ["train", "train", "test", "test", "unseen", "train", "train"],
            "experience": ["a", "b", "a", "b", "u", "a", "a"],
            "person": ["p0", "p1", "p2", "p2", "p3", "p4", "p5"],
        }
    )
    slot = np.array([0, 1, 2, 2, 3, 4, 5])  # the two test rows show one picture
    real = np.array([True, True, True, True, True, False, True])
    assert asked_faces(rows, slot, real).tolist() == [0, 1, 6]
    many = pd.DataFrame({"stream": "train", "experience": "a", "person": [f"p{i // 4}" for i in range(400)]})
    some = asked_faces(many, np.arange(400), np.ones(400, bool), limit=100)
    assert 90 <= len(some) <= 104
    assert all(len(part) == 4 for _, part in many.iloc[some].groupby("person"))  # whole people


def _config(tiny_faces: Path, **scenario: Any) -> Any:
    trunk = {"backbone": "test_efficientnet", "weights": "none", "frozen_stages": 2}
    settings = {"data": str(tiny_faces), "order": ["alpha", "beta"], "unseen": ["gamma"], "size": 48, **scenario}
    train = {"steps": 1, "batch": 8, "threads": 1, "device": "cpu"}
    method = {"learner": {"name": "plain", "trunk": trunk}, "strategy": {"name": "naive"}}
    return config_from({"name": "x", "scenario": settings, "train": train, **method})


def test_a_scenario_of_cameras_is_told_and_a_shared_one_has_nothing(tiny_faces: Path, tmp_path: Path) -> None:
    def ignored(skipped: pd.DataFrame) -> None:
        return None

    cameras = {"alpha": "webcam", "beta": "camera1"}
    found = source_probe(assemble(_config(tiny_faces, profiles=cameras), tmp_path, ignored))
    assert found["chance"] == 0.5
    assert found["accuracy"] > 0.85
    assert found["faces"] == 2 * 24
    assert found["label_by_source"] == {"alpha": 0.5, "beta": 0.5, "gamma": 0.5, "all": 0.5}
    assert "of real faces (chance 50 %)" in source_sentence(found)
    shared = source_probe(assemble(_config(tiny_faces), tmp_path, ignored))
    assert (shared["accuracy"], shared["faces"]) == (None, 0)
    assert "no source to tell" in source_sentence(shared)


def test_it_stands_in_summary_and_report(
    small_config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ffd_continual.run import start

    start(config_from(small_config), tmp_path / "run")
    told = {"accuracy": 0.75, "chance": 0.5, "faces": 9, "label_by_source": {"alpha": 0.8, "all": 0.5}}
    monkeypatch.setattr("ffd_continual.finish.border_probe", lambda manifest, threads: {"alpha": 0.5})
    monkeypatch.setattr("ffd_continual.finish.source_probe", lambda parts: told)
    small_config["evaluation"]["controls"] = True
    config = config_from(small_config)
    parts = assemble(config, tmp_path / ".cache", lambda skipped: None)
    finish_run(RunFolder(tmp_path / "run"), config, parts, 1.0, 1.0)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["source_probe"] == told
    assert summary["labels"] == "given"
    words = source_words(read_run(tmp_path / "run"))
    assert "75 % of real faces (chance 50 %)" in words
    assert "not forged equally often (alpha 0.80)" in words
    assert words in (tmp_path / "run" / "report" / "report.html").read_text()
