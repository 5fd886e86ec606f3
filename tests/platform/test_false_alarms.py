"""False alarms on real faces: rates and intervals against loops, thresholds from validation, groups, the command."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import binomtest

from ffd_continual.cli import main
from ffd_continual.config import config_from
from ffd_continual.measuring.metrics import draw_counts
from ffd_continual.reporting.alarm_page import alarm_section, terminal
from ffd_continual.retesting.false_alarms import (
    ALL,
    OWN,
    UNTOUCHED,
    alarm_table,
    drawn_shares,
    groups_of,
    judge_edits,
    real_faces,
    share_with_interval,
    thresholds,
)
from ffd_continual.retesting.reopen import Reopened, reopen
from ffd_continual.run import start
from ffd_continual.scenarios.benign import EDITS
from ffd_continual.scenarios.errors import FFDError


@pytest.fixture(scope="module")
def run(finished: Path) -> Reopened:
    torch.set_num_threads(1)
    return reopen(finished)


def made(persons: int = 30, seed: int = 0) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Faces of persons who have 1 to 4 each; some persons always look suspicious; one edit raises the scores."""
    rng = np.random.default_rng(seed)
    person = np.repeat(np.arange(persons), rng.integers(1, 5, persons))
    habit = rng.normal(0, 1, persons)[person]
    z = habit + rng.normal(0, 0.5, len(person))
    faces = pd.DataFrame({"identity": [f"p{p}" for p in person], "path": [f"{i}.png" for i in range(len(person))]})
    faces["sex"] = ["fm"[p % 2] for p in person]
    return faces, {UNTOUCHED: z, "warm": z + 0.6, "sepia": z - 0.1}


def test_rates_rises_and_intervals_equal_a_loop_over_drawn_persons() -> None:
    faces, scores = made()
    table = alarm_table(faces, scores, {OWN: 0.5}, {"warm": "filter"}, {}, samples=60, seed=4)
    row = table.set_index("edit").loc["warm"]
    alarms = {name: z >= 0.5 for name, z in scores.items()}
    assert row["fpr"] == pytest.approx(alarms["warm"].mean())
    assert row["rise"] == pytest.approx(alarms["warm"].mean() - alarms[UNTOUCHED].mean())
    assert (row["kind"], row["faces"], row["persons"], row["small"]) == ("filter", len(faces), 30, False)
    people = np.unique("identity:" + faces["identity"].to_numpy(str))
    counts = np.random.default_rng(4).multinomial(30, np.full(30, 1 / 30), size=60)
    rates, rises = [], []
    for drawn in counts:
        picked = np.concatenate(
            [
                np.flatnonzero("identity:" + faces["identity"] == p)
                for p, n in zip(people, drawn, strict=True)
                for _ in range(n)
            ]
        )
        rates.append(alarms["warm"][picked].mean())
        rises.append(alarms["warm"][picked].mean() - alarms[UNTOUCHED][picked].mean())
    assert row["low"] == pytest.approx(np.percentile(rates, 2.5))
    assert row["rise_high"] == pytest.approx(np.percentile(rises, 97.5))
    mean = table.set_index("edit").loc[ALL]
    assert mean["fpr"] == pytest.approx((alarms["warm"].mean() + alarms["sepia"].mean()) / 2)


def test_rare_alarms_have_the_exact_interval() -> None:
    person = np.arange(50)
    counts = draw_counts(50, 200, np.random.default_rng(0))
    for hits in (0, 1, 4, 46, 49, 50):
        alarms = (np.arange(50) < hits).astype(float)
        found = share_with_interval(alarms, person, counts)
        exact = binomtest(hits, 50).proportion_ci(0.95, "exact")
        assert (found.low, found.high) == pytest.approx((exact.low, exact.high), abs=1e-9)
        assert found.value == hits / 50
    common = share_with_interval((np.arange(50) < 20).astype(float), person, counts)
    assert (common.low, common.high) == tuple(
        np.percentile(drawn_shares((np.arange(50) < 20).astype(float), person, counts), [2.5, 97.5])
    )
    assert np.isnan(share_with_interval(np.zeros(5), np.zeros(5, np.int64), np.zeros((0, 1))).low)


def test_groups_are_counted_apart_and_small_ones_are_named() -> None:
    faces, scores = made()
    faces.loc[faces["identity"].isin(["p0", "p1", "p2"]), "sex"] = "x"
    table = alarm_table(faces, scores, {OWN: 0.5}, {}, {"sex": faces["sex"].to_numpy(str)}, samples=20)
    part = table[(table["by"] == "sex") & (table["edit"] == UNTOUCHED)].set_index("group")
    for group in "fmx":
        member = (faces["sex"] == group).to_numpy()
        assert part.loc[group, "fpr"] == pytest.approx((scores[UNTOUCHED][member] >= 0.5).mean())
        assert part.loc[group, "persons"] == faces.loc[member, "identity"].nunique()
    assert part["small"].tolist() == [True, True, True]
    said = terminal(table)
    assert "sex: x*" in said
    assert "too few to conclude" in said
    assert max(map(len, said.splitlines())) <= 80
    assert "few" in alarm_section(table)


