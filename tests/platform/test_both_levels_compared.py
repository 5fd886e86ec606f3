"""Frames and videos side by side: a run's curves, and differences between methods; each worked by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from ffd_continual.cli import main
from ffd_continual.comparing.finished import methods_of, read_runs
from ffd_continual.comparing.page import comparison_page
from ffd_continual.comparing.paired import compare
from ffd_continual.comparing.tables import csv_table, latex, markdown, terminal
from ffd_continual.measuring.intervals import summarise_with_ci
from ffd_continual.measuring.matrix import measured_from_predictions
from ffd_continual.measuring.video_level import VideoRule
from ffd_continual.reporting.data import read_run
from ffd_continual.reporting.panels import forgetting_panels, unseen_panels
from ffd_continual.reporting.report import write_report

TOP = VideoRule("top", 0.5)
SPLIT = {"p": (3.0, -1.0), "q": (3.0, -1.0)}  # half of the forged frames above the real ones, both videos (1) above
MIXED = {"p": (1.0, 1.0), "q": (1.0, -3.0)}  # three of four frames above, one video (1, -1) of two


def made_run(
    path: Path, found: dict[str, tuple[float, float]], videos: bool = True, rule: VideoRule | None = None
) -> Path:
    """A finished run of one forgery and an unseen one; the forged frames of each person, real ones are 0."""
    rule, rows = rule or VideoRule(), []
    for after in (-1, 0):
        for on, stream in (("a", "test"), ("u", "unseen")):
            for person, forged in found.items():
                for label, scores in ((0, (0.0, 0.0)), (1, forged)):
                    for frame, z in enumerate(scores):
                        video = f"{person}-{on if label else 'real'}"
                        row = {"after": after, "on": on, "stream": stream, "label": label, "z": z, "identity": person}
                        rows.append({**row, "video": video if videos else "", "path": f"{video}-{frame}.png"})
    table = pd.DataFrame(rows).assign(threshold=0.5)
    path.mkdir(parents=True)
    table.to_parquet(path / "predictions.parquet")
    levels = ("frame", "video") if videos else ("frame",)
    measured_from_predictions(table, levels=levels, rule=rule).matrix.to_parquet(path / "matrix.parquet")
    summary = summarise_with_ci(table, ["a"], samples=20)
    if videos:
        summary["videos"] = summarise_with_ci(table, ["a"], level="video", samples=20, rule=rule)
    (path / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    method = "learner: {name: plain}\nstrategy: {name: naive}\n"
    told = f"name: {path.name}\n{method}evaluation: {{video: {rule.way}, video_share: {rule.share}}}\n"
    (path / "config.yaml").write_text(told, encoding="utf-8")
    return path


def test_the_curves_of_a_run_by_hand(tmp_path: Path) -> None:
    made_run(tmp_path / "run", SPLIT)
    run = read_run(tmp_path / "run", samples=10)
    for level, value in (("frame", 0.5), ("video", 1.0)):
        (panel,) = forgetting_panels(run, level)
        assert list(panel.lines[-1].points) == [(-1, value), (0, value)]
        assert panel.note == f"just learnt at {value:.2f}"
        means, unseen = unseen_panels(run, level)
        assert [list(line.points) for line in means.lines] == [[(0.0, value)], [(-1.0, value), (0.0, value)]]
        assert list(unseen.lines[0].points) == [(-1, value), (0, value)]
    page = write_report(tmp_path / "run", samples=10).read_text(encoding="utf-8")
    assert page.count("<h3>Video by video</h3>") == 4  # forgetting, unseen, matrix, every measure
    assert page.count("<svg") == 2 * 3
    folder = tmp_path / "run" / "report"
    names = {path.name for path in folder.iterdir()}
    assert {"forgetting_videos.png", "unseen_videos.png", "matrix_videos.png", "auc_videos.csv"} <= names
    both = [pd.read_csv(folder / f"{name}.csv", header=[0, 1], index_col=0) for name in ("auc", "auc_videos")]
    assert [table.to_numpy().tolist() for table in both] == [[[0.5, 0.5]] * 2, [[1.0, 1.0]] * 2]


def test_the_curves_of_a_run_of_pictures(tmp_path: Path) -> None:
    page = write_report(made_run(tmp_path / "run", SPLIT, videos=False), samples=10).read_text(encoding="utf-8")
    assert "ideo by video" not in page
    assert page.count("<svg") == 3
    assert not list((tmp_path / "run" / "report").glob("*video*"))


def test_differences_of_videos_by_hand(tmp_path: Path) -> None:
    runs, _ = read_runs([made_run(tmp_path / "one", SPLIT), made_run(tmp_path / "two", MIXED)])
    methods = methods_of(runs)
    compared = compare(methods)
    # Draws pp, pq or qp, qq (chances 1/4, 1/2, 1/4). Frames: one has 0.5 always, two 1, 0.75, 0.5, so the difference is
    # 0.5, 0.25, 0. Videos: one has 1 always, two 1, 0.5, 0, so it is 0, -0.5, -1.
    for figure in ("aa", "unseen"):
        assert compared.differences["two", figure] == pytest.approx((0.25, 0.0, 0.5, 1))
        assert compared.videos["two", figure] == pytest.approx((-0.5, -1.0, 0.0, 1))
    row = csv_table(methods, compared).set_index("method").loc["two"]
    assert (row["difference_aa"], row["video_difference_aa"]) == (0.25, -0.5)
    assert (row["video_difference_unseen_low"], row["video_difference_unseen_excludes_0"]) == (-1.0, False)
    said = terminal(methods, compared)
    assert "-0.500 [-1.000,+0.000]" in said.partition("videos, minus the same")[2]
    assert max(map(len, said.splitlines())) <= 80
    assert "| Video level | AA minus one | Unseen minus one |" in markdown(methods, compared)
    assert latex(methods, compared).count(r"\begin{tabular}") == 4
    assert [(m.curves.seen, m.video_curves.seen) for m in methods] == [({0: 0.5}, {0: 1.0}), ({0: 0.75}, {0: 0.5})]
    assert methods[1].video_curves.types == {"a": {-1: 0.5, 0: 0.5}}
    page = comparison_page(methods, compared, [])
    assert page.count("<svg") == 2 * 3
    assert page.count("<h3>Video by video</h3>") == 2
    assert "The same draws, one score a video: the mean of its frames" in page
    assert "−1.000 to 0.000" in page


def test_differences_follow_the_runs_rule(tmp_path: Path) -> None:
    runs, _ = read_runs([made_run(tmp_path / name, f, rule=TOP) for name, f in (("one", SPLIT), ("two", MIXED))])
    methods = methods_of(runs)
    assert compare(methods, samples=0).videos["two", "aa"].value == 0.0  # highest frames 3, 3 and 1, 1: all above 0
    mixed = [made_run(tmp_path / "mean", SPLIT), tmp_path / "two"]
    runs, _ = read_runs(mixed)
    assert compare(methods_of(runs), samples=5).videos == {}


def test_differences_of_pictures_have_one_level(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = (made_run(tmp_path / name, f, videos=False) for name, f in (("one", SPLIT), ("two", MIXED)))
    assert main(["compare", str(one), str(two), "--out", str(tmp_path / "out")]) == 0
    assert "ideo" not in capsys.readouterr().out
    for name in ("comparison.html", "comparison.csv", "comparison.md", "comparison.tex"):
        assert "ideo" not in (tmp_path / "out" / name).read_text(encoding="utf-8"), name
