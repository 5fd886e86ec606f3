"""From frames to videos: every rule against a loop over videos, its threshold, and where the figures are shown."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ffd_continual.comparing.finished import methods_of, read_runs
from ffd_continual.comparing.paired import compare
from ffd_continual.comparing.tables import csv_table, markdown, terminal
from ffd_continual.config import config_from
from ffd_continual.measuring.intervals import print_matrix, summarise_with_ci
from ffd_continual.measuring.matrix import measured_from_predictions
from ffd_continual.measuring.metrics import acc, auc, threshold_for_accuracy
from ffd_continual.measuring.video_level import (
    VideoRule,
    has_videos,
    names_in,
    told_apart,
    video_level,
    video_threshold,
)
from ffd_continual.reporting.report import write_report
from ffd_continual.scenarios.errors import FFDError

ORDER = ["swap", "warp"]


def frames(seed: int = 0, videos: int = 30) -> pd.DataFrame:
    """Videos of 1 to 9 frames in random order; a forged one is forged in a third of its frames only."""
    rng = np.random.default_rng(seed)
    rows = []
    for video in range(videos):
        count = int(rng.integers(1, 10))
        for frame in range(count):
            forged = video % 2 == 1
            shift = 2.5 if forged and frame <= count // 3 else 0.0
            z = round(float(rng.normal(shift, 1)), 1)  # rounded: ties
            rows.append({"video": f"v{video}", "label": int(forged), "z": z, "p": 1 / (1 + math.exp(-z))})
    table = pd.DataFrame(rows).sample(frac=1, random_state=seed).reset_index(drop=True)
    return table.assign(margin=table["z"] - 0.7)


def by_hand(table: pd.DataFrame, rule: VideoRule) -> pd.DataFrame:
    rows = []
    for video in sorted(table["video"].unique()):
        part = table[table["video"] == video]
        ranked = sorted(part.itertuples(), key=lambda frame: -frame.z)
        if rule.way == "vote":
            share = sum(frame.margin >= 0 for frame in ranked) / len(ranked)
            rows.append({"video": video, "label": ranked[0].label, "z": share, "margin": share - 0.5})
            continue
        kept = ranked[: max(1, math.ceil(round(rule.share * len(ranked), 9)))] if rule.way == "top" else ranked
        means = {key: sum(getattr(frame, key) for frame in kept) / len(kept) for key in ("z", "margin", "p")}
        rows.append({"video": video, "label": ranked[0].label, **means})
    return pd.DataFrame(rows)


@pytest.mark.parametrize("rule", [VideoRule(), VideoRule("top", 0.3), VideoRule("top", 1.0), VideoRule("vote")])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_rule_equals_a_loop_over_videos(rule: VideoRule, seed: int) -> None:
    table = frames(seed)
    truth = by_hand(table, rule)
    found = video_level(table["label"], table[["z", "margin", "p"]].to_dict("series"), table["video"], rule)
    names = table["video"].to_numpy()[found["first"]]
    assert sorted(names) == sorted(truth["video"])
    aligned = truth.set_index("video").loc[names]
    assert found["label"].tolist() == aligned["label"].tolist()
    for key in aligned.columns.drop("label"):
        assert found[key] == pytest.approx(aligned[key].to_numpy())
    assert ("p" in found) == (rule.way != "vote")


def test_all_frames_are_the_mean_and_one_frame_is_the_highest() -> None:
    table = frames(4)
    mean = video_level(table["label"], {"z": table["z"]}, table["video"])["z"]
    assert video_level(table["label"], {"z": table["z"]}, table["video"], VideoRule("top", 1.0))["z"] == pytest.approx(
        mean
    )
    highest = video_level(table["label"], {"z": table["z"]}, table["video"], VideoRule("top", 0.01))
    names = table["video"].to_numpy()[highest["first"]]
    assert highest["z"].tolist() == [table.loc[table["video"] == name, "z"].max() for name in names]


def test_a_share_of_a_round_number_is_that_number() -> None:
    labels, z = [1] * 30, list(range(30))
    found = video_level(labels, {"z": z}, ["v"] * 30, VideoRule("top", 0.1))  # 0.1 * 30 is a hair above 3 in binary
    assert found["z"].tolist() == [28.0]


def test_real_and_forged_frames_of_one_name_and_frames_without_a_name() -> None:
    labels = [0, 1, 0, 1, 1, 1]
    found = video_level(labels, {"z": [0.0, 2.0, 1.0, 4.0, 7.0, 9.0]}, ["v", "v", "v", "v", "", ""])
    table = {(int(k), float(v)) for k, v in zip(found["label"], found["z"], strict=True)}
    assert table == {(0, 0.5), (1, 3.0), (1, 7.0), (1, 9.0)}
    assert all(labels[i] == k for i, k in zip(found["first"], found["label"], strict=True))


def test_names_count_within_their_data_set() -> None:
    assert told_apart(["001", "001", "002", ""], ["a", "b", "a", "b"]).tolist() == ["a/001", "b/001", "002", ""]
    assert names_in(pd.DataFrame({"video": ["x", "x"]}), "video").tolist() == ["x", "x"]
    assert names_in(pd.DataFrame({"z": [1.0]}), "video").tolist() == [""]


def test_unknown_rules_and_voting_without_a_threshold() -> None:
    for wrong in (("median", 0.5), ("top", 0.0), ("top", 1.5), ("top", math.nan)):
        with pytest.raises(FFDError, match=r"evaluation\.video"):
            VideoRule(*wrong)
    with pytest.raises(FFDError, match="needs a threshold"):
        video_level([0, 1], {"z": [0.0, 1.0]}, ["a", "b"], VideoRule("vote"))
    method = {"learner": {"name": "plain"}, "strategy": {"name": "naive"}}
    with pytest.raises(FFDError, match="mean, top, vote"):
        config_from({**method, "evaluation": {"video": "max"}})
    assert config_from({**method, "evaluation": {"video": "top"}}).evaluation.video_rule == VideoRule("top", 0.25)


def test_a_videos_threshold_is_chosen_on_videos() -> None:
    table = frames(5, 60)
    rule = VideoRule("top", 0.3)
    found = video_level(table["label"], {"z": table["z"]}, table["video"], rule)
    threshold = video_threshold(table["label"], table["z"], table["video"], rule)
    assert threshold == threshold_for_accuracy(found["label"], found["z"])
    framewise = threshold_for_accuracy(table["label"], table["z"])
    assert threshold != framewise
    assert video_threshold(table["label"], table["z"], table["video"], VideoRule("vote")) is None
    assert video_threshold([0, 1], [0.0, 1.0], ["a", ""], rule) is None  # no video of two frames


def predictions(seed: int = 0) -> pd.DataFrame:
    """Two persons a video pair, videos of 6 frames, three models."""
    rng = np.random.default_rng(seed)
    rows = []
    for after in (-1, 0, 1):
        for on, stream in (("swap", "test"), ("warp", "test"), ("morph", "unseen")):
            for person in range(14):
                for label in (0, 1):
                    for frame in range(6):
                        z = rng.normal(label * (0.4 + 0.6 * (after + 1) * (frame < 2)), 1)
                        video = f"{person}-{on if label else 'real'}"
                        path = f"{video}-{frame}.png"
                        rows.append(
                            (after, on, stream, label, path, f"p{person}", video, z, 1 / (1 + np.exp(-z)), 0.4, 0.9)
                        )
    columns = ["after", "on", "stream", "label", "path", "identity", "video", "z", "p", "threshold", "video_threshold"]
    return pd.DataFrame(rows, columns=columns)


@pytest.mark.parametrize("rule", [VideoRule(), VideoRule("top", 0.34), VideoRule("vote")])
def test_the_matrix_holds_both_levels(rule: VideoRule) -> None:
    table = predictions()
    cells = measured_from_predictions(table, samples=30, rule=rule).matrix.set_index(["after", "on", "level", "metric"])
    part = table[(table["after"] == 1) & (table["on"] == "swap")].assign(margin=lambda t: t["z"] - t["threshold"])
    truth = by_hand(part, rule)
    cut = 0.5 if rule.way == "vote" else 0.9  # the videos' own threshold, not that of the frames
    assert cells.loc[(1, "swap", "video", "auc"), "value"] == pytest.approx(auc(truth["label"], truth["z"]))
    assert cells.loc[(1, "swap", "video", "acc"), "value"] == pytest.approx(acc(truth["label"], truth["z"], cut))
    assert cells.loc[(1, "swap", "frame", "acc"), "value"] == pytest.approx(acc(part["label"], part["z"], 0.4))
    assert ("ece" in cells.loc[(1, "swap", "video")].index) == (rule.way != "vote")
    assert cells.loc[(1, "swap", "video", "auc"), "low"] < cells.loc[(1, "swap", "video", "auc"), "high"]


def finished(folder: Path, rule: VideoRule, seed: int = 0) -> Path:
    folder.mkdir(parents=True)
    table = predictions(seed)
    table.to_parquet(folder / "predictions.parquet")
    measured_from_predictions(table, rule=rule).matrix.to_parquet(folder / "matrix.parquet")
    summary = summarise_with_ci(table, ORDER, samples=20)
    summary["videos"] = summarise_with_ci(table, ORDER, level="video", samples=20, rule=rule)
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "config.yaml").write_text(
        f"name: {folder.name}\nlearner: {{name: plain}}\nstrategy: {{name: naive}}\n"
        f"evaluation: {{video: {rule.way}, video_share: {rule.share}}}\n"
    )
    return folder


def test_report_and_terminal_name_both_levels(tmp_path: Path) -> None:
    rule = VideoRule("top", 0.34)
    run = finished(tmp_path / "run", rule)
    page = write_report(run, samples=20).read_text(encoding="utf-8")
    assert "Video by video" in page
    assert "highest 34 % of its frames" in page
    figures = pd.read_csv(run / "report" / "figures.csv").set_index(["level", "metric", "figure"])
    truth = summarise_with_ci(predictions(), ORDER, level="video", samples=20, rule=rule)
    assert figures.loc[("video", "auc", "aa"), "value"] == pytest.approx(truth["auc"]["aa"])
    assert figures.loc[("video", "acc", "aa"), "low"] == pytest.approx(truth["acc"]["ci"]["aa"][0])
    assert figures.loc[("frame", "auc", "aa"), "value"] != pytest.approx(truth["auc"]["aa"])
    assert set(pd.read_csv(run / "report" / "matrix.csv")["level"]) == {"frame", "video"}
    summary = json.loads((run / "summary.json").read_text())
    text = print_matrix(pd.read_parquet(run / "matrix.parquet"), ORDER, summary)
    assert "videos: mean of the highest 34 % of its frames" in text
    assert f"{truth['auc']['aa']:.3f}" in text
    assert max(map(len, text.splitlines())) <= 80


def test_comparison_shows_both_levels(tmp_path: Path) -> None:
    rule = VideoRule("top", 0.34)
    runs, _ = read_runs([finished(tmp_path / "one", rule), finished(tmp_path / "two", rule, 1)])
    methods = methods_of(runs)
    compared = compare(methods, samples=20)
    table = csv_table(methods, compared).set_index("method")
    truth = summarise_with_ci(predictions(1), ORDER, level="video", samples=20, rule=rule)
    assert table.loc["two", "video_auc_aa"] == pytest.approx(truth["auc"]["aa"])
    assert table.loc["two", "video_acc_unseen_low"] == pytest.approx(truth["acc"]["ci"]["unseen"][0])
    assert table.loc["two", "auc_aa"] != pytest.approx(truth["auc"]["aa"])
    assert f"{truth['auc']['aa']:.3f}" in terminal(methods, compared).partition("video level")[2]
    assert "| Video level |" in markdown(methods, compared)
    runs, _ = read_runs([finished(tmp_path / "three", rule), finished(tmp_path / "four", VideoRule("vote"), 1)])
    assert not any(method.videos for method in methods_of(runs))  # of two rules: not comparable


def test_pictures_have_one_level() -> None:
    table = predictions()
    assert has_videos(table)
    assert not has_videos(table.assign(video=""))
    assert not has_videos(table[table["path"].str.endswith("-0.png")])
    assert not has_videos(table.drop(columns="video"))
