"""Frames and videos side by side: perturbed faces and false alarms.

The cases are small enough to be worked by hand, and the value of the videos is not that of their frames; what has no
videos gets no word about them.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from ffd_continual.measuring.metrics import auc
from ffd_continual.measuring.video_level import VideoRule, has_videos
from ffd_continual.reporting import alarm_page, robust_page
from ffd_continual.retesting import robustness
from ffd_continual.retesting.false_alarms import (
    ALL,
    OWN,
    UNTOUCHED,
    alarm_table,
    measure_alarms,
    read_alarms,
    real_videos,
    thresholds,
)
from ffd_continual.retesting.reopen import Reopened, reopen
from ffd_continual.retesting.robustness import LOST, curve, judge_conditions, measure_robustness
from ffd_continual.runs.folder import write_table
from ffd_continual.scenarios.benign import EDITS
from ffd_continual.scenarios.errors import FFDError
from ffd_continual.scenarios.perturb import RobustnessConfig

TOP = VideoRule("top", 0.5)


def perturbed() -> pd.DataFrame:
    """A real video (frames 0, 0) and a forged one of one stream: 3 and -1, under blur 1 and -3."""
    rows = [
        ("r", 0, "clean", 0, (0.0, 0.0)), ("f", 1, "clean", 0, (3.0, -1.0)),
        ("r", 0, "blur", 1, (0.0, 0.0)), ("f", 1, "blur", 1, (1.0, -3.0)),
    ]  # fmt: skip
    found = [
        {"video": video, "label": label, "perturbation": name, "severity": severity, "z": z, "path": f"{video}{i}"}
        for video, label, name, severity, scores in rows
        for i, z in enumerate(scores)
    ]
    table = pd.DataFrame(found).assign(stream="test", on="a", after=0, identity="", threshold=0.5, video_threshold=0.8)
    return table.assign(setting=np.where(table["severity"] > 0, 1.0, np.nan), slot=np.arange(len(table)))


def test_perturbed_videos_by_hand() -> None:
    table = robustness.robustness_table(perturbed(), samples=0)

    def values(metric: str, level: str) -> list[float]:
        return list(curve(table, "blur", "a", metric, level)["value"])

    assert values("auc", "frame") == [0.5, 0.5]  # of the two forged frames one lies above the real ones, always
    assert values("auc", "video") == [1.0, 0.0]  # means 1 and -1 against 0
    assert values(LOST, "frame") == [0.0]
    assert values(LOST, "video") == [1.0]
    assert values("acc", "frame") == [0.75, 0.75]
    assert values("acc", "video") == [1.0, 0.5]  # at the threshold of videos, 0.8
    top = robustness.robustness_table(perturbed(), samples=0, rule=TOP)
    assert curve(top, "blur", "a", level="video")["value"].tolist() == [1.0, 1.0]  # the highest frame: 3, then 1


def test_perturbed_videos_are_printed_and_drawn() -> None:
    table = robustness.robustness_table(perturbed(), samples=0).assign(unit="videos", groups=2, faces=4)
    tables = {"run": table.assign(videos=2, rule="mean of its frames")}
    said = robustness.terminal(tables)
    frames, _, videos = said.partition("mean, learnt, videos")
    assert "mean, learnt, frames" in frames
    assert "0.500  0.500" in frames
    assert "1.000  0.000" in videos
    html = robust_page.robustness_section(tables)
    assert html.count(">Video by video</h3>") == 1
    assert "2 videos, one score each: the mean of its frames" in html
    both = [robust_page.overview_panels(tables, level=level)[0].lines[0].points for level in ("frame", "video")]
    assert both == [[(0.0, 0.5), (1.0, 0.5)], [(0.0, 1.0), (1.0, 0.0)]]
    other = {**tables, "other": tables["run"].assign(rule="share of its frames above the threshold")}
    assert robustness.levels_in(other) == ("frame",)  # by two rules: nothing to be set side by side


def test_perturbed_pictures_have_one_level() -> None:
    table = robustness.robustness_table(perturbed().assign(video=""), samples=0)
    assert set(table["level"]) == {"frame"}
    tables = {"run": table.assign(unit="faces", groups=4, faces=4)}
    assert "frames" not in robustness.terminal(tables)
    html = robust_page.robustness_section(tables)
    assert "ideo by video" not in html
    assert "Face by face" not in html
    assert html.count("<svg") == 3  # AUC, accuracy, one forgery


def real_ones() -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Videos of p (2, -3), q (1, 1, 1) and r (0.2, -0.4); an edit raises each frame by 1."""
    faces = pd.DataFrame({"video": ["v1"] * 2 + ["v2"] * 3 + ["v3"] * 2, "identity": list("ppqqqrr"), "dataset": "d"})
    faces = faces.assign(path=[f"{i}.png" for i in range(7)], sex=["f", "f", "m", "m", "m", "f", "f"])
    z = np.array([2.0, -3.0, 1.0, 1.0, 1.0, 0.2, -0.4])
    return faces, {UNTOUCHED: z, "warm": z + 1}


