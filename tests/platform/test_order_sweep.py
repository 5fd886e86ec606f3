"""Orders as an axis of a sweep: the same faces learnt in two orders, judged on the same tests, compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from ffd_continual.cli import main
from ffd_continual.scenarios.streams import learning_order


def test_two_orders_in_one_sweep(
    small_config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_pictures(folder: Path, **_: object) -> Path:
        (folder / "report").mkdir()
        (folder / "report" / "report.html").write_text("a cell that is finished has one")
        return folder

    monkeypatch.setattr("ffd_continual.finish.write_report", no_pictures)
    monkeypatch.setattr("ffd_continual.run.write_samples", lambda *given: None)
    turned = next(number for number in range(20) if learning_order(2, number) == [1, 0])
    small_config["scenario"] |= {"order": ["alpha", "beta"], "people": "own"}
    base, grid = tmp_path / "base.yaml", tmp_path / "grid.yaml"
    base.write_text(yaml.safe_dump(small_config), encoding="utf-8")
    methods = {"as-given": [], "turned": [f"scenario.permuted={turned}"]}
    grid.write_text(yaml.safe_dump({"base": str(base), "seeds": [0], "methods": methods}), encoding="utf-8")
    out = tmp_path / "out"
    assert main(["sweep", str(grid), "--out", str(out)]) == 0
    assert sorted(pd.read_csv(out / "rows.csv")["method"]) == ["as-given", "turned"]
    orders = {name: json.loads((out / f"{name}-s0" / "summary.json").read_text())["order"] for name in methods}
    assert orders == {"as-given": ["alpha", "beta"], "turned": ["beta", "alpha"]}
    assert main(["compare", str(out)]) == 0  # refuses runs that were not tested on the same faces
    page = (out / "comparison" / "comparison.html").read_text(encoding="utf-8")
    assert "in several orders" in page
