"""A comparison on one page that needs no network: figures, differences, curves over one another, costs, runs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ffd_continual.comparing.curves import Curves
from ffd_continual.comparing.finished import Estimate, Method
from ffd_continual.comparing.paired import FIGURES, Compared, Difference, Differences
from ffd_continual.comparing.published import Beside, published_cells, published_note
from ffd_continual.comparing.tables import (
    COST_HEADS,
    HEADS,
    PAIRED_HEADS,
    TRACE_HEADS,
    cost,
    cost_columns,
    intervals_used,
    trace_columns,
    video_rows,
)
from ffd_continual.reporting.charts import Line, Panel, colours, escape
from ffd_continual.reporting.frame import page, panels, show, table


def _figure(one: Estimate, best: bool) -> str:
    if not math.isfinite(one.value):
        return "–"
    value = f"<b>{show(one.value)}</b>" if best else show(one.value)
    return value + (f"<br> <small>{show(one.low)} to {show(one.high)}</small>" if math.isfinite(one.low) else "")


def _best(methods: Sequence[Method], key: tuple[str, str]) -> float:
    known = [m.figures[key].value for m in methods if math.isfinite(m.figures[key].value)]
    low = key[1].startswith("forgetting")
    return (min(known) if low else max(known)) if known else math.nan


def _figures(methods: Sequence[Method]) -> str:
    keys = [*((("auc", figure), head) for figure, head in HEADS.items())]
    keys += [(key, TRACE_HEADS[key]) for key in trace_columns(methods)]
    best = {key: _best(methods, key) for key, _ in keys}
    rows = [
        [
            escape(m.name),
            str(len(m.runs)),
            *(_figure(m.figures[key], len(methods) > 1 and m.figures[key].value == best[key]) for key, _ in keys),
        ]
        for m in methods
    ]
    heads = ["Method", "Seeds", *(head for _, head in keys)]
    return table(heads, rows, set(range(1, len(heads))), stack=True)


def _videos(methods: Sequence[Method]) -> str:
    heads, rows = video_rows(methods, lambda one: _figure(one, False))
    words = f"<p>The same figures with one score a video: the {escape(methods[0].video_words)}.</p>"
    rows = [[escape(row[0]), *row[1:]] for row in rows]
    return words + table(["Method", *heads[1:]], rows, set(range(1, len(heads))), stack=True)


def _difference(gap: Difference | None) -> list[str]:
    if gap is None or not math.isfinite(gap.value):
        return ["–", "–", "–"]
    sign = "+" if gap.value > 0 else ""
    kind = ("good" if gap.value > 0 else "bad") if gap.apart else "soft"
    word = ("better" if gap.value > 0 else "worse") if gap.apart else "not told apart"
    return [f"{sign}{show(gap.value)}", f"{show(gap.low)} to {show(gap.high)}", f'<span class="{kind}">{word}</span>']


def _differences(methods: Sequence[Method], compared: Compared) -> str:
    def gaps_of(differences: Differences) -> str:
        heads = ["Method", "Seeds"]
        for figure in FIGURES:
            heads += [PAIRED_HEADS[figure], "95 % interval", ""]
        rows = []
        for m in methods:
            gaps = [differences.get((m.name, figure)) for figure in FIGURES]
            if gaps[0] is not None:
                rows.append([escape(m.name), str(gaps[0].seeds), *(c for gap in gaps for c in _difference(gap))])
        return table(heads, rows, {1, 2, 3, 5, 6})

    words = (
        f"<p>AUC of each method minus that of <b>{escape(compared.baseline)}</b>, on the same faces: every resample"
        f" draws {compared.groups} {escape(compared.unit)} once for all runs, and seeds are averaged. The interval"
        " holds the luck of the test faces; the luck of training is in the interval over seeds above.</p>"
    )
    html = words + gaps_of(compared.differences)
    if compared.videos:
        html += (
            f"<h3>Video by video</h3><p>The same draws, one score a video: the {escape(methods[0].video_words)}.</p>"
        )
        html += gaps_of(compared.videos)
    return html


def _y_range(curves: Sequence[dict[int, float]]) -> tuple[float, float]:
    """As tight as the curves allow, so that methods come apart; at least 0.1 high."""
    values = [v for curve in curves for v in curve.values() if math.isfinite(v)]
    low = math.floor(min(values, default=0.5) * 40 - 0.5) / 40
    return low, min(1.0, max(low + 0.1, math.ceil(max(values, default=1.0) * 40 + 0.5) / 40))


def _curves(methods: Sequence[Method]) -> str:
    hues = colours(len(methods))
    order = methods[0].runs[0].order
    same = all(run.order == order for m in methods for run in m.runs)
    ticks = [(float(i), name if same else str(i + 1)) for i, name in enumerate(order)]
    before = [(-1.0, "untrained"), *ticks]
    labelled, dotted = len(methods) <= 3, len(methods) <= 6 or len(order) == 1

    def panel(title: str, note: str, curves: Sequence[dict[int, float]], learnt: float | None = None) -> Panel:
        start = -math.inf if learnt is None else learnt
        lines = [
            Line(list(curve.items()), hue, 1.6, m.name, [], start, dotted, labelled)
            for m, curve, hue in zip(methods, curves, hues, strict=True)
        ]
        early = any(-1 in curve for curve in curves)
        marks = [] if learnt is None else [(learnt, "learnt")]
        return Panel(title, lines, before if early else ticks, _y_range(curves), note, (0.5, "chance"), marks)

    def charts(found: Sequence[Curves]) -> str:
        shown = [panel("Seen so far (AA)", "mean over what was learnt", [c.seen for c in found])]
        if any(math.isfinite(v) for c in found for v in c.unseen.values()):
            shown.append(panel("Never seen", "mean over what is never learnt", [c.unseen for c in found]))
        if same:
            shown += [panel(name, "", [c.types.get(name, {}) for c in found], float(j)) for j, name in enumerate(order)]
        return panels(shown)

    keys = "".join(
        f'<label><input type="checkbox" id="m{i}" checked><i style="background:{hue}"></i>{escape(m.name)}</label>'
        for i, (m, hue) in enumerate(zip(methods, hues, strict=True))
    )
    hide = "".join(
        f'main:has(#m{i}:not(:checked)) svg :is([stroke="{hue}"],[fill="{hue}"]){{display:none}}'
        for i, hue in enumerate(hues)
    )
    hide += "".join(
        f'main:has(label:nth-child({i + 1}):hover) svg [stroke]:not([stroke="{hue}"]){{opacity:.1}}'
        for i, hue in enumerate(hues)
    )
    style = (
        "#curves .panels{grid-template-columns:repeat(auto-fill,minmax(min(100%,440px),1fr))}"
        "#curves svg .tick{font-size:8px}"
        "@media (max-width:560px){table.stack br{display:none}}"
        ".keys{display:flex;flex-wrap:wrap;gap:4px 18px;font-size:.875rem;margin:8px 0}.keys label{cursor:pointer}"
        ".keys i{display:inline-block;width:18px;height:4px;border-radius:2px;margin:0 6px 3px 4px}"
        ".keys input{margin:0;vertical-align:middle}"
    )
    words = (
        "<p>AUC after each experience, mean over seeds. Dashed: before a forgery was learnt. Axes differ."
        " Point at a method to see it alone, untick it to hide it.</p>"
    )
    if not same:
        words += "<p>The runs learn in different orders, so the curves of single forgeries are left out.</p>"
    html = f'<style>{style}{hide}</style>{words}<div class="keys">{keys}</div>{charts([m.curves for m in methods])}'
    if methods[0].videos:
        html += f"<h3>Video by video</h3><p>One score a video: the {escape(methods[0].video_words)}.</p>"
        html += charts([m.video_curves for m in methods])
    return html


def _costs(methods: Sequence[Method]) -> str:
    keys = cost_columns(methods)
    rows = [[escape(m.name), *(cost(key, m.costs[key]) for key in keys)] for m in methods]
    words = "<p>Mean over seeds. Stored: bytes of kept examples; learner: bytes of its weights and buffers.</p>"
    return words + table(["Method", *(COST_HEADS[key] for key in keys)], rows, set(range(1, len(keys) + 1)), stack=True)


def _runs(methods: Sequence[Method], left_out: Sequence[str]) -> str:
    rows = [
        [
            escape(m.name),
            ", ".join(map(str, m.seeds)),
            "<br>".join(escape(run.path) for run in m.runs),
            escape(m.interval),
        ]
        for m in methods
    ]
    said = "".join(f"<li>{escape(line)}</li>" for line in left_out)
    missing = f"<h3>Left out</h3><ul>{said}</ul>" if left_out else ""
    return table(["Method", "Seeds", "Folders", "Interval"], rows, set()) + missing


def _published(name: str, lines: Sequence[Beside]) -> str:
    heads, rows = published_cells(lines)
    cells = [[escape(cell) for cell in row] for row in rows]
    for row, one in zip(cells, lines, strict=True):
        row[0] = row[0] if one.source else f"<b>{row[0]}</b>"
    return f"<p>{escape(published_note(name))} In bold: the runs of this page.</p>" + table(heads, cells, {4, 5})


def comparison_page(
    methods: Sequence[Method],
    compared: Compared,
    left_out: Sequence[str],
    published: tuple[str, Sequence[Beside]] = ("", ()),
) -> str:
    """The whole document. published: of `published`, a section of its own."""
    order = methods[0].runs[0].order
    unseen = methods[0].runs[0].summary.get("unseen_streams", [])
    same = all(run.order == order for m in methods for run in m.runs)
    stream = " → ".join(map(escape, order)) if same else f"{len(order)} forgeries in several orders"
    lead = (
        f'<p class="lead">{len(methods)} methods, {sum(len(m.runs) for m in methods)} runs. Learnt: {stream}.'
        + (f" Never learnt: {', '.join(map(escape, unseen))}." if unseen else "")
        + "</p>"
        f"<p>Frame-level AUC; mean over seeds, below it the 95 % interval ({escape(intervals_used(methods))}). Bold:"
        " the best of a column. Forgetting is what the final model lost on earlier forgeries, negative = it gained;"
        " read it beside the diagonal, the AUC when just learnt: what was never learnt cannot be forgotten.</p>"
    )
    parts = [("figures", "Figures", lead + _figures(methods))]
    if methods[0].videos:
        parts.append(("videos", "Video level", _videos(methods)))
    if compared.differences:
        parts.append(("differences", "Differences", _differences(methods, compared)))
    parts.append(("curves", "Forgetting curves", _curves(methods)))
    if published[1]:
        parts.append(("published", "Published figures", _published(*published)))
    if cost_columns(methods):
        parts.append(("costs", "Costs", _costs(methods)))
    parts.append(("runs", "Runs", _runs(methods, left_out)))
    return page("Comparison", parts)
