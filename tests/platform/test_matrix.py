"""The figures of a run against hand-made matrices and slow loops over resampled persons."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from ffd_continual.measuring.intervals import print_matrix, summarise_with_ci
from ffd_continual.measuring.matrix import MATRIX_COLUMNS, measured_from_predictions, summarise
from ffd_continual.measuring.metrics import draw_counts
from ffd_continual.scenarios.errors import FFDError

ORDER = ["swap", "warp", "morph"]
# a[i, j], rows: untrained, after swap, warp, morph; columns: swap, warp, morph, then the unseen inpaint and style.
GRID = [
    [0.50, 0.48, 0.52, 0.50, 0.46],
    [0.90, 0.60, 0.55, 0.58, 0.52],
    [0.92, 0.85, 0.65, 0.62, 0.54],
    [0.80, 0.70, 0.95, 0.70, 0.60],
]


def hand_made() -> pd.DataFrame:
    rows = []
    for step, line in enumerate(GRID):
        for name, value in zip([*ORDER, "inpaint", "style"], line, strict=True):
            for metric, shift in (("auc", 0.0), ("acc", -0.1)):
                stream = "test" if name in ORDER else "unseen"
                rows.append((step - 1, name, stream, metric, "frame", value + shift, np.nan, np.nan))
    return pd.DataFrame(rows, columns=list(MATRIX_COLUMNS))


def predictions(seed: int = 0, persons: int = 20, frames: int = 3) -> pd.DataFrame:
    """Real and forged frames of every person on every stream; separation = what GRID would give, roughly."""
    rng = np.random.default_rng(seed)
    rows = []
    for step, line in enumerate(GRID):
        for name, value in zip([*ORDER, "inpaint", "style"], line, strict=True):
            for person in range(persons):
                habit = rng.normal(0, 0.5)
                for label in (0, 1):
                    for frame in range(frames):
                        z = rng.normal(habit + label * 6 * (value - 0.5), 1)
                        video = f"{person}_{name if label else 'real'}"
                        row = person * 100 + label * 10 + frame
                        stream = "test" if name in ORDER else "unseen"
                        rows.append(
                            (step - 1, name, stream, row, label, f"id{person}", video, z, 1 / (1 + np.exp(-z)), 0.3)
                        )
    columns = ["after", "on", "stream", "row", "label", "identity", "video", "z", "p", "threshold"]
    return pd.DataFrame(rows, columns=columns)


def test_figures_of_a_hand_made_matrix() -> None:
    found = summarise(hand_made(), ORDER)["auc"]
    assert found["aa"] == pytest.approx((0.80 + 0.70 + 0.95) / 3)
    assert found["diagonal"] == pytest.approx((0.90 + 0.85 + 0.95) / 3)
    assert found["forgetting_signed"] == pytest.approx(((0.90 - 0.80) + (0.85 - 0.70)) / 2)
    assert found["forgetting_max"] == pytest.approx(((0.92 - 0.80) + (0.85 - 0.70)) / 2)
    assert found["bwt"] == pytest.approx(-found["forgetting_signed"])
    assert found["fwt"] == pytest.approx(((0.60 - 0.48) + (0.65 - 0.52)) / 2)
    assert found["zero_shot"] == pytest.approx((0.60 + 0.55 + 0.65) / 3)
    assert found["unseen"] == pytest.approx((0.70 + 0.60) / 2)
    assert found["unseen_curve"]["after"] == [-1, 0, 1, 2]
    assert found["unseen_curve"]["value"] == pytest.approx([0.48, 0.55, 0.58, 0.65])
    assert found["aa_curve"]["value"] == pytest.approx([0.90, (0.92 + 0.85) / 2, (0.80 + 0.70 + 0.95) / 3])
    assert summarise(hand_made(), ORDER)["acc"]["aa"] == pytest.approx(found["aa"] - 0.1)
    json.dumps(summarise(hand_made(), ORDER), allow_nan=False)


def test_self_made_families_count_in_no_mean() -> None:
    found = summarise(hand_made(), ORDER, self_made={"warp", "style"})["auc"]
    assert found["aa"] == pytest.approx((0.80 + 0.95) / 2)
    assert found["forgetting_signed"] == pytest.approx(0.90 - 0.80)
    assert found["zero_shot"] == pytest.approx((0.55 + 0.65) / 2)
    assert found["fwt"] == pytest.approx(0.65 - 0.52)
    assert found["unseen"] == pytest.approx(0.70)
    assert found["self_made"] == {"warp": pytest.approx(0.70), "style": pytest.approx(0.60)}


def test_unfinished_and_incomplete_runs() -> None:
    table = hand_made()
    first = summarise(table[table["after"] <= 1], ORDER)
    assert first["after"] == 1
    assert first["auc"]["aa"] == pytest.approx((0.92 + 0.85) / 2)
    assert first["auc"]["forgetting_max"] == pytest.approx(0.90 - 0.92)  # only i < T counts, so it may be negative
    holed = table[~((table["after"] == 2) & (table["on"] == "swap"))]
    assert summarise(holed, ORDER)["auc"]["aa"] is None
    assert summarise(table[table["after"] >= 0], ORDER)["auc"]["fwt"] is None
    one = summarise(table[table["after"] == 0], ORDER)["auc"]
    assert one["forgetting_signed"] is None
    assert one["aa"] == pytest.approx(0.90)
    with pytest.raises(FFDError, match="blend"):
        summarise(table, [*ORDER, "blend"])
    with pytest.raises(FFDError, match="names only 2"):
        summarise(table, ORDER[:2])
    with pytest.raises(FFDError, match="no column value"):
        summarise(table.drop(columns="value"), ORDER)


def test_matrix_from_predictions_equals_sklearn() -> None:
    table = predictions()
    found = measured_from_predictions(table).matrix
    assert tuple(found.columns) == MATRIX_COLUMNS
    cell = table[(table["after"] == 1) & (table["on"] == "warp")]
    values = found[(found["after"] == 1) & (found["on"] == "warp")].set_index(["metric", "level"])["value"]
    assert values["auc", "frame"] == pytest.approx(roc_auc_score(cell["label"], cell["z"]))
    assert values["acc", "frame"] == pytest.approx(((cell["z"] >= 0.3) == cell["label"]).mean())
    video = cell.groupby("video").agg({"label": "first", "z": "mean"})
    assert values["auc", "video"] == pytest.approx(roc_auc_score(video["label"], video["z"]))
    assert values["auc", "video"] > values["auc", "frame"]
    # The order of rows, and an index that repeats, must not matter.
    shuffled = table.sample(frac=1, random_state=0).set_index(np.zeros(len(table), dtype=int))
    again = measured_from_predictions(shuffled).matrix.set_index(list(MATRIX_COLUMNS[:5]))["value"]
    first = found.set_index(list(MATRIX_COLUMNS[:5]))["value"]
    assert again.loc[first.index].to_numpy() == pytest.approx(first.to_numpy(), abs=1e-12)


def test_columns_that_are_missing_or_broken() -> None:
    table = predictions(persons=4)
    bare = measured_from_predictions(table[["after", "on", "stream", "label", "z"]]).matrix
    assert set(bare["metric"]) == {"auc", "eer", "ap", "tpr10", "tpr1"}
    traced = table.assign(iou=np.where(table["label"] == 1, 0.25, np.nan))
    ious = measured_from_predictions(traced).matrix.query("metric == 'iou'")
    assert set(ious["level"]) == {"frame"}
    assert ious["value"].to_numpy() == pytest.approx(0.25)
    assert measured_from_predictions(table.assign(flip=-table["z"]), score="flip").matrix.query("metric == 'auc'")[
        "value"
    ].to_numpy() == pytest.approx(
        1 - measured_from_predictions(table).matrix.query("metric == 'auc'")["value"].to_numpy()
    )
    with pytest.raises(FFDError, match="no column z"):
        measured_from_predictions(table.drop(columns="z"))
    with pytest.raises(FFDError, match="twice"):
        measured_from_predictions(pd.concat([table, table.head(1)]))
    with pytest.raises(FFDError, match="NaN"):
        measured_from_predictions(table.assign(z=np.nan))


def test_intervals_equal_a_loop_over_drawn_persons() -> None:
    table = predictions(persons=8)
    found = summarise_with_ci(table, ORDER, samples=10, seed=4)
    persons = sorted(table["identity"].unique())
    values: dict[str, list[float]] = {"aa": [], "forgetting_signed": [], "unseen": []}
    for row in draw_counts(8, 10, np.random.default_rng(4)):
        drawn = pd.concat(
            [table[table["identity"] == p] for p, c in zip(persons, row, strict=True) for _ in range(int(c))]
        )
        cell = {key: roc_auc_score(part["label"], part["z"]) for key, part in drawn.groupby(["after", "on"])}
        values["aa"].append(np.mean([cell[2, n] for n in ORDER]))
        values["forgetting_signed"].append(np.mean([cell[j, ORDER[j]] - cell[2, ORDER[j]] for j in (0, 1)]))
        values["unseen"].append(np.mean([cell[2, n] for n in ("inpaint", "style")]))
    for figure, draws in values.items():
        assert found["auc"]["ci"][figure] == pytest.approx(np.percentile(draws, [2.5, 97.5]), abs=1e-12)
    assert found["bootstrap"] == {"unit": "persons", "groups": 8, "samples": 10, "skipped": 0, "seed": 4}
    json.dumps(found, allow_nan=False)


def test_unit_of_resampling_is_reported() -> None:
    table = predictions(persons=5)
    assert summarise_with_ci(table.drop(columns="identity"), ORDER, samples=5)["bootstrap"]["unit"] == "videos"
    alone = summarise_with_ci(table.drop(columns=["identity", "video"]), ORDER, samples=5)["bootstrap"]
    assert alone["unit"] == "faces"
    assert alone["groups"] == 30  # the same manifest row is the same face on every stream
    half = table.assign(identity=table["identity"].where(table["label"] == 0, None))
    assert summarise_with_ci(half, ORDER, samples=5)["bootstrap"]["unit"] == "persons or videos"


def test_cell_intervals_hold_the_value() -> None:
    found = measured_from_predictions(predictions(), samples=200, levels=("frame",)).matrix.query(
        "metric in ('auc', 'acc')"
    )
    assert (found["low"] < found["value"]).all()
    assert (found["value"] < found["high"]).all()


def test_terminal_table() -> None:
    table = predictions()
    text = print_matrix(measured_from_predictions(table).matrix, ORDER, summarise_with_ci(table, ORDER, samples=50))
    assert max(map(len, text.splitlines())) <= 80
    lines = text.splitlines()
    assert lines[1].split() == [*ORDER, "unseen"]
    assert [line.split()[0] for line in lines[2:6]] == ["untrained", "0", "1", "2"]
    assert "(" in lines[2]
    assert "(" not in lines[5]
    assert "20 persons" in text
    plain = print_matrix(hand_made(), ORDER, self_made={"warp"})
    assert "0.800" in plain
    assert "warp*" in plain
    assert "0.875" in plain  # (0.80 + 0.95) / 2


def test_terminal_table_stays_narrow_with_many_long_names() -> None:
    names = [f"a_very_long_generator_name_{i}" for i in range(14)]
    rows = [(i, n, "test", "auc", "frame", 0.5 + i / 100, np.nan, np.nan) for i in range(14) for n in names]
    text = print_matrix(pd.DataFrame(rows, columns=list(MATRIX_COLUMNS)), names)
    assert max(map(len, text.splitlines())) <= 80
    heads = [n for line in text.splitlines() if line.startswith(" " * 17) for n in line.split()][:14]
    assert len(set(heads)) == 14  # every column is there and told apart
    assert heads[-1].endswith("13")
    assert text.count("(0.500)") == 13
