from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from ffd_continual.lineage.drops import MEAN, Drop, drops, fallen, in_words


def _slow_auc(labels: np.ndarray, scores: np.ndarray) -> float:
    wins = [(f > r) + 0.5 * (f == r) for f in scores[labels == 1] for r in scores[labels == 0]]
    return float(np.mean(wins))


def _predictions(seed: int, noise: float) -> pd.DataFrame:
    rng = np.random.default_rng(5)
    rows: list[dict[str, Any]] = []
    for on in ("swap", "warp"):
        for person in range(30):
            for label in (0, 1):
                rows.append({"stream": "test", "on": on, "row": len(rows), "label": label, "identity": f"p{person}",
                             "z": label + rng.normal()})  # fmt: skip
    table = pd.DataFrame(rows)
    table["z"] += np.random.default_rng(seed).normal(0, noise, len(table))
    return table


def test_a_drop_is_the_difference_of_the_auc_on_the_faces_both_judged() -> None:
    before, after = _predictions(1, 0.0), _predictions(2, 1.0)
    after = after.iloc[4:]  # faces that only one model judged do not count
    found = {d.name: d for d in drops(before, after, ["swap", "warp"], 300, 0)}
    for name in ("swap", "warp"):
        rows = after[after["on"] == name]
        was = before.set_index("row").loc[rows["row"]]
        expected = _slow_auc(was["label"].to_numpy(), was["z"].to_numpy()) - _slow_auc(
            rows["label"].to_numpy(), rows["z"].to_numpy()
        )
        assert found[name].drop == pytest.approx(expected)
        assert found[name].low < found[name].drop < found[name].high
        assert found[name].faces == len(rows)
    assert found[MEAN].drop == pytest.approx((found["swap"].drop + found["warp"].drop) / 2)
    assert found[MEAN].high - found[MEAN].low < found["swap"].high - found["swap"].low


def test_the_interval_is_paired() -> None:
    before = _predictions(1, 0.0)
    same = drops(before, before, ["swap"], 200, 0)[0]
    assert (same.drop, same.low, same.high) == (0.0, 0.0, 0.0)


def test_what_cannot_be_measured_is_left_out() -> None:
    table = _predictions(1, 0.0)
    real = table[(table["on"] != "warp") | (table["label"] == 0)]
    assert [d.name for d in drops(real, real, ["swap", "warp", "none"], 20, 0)] == ["swap", MEAN]
    assert drops(table, table, ["none"], 20, 0) == []


def test_the_rule() -> None:
    one = Drop("swap", 0.9, 0.885, 0.015, -0.01, 0.04, 60)
    mean = Drop(MEAN, 0.9, 0.88, 0.02, 0.0, 0.03, 60)
    assert fallen([one, mean], 0.02, 0.02, strict=False) == []
    assert fallen([one, mean], 0.01, 0.02, strict=False) == [one]
    assert fallen([one, mean], 0.02, 0.01, strict=False) == [mean]
    assert fallen([one, mean], 0.02, 0.05, strict=True) == [one]
    nan = float("nan")
    assert fallen([Drop("swap", 0.9, 0.9, 0.0, nan, nan, 9)], 0.02, 0.02, strict=True) == []
    assert in_words(one) == "swap: AUC 0.900 -> 0.885, drop +0.015 [-0.010, +0.040]"


def test_what_stands_apart_has_a_drop_of_its_own_and_none_in_the_mean() -> None:
    before, after = _predictions(1, 0.0), _predictions(2, 1.0)
    whole = {d.name: d for d in drops(before, after, ["swap", "warp"], 100, 0)}
    found = {d.name: d for d in drops(before, after, ["swap", "warp"], 100, 0, apart={"warp"})}
    assert found["warp"] == whole["warp"]
    assert (found[MEAN].before, found[MEAN].drop) == (found["swap"].before, found["swap"].drop)
    assert found[MEAN].faces == found["swap"].faces < whole[MEAN].faces
    assert [d.name for d in drops(before, after, ["swap"], 20, 0, apart={"swap"})] == ["swap"]
