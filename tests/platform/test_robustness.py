"""A finished run on perturbed test faces: its own scores where nothing is changed, figures against loops, bad input."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from ffd_continual.cli import main
from ffd_continual.config import config_from, to_mapping
from ffd_continual.measuring.metrics import acc, auc
from ffd_continual.reporting.robust_page import robustness_section
from ffd_continual.retesting.reopen import Reopened, reopen, some_people
from ffd_continual.retesting.robustness import LEARNT, LOST, NEVER, curve, judge_conditions, robustness_table
from ffd_continual.run import start
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.perturb import PERTURBATIONS, RobustnessConfig


@pytest.fixture(scope="module")
def run(finished: Path) -> Reopened:
    torch.set_num_threads(1)
    return reopen(finished)


def test_a_reopened_run_judges_as_it_did(finished: Path, run: Reopened) -> None:
    stored = pd.read_parquet(finished / "predictions.parquet").query("after == 1").reset_index(drop=True)
    streams = run.streams()
    assert streams[["stream", "on", "row", "label"]].equals(stored[["stream", "on", "row", "label"]])
    assert np.array_equal(run.scores(streams["at"].to_numpy()), stored["z"].to_numpy())
    assert run.threshold == stored["threshold"].iloc[0]


def test_a_change_reaches_the_detector_with_the_manifest_row(run: Reopened) -> None:
    rows = run.streams()["at"].to_numpy()[:6]
    seen = []

    def change(face: Any, row: int) -> Any:
        seen.append(row)
        return np.zeros_like(face)

    black = run.scores(rows, change)
    assert np.ptp(black) < 1e-5
    assert sorted(seen) == sorted(set(run.parts.sources.table.rows["manifest_row"].to_numpy()[rows]))
    assert not np.allclose(black, run.scores(rows))


def test_scores_of_conditions_and_going_on(run: Reopened, tmp_path: Path) -> None:
    config = RobustnessConfig(("blur", "noise"), people=4)
    table = judge_conditions(run, config, tmp_path)
    assert table.groupby(["perturbation", "severity"], sort=False).ngroups == 11
    assert table["identity"].nunique() == 4
    part = table[(table["perturbation"] == "noise") & (table["severity"] == 3)].reset_index(drop=True)
    made = PERTURBATIONS["noise"]
    seed = run.config.scenario.seed
    by_hand = run.scores(part["at"].to_numpy(), lambda face, row: made.apply(face, made.settings[2], seed, row))
    assert np.array_equal(part["z"].to_numpy(), by_hand)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.parquet")}
    assert len(files) == 11
    again = judge_conditions(run, config, tmp_path)
    assert again.equals(table)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.parquet")} == files
    other = RobustnessConfig(("blur",), {"blur": (1.0, 2.0, 3.0, 4.0, 5.0)}, people=4)
    changed = judge_conditions(run, other, tmp_path)
    assert len(list(tmp_path.glob("*.parquet"))) == 16  # the clean faces were known
    assert changed["setting"].max() == 5.0


def test_people_are_drawn_whole(run: Reopened) -> None:
    streams = run.streams()
    some = some_people(streams, 3, 0)
    assert some["identity"].nunique() == 3
    assert len(some) == int(streams["identity"].isin(some["identity"].unique()).sum())
    assert some.equals(some_people(streams, 3, 0))
    assert some_people(streams, 0, 0) is streams
    assert len({tuple(some_people(streams, 3, seed)["identity"].unique()) for seed in range(6)}) > 1


def made_scores(persons: int = 9) -> pd.DataFrame:
    """Clean and two severities of one perturbation, on two learnt streams and an unseen one."""
    rng = np.random.default_rng(0)
    base = [
        {
            "stream": s,
            "on": on,
            "label": label,
            "identity": f"p{p}",
            "video": "",
            "path": f"{on}{label}{p}{i}",
            "after": 1,
        }
        for s, on in (("test", "a"), ("test", "b"), ("unseen", "u"))
        for p in range(persons)
        for label in (0, 1)
        for i in range(2)
    ]
    parts = []
    for name, severity, distance in (("clean", 0, 2.0), ("blur", 1, 1.2), ("blur", 2, 0.4)):
        table = pd.DataFrame(base).assign(perturbation=name, severity=severity, setting=float(severity) or np.nan)
        table["z"] = rng.normal(table["label"] * distance, 1)
        parts.append(table.assign(threshold=0.8, slot=np.arange(len(table))))
    return pd.concat(parts, ignore_index=True)


def test_figures_and_paired_intervals_equal_a_loop() -> None:
    scores = made_scores()
    table = robustness_table(scores, samples=40, seed=3)
    part = scores[(scores["severity"] == 2) & (scores["on"] == "b")]
    at = table[(table["severity"] == 2) & (table["on"] == "b")].set_index("metric")
    assert at.loc["auc", "value"] == pytest.approx(auc(part["label"], part["z"]))
    assert at.loc["acc", "value"] == pytest.approx(acc(part["label"], part["z"], 0.8))

    people = np.unique(scores["identity"])
    counts = np.random.default_rng(3).multinomial(len(people), np.full(len(people), 1 / len(people)), size=40)
    lost = []
    for drawn in counts:
        means = []
        for severity in (0, 2):
            per_stream = []
            for on in ("a", "b"):
                rows = scores[(scores["severity"] == severity) & (scores["on"] == on)]
                picked = pd.concat(
                    [rows[rows["identity"] == p] for p, n in zip(people, drawn, strict=True) for _ in range(n)]
                )
                per_stream.append(auc(picked["label"], picked["z"]))
            means.append(np.mean(per_stream))
        lost.append(means[0] - means[1])
    row = curve(table, "blur", LEARNT, LOST).iloc[-1]
    assert row["low"] == pytest.approx(np.percentile(lost, 2.5))
    assert row["high"] == pytest.approx(np.percentile(lost, 97.5))
    points = curve(table, "blur", LEARNT)
    assert points["severity"].tolist() == [0, 1, 2]
    assert row["value"] == pytest.approx(points["value"].iloc[0] - points["value"].iloc[2])
    assert np.isfinite(curve(table, "blur", NEVER)["value"]).all()
    without = robustness_table(scores, self_made=["a"], samples=0)
    b = without[(without["on"] == "b") & (without["metric"] == "auc")]["value"].to_numpy()
    assert without[(without["on"] == LEARNT) & (without["metric"] == "auc")]["value"].to_numpy() == pytest.approx(b)


def test_videos_have_a_level_of_their_own() -> None:
    scores = made_scores()
    scores["video"] = scores["identity"] + scores["on"]
    table = robustness_table(scores, samples=5)
    assert set(table["level"]) == {"frame", "video"}
    framewise, whole = (curve(table, "blur", "a", level=level)["value"].to_numpy() for level in ("frame", "video"))
    assert not np.allclose(framewise, whole)


def test_without_unseen_forgeries_the_page_speaks_of_none() -> None:
    table = robustness_table(made_scores(), samples=5)
    assert "never learnt" in robustness_section({"run": table})
    learnt_only = table[(table["stream"] != "unseen") & (table["on"] != NEVER)]
    assert "never learnt" not in robustness_section({"run": learnt_only})


def test_command_on_one_run_then_on_two(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    out = tmp_path / "out"
    asked = ["--perturb", "jpeg,cutout", "--people", "4", "--samples", "20"]
    assert main(["robust", str(finished), *asked, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert max(len(line) for line in said.splitlines() if not line.startswith("page:")) <= 80
    table = pd.read_parquet(out / "robustness.parquet")
    assert set(table["perturbation"]) == {"clean", "jpeg", "cutout"}
    assert f"{curve(table, 'jpeg', LEARNT)['value'].iloc[0]:.3f}" in said
    assert {path.name for path in out.glob("*.png")} == {
        "robustness.png", "robustness_accuracy.png", "robustness_jpeg.png", "robustness_cutout.png",
    }  # fmt: skip
    page = (out / "robustness.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 2 + 2 + 2 * 3
    assert "://" not in page
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()} == before
    other = tmp_path / "other"
    shutil.copytree(finished, other)
    config = yaml.safe_load((other / "config.yaml").read_text())
    (other / "config.yaml").write_text(yaml.safe_dump(config | {"name": "second"}))
    asked[1] = "cutout"
    assert main(["robust", str(finished), str(other), *asked, "--out", str(tmp_path / "two")]) == 0
    assert capsys.readouterr().out.count("mean, learnt") == 2
    assert set(pd.read_csv(tmp_path / "two" / "robustness.csv")["run"]) == {"tiny", "second"}


def test_it_stands_in_the_report_of_a_run(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    assert main(["robust", str(copy), "--perturb", "blur", "--samples", "5"]) == 0
    assert "shows it, too" in capsys.readouterr().out
    assert main(["report", str(copy)]) == 0
    assert 'id="robustness"' in (copy / "report" / "report.html").read_text(encoding="utf-8")
    (copy / "robustness" / "robustness.parquet").write_bytes(b"PAR1")
    assert main(["report", str(copy)]) == 2
    assert "damaged" in capsys.readouterr().err


def test_a_configuration_measures_it_in_the_run(small_config: dict[str, Any], tmp_path: Path) -> None:
    small_config["evaluation"]["robustness"] = {
        "perturb": ["h264"],
        "settings": {"h264": [20, 25, 30, 35, 40]},
        "people": 3,
    }
    config = config_from(small_config)
    assert config_from(yaml.safe_load(yaml.safe_dump(to_mapping(config)))) == config
    start(config, tmp_path / "run")
    table = pd.read_parquet(tmp_path / "run" / "robustness" / "robustness.parquet")
    assert curve(table, "h264", "alpha")["setting"].tolist()[1:] == [20, 25, 30, 35, 40]
    assert 'id="robustness"' in (tmp_path / "run" / "report" / "report.html").read_text(encoding="utf-8")


def test_bad_input_is_named(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["robust", str(finished), "--perturb", "jpg", "--out", str(tmp_path)]) == 2
    assert "Did you mean 'jpeg'" in capsys.readouterr().err
    assert main(["robust", str(tmp_path / "none")]) == 2
    assert "neither a run" in capsys.readouterr().err
    assert main(["robust", str(finished), "--samples", "-1"]) == 2
    shutil.copytree(finished, tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "checkpoints" / "after_001")
    with pytest.raises(FFDError, match="not finished"):
        reopen(tmp_path / "cut")
    shutil.copytree(finished, tmp_path / "moved")
    table = pd.read_parquet(tmp_path / "moved" / "predictions" / "after_002.parquet")
    table.head(20).to_parquet(tmp_path / "moved" / "predictions" / "after_002.parquet")
    with pytest.raises(FFDError, match="data have changed"):
        reopen(tmp_path / "moved")