def test_false_alarms_of_videos_by_hand() -> None:
    faces, scores = real_ones()
    frames = alarm_table(faces, scores, {OWN: 0.0}, {}, {}, samples=0).set_index("edit")
    assert frames.loc[UNTOUCHED, "fpr"] == pytest.approx(5 / 7)
    assert "videos" not in frames.columns

    def rates(rule: VideoRule, cut: float) -> tuple[list[float], pd.DataFrame]:
        first, count, whole = real_videos(faces, scores, rule, 0.0)
        sex = {"sex": faces["sex"].to_numpy(str)[first]}
        table = alarm_table(faces.iloc[first], whole, {OWN: cut}, {}, sex, samples=0, frames=count)
        everybody = table[table["by"] == ""].set_index("edit")
        assert everybody.loc[UNTOUCHED, ["faces", "videos", "persons"]].tolist() == [7, 3, 3]
        return everybody.loc[[UNTOUCHED, "warm"], "fpr"].tolist(), table

    # means -0.5, 1, -0.1; warm 0.5, 2, 0.9
    found, table = rates(VideoRule(), 0.6)
    assert found == pytest.approx([1 / 3, 2 / 3])
    groups = table[(table["by"] == "sex") & (table["edit"] == "warm")].set_index("group")
    assert groups["fpr"].to_dict() == {"f": 0.5, "m": 1.0}
    assert groups["videos"].to_dict() == {"f": 2, "m": 1}
    assert groups["rise"].to_dict() == {"f": 0.5, "m": 0.0}
    assert rates(TOP, 0.6)[0] == pytest.approx([2 / 3, 1.0])  # highest half: 2, 1, 0.2; warm 3, 2, 1.2
    assert rates(VideoRule("vote"), 0.6)[0] == pytest.approx([1 / 3, 2 / 3])  # shares 1/2, 1, 1/2; warm 1/2, 1, 1


class Judged(SimpleNamespace):
    """As much of a reopened run as its thresholds ask for: 20 real validation faces, two frames a video."""

    def kept_scores(self, *_: Any) -> NDArray[np.float64]:
        return np.asarray(np.array([[i, -i] for i in range(10)], float).ravel() + np.arange(20) % 2 * 0.5)


@pytest.mark.parametrize("rule", [VideoRule(), TOP, VideoRule("vote")])
def test_thresholds_of_videos_are_chosen_on_validation_videos(rule: VideoRule, tmp_path: Path) -> None:
    rows = pd.DataFrame({"label": 0, "video": [f"v{i // 2}" for i in range(20)], "dataset": "d"})
    table = SimpleNamespace(rows=rows, slot=np.arange(20))
    scenario = SimpleNamespace(experiences=["a"], index=lambda *_: np.arange(20))
    parts = SimpleNamespace(scenario=scenario, sources=SimpleNamespace(table=table))
    config = SimpleNamespace(evaluation=SimpleNamespace(video_rule=rule))
    run: Any = Judged(parts=parts, config=config, threshold=1.5, video_threshold=4.2)
    found = thresholds(run, tmp_path)
    # Frames: i and 0.5 - i. Two of 20 (10 %) may reach the threshold: 8 and 9, so it lies between 7 and 8.
    assert found["frame"] == {OWN: 1.5, "fpr 10 %": 7.5}
    if rule.way == "mean":  # all videos have 0.25: none may reach it, or all would
        assert found["video"] == {OWN: 4.2, "fpr 10 %": np.nextafter(0.25, 1)}
    elif rule.way == "top":  # highest frames 0.5, 1, .. 9: one of 10 may reach it
        assert found["video"] == {OWN: 4.2, "fpr 10 %": 8.5}
    else:  # shares 0, 0, 1/2, .. 1/2 of frames from 1.5 on
        assert found["video"] == {OWN: 0.5, "fpr 10 %": np.nextafter(0.5, 1)}


