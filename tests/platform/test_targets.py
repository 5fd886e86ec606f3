"""results/targets.csv is well formed, and a claim is borne out by a rerun or it is not."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from ffd_continual import cli
from ffd_continual.comparing.targets import Checked, Target, check_target, chosen_targets, figure_of, read_targets
from ffd_continual.scenarios.errors import FFDError

FILE = Path(__file__).resolve().parents[2] / "results" / "targets.csv"
HEAD = "claim,config,overrides,seeds,metric,value,low,high,measured,machine"
ROW = {
    "claim": "it learns", "config": "demo", "overrides": "train.steps=3; scenario.order=[swap, warp]", "seeds": "0 2",
    "metric": "auc.aa", "value": "0.8", "low": "0.7", "high": "0.85", "measured": "2026-11-22", "machine": "a machine",
}  # fmt: skip


def _table(path: Path, *rows: dict[str, str]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, HEAD.split(","))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_a_row_says_how_to_run_it(tmp_path: Path) -> None:
    (target,) = read_targets(_table(tmp_path / "t.csv", ROW))
    assert target.overrides == ("train.steps=3", "scenario.order=[swap, warp]")
    assert target.seeds == (0, 2)
    config = target.run_config(2)
    assert (config.name, config.seed, config.train.steps) == ("demo", 2, 3)
    assert config.scenario.order == ("swap", "warp")
    studio = read_targets(_table(tmp_path / "t.csv", {**ROW, "config": "protocols/dfil --studio", "overrides": ""}))
    assert studio[0].run_config(1).scenario.data == "studio"
    assert studio[0].folder(1) == "protocols-dfil-studio-plain-s1"
    other = read_targets(_table(tmp_path / "t.csv", {**ROW, "metric": "acc.aa"}, {**ROW, "overrides": ""}))
    assert other[0].folder(0) == target.folder(0)  # one run serves all its figures
    assert other[1].folder(0) != target.folder(0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"value": "good"}, "line 2: could not convert string to float: 'good'"),
        ({"measured": "yesterday"}, "line 2.*yesterday"),
        ({"seeds": ""}, "line 2: seeds is empty"),
        ({"machine": " "}, "line 2: machine is empty"),
        ({"value": "0.9"}, r"0.9 does not lie in \[0.7, 0.85\]"),
    ],
)
def test_bad_rows_are_named(change: dict[str, str], words: str, tmp_path: Path) -> None:
    with pytest.raises(FFDError, match=words):
        read_targets(_table(tmp_path / "t.csv", {**ROW, **change}))


def test_bad_tables_are_named(tmp_path: Path) -> None:
    with pytest.raises(FFDError, match="does not exist"):
        read_targets(tmp_path / "none.csv")
    (tmp_path / "short.csv").write_text("claim,config\na,b\n")
    with pytest.raises(FFDError, match="must have the columns claim, config, overrides"):
        read_targets(tmp_path / "short.csv")
    with pytest.raises(FFDError, match="stands there twice with auc.aa"):
        read_targets(_table(tmp_path / "t.csv", ROW, ROW))
    with pytest.raises(FFDError, match="no number 'auc.best'"):
        figure_of({"auc": {"aa": 0.5}}, "auc.best")
    target = Target("a b", "demo", (), (0,), "auc.aa", 0.8, 0.7, 0.9, "2026-11-22", "m")
    with pytest.raises(FFDError, match="no claim holds 'z'. There are: a b"):
        chosen_targets([target], ["z"])
    assert chosen_targets([target], ["b"]) == [target]
    assert [Checked(target, v).holds for v in (0.69, 0.7, 0.9, 0.91)] == [False, True, True, False]


def test_a_claim_is_run_again(
    small_config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ffd_continual.finish.write_report", lambda folder, **_: folder)
    base = tmp_path / "base.yaml"
    base.write_text(yaml.safe_dump(small_config), encoding="utf-8")
    row = {**ROW, "config": str(base), "overrides": "train.steps=3", "low": "0", "value": "0.5", "high": "1"}
    wide = read_targets(_table(tmp_path / "t.csv", row))[0]
    found = check_target(wide, tmp_path / "out")
    values = [
        json.loads((tmp_path / "out" / wide.folder(seed) / "summary.json").read_text())["auc"]["aa"] for seed in (0, 2)
    ]
    assert found.value == pytest.approx(sum(values) / 2)
    assert found.holds

    narrow = {**row, "claim": "too good", "value": "1.5", "low": "1.4", "high": "1.6"}
    file = _table(tmp_path / "t.csv", row, narrow)
    arguments = ["targets", "--file", str(file), "--out", str(tmp_path / "out")]
    kept = (tmp_path / "out" / wide.folder(0) / "summary.json").stat().st_mtime_ns
    assert cli.main(arguments) == 1
    text = capsys.readouterr().out
    assert f"holds: it learns: auc.aa 0.500 [0.000, 1.000], now {found.value:.3f}" in text
    assert f"DOES NOT HOLD: too good: auc.aa 1.500 [1.400, 1.600], now {found.value:.3f}" in text
    assert (tmp_path / "out" / wide.folder(0) / "summary.json").stat().st_mtime_ns == kept  # finished: read, not rerun
    assert cli.main([*arguments, "learns"]) == 0
    assert cli.main([*arguments, "--list"]) == 0
    assert "--set train.steps=3, seed 0, 2" in capsys.readouterr().out

    base.write_text(yaml.safe_dump({**small_config, "views": {"flip": 0.0}}), encoding="utf-8")
    with pytest.raises(FFDError, match="other settings than the claim names now"):
        check_target(wide, tmp_path / "out")


def test_this_project_s_claims_can_be_run() -> None:
    targets = read_targets(FILE)
    assert targets
    for target in targets:
        for seed in target.seeds:
            assert target.run_config(seed).seed == seed


@pytest.mark.slow
def test_a_claim_of_this_project_holds(tmp_path: Path) -> None:
    target = chosen_targets(read_targets(FILE), ["small demo"])[0]
    found = check_target(target, tmp_path)
    assert found.holds, f"{target.claim}: {found.value} is not in [{target.low}, {target.high}]"
