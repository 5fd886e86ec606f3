"""LINEAGE/report.html: every forgery's AUC over versions and over time, what each version cost, what is in use.

One file, no script; figures come from the versions' own matrices, so a pruned version keeps its place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ffd_continual.lineage.lineage import Lineage
from ffd_continual.lineage.store import REFUSED, read_log
from ffd_continual.lineage.upkeep import size_of
from ffd_continual.lineage.versions import mean_auc, moment, real_sources, state_of, unmeasured
from ffd_continual.reporting.charts import BLUE, ORANGE, Line, Panel, escape
from ffd_continual.reporting.frame import page, panels, show, table
from ffd_continual.runs.folder import write_text

LOG_SHOWN = 40


@dataclass(frozen=True)
class Version:
    """A version as the page needs it; auc: (stream, name) -> (value, low, high) of its final model."""

    number: int
    about: dict[str, Any]
    state: str
    when: float  # seconds since 1970
    auc: dict[tuple[str, str], tuple[float, float, float]]
    unmeasured: list[str]  # of what it knows
    sources: set[str] = field(default_factory=set)  # of these it learnt real faces only: they are in no average

    @property
    def refused(self) -> bool:
        """By the rule of promotion."""
        return bool(self.about["verdict"] == REFUSED)


def read_versions(lineage: Lineage) -> list[Version]:
    """All versions, oldest first."""
    found = []
    for number in lineage.versions():
        about = lineage.about(number) | {"aa": mean_auc(lineage, number)}
        matrix = pd.read_parquet(lineage.folder(number) / "matrix.parquet")
        last = len(about["experiences"]) - 1
        part = matrix[(matrix["metric"] == "auc") & (matrix["level"] == "frame") & (matrix["after"] == last)]
        part = part[part["value"].notna()]
        keys = zip(part["stream"], part["on"], strict=True)
        values = zip(part["value"], part["low"], part["high"], strict=True)
        when, state = moment(about["date"]), state_of(lineage, number)
        found.append(
            Version(
                number,
                about,
                state,
                when,
                dict(zip(keys, values, strict=True)),
                unmeasured(lineage, number),
                real_sources(lineage, about["experiences"]),
            )  # fmt: skip
        )
    return found


def _ticks(versions: Sequence[Version], by_time: bool) -> list[tuple[float, str]]:
    if not by_time:
        step = max(1, math.ceil(len(versions) / 10))
        return [(float(v.number), str(v.number)) for v in versions[::step]]
    first, last = versions[0].when, versions[-1].when
    form = "%H:%M" if last - first < 2 * 86400 else "%d %b" if last - first < 400 * 86400 else "%b %Y"
    at = np.unique(np.linspace(first, last, min(4, len(versions))))
    return [(float(t), datetime.fromtimestamp(t, UTC).strftime(form)) for t in at]


def _steps(points: Sequence[tuple[float, ...]]) -> list[Any]:
    """Points (x, ...) with each one's values once more where the next begins."""
    made = list(points[:1])
    for one, two in pairwise(points):
        made += [(two[0], *one[1:]), two]
    return made


def _curve(
    title: str, versions: Sequence[Version], stream: str, name: str, by_time: bool, y: tuple[float, float]
) -> Panel:
    """One forgery: versions that were promoted as a line with its interval, refused ones as orange dots."""

    def x(version: Version) -> float:
        return version.when if by_time else float(version.number)

    known = [v for v in versions if (stream, name) in v.auc]
    line = [(x(v), *v.auc[stream, name]) for v in known if not v.refused]
    points = [(a, b) for a, b, _, _ in line]
    band = [(a, max(c, y[0]), max(d, y[0])) for a, _, c, d in line]
    # By time a version's figure holds until the next one goes into use.
    curves = [Line(_steps(points), BLUE, 2.4, name, _steps(band), dots=False)] if by_time else []
    curves += [Line([point], BLUE, 2.4, name, end_value=False) for point in points] if by_time else []
    curves = curves or [Line(points, BLUE, 2.4, name, band)]
    dots = [Line([(x(v), v.auc[stream, name][0])], ORANGE, 2.0, f"{name}, refused", end_value=False)
            for v in known if v.refused]  # fmt: skip
    note = f"refused in version {known[-1].number}" if known else "not measured"
    if line:
        change = line[-1][1] - line[0][1]
        came = next(v.number for v in known if not v.refused)
        word = f"gained {change:.2f}" if change >= 0.005 else f"lost {-change:.2f}" if change <= -0.005 else "unchanged"
        note = f"since version {came}: {word}" if len(line) > 1 else f"measured in version {came}"
    used = [(x(v), "") for v in versions if v.state == "in use"]
    return Panel(title, [*dots, *curves], _ticks(versions, by_time), y, note, (0.5, "chance"), used)


