"""Comparison of finished runs: groups, intervals, paired differences worked by hand, refusals, what is written."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from ffd_continual.cli import main
from ffd_continual.comparing.finished import estimate, methods_of, read_runs
from ffd_continual.comparing.paired import check_same_faces, compare
from ffd_continual.comparing.tables import csv_table
from ffd_continual.scenarios.errors import FFDError

ORDER = ("a", "b")
PERSONS = ("p", "q")
BOTH_FOUND = {"p": 1.0, "q": 1.0}  # each forged face above each real one (0): AUC 1
ONE_FOUND = {"p": 1.0, "q": -1.0}  # one of two above: AUC 0.5; a draw of p alone gives 1, of q alone 0
NONE_FOUND = {"p": -1.0, "q": -1.0}


def faces(scores: dict[str, dict[str, float]], persons: Sequence[str]) -> pd.DataFrame:
    """A real face (z = 0) and a forged one of each person in each stream, after each of two experiences."""
    rows = []
    for after in (-1, 0, 1):
        for on, stream in (("a", "test"), ("b", "test"), ("u", "unseen")):
            for person in persons:
                for label, z in ((0, 0.0), (1, scores[on][person])):
                    path = f"{on if label else 'real'}/{person}.png"
                    row = {"after": after, "on": on, "stream": stream, "label": label, "z": z}
                    rows.append({**row, "path": path, "identity": person, "video": ""})
    return pd.DataFrame(rows)


def made_run(
    path: Path,
    aa: float = 0.8,
    seed: int = 0,
    name: str = "made",
    found: dict[str, float] | None = None,
    persons: Sequence[str] = PERSONS,
    learner: str = "plain",
    self_made: Sequence[str] = (),
    **scenario: Any,
) -> Path:
    """A finished run with figures that no training could change; `found` = scores of forged faces on stream a."""
    path.mkdir(parents=True)
    everywhere = dict.fromkeys(persons, 1.0)
    faces({"a": found or everywhere, "b": everywhere, "u": everywhere}, persons).to_parquet(
        path / "predictions.parquet"
    )
    cells = [(i, on, "test", "auc", "frame", aa - 0.1 * i, math.nan, math.nan) for i in (-1, 0, 1) for on in ORDER]
    columns = ["after", "on", "stream", "metric", "level", "value", "low", "high"]
    pd.DataFrame(cells, columns=columns).to_parquet(path / "matrix.parquet")
    figures = {"aa": aa, "diagonal": 0.9, "forgetting_signed": 0.1, "forgetting_max": 0.1, "bwt": -0.1, "fwt": None}
    curves = {
        "aa_curve": {"after": [0, 1], "value": [0.95, aa]},
        "unseen_curve": {"after": [-1, 0, 1], "value": [0.5] * 3},
    }
    auc = {**figures, "unseen": 0.6, **curves, "ci": {"aa": [aa - 0.02, aa + 0.01]}}
    summary: dict[str, Any] = {"order": list(ORDER), "after": 1, "self_made": list(self_made), "unseen_streams": ["u"]}
    summary |= {"auc": auc, "acc": {**figures, "unseen": 0.55, "aa": aa - 0.1}, "seconds": {"train": 6.0}}
    summary |= {"bytes": {"stored": 553000}, "bootstrap": {"unit": "persons", "groups": 2, "samples": 1000}}
    (path / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    (path / "costs.json").write_text(json.dumps({"parameters": 2400000.0, "learner_bytes": 1000.0}), encoding="utf-8")
    config = {"name": name, "learner": {"name": learner}, "scenario": scenario, "train": {"steps": 30}, "seed": seed}
    (path / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def methods_in(*paths: Path) -> list[Any]:
    runs, _ = read_runs(paths)
    check_same_faces(runs)
    return methods_of(runs)


def test_mean_and_t_interval_by_hand() -> None:
    # 0.7, 0.8, 0.9: s = 0.1, s / sqrt(3) = 0.0577350, t(0.975, 2) = 4.3026527, half = 0.2484138
    assert estimate([0.7, 0.8, 0.9]) == pytest.approx((0.8, 0.8 - 0.2484138, 0.8 + 0.2484138), abs=1e-6)
    # 0.8, 0.9: s / sqrt(2) = 0.05, t(0.975, 1) = 12.7062047
    assert estimate([0.8, 0.9]) == pytest.approx((0.85, 0.85 - 0.6353102, 0.85 + 0.6353102), abs=1e-6)
    assert estimate([0.8], [0.78, 0.81]) == (0.8, 0.78, 0.81)
    assert all(math.isnan(v) for v in estimate([0.8, None, 0.9]))


def test_cells_of_a_sweep_become_methods_in_the_grids_order(tmp_path: Path) -> None:
    for seed, aa in ((0, 0.7), (1, 0.8), (2, 0.9)):
        made_run(tmp_path / f"naive-s{seed}", aa, seed)
    made_run(tmp_path / "iin-20-s0", 0.85, learner="iin")
    (tmp_path / "rows.csv").write_text("method,seed\nnaive,0\niin-20,0\n", encoding="utf-8")
    naive, iin = methods_in(tmp_path)
    assert (naive.name, naive.seeds, naive.interval) == ("naive", [0, 1, 2], "t over seeds")
    assert naive.figures[("auc", "aa")] == pytest.approx((0.8, 0.5515862, 1.0484138), abs=1e-6)
    assert naive.figures[("acc", "aa")].value == pytest.approx(0.7)
    assert naive.curves.types["b"] == pytest.approx({-1: 0.9, 0: 0.8, 1: 0.7})
    assert naive.curves.seen == pytest.approx({0: 0.95, 1: 0.8})
    assert naive.costs["step_ms"] == pytest.approx(100.0)  # 6 s over 2 x 30 steps
    assert (iin.name, iin.interval) == ("iin-20", "bootstrap over persons")
    assert iin.figures[("auc", "aa")] == pytest.approx((0.85, 0.83, 0.86))
    assert math.isnan(iin.figures[("auc", "fwt")].value)


def test_names_of_single_runs(tmp_path: Path) -> None:
    one, two = made_run(tmp_path / "demo", name="demo"), made_run(tmp_path / "demo-2", seed=1, name="demo")
    other = made_run(tmp_path / "demo-3", seed=2, name="demo", learner="iin")
    assert [m.name for m in methods_in(one, two)] == ["demo"]  # the same settings, another seed
    assert [m.name for m in methods_in(one, two, other)] == ["demo", "demo-2", "demo-3"]
    again = made_run(tmp_path / "demo-4", name="demo")
    assert [m.name for m in methods_in(one, again)] == ["demo", "demo-4"]  # the same seed twice
    sweeps = [made_run(tmp_path / sweep / f"iin-s{seed}", seed=seed) for sweep in ("x", "y") for seed in (0, 1)]
    assert [(m.name, m.seeds) for m in methods_in(*sweeps)] == [("x/iin", [0, 1]), ("y/iin", [0, 1])]


def test_paired_difference_by_hand(tmp_path: Path) -> None:
    one = made_run(tmp_path / "all-s0", found=BOTH_FOUND)
    two = made_run(tmp_path / "half-s0", found=ONE_FOUND)
    found = compare(methods_in(one, two))
    # Stream a: draws pp, pq or qp, qq give half 1, 0.5, 0 with chances 1/4, 1/2, 1/4, all always 1; stream b is 1 for
    # both, so the difference of the mean of a and b is 0, -0.25, -0.5: the 2.5 % point is -0.5, the 97.5 % point 0.
    gap = found.differences[("half", "aa")]
    assert gap == pytest.approx((-0.25, -0.5, 0.0, 1))
    assert not gap.apart
    assert found.differences[("half", "unseen")][:3] == (0.0, 0.0, 0.0)
    assert (found.baseline, found.unit, found.groups) == ("all", "persons", 2)
    turned = compare(methods_in(one, two), "half").differences[("all", "aa")]
    assert turned == pytest.approx((0.25, 0.0, 0.5, 1))


def test_the_same_persons_are_drawn_for_both(tmp_path: Path) -> None:
    one = made_run(tmp_path / "one-s0", found=ONE_FOUND)
    two = made_run(tmp_path / "two-s0", found={person: 3.0 * z for person, z in ONE_FOUND.items()})
    gap = compare(methods_in(one, two)).differences[("two", "aa")]
    assert gap[:3] == (
        0.0,
        0.0,
        0.0,
    )  # each alone has [0.5, 1]; drawn apart the difference would reach from -0.5 to 0.5


def test_seeds_are_averaged_and_an_interval_may_exclude_zero(tmp_path: Path) -> None:
    for seed in (0, 1):
        made_run(tmp_path / f"all-s{seed}", seed=seed, found=BOTH_FOUND)
    made_run(tmp_path / "mixed-s0", seed=0, found=NONE_FOUND)
    made_run(tmp_path / "mixed-s1", seed=1, found=BOTH_FOUND)
    gap = compare(methods_in(tmp_path)).differences[("mixed", "aa")]
    assert gap == pytest.approx((-0.25, -0.25, -0.25, 2))  # stream a: mean of 0 and 1, in every draw
    assert gap.apart


def test_what_one_learner_makes_itself_counts_for_none(tmp_path: Path) -> None:
    one = made_run(tmp_path / "one-s0", found=ONE_FOUND)
    two = made_run(tmp_path / "two-s0", found=BOTH_FOUND, self_made=["b"])
    methods = methods_in(one, two)
    assert methods[0].figures[("auc", "aa")].value == pytest.approx(0.5)  # of its predictions on a; with b it is 0.8
    assert compare(methods).differences[("two", "aa")].value == pytest.approx(0.5)


def test_other_test_faces_are_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, same = made_run(tmp_path / "one"), made_run(tmp_path / "same", seed=1)
    other = made_run(tmp_path / "strange", persons=("p", "r"))
    camera = made_run(tmp_path / "camera", profiles={"*": "mixed"})
    assert main(["compare", *map(str, (one, same, other, camera))]) == 2
    said = capsys.readouterr().err
    assert str(other) in said
    assert str(camera) in said
    assert str(same) not in said
    assert not (tmp_path / "comparison").exists()


def test_unfinished_runs_are_named_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_run(tmp_path / "one-s0")
    (made_run(tmp_path / "two-s0") / "summary.json").unlink()
    assert main(["compare", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    assert "two-s0" in captured.err
    assert "summary.json" in captured.err
    assert list(pd.read_csv(tmp_path / "comparison" / "comparison.csv")["method"]) == ["one"]
    assert "two-s0" in (tmp_path / "comparison" / "comparison.html").read_text(encoding="utf-8")
    (tmp_path / "one-s0" / "summary.json").unlink()
    with pytest.raises(FFDError, match="no finished run"):
        read_runs([tmp_path])


def test_what_is_written_and_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep, out = tmp_path / "sweep", tmp_path / "out"
    long = "a_method_with_a_name_that_is_far_too_long_"
    for i, method in enumerate((f"{long}1", f"{long}2", "x<b>&http://example.org".replace("/", "_"))):
        for seed in (0, 1):
            made_run(
                sweep / f"{method}-s{seed}", 0.7 + 0.05 * i + 0.01 * seed, seed, found=(ONE_FOUND, BOTH_FOUND)[i % 2]
            )
    assert main(["compare", str(sweep), "--out", str(out), "--baseline", f"{long}2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines if not line.startswith("comparison:")) <= 80
    assert any("0.705 [0.641,0.769]" in line for line in lines)  # 0.705 -+ 12.7062 * 0.005
    page = (out / "comparison.html").read_text(encoding="utf-8")
    assert not re.search(r"://|<script|(?:src|href)=\"(?!#|data:)|url\(|@import", page)
    assert "<b>&http" not in page
    assert page.count("<svg") == page.count("</svg>") == 4
    table = pd.read_csv(out / "comparison.csv").set_index("method")
    assert table.loc[f"{long}1", "auc_aa"] == pytest.approx(0.705)
    assert table.loc[f"{long}1", "difference_aa"] == pytest.approx(-0.25)
    assert pd.isna(table.loc[f"{long}2", "difference_aa"])
    markdown = (out / "comparison.md").read_text(encoding="utf-8")
    widths = {line.count("|") for line in markdown.splitlines() if line.startswith("|")}
    assert len(widths) == 2
    assert "0.705 [0.641, 0.769]" in markdown
    tex = (out / "comparison.tex").read_text(encoding="utf-8")
    assert r"a\_method" in tex
    assert tex.count(r"\begin{tabular}") == tex.count(r"\end{tabular}") == 2
    body = [line.replace(r"\&", "") for line in tex.split("\n\n")[0].splitlines() if line.endswith(r"\\")]
    assert len({line.count("&") for line in body}) == 1
    assert not re.search(r"(?<!\\)_", tex)


def test_one_run_alone_and_an_unknown_baseline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = made_run(tmp_path / "alone", name="alone")
    methods = methods_in(run)
    assert compare(methods).differences == {}
    assert "difference_aa" not in csv_table(methods, compare(methods)).columns
    assert main(["compare", str(run), "--baseline", "other"]) == 2
    assert "Known: alone" in capsys.readouterr().err
    assert main(["compare", str(tmp_path / "nothing")]) == 2
    assert "neither a run nor a folder of runs" in capsys.readouterr().err