def test_numbers_are_cut_into_quarters_and_words_are_not() -> None:
    faces = pd.DataFrame({"age": [str(20 + i) for i in range(40)], "sex": ["f", "m"] * 20, "path": "x", "identity": ""})
    faces.loc[3, "age"] = ""
    found = groups_of(faces, ())
    assert set(found) == {"age", "sex"}
    assert found["age"][3] == ""
    counts = pd.Series(found["age"][found["age"] != ""]).value_counts()
    assert len(counts) == 4
    assert counts.min() >= 9
    lowest = found["age"][0]
    assert lowest.startswith("20 to <")
    assert found["sex"].tolist() == ["f", "m"] * 20
    few = groups_of(faces.assign(age=["1", "2"] * 20), ("age",))
    assert set(few["age"]) == {"1", "2"}
    with pytest.raises(FFDError, match=r"no such column.*age, sex"):
        groups_of(faces, ("skin",))


def test_thresholds_come_from_validation_faces_alone(run: Reopened, tmp_path: Path) -> None:
    found = thresholds(run, tmp_path)
    assert found["frame"][OWN] == run.threshold
    scenario, table = run.parts.scenario, run.parts.sources.table
    rows = np.unique(np.concatenate([scenario.index("valid", name) for name in scenario.experiences]))
    rows = rows[table.rows["label"].to_numpy()[rows] == 0]
    z = {int(table.slot[row]): score for row, score in zip(rows, run.scores(rows), strict=True)}
    values = np.array(list(z.values()))
    assert len(values) < 10  # too few to tell 1 % or 10 %
    assert found == {"frame": {OWN: run.threshold}, "video": {OWN: run.threshold}}


def test_faces_are_real_counted_once_and_edited(run: Reopened, tmp_path: Path) -> None:
    faces = real_faces(run)
    assert (faces["label"] == 0).all()
    assert not faces["slot"].duplicated().any()
    assert set(faces["identity"]) == set(run.streams().query("label == 0")["identity"])
    _, scores = judge_edits(run, [EDITS["sepia"]], tmp_path)
    by_hand = run.scores(faces["at"].to_numpy(), lambda face, _: EDITS["sepia"].apply(face))
    assert np.array_equal(scores["sepia"], by_hand)
    assert np.array_equal(scores[UNTOUCHED], run.scores(faces["at"].to_numpy()))
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.parquet")}
    judge_edits(run, [EDITS["sepia"]], tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.parquet")} == times


def test_command_and_report(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    assert main(["benign", str(copy), "--samples", "30"]) == 0
    said = capsys.readouterr().out
    assert max(len(line) for line in said.splitlines() if not line.startswith(("page:", "`ffd report"))) <= 80
    assert "fewer than 100 real validation faces" in said
    table = pd.read_csv(copy / "benign" / "benign.csv")
    assert set(table["edit"]) == {UNTOUCHED, ALL, *EDITS}
    assert set(table["by"].dropna()) == {"sex", "age"}
    page = (copy / "benign" / "benign.html").read_text(encoding="utf-8")
    assert page.count("<img") == 1 + len(EDITS)
    assert "://" not in page
    assert main(["report", str(copy)]) == 0
    assert "False alarms on harmless edits" in (copy / "report" / "report.html").read_text(encoding="utf-8")
    (copy / "benign" / "benign.parquet").write_bytes(b"")
    assert main(["report", str(copy)]) == 2
    assert "damaged" in capsys.readouterr().err


def test_bad_input_is_named(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benign", str(finished), "--edits", "sepa", "--out", str(tmp_path)]) == 2
    assert "Did you mean 'sepia'" in capsys.readouterr().err
    assert main(["benign", str(finished), "--by", "skin", "--out", str(tmp_path)]) == 2
    assert "no such column" in capsys.readouterr().err
    assert main(["benign", str(tmp_path)]) == 2
    assert "neither a run" in capsys.readouterr().err


def test_a_configuration_measures_it_in_the_run(small_config: dict[str, Any], tmp_path: Path) -> None:
    small_config["evaluation"]["benign"] = True
    start(config_from(small_config), tmp_path / "run")
    assert set(pd.read_parquet(tmp_path / "run" / "benign" / "benign.parquet")["edit"]) == {UNTOUCHED, ALL, *EDITS}
    assert 'id="benign"' in (tmp_path / "run" / "report" / "report.html").read_text(encoding="utf-8")
