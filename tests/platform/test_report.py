"""A report from a made-up run: a detector whose AUC is known, all parts, then parts missing or damaged."""

from __future__ import annotations

import argparse
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from ffd_continual.commands import report as report_command
from ffd_continual.measuring.intervals import summarise_with_ci
from ffd_continual.measuring.matrix import MATRIX_COLUMNS, measured_from_predictions
from ffd_continual.reporting.charts import escape, nice_ticks
from ffd_continual.reporting.data import read_run
from ffd_continual.reporting.extras import Control, control_rows, verdict
from ffd_continual.reporting.frame import heat_colours, page, show
from ffd_continual.reporting.panels import loss_panels, smooth
from ffd_continual.reporting.pictures import overlay
from ffd_continual.reporting.plots import write_matrix
from ffd_continual.reporting.report import figure_table, page_sections, write_report
from ffd_continual.scenarios.errors import FFDError

ORDER = ["swap", "resynthesis", "warp", "upsampling", "morph"]
UNSEEN = ["inpaint", "style"]


def made_predictions(persons: int = 24, frames: int = 3) -> pd.DataFrame:
    """d' = 2.2 when just learnt, less 0.35 for each later experience, 0.3 before; 0.5 + 0.1 i on unseen forgeries."""
    rng = np.random.default_rng(0)
    parts = []
    for after in range(-1, len(ORDER)):
        for k, on in enumerate([*ORDER, *UNSEEN]):
            stream = "test" if on in ORDER else "unseen"
            d = 0.0 if after < 0 else 0.4 + 0.15 * after if stream == "unseen" else 2.2 - 0.35 * (after - k)
            d = 0.3 + 0.1 * max(after, 0) if stream == "test" and after < k and after >= 0 else d
            person = np.repeat(np.arange(persons), 2 * frames)
            label = np.tile(np.repeat([0, 1], frames), persons)
            z = rng.normal(label * d, 1) + np.repeat(rng.normal(0, 0.4, persons), 2 * frames) - d / 2
            parts.append(
                pd.DataFrame(
                    {
                        "after": after,
                        "on": on,
                        "stream": stream,
                        "row": np.arange(len(label)) + 100_000 * k * label,
                        "path": [f"{on if y else 'real'}/{i}.png" for i, y in enumerate(label)],
                        "label": label,
                        "forgery": np.where(label == 1, on, "real"),
                        "identity": [f"p{i:02d}" for i in person],
                        "video": [f"{i}_{on if y else 'real'}" for i, y in zip(person, label, strict=True)],
                        "z": z,
                        "p": 1 / (1 + np.exp(-z)),
                        "threshold": 0.05,
                        "iou": np.where(label == 1, rng.uniform(0.2, 0.6, len(label)), np.nan),
                    }
                )
            )
    return pd.concat(parts, ignore_index=True)


