"""False alarms on harmless edits as a table on the terminal, a page, and a section of a run's report.

Where faces are frames of videos each table is followed by that of the videos.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from ffd_continual.reporting.charts import escape
from ffd_continual.reporting.frame import page, show, table
from ffd_continual.reporting.pictures import data_uri
from ffd_continual.retesting.false_alarms import ALL, OWN, SMALL, TABLE, UNTOUCHED
from ffd_continual.runs.folder import write_table, write_text
from ffd_continual.scenarios.benign import EDITS
from ffd_continual.terminal import wrapped

ABREAST = 6
Picture = npt.NDArray[np.uint8]


def _percent(value: float, digits: int = 1) -> str:
    return f"{100 * value:.{digits}f}" if math.isfinite(value) else "-"


def _levels(alarms: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """(what is counted, its rows): faces, then videos where the set has some."""
    if "level" not in alarms.columns:
        return [("faces", alarms)]
    known = (("faces", "frame"), ("videos", "video"))
    return [(word, alarms[alarms["level"] == level]) for word, level in known if (alarms["level"] == level).any()]


def _ats(alarms: pd.DataFrame) -> list[str]:
    return [str(at) for at in dict.fromkeys(alarms["at"])]


def _title(at: str) -> str:
    return "own threshold" if at == OWN else f"threshold of {at.removeprefix('fpr ')}"


def _cell(row: pd.Series) -> str:
    spread = f" [{_percent(row['low'])}, {_percent(row['high'])}]" if math.isfinite(row["low"]) else ""
    return f"{_percent(row['fpr'])}{spread}"


def terminal(alarms: pd.DataFrame, notes: Sequence[str] = ()) -> str:
    """Everybody by edit and threshold, then each group, in at most 80 columns; in percent."""
    lines = []
    for word, counted in _levels(alarms):
        ats, everybody = _ats(counted), counted[counted["by"] == ""]
        lines += [f"real {word} called forged, %", f"{'':18s}" + "".join(f"{_title(at):>20s}" for at in ats)]
        for name in dict.fromkeys(everybody["edit"]):
            part = everybody[everybody["edit"] == name].set_index("at")
            lines.append(f"{name:18s}" + "".join(f"{_cell(part.loc[at]):>20s}" for at in ats))
        lines.append("")
    for word, counted in _levels(alarms):
        lines += _group_lines(counted, "" if word == "faces" else "videos ")
    first = alarms[alarms["by"] == ""].iloc[-1]
    videos = f" in {first['videos']} videos" if "videos" in first else ""
    said = [f"[ ] 95 % interval over persons; {first['faces']} real test faces{videos} of {first['persons']} persons"]
    if "rule" in first:
        said.append(f"score of a video: {first['rule']}")
    if alarms[alarms["by"] != ""]["small"].any():
        said.append(f"* fewer than {SMALL} persons: too few to conclude anything")
    return "\n".join([*lines[:-1], *(wrapped(note) for note in [*said, *notes])])


def _group_lines(counted: pd.DataFrame, word: str) -> list[str]:
    grouped = counted[(counted["by"] != "") & (counted["at"] == OWN) & counted["edit"].isin((UNTOUCHED, ALL))]
    if not len(grouped):
        return []
    lines = [f"{word + 'by group, own threshold':32s}{'persons':>8s}{'untouched':>20s}{'all edits':>20s}"]
    for (column, group), part in grouped.groupby(["by", "group"], sort=False):
        cells = part.set_index("edit")
        first = cells.iloc[0]
        name = f"{column}: {group}"
        name = (name if len(name) <= 30 else name[:29] + "~") + ("*" if first["small"] else "")
        texts = "".join(f"{_cell(cells.loc[e]) if e in cells.index else '-':>20s}" for e in (UNTOUCHED, ALL))
        lines.append(f"{name:32s}{first['persons']:>8d}{texts}")
    return [*lines, ""]


def _html_cell(row: pd.Series, against: bool) -> str:
    text = f"<b>{_percent(row['fpr'])}</b>"
    if math.isfinite(row["low"]):
        text += f" <small>[{_percent(row['low'])}, {_percent(row['high'])}]</small>"
    if against and math.isfinite(row["rise_low"]) and (row["rise_low"] > 0 or row["rise_high"] < 0):
        kind, sign = ("bad", "+") if row["rise"] > 0 else ("good", "−")
        text += f' <span class="{kind}">{sign}{_percent(abs(row["rise"]))}</span>'
    return text


def alarm_section(alarms: pd.DataFrame, strip: Sequence[tuple[str, Picture]] = (), notes: Sequence[str] = ()) -> str:
    """HTML: the table of edits, that of groups, and one face under every edit (`strip`)."""
    levels = _levels(alarms)
    first = alarms[alarms["by"] == ""].iloc[-1]
    html = (
        "<p>Share of real test faces that the final detector calls forged, in percent, after edits that forge nothing: "
        f"{first['faces']} faces of {first['persons']} persons. In brackets: 95 % intervals over persons. Coloured: "
        "the change against the untouched faces, where its own (paired) interval excludes 0. Thresholds were chosen on "
        "untouched validation faces: the run's own, and those that 1 % and 10 % of their real faces reach at most.</p>"
    )
    html += _edits(levels[0][1])
    for _, videos in levels[1:]:
        html += (
            f"<h3>Video by video</h3><p>The same of the {first['videos']} real test videos, one score each: the "
            f"{escape(first['rule'])}. Their thresholds were chosen on validation videos in the same way.</p>"
            + _edits(videos)
        )
    if strip:
        figures = "".join(
            f'<figure><img src="{data_uri(face)}" alt="real face, {escape(name)}">'
            f"<figcaption>{escape(name)}</figcaption></figure>"
            for name, face in strip
        )
        style = "grid-template-columns:repeat(auto-fill,minmax(104px,1fr));gap:10px"
        html += f'<div class="faces" style="{style}">{figures}</div>'
    for column, part in alarms[alarms["by"] != ""].groupby("by", sort=False):
        html += f"<h3>By {escape(column)}, own threshold</h3>"
        for word, counted in _levels(part):
            html += ("" if word == "faces" else "<p><b>Video by video</b></p>") + _groups(counted)
    return html + "".join(f'<p class="soft">{escape(note)}.</p>' for note in notes)


def _edits(counted: pd.DataFrame) -> str:
    """Edits down, thresholds across, everybody together."""
    ats, everybody, rows = _ats(counted), counted[counted["by"] == ""], []
    for name in dict.fromkeys(everybody["edit"]):
        part = everybody[everybody["edit"] == name].set_index("at")
        words = f" <small>{escape(EDITS[name].title)}</small>" if name in EDITS else ""
        kind = escape(part.iloc[0]["kind"])
        rows.append([escape(name) + words, kind, *(_html_cell(part.loc[at], name != UNTOUCHED) for at in ats)])
    return table(["Edit", "Kind", *(escape(_title(at)) for at in ats)], rows, set(range(2, 2 + len(ats))), stack=True)


def _groups(part: pd.DataFrame) -> str:
    """Edits down, groups across, at the run's own threshold; `ABREAST` groups a table."""
    own = part[part["at"] == OWN]
    cells = own.set_index(["edit", "group"])
    groups, html = [str(g) for g in dict.fromkeys(own["group"])], ""
    for start in range(0, len(groups), ABREAST):
        block = groups[start : start + ABREAST]
        heads = []
        for group in block:
            few = ' <span class="bad">few</span>' if cells.loc[(UNTOUCHED, group), "small"] else ""
            heads.append(f"{escape(group)} <small>{cells.loc[(UNTOUCHED, group), 'persons']} persons</small>{few}")
        names = dict.fromkeys(own["edit"])
        rows = [
            [
                escape(n),
                *(_html_cell(cells.loc[(n, g)], n != UNTOUCHED and not cells.loc[(n, g), "small"]) for g in block),
            ]
            for n in names
        ]
        html += table(["Edit", *heads], rows, set(range(1, len(heads) + 1)))
    if part["small"].any():
        html += f'<p class="soft">few: fewer than {SMALL} persons, too few to conclude anything.</p>'
    gap = part[(part["edit"] == UNTOUCHED) & (part["at"] == OWN) & ~part["small"]].sort_values("fpr")
    if len(gap) > 1:
        low, high = gap.iloc[0], gap.iloc[-1]
        apart = high["low"] > low["high"]
        html += (
            f"<p>Untouched, own threshold: {show(100 * low['fpr'], 1)} % ({escape(low['group'])}) to "
            f"{show(100 * high['fpr'], 1)} % ({escape(high['group'])}); their intervals "
            f"{'do not overlap' if apart else 'overlap'}.</p>"
        )
    return html


def write_alarms(
    out: Path, alarms: pd.DataFrame, title: str, strip: Sequence[tuple[str, Picture]], notes: Sequence[str]
) -> Path:
    """Table (Parquet, CSV) and page; returns the page's path."""
    write_table(out / TABLE, alarms)
    write_text(out / "benign.csv", alarms.to_csv(index=False))
    write_text(out / "benign.html", page(title, [("benign", "", alarm_section(alarms, strip, notes))]))
    return out / "benign.html"
