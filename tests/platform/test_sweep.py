"""Sweeps: which cells a grid names, and that each runs once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from ffd_continual.cli import main
from ffd_continual.runs.folder import write_text
from ffd_continual.sweeping.grid import Grid
from ffd_continual.sweeping.rows import mean_table


def test_learners_times_strategies() -> None:
    grid = Grid(
        base="demo",
        methods={"iin-20": ("strategy.exemplars=20",)},
        learners={"plain": ("learner.name=plain",), "iin": ()},
        strategies={"naive": ("strategy.name=naive",), "replay": ("strategy.name=replay",)},
        seeds=(0,),
        seeds_of={"replay": (0, 1, 2), "iin+replay": (4,), "iin-20": (5,)},
    )
    cells = grid.cells()
    assert list(cells) == ["iin-20", "plain+naive", "plain+replay", "iin+naive", "iin+replay"]
    assert cells["plain+replay"] == ("learner.name=plain", "strategy.name=replay")
    assert grid.seeds_for("plain+naive") == (0,)
    assert grid.seeds_for("plain+replay") == (0, 1, 2)
    assert grid.seeds_for("iin+replay") == (4,)
    assert grid.seeds_for("iin-20") == (5,)


def test_a_sweep_runs_every_cell_once(
    small_config: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tmp_path / "base.yaml"
    base.write_text(yaml.safe_dump(small_config), encoding="utf-8")
    grid = {"base": str(base), "learners": {"plain": []}, "strategies": {"naive": [], "joint": ["strategy.name=joint"]}}
    file = tmp_path / "grid.yaml"
    file.write_text(
        yaml.safe_dump({**grid, "seeds": [3], "seeds_of": {"joint": [3, 4]}}, sort_keys=False), encoding="utf-8"
    )
    out = tmp_path / "out"
    assert main(["sweep", str(file), "--out", str(out)]) == 0
    rows = pd.read_csv(out / "rows.csv")
    assert list(zip(rows["method"], rows["seed"], strict=True)) == [
        ("plain+naive", 3),
        ("plain+joint", 3),
        ("plain+joint", 4),
    ]
    assert rows["auc_aa"].between(0, 1).all()
    assert (rows["parameters"] > 1000).all()
    kept = (out / "plain+naive-s3" / "summary.json").stat().st_mtime_ns
    capsys.readouterr()
    table = tmp_path / "results" / "mine.csv"  # what was published before stays, but for rows that were run again
    write_text(table, "method,seed,auc_aa\nplain+joint,4,0.1\nplain+joint,5,0.123456789012345678\nelsewhere,0,0.5\n")
    assert main(["sweep", str(file), "--out", str(out), "--publish", str(table)]) == 0
    assert "==" not in capsys.readouterr().out  # no cell runs again
    told = pd.read_csv(table, dtype=str, keep_default_na=False)
    assert [f"{m} {s}" for m, s in zip(told["method"], told["seed"], strict=True)] == [
        "plain+naive 3", "plain+joint 3", "plain+joint 4", "plain+joint 5", "elsewhere 0",
    ]  # fmt: skip
    assert told["auc_aa"].tolist() == [*map(str, rows["auc_aa"]), "0.123456789012345678", "0.5"]
    assert set(told["processor"]) - {""} == set(rows["processor"])
    lines = table.with_suffix(".md").read_text(encoding="utf-8").splitlines()
    assert [line.split(" | ")[:2] for line in lines[2:5]] == [["| plain+naive", "1"], ["| plain+joint", "3"],
                                                             ["| elsewhere", "1"]]  # fmt: skip
    assert lines[-1].endswith(f"Processors: {rows['processor'].iloc[0]}; not recorded for 2 of 5 rows.")
    write_text(tmp_path / "other.csv", "a,b\n1,2\n")
    assert main(["sweep", str(file), "--out", str(out), "--publish", str(tmp_path / "other.csv")]) == 2
    assert "is no table of rows" in capsys.readouterr().err
    assert (out / "plain+naive-s3" / "summary.json").stat().st_mtime_ns == kept
    # a cell that another version of this program ran is named, and stops no other
    config = out / "plain+naive-s3" / "config.yaml"
    config.write_text(config.read_text(encoding="utf-8").replace("  clip:", "  clipped:"), encoding="utf-8")
    assert main(["sweep", str(file), "--out", str(out)]) == 0
    assert "plain+naive-s3 is left out of rows.csv" in capsys.readouterr().out.replace("\n", " ")
    assert list(pd.read_csv(out / "rows.csv")["method"]) == ["plain+joint", "plain+joint"]


def test_a_grid_without_cells_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "grid.yaml"
    file.write_text("base: demo\n", encoding="utf-8")
    assert main(["sweep", str(file), "--out", str(tmp_path / "out")]) == 2
    assert "names no cell" in capsys.readouterr().err


def test_the_printed_table_gives_the_interval_that_a_comparison_gives() -> None:
    figures = {f"auc_{name}": [0.7, 0.8, 0.9, 0.6] for name in ("aa", "diagonal", "forgetting_signed", "unseen")}
    lines = mean_table(pd.DataFrame({"method": ["a", "a", "a", "alone"], **figures})).splitlines()
    assert lines[1].split() == ["a", "3", *["0.800", "±0.248"] * 4]
    assert lines[2].split() == ["alone", "1", *["0.600"] * 4]
    assert all(len(line) <= 80 for line in lines)