def made_face(rng: np.random.Generator, size: int = 96) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A smooth picture with an oval, a trace map and its mask."""
    y, x = np.mgrid[0:size, 0:size] / size - 0.5
    oval = (x / 0.3) ** 2 + (y / 0.4) ** 2 < 1
    picture = np.stack([90 + 60 * y, 110 + 40 * x, 140 - 30 * y], -1) + oval[..., None] * np.array([90, 60, 30])
    picture = np.clip(picture + rng.normal(0, 6, picture.shape), 0, 255).astype(np.uint8)
    mask = ((x / 0.18) ** 2 + ((y - 0.12) / 0.12) ** 2 < 1).astype(np.uint8) * 255
    trace = cv2.GaussianBlur(mask, (0, 0), 5)
    return picture, trace, mask


def make_run(folder: Path) -> Path:
    rng = np.random.default_rng(1)
    folder.mkdir(parents=True)
    predictions = made_predictions()
    predictions.to_parquet(folder / "predictions.parquet")
    measured_from_predictions(predictions).matrix.to_parquet(folder / "matrix.parquet")
    (folder / "summary.json").write_text(json.dumps({"order": ORDER, "self_made": []}))
    (folder / "config.yaml").write_text(
        "# see https://example.org/paper\nname: IIN on five forgeries\nlearner: {name: iin, dim: 128}\n"
        "strategy: {name: iin, memory: 200}\ntrain: {steps: 80, batch: 32}\nscenario:\n  order:\n"
        + "".join(f"  - {name}\n" for name in ORDER)
    )
    environment = {"python": "3.11.9", "threads": 1, "seed": 0, "gpu": "", "versions": {"torch": "2.14.1"}}
    (folder / "environment.json").write_text(json.dumps(environment))
    step = np.arange(400)
    scalars = []
    for tag, start, end in (("decision", 0.7, 0.15), ("contrast", 4.2, 2.9), ("decoupling", 0.02, 0.004)):
        value = end + (start - end) * np.exp(-(step % 80) / 25) * rng.uniform(0.7, 1.3, 400)
        scalars.append(pd.DataFrame({"step": step, "experience": step // 80, "tag": tag, "value": value}))
    pd.concat(scalars).to_parquet(folder / "scalars.parquet")
    samples = folder / "samples"
    samples.mkdir()
    index = []
    for kind in ["real", *ORDER[:3], "inpaint"]:
        for n in range(3):
            names = {
                part: f"{kind}_{n}{end}.png" for part, end in (("picture", ""), ("map", "_map"), ("mask", "_mask"))
            }
            picture, trace, mask = made_face(rng)
            cv2.imwrite(str(samples / names["picture"]), picture[..., ::-1])
            cv2.imwrite(str(samples / names["map"]), trace if kind != "real" else trace // 8)
            forged = kind != "real"
            if forged:
                cv2.imwrite(str(samples / names["mask"]), mask)
            stream = "unseen" if kind in UNSEEN else "test"
            entry = {"forgery": kind, "label": int(forged), "picture": names["picture"], "map": names["map"]}
            index.append(
                {**entry, "mask": names["mask"] if forged else None, "z": rng.normal(forged), "stream": stream}
            )
    (samples / "index.json").write_text(json.dumps(index))
    features = ("sharpness", "high-pass energy", "JPEG grid", "saturation")
    shallow = {k: {f: float(rng.uniform(0.45, 0.7)) for f in features} for k in [*ORDER, *UNSEEN]}
    shallow["warp"]["sharpness"] = 0.18
    border = {k: float(rng.uniform(0.46, 0.55)) for k in [*ORDER, *UNSEEN]}
    (folder / "controls.json").write_text(json.dumps({"border_probe": border, "shallow": shallow}))
    costs = {k: {"parameters": 41210, "bytes": 164840, "step_seconds": 0.21, "inference_seconds": 0.004} for k in ORDER}
    (folder / "costs.json").write_text(json.dumps(costs))
    return folder


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_run(tmp_path_factory.mktemp("runs") / "five")
    write_report(folder, samples=200)
    return folder


@pytest.fixture
def html(run_dir: Path) -> str:
    return (run_dir / "report" / "report.html").read_text(encoding="utf-8")


class Nesting(HTMLParser):
    """Fails on a tag that is closed in the wrong order; gathers ids, links and sources."""

    VOID = ("meta", "link", "img", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.ids += [values["id"] or ""] if "id" in values else []
        self.targets += [values[k] or "" for k in ("href", "src") if k in values]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        return

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_is_whole_and_offline(html: str) -> None:
    assert "://" not in html
    assert "xmlns" not in html
    assert "<script" not in html
    assert "@import" not in html
    assert "url(" not in html
    page = Nesting()
    page.feed(html)
    assert page.open == []
    assert len(set(page.ids)) == len(page.ids)
    for target in page.targets:
        assert target.startswith("data:") or target[1:] in page.ids
    assert len(html) < 1_500_000


def test_page_has_every_section(html: str) -> None:
    headings = re.findall(r"<h2>(.*?)</h2>", html)
    assert headings == [
        "Forgetting curves", "Unseen forgeries", "The matrix", "Localisation", "Every measure", "Controls of the data",
        "Sample faces", "Losses", "Costs", "Configuration and environment",
    ]  # fmt: skip
    for words in (
        "Forgetting, signed",
        "Forgetting, max",
        "BWT",
        "FWT",
        "Zero-shot",
        "When just learnt",
        "Average (AA)",
    ):
        assert words in html
    assert html.count("<svg") == 2 * (5 + 1 + 2) + 3  # curves of faces and of videos, losses
    assert html.count("data:image/jpeg") == 2 * 15
    assert "24 persons" in html
    assert "IIN on five forgeries" in html
    assert "example.org/paper" in html  # shown, but no address


def test_page_shows_the_figures_of_the_predictions(html: str, run_dir: Path) -> None:
    truth = summarise_with_ci(pd.read_parquet(run_dir / "predictions.parquet"), ORDER, samples=200)
    for figure in ("aa", "diagonal", "forgetting_signed", "unseen"):
        value, (low, high) = truth["auc"][figure], truth["auc"]["ci"][figure]
        assert f"<b>{show(value)}</b>" in html
        assert f"[{show(low)}, {show(high)}]" in html
        assert low < value < high
    # Phi(2.2 / sqrt(2 (1 + 0.4^2))) = .926 when just learnt
    assert truth["auc"]["diagonal"] == pytest.approx(0.926, abs=0.02)
    assert truth["auc"]["forgetting_signed"] > 0.05


def test_page_draws_as_the_stored_summary_did(tmp_path: Path) -> None:
    table = made_predictions(6, 1)
    table.to_parquet(tmp_path / "predictions.parquet")
    stored = summarise_with_ci(table, ORDER, samples=50, seed=7)
    (tmp_path / "summary.json").write_text(json.dumps(stored))
    assert read_run(tmp_path).summary == stored
    assert read_run(tmp_path, 20).summary["auc"]["ci"] != stored["auc"]["ci"]


def test_files_beside_the_page(run_dir: Path) -> None:
    folder = run_dir / "report"
    for name in ("forgetting", "unseen", "matrix", "losses", "samples"):
        picture = cv2.imread(str(folder / f"{name}.png"))
        assert picture is not None
        assert picture.std() > 5
    figures = pd.read_csv(folder / "figures.csv").set_index(["metric", "level", "figure"])["value"]
    matrix = pd.read_csv(folder / "matrix.csv")
    last = matrix.query("after == 4 and stream == 'test' and metric == 'auc' and level == 'frame'")["value"].mean()
    assert figures["auc", "frame", "aa"] == pytest.approx(last)
    assert figures["auc", "video", "aa"] > figures["auc", "frame", "aa"]
    assert pd.read_csv(folder / "controls.csv").set_index("forgery").loc["warp", "its_auc"] == pytest.approx(0.82)
    assert not list(folder.glob("*.part"))


def test_controls_are_judged(html: str) -> None:
    assert "Read with care" in html
    assert verdict(Control("swap", 0.52, "a", 0.6, 0.7)) == (True, "passed")
    assert not verdict(Control("swap", 0.38, "a", 0.6, None))[0]  # below one half is as telling as above
    assert not verdict(Control("swap", 0.5, "a", 0.75, None))[0]
    assert verdict(Control("swap", 0.5, "a", 0.7, 0.8))[0]
    assert verdict(Control("swap", 0.5, "a", 0.7, 0.8))[1] != "passed"
    shallow = {"swap": {"a": 0.2, "b": 0.7, "joint, centre": 0.9}, "morph": {}}
    first, second = control_rows({"border_probe": {"swap": 0.5}, "shallow": shallow})
    assert [*first] == ["swap", 0.5, "a", pytest.approx(0.8), 0.9]
    assert second == ("morph", None, "", None, None)


def test_missing_parts_are_left_out(tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    (bare / "predictions").mkdir(parents=True)
    table = made_predictions(persons=6, frames=1).query("after >= 0 and stream == 'test'")
    table = table.drop(columns=["p", "threshold", "iou"])
    for after, part in table.groupby("after"):
        part.to_parquet(bare / "predictions" / f"after_{after:03d}.parquet")
    run = read_run(bare, 0)
    html = page(run.name, page_sections(run))
    assert re.findall(r"<h2>(.*?)</h2>", html) == [
        "Forgetting curves",
        "Unseen forgeries",
        "The matrix",
        "Every measure",
    ]
    assert ">FWT<" not in html
    assert "Forward transfer" not in html
    assert "never saw" not in html
    assert run.order == ORDER  # by first appearance
    assert run.videos == {}


def test_matrix_alone_and_one_experience(tmp_path: Path) -> None:
    table = measured_from_predictions(made_predictions(6, 1).query("after == 0 and on in ['swap', 'inpaint']")).matrix
    table.to_parquet(tmp_path / "matrix.parquet")
    (tmp_path / "summary.json").write_text(json.dumps({"order": ["swap"], "auc": {"ci": {"aa": [0.8, 0.9]}}}))
    html = write_report(tmp_path).read_text(encoding="utf-8")
    assert "0.800 to 0.900" in html
    assert "Forgotten since" not in html
    run = read_run(tmp_path)
    assert list(run.unseen) == ["inpaint"]
    assert set(figure_table(run)["level"]) == {"frame"}


def test_losses_from_lines_of_json(tmp_path: Path) -> None:
    made_predictions(6, 1).to_parquet(tmp_path / "predictions.parquet")
    lines = [{"step": i, "experience": i // 5, "values": {"decision": 1 / (i + 1)}} for i in range(10)]
    (tmp_path / "scalars.jsonl").write_text("\n".join(map(json.dumps, lines)) + '\n{"step": 10, "exp')
    run = read_run(tmp_path, 0)
    assert run.scalars is not None
    assert set(run.scalars["tag"]) == {"decision"}
    (panel,) = loss_panels(run)
    assert panel.marks == [(5.0, "")]
    assert panel.lines[0].points[0] == (0.0, 1.0)


@pytest.mark.parametrize("name", ["predictions.parquet", "summary.json", "controls.json", "samples/index.json"])
def test_damaged_files_are_named(tmp_path: Path, name: str) -> None:
    made_predictions(4, 1).to_parquet(tmp_path / "predictions.parquet")
    (tmp_path / "samples").mkdir()
    (tmp_path / name).write_text('{"order": [')
    with pytest.raises(FFDError, match=Path(name).name):
        write_report(tmp_path, 0)


def test_samples_outside_the_run_are_refused(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "samples").mkdir(parents=True)
    made_predictions(4, 1).to_parquet(run / "predictions.parquet")
    cv2.imwrite(str(tmp_path / "secret.png"), np.zeros((8, 8, 3), np.uint8))
    (run / "samples" / "index.json").write_text(json.dumps([{"forgery": "swap", "picture": "../../secret.png"}]))
    with pytest.raises(FFDError, match="outside"):
        write_report(run, 0)


def write_odd_names(folder: Path) -> Path:
    table = made_predictions(4, 1)
    table["on"] = table["on"].replace({"swap": r"<b>&swap$\alpha_{$", "inpaint": "see http://x.org"})
    table.to_parquet(folder / "predictions.parquet")
    return folder


def test_names_cannot_break_the_page(tmp_path: Path) -> None:
    run = read_run(write_odd_names(tmp_path), 0)
    html = page(run.name, page_sections(run))
    assert "<b>&swap" not in html
    assert "&lt;b&gt;&amp;swap" in html
    assert "://" not in html
    parser = Nesting()
    parser.feed(html)
    assert parser.open == []


def test_a_dollar_in_a_name_begins_no_formula(tmp_path: Path) -> None:
    run = read_run(write_odd_names(tmp_path), 0)
    write_matrix(tmp_path / "matrix.png", run)
    assert cv2.imread(str(tmp_path / "matrix.png")) is not None


@pytest.mark.filterwarnings("error:constrained_layout")
def test_one_experience_of_many_forgeries_has_room_in_the_pictures(tmp_path: Path) -> None:
    name = "+".join(f"family{n}" for n in range(21))
    rows = [(after, name, "test", "auc", "frame", 0.5 + 0.2 * (after + 1), 0.4, 0.9) for after in (-1, 0)]
    pd.DataFrame(rows, columns=["after", "on", "stream", "metric", "level", "value", "low", "high"]).to_parquet(
        tmp_path / "matrix.parquet"
    )
    write_report(tmp_path)
    sizes = [cv2.imread(str(tmp_path / "report" / f"{kind}.png")) for kind in ("matrix", "forgetting")]
    assert all(picture is not None and min(picture.shape[:2]) > 200 for picture in sizes)


def test_many_forgeries_and_self_made_ones(tmp_path: Path) -> None:
    rows = []
    for after in range(12):
        for j in range(12):
            rows.append((after, f"family {j}", "test", "auc", "frame", 0.9 if after >= j else 0.5, np.nan, np.nan))
    pd.DataFrame(rows, columns=list(MATRIX_COLUMNS)).to_parquet(tmp_path / "matrix.parquet")
    stored = {"order": [f"family {j}" for j in range(12)], "self_made": ["family 3"]}
    (tmp_path / "summary.json").write_text(json.dumps(stored))
    run = read_run(tmp_path)
    assert [name for _, name in run.ticks()] == [str(i) for i in range(1, 13)]
    html = page(run.name, page_sections(run))
    assert "Order of learning: 1 family 0, 2 family 1" in html
    assert "family 3 (self-made)" in html
    assert "family 3 is made by the learner itself and counts in no mean (AUC 0.900)" in html
    assert "After learning 11 forgeries" in html


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    report_command.add_arguments(parser)
    run = tmp_path / "run"
    run.mkdir()
    made_predictions(4, 1).query("after == 0 and on == 'swap'").to_parquet(run / "predictions.parquet")
    assert report_command.run(parser.parse_args([str(run), "--samples", "20"])) == 0
    assert capsys.readouterr().out.strip() == str(run / "report" / "report.html")
    assert (run / "report" / "report.html").is_file()
    with pytest.raises(FFDError, match="evaluate the run first"):
        report_command.run(parser.parse_args([str(tmp_path)]))
    with pytest.raises(FFDError, match="not a folder"):
        report_command.run(parser.parse_args([str(tmp_path / "none")]))


def relative_luminance(colour: str) -> float:
    """WCAG 2.2's definition for "#rrggbb"."""
    parts = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(parts > 0.04045, ((parts + 0.055) / 1.055) ** 2.4, parts / 12.92)
    return float(linear @ np.array([0.2126, 0.7152, 0.0722]))


def test_small_parts() -> None:
    assert show(-0.0004) == "0.000"
    assert show(-0.12, 2) == "−0.12"
    assert show(None) == show(float("nan")) == "–"
    assert escape("<a> http://b") == "&lt;a&gt; http:&#47;&#47;b"
    assert nice_ticks(0.45, 1.0) == [0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    assert nice_ticks(0.0, 4.1) == [0, 1, 2, 3, 4]
    assert smooth(np.array([0.0, 3.0, np.nan, 6.0]), 3).tolist() == [1.5, 1.5, 4.5, 6.0]
    for value in np.linspace(0.4, 1, 61):
        light = [relative_luminance(colour) for colour in heat_colours(float(value))]
        assert (max(light) + 0.05) / (min(light) + 0.05) >= 4.5  # letters can be read on every cell
    picture, trace, mask = made_face(np.random.default_rng(0))
    silent = overlay(picture, np.zeros_like(trace))
    assert np.array_equal(silent[..., 0], cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY))
    assert (overlay(picture, trace, mask) != overlay(picture, trace)).any(axis=-1).sum() > 20