def test_false_alarms_of_videos_are_printed_and_shown() -> None:
    faces, scores = real_ones()
    sex = {"sex": faces["sex"].to_numpy(str)}
    frames = alarm_table(faces, scores, {OWN: 0.0}, {}, sex, samples=0)
    plain_text, plain_page = alarm_page.terminal(frames), alarm_page.alarm_section(frames)
    assert "video" not in plain_text
    assert "ideo" not in plain_page
    first, count, whole = real_videos(faces, scores, VideoRule(), 0.0)
    by = {"sex": sex["sex"][first]}
    videos = alarm_table(faces.iloc[first], whole, {OWN: 0.6}, {}, by, samples=0, frames=count)
    both = pd.concat([frames.assign(level="frame", videos=0), videos.assign(level="video")], ignore_index=True)
    both = both.assign(rule="mean of its frames")
    said = alarm_page.terminal(both)
    head, _, rest = said.partition("real videos called forged, %")
    assert "71.4" in head.split("untouched")[1].splitlines()[0]
    assert "33.3" in rest.split("untouched")[1].splitlines()[0]
    assert "videos by group, own threshold" in rest
    assert "score of a video: mean of its frames" in rest
    assert "7 real test faces in 3 videos of 3 persons" in rest
    assert max(map(len, said.splitlines())) <= 80
    html = alarm_page.alarm_section(both)
    assert html.count("<table") == 2 * plain_page.count("<table")
    assert "The same of the 3 real test videos, one score each: the mean of its frames" in html


def test_a_table_without_its_columns_of_videos_is_named(tmp_path: Path) -> None:
    faces, scores = real_ones()
    frames = alarm_table(faces, scores, {OWN: 0.0}, {}, {}, samples=0)
    path = tmp_path / "benign" / "benign.parquet"
    write_table(path, frames)
    assert read_alarms(tmp_path) is not None  # as of pictures, or from before videos were counted
    write_table(path, frames.assign(level="frame"))
    with pytest.raises(FFDError, match="no column videos, rule"):
        read_alarms(tmp_path)


@pytest.fixture
def with_videos(finished: Path) -> Reopened:
    """The run on tiny faces, two persons a video."""
    run = reopen(finished)
    rows = run.parts.sources.table.rows
    rows["video"] = [f"{int(p[1:]) // 2}-{f}" for p, f in zip(rows["identity"], rows["forgery"], strict=True)]
    return run


def test_a_run_with_videos_is_tested_again_at_both_levels(with_videos: Reopened, tmp_path: Path) -> None:
    asked = RobustnessConfig(("blur",))
    table = measure_robustness(with_videos, asked, tmp_path, (), 5, "tiny")
    scores = judge_conditions(with_videos, asked, tmp_path)
    part = scores[(scores["on"] == "alpha") & (scores["severity"] == 3)]
    whole = part.groupby(["label", "video"], as_index=False)["z"].mean()
    value = curve(table, "blur", "alpha", level="video").set_index("severity").loc[3, "value"]
    assert value == pytest.approx(auc(whole["label"], whole["z"]))
    assert value != curve(table, "blur", "alpha").set_index("severity").loc[3, "value"]
    count = scores.loc[scores["severity"] == 0, "video"].nunique()
    assert table[["videos", "rule"]].drop_duplicates().to_numpy().tolist() == [[count, "mean of its frames"]]

    alarms, notes = measure_alarms(with_videos, [EDITS["warm"], EDITS["sepia"]], (), tmp_path, 5)
    everybody = alarms[(alarms["by"] == "") & (alarms["edit"] == ALL)].set_index("level")
    assert everybody["videos"].to_dict() == {"frame": 0, "video": 4}  # persons 17 to 23
    assert everybody["faces"].to_dict() == {"frame": 7, "video": 7}
    lower = alarms[alarms["level"] == "video"]
    assert set(lower["threshold"]) == {with_videos.threshold}  # chosen on single frames, as the run knew no videos
    grouped = lower[(lower["by"] == "sex") & (lower["edit"] == UNTOUCHED)]
    assert grouped[["group", "videos"]].to_numpy().tolist() == [["m", 1]]  # 17's; the others hold two persons, f and m
    assert any("3 of 4 real videos have frames of several groups of sex" in note for note in notes)
    assert any("fewer than 10 real validation videos" in note for note in notes)


def test_a_run_without_videos_is_told_nothing_of_them(finished: Path, tmp_path: Path) -> None:
    run = reopen(finished)
    assert not has_videos(run.streams())
    table = measure_robustness(run, RobustnessConfig(("blur",)), tmp_path, (), 5, "tiny")
    assert set(table["level"]) == {"frame"}
    assert not {"videos", "rule"} & set(table.columns)
    alarms, notes = measure_alarms(run, [EDITS["warm"]], (), tmp_path, 5)
    assert not {"videos", "level", "rule"} & set(alarms.columns)
    assert not any("video" in note for note in notes)
