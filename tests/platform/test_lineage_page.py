"""A lineage's page and the web page's history over versions that came at uneven times, one of them without a test."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from ffd_continual.lineage.lineage import open_lineage
from ffd_continual.lineage.page import write_page
from ffd_continual.lineage.versions import mean_auc, table
from ffd_continual.serving.history import history, read_report

DAYS = ("2023-01-01", "2023-01-11", "2024-01-01", "2026-01-01")
AUC = (
    {"alpha": 0.9},
    {"alpha": 0.8, "beta": 0.7},
    {"alpha": 0.6, "beta": 0.6, "gamma": 0.65},
    {"alpha": 0.85, "beta": 0.75},
)


@pytest.fixture
def grown(tmp_path: Path) -> Path:
    """Four versions, as far as the pages read them; the third was refused, the fourth brought "few", unmeasured."""
    names = (["alpha"], ["alpha", "beta"], ["alpha", "beta", "gamma"], ["alpha", "beta", "few"])
    for number, (day, known, auc) in enumerate(zip(DAYS, names, AUC, strict=True), 1):
        folder = tmp_path / "versions" / f"{number:04d}"
        (folder / "checkpoints" / "after_000").mkdir(parents=True)
        rows = [
            {"after": len(known) - 1, "stream": "test", "on": name, "metric": "auc", "level": "frame",
             "value": auc.get(name), "low": auc.get(name, 0) - 0.6, "high": auc.get(name, 0) + 0.05}
            for name in known
        ]  # fmt: skip
        pd.DataFrame(rows).astype({"value": float}).to_parquet(folder / "matrix.parquet")
        about = {
            "format": 1, "number": number, "parent": None if number == 1 else min(number - 1, 2), "forgery": known[-1],
            "kind": "adopt" if number == 1 else "add", "date": f"{day}T12:00:00Z", "experiences": known, "unseen": [],
            "verdict": "refused" if number == 3 else "promoted", "drops": [], "worst_drop": None,
            "faces": {"train": 20}, "seconds": {"train": 1.0 * number, "measure": 2.0}, "ci": None, "unseen_auc": None,
            "aa": None if number == 4 else 0.8, "learner_bytes": 10**6, "stored_bytes": 0,
        }  # fmt: skip
        (folder / "version.json").write_text(json.dumps(about))
    (tmp_path / "lineage.json").write_text(json.dumps({"format": 1, "salt": "x"}))
    (tmp_path / "promoted").write_text("4\n")
    return tmp_path


def _panel(text: str, section: str, name: str) -> str:
    inside = text.partition(f'<section id="{section}">')[2].partition("</section>")[0]
    return inside.partition(f"<figcaption>{name}<")[2].partition("</figure>")[0]


def _circles(panel: str, colour: str = "#0b5394") -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(rf'<circle cx="(\S+)" cy="(\S+)" r="3" fill="{colour}"', panel)]


def test_curves_over_time_keep_the_distances_of_days(grown: Path) -> None:
    text = write_page(open_lineage(grown)).read_text(encoding="utf-8")
    by_version, by_time = (_circles(_panel(text, section, "alpha")) for section in ("curves", "time"))
    assert len(by_version) == len(by_time) == 3
    assert [y for _, y in by_version] == [y for _, y in by_time]
    (a, _), (b, _), (c, _) = by_version
    assert (b - a) / (c - a) == pytest.approx(1 / 3, abs=0.01)
    (a, _), (b, _), (c, _) = by_time
    assert (b - a) / (c - a) == pytest.approx(10 / 1096, abs=0.002)
    (refused, _), = _circles(_panel(text, "time", "alpha"), "#c65102")  # fmt: skip
    assert (refused - a) / (c - a) == pytest.approx(365 / 1096, abs=0.002)
    drawn = re.findall(r'<path d="(M[^"Z]+)" fill="none"', _panel(text, "time", "alpha"))
    heights = re.findall(r"[ML]\S+ ([\d.]+)", max(drawn, key=len))
    assert len(heights) == 5, "a step a version"
    assert heights[0] == heights[1] != heights[2] == heights[3] != heights[4]
    ticks = re.findall(r">(\w{3} \d{4})<", _panel(text, "time", "alpha"))
    assert ticks == ["Jan 2023", "Jan 2024", "Jan 2025", "Jan 2026"]
    (band,) = re.findall(r'd="M([^"]+)Z"', _panel(text, "time", "alpha"))
    assert max(float(y) for y in re.findall(r" (\d+\.\d)", band)) <= 166, "the band leaves the chart"
    assert "refused in version 3" in _panel(text, "time", "gamma")


def test_what_was_never_measured_is_said_and_in_no_mean(grown: Path) -> None:
    lineage = open_lineage(grown)
    assert mean_auc(lineage, 4) == pytest.approx(0.8)
    lines = table(lineage).splitlines()
    assert " 0.800 " in lines[5]
    assert ("few°" in lines[5], "beta°" in lines[3]) == (True, False)
    assert lines[-1] == "in use: AA is over 2 of 3 forgeries; not measured: few"
    assert max(map(len, lines)) <= 80
    text = write_page(lineage).read_text(encoding="utf-8")
    assert "few not measured" in text
    assert "0.800<br><small>of 2 of 3</small>" in text
    assert "<small>not measured: few</small>" in text.partition('<section id="versions">')[0]
    assert ">few<" not in text.partition('<section id="curves">')[2].partition('<section id="costs">')[0]
    told = history(grown)
    assert told["versions"][3]["aa"] == pytest.approx(0.8)
    assert [one["measured"] for one in told["versions"]] == [True, True, True, False]


def test_the_history_tells_dates_and_leads_to_the_versions_reports(grown: Path) -> None:
    told = history(grown)
    assert [tick["x"] for tick in told["axis"]] == [1, 2, 4]
    assert told["axis"][1]["time"] - told["axis"][0]["time"] == 10 * 86400
    write_page(open_lineage(grown))
    served = read_report(grown)
    assert served is not None
    assert 'href="/api/versions/4/report"' in served
    assert "versions/0004/report" not in served