def _names(versions: Sequence[Version], stream: str) -> list[str]:
    return list(dict.fromkeys(name for v in versions for s, name in v.auc if s == stream))


def _curves(versions: Sequence[Version], by_time: bool) -> str:
    values = [value for v in versions for value, _, _ in v.auc.values() if math.isfinite(value)]
    y = (min(0.45, math.floor(min(values, default=0.5) * 20 - 1) / 20), 1.0)
    shown = [_curve(name, versions, "test", name, by_time, y) for name in _names(versions, "test")]
    shown += [_curve(f"{name} (unseen)", versions, "unseen", name, by_time, y) for name in _names(versions, "unseen")]
    return panels(shown)


def _cost_panel(title: str, note: str, versions: Sequence[Version], values: Sequence[float]) -> Panel:
    points = [(float(v.number), value) for v, value in zip(versions, values, strict=True)]
    top = max([value for _, value in points if math.isfinite(value)], default=1.0)
    return Panel(title, [Line(points, BLUE, 2.4, title)], _ticks(versions, False), (0.0, 1.1 * top or 1.0), note)


def _costs(versions: Sequence[Version]) -> str:
    added = [v for v in versions if v.about["parent"] is not None]
    grown = _cost_panel(
        "Learner, MB", "what is loaded to judge a face", versions, [v.about["learner_bytes"] / 1e6 for v in versions]
    )
    if not added:
        return panels([grown])
    train = [v.about["seconds"]["train"] for v in added]
    measure = [v.about["seconds"]["measure"] for v in added]
    return panels(
        [
            _cost_panel("Learning, seconds", "reads new faces and exemplars only", added, train),
            _cost_panel("Measuring, seconds", "grows with the test streams", added, measure),
            grown,
        ]
    )


def _table(versions: Sequence[Version]) -> str:
    heads = ["Version", "Date (UTC)", "Forgery", "Faces", "AA", "Largest drop [95 %]", "Learn s", "Measure s", "State"]
    rows = []
    for v in reversed(versions):
        about = v.about
        worst = max((d for d in about["drops"] if d["name"] != "mean"), key=lambda d: d["drop"], default=None)
        drop = "–"
        if worst is not None:
            interval = (
                f" <small>[{show(worst['low'])}, {show(worst['high'])}]</small>" if worst["low"] is not None else ""
            )
            drop = f"{show(worst['drop'])}{interval}<br><small>{escape(worst['name'])}</small>"
        kind = {"real": " (real faces)", "correct": " (labels corrected)"}.get(about["kind"], "")
        colour = {"in use": "good", "refused": "bad"}.get(v.state, "")
        state = f'<span class="{colour}">{v.state}</span>' if colour else v.state
        if about["verdict"] == "promoted anyway":
            state += "<br><small>promoted anyway</small>"
        if about["kind"] == "add" and about["forgery"] in v.unmeasured:
            state += f"<br><small>{escape(about['forgery'])} not measured</small>"
        average, known = show(about["aa"]), len(about["experiences"]) - len(v.sources)
        if v.unmeasured:
            left = len(set(v.unmeasured) - v.sources)
            average += f"<br><small>of {known - left} of {known}</small>" if left else ""
        link = f'<a href="versions/{v.number:04d}/report/report.html">{v.number}</a>'
        rows.append(
            [link, about["date"].replace("T", " ").rstrip("Z")[:16], escape(about["forgery"]) + kind,
             f"{about['faces']['train']:,}", average, drop, f"{about['seconds']['train']:.1f}",
             f"{about['seconds']['measure']:.1f}", state]
        )  # fmt: skip
    return table(heads, rows, {3, 4, 6, 7}, stack=True)


def _log(lineage: Lineage) -> str:
    entries = read_log(lineage)
    rows = []
    for entry in entries[::-1][:LOG_SHOWN]:
        rest = {k: v for k, v in entry.items() if k not in ("time", "who", "event", "version") and v not in (None, [])}
        words = ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in rest.items())
        version = "" if entry.get("version") is None else str(entry["version"])
        rows.append([escape(entry["time"].replace("T", " ").rstrip("Z")), escape(entry["who"]), escape(entry["event"]),
                     version, escape(words)])  # fmt: skip
    more = (
        f"<p class='soft'>The newest {LOG_SHOWN} of {len(entries)} entries of log.jsonl.</p>"
        if len(entries) > LOG_SHOWN
        else ""
    )
    return more + table(["Time (UTC)", "Who", "What", "Version", "Details"], rows, {3})


def _lead(lineage: Lineage, versions: Sequence[Version]) -> str:
    used = next(v for v in versions if v.state == "in use")
    learnt = {name: value for (stream, name), (value, _, _) in used.auc.items() if stream == "test"}
    worst = min(learnt, key=lambda name: learnt[name], default="")
    refused = sum(v.refused for v in versions)
    ci = used.about["ci"] or (None, None)
    spread = [f"[{show(ci[0])}, {show(ci[1])}] 95 %"] if ci[0] is not None else []
    spread += [f"not measured: {', '.join(map(escape, used.unmeasured))}"] if used.unmeasured else []
    tiles = [
        (
            "In use",
            f"version {used.number}",
            f"since {used.about['date'][:10]}, {len(used.about['experiences'])} learnt",
        ),
        ("Average AUC", show(used.about["aa"]), "<br>".join(spread)),
        ("Weakest forgery", show(learnt.get(worst)), escape(worst)),
        ("Unseen AUC", show(used.about["unseen_auc"]), ", ".join(map(escape, used.about["unseen"])) or "none"),
    ]
    cells = "".join(f'<div class="tile"><div>{a}</div><b>{b}</b><small>{c}</small></div>' for a, b, c in tiles)
    names = ", ".join(escape(name) for name in used.about["experiences"])
    text = (
        f"A detector in use. It knows {names}. Each of its {len(versions)} versions ({refused} refused; "
        f"{size_of(lineage) / 1e6:,.0f} MB in all) learnt one thing more from the one before it, was measured on "
        "everything earlier, and went into use only if nothing fell too far."
    )
    return f'<p class="lead">{text}</p><div class="tiles">{cells}</div>'


def write_page(lineage: Lineage) -> Path:
    """Write the page from the versions' own files; its path."""
    versions = read_versions(lineage)
    legend = (
        "<p>AUC of each forgery's test faces, with its 95 % interval: blue the versions that went into use, orange "
        "dots those refused; the upright line marks the version in use.</p>"
    )
    over_time = "<p>The same by date (UTC): a version's figure holds until the next one goes into use.</p>"
    sections = [
        ("top", "", _lead(lineage, versions)),
        ("versions", "Versions", _table(versions)),
        ("curves", "Every forgery over the versions", legend + _curves(versions, False)),
        ("time", "Every forgery over time", over_time + _curves(versions, True)),
        ("costs", "What each version cost", _costs(versions)),
        ("log", "Who did what, and when", _log(lineage)),
    ]
    path = lineage.path / "report.html"
    write_text(path, page(lineage.path.resolve().name, sections))
    return path
