"""The report's sections as HTML: each says in a sentence what a newcomer is looking at."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ffd_continual.reporting.charts import escape
from ffd_continual.reporting.data import RunData
from ffd_continual.reporting.frame import heat_colours, panels, show, table
from ffd_continual.reporting.panels import forgetting_panels, loss_panels, unseen_panels

MEANING = {
    "aa": ("Average (AA)", "Mean over all learnt forgeries, measured at the very end. The main figure."),
    "diagonal": (
        "When just learnt",
        "Mean of each forgery right after learning it: how well the detector still learns.",
    ),
    "forgetting_signed": (
        "Forgetting, signed",
        "How much earlier forgeries lost from just learnt to the end; below 0 they gained.",
    ),
    "forgetting_max": ("Forgetting, max", "The same, counted from each forgery's best moment before the last one."),
    "bwt": ("Backward transfer (BWT)", "Signed forgetting with the other sign: above 0, later learning helped."),
    "fwt": (
        "Forward transfer (FWT)",
        "How much better the next forgery is found before learning it than by the untrained model.",
    ),
    "zero_shot": ("Zero-shot", "Mean on forgeries of the order before they were learnt."),
    "unseen": ("Unseen", "Mean, at the end, on forgeries that no experience ever trains on."),
}
MEASURES = {
    "auc": ("AUC", "chance that a forged face scores above a real one; 0.5 is guessing, 1 perfect"),
    "acc": ("ACC", "share of faces judged rightly, at the threshold chosen on validation faces"),
    "eer": ("EER", "error rate at the threshold where false alarms and misses are equally frequent; 0 is perfect"),
    "ap": ("AP", "average precision, the area under precision against recall"),
    "tpr10": ("TPR@10%", "forged faces found when one real face in ten raises a false alarm"),
    "tpr1": ("TPR@1%", "forged faces found when one real face in a hundred raises a false alarm"),
    "ece": ("ECE", "how far the stated probabilities lie from the observed frequencies; 0 is honest"),
    "iou": ("IoU", "overlap of the trace map, cut at probability 0.5, with the pixels that were really changed"),
    "pixel_auc": ("pixel AUC", "chance that a changed pixel scores above an unchanged one"),
}


SHUFFLED = (
    "<b>This run is a control:</b> the labels of its training faces were shuffled. Every figure should be chance"
    " (AUC 0.5); what is not is luck or a leak."
)


def _figure(summary: dict[str, Any], metric: str, key: str) -> str:
    value = summary.get(metric, {}).get(key)
    low, high = summary.get(metric, {}).get("ci", {}).get(key, (None, None))
    text = f"<b>{show(value)}</b>"
    return text + (f" <small>[{show(low)}, {show(high)}]</small>" if low is not None and high is not None else "")


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def lead_sentence(run: RunData) -> str:
    """The run's result in plain words."""
    auc = run.summary["auc"]
    if run.last < 0:
        return "Only the untrained model was measured so far."
    learnt = [escape(n) for n in run.order[: run.last + 1] if n not in run.self_made]
    text = f"After learning {_listed(learnt)}" if len(learnt) < 7 else f"After learning {len(learnt)} forgeries"
    text += " one after another" if len(learnt) > 1 else ""
    text += f", the detector tells real from forged with an AUC of {show(auc['aa'], 2)} on average"
    text += " (1 is perfect, 0.5 is guessing)."
    lost = auc["forgetting_signed"]
    if lost is not None:
        way = "learning the later ones cost the earlier ones" if lost >= 0.005 else "later learning took nothing:"
        gain = f"{way} {show(lost, 2)}" if lost >= 0.005 else f"{way} the earlier ones changed by {show(-lost, 2)}"
        text += f" Just learnt, they stood at {show(auc['diagonal'], 2)}; {gain}."
    if auc["unseen"] is not None:
        count = len(run.unseen)
        text += (
            f" On {count} {'forgery' if count == 1 else 'forgeries'} it never saw, it reaches {show(auc['unseen'], 2)}."
        )
    if left := run.summary.get("unmeasured"):
        text += (
            f" Not measured, as too few faces of it came along: {_listed([escape(n) for n in left])}; in no average."
        )
    if run.last + 1 < len(run.order):
        text += f" {run.last + 1} of {len(run.order)} experiences are done."
    return text


def headline(run: RunData) -> str:
    """Lead sentence, four large numbers and the table of figures with their meaning."""
    tiles = []
    chosen = [("aa", "in", "On what it learnt"), ("diagonal", "", "When just learnt")]
    chosen += [("forgetting_signed", "", "Forgotten since"), ("unseen", "out", "On what it never saw")]
    for key, colour, words in chosen:
        auc, acc = run.summary["auc"], run.summary["acc"]
        if auc.get(key) is None:
            continue
        low, high = auc.get("ci", {}).get(key, (None, None))
        spread = f"95 %: {show(low)} to {show(high)}<br>" if low is not None and high is not None else ""
        tiles.append(
            f'<div class="tile {colour}"><div>{words}</div><b>{show(auc[key])}</b>'
            f"<small>{spread}AUC; ACC {show(acc.get(key))}</small></div>"
        )
    heads = ["Figure", "AUC", "ACC"]
    sources = [(run.summary, "auc"), (run.summary, "acc")]
    if run.videos:
        heads, sources = [*heads, "AUC, videos", "ACC, videos"], [*sources, (run.videos, "auc"), (run.videos, "acc")]
    rows = [
        [name, *(_figure(summary, metric, key) for summary, metric in sources), words]
        for key, (name, words) in MEANING.items()
        if any(s.get(m, {}).get(key) is not None for s, m in sources)
    ]
    control = f"<p>{SHUFFLED}</p>" if run.labels == "shuffled" else ""
    html = f'{control}<p class="lead">{lead_sentence(run)}</p><div class="tiles">{"".join(tiles)}</div>'
    html += table([*heads, "What it means"], rows, set(range(1, len(heads))), stack=True)
    notes = []
    boot = run.summary.get("bootstrap")
    if boot and boot.get("samples"):
        notes.append(
            f"In brackets: 95 % intervals from {boot['samples']} resamples of {boot['groups']} {escape(boot['unit'])}, "
            "never of single frames"
            + (f"; {boot['skipped']} resamples held one class only and were skipped" if boot.get("skipped") else "")
        )
    if run.faces:
        notes.append(f"{run.faces:,} different faces were tested")
    if run.videos:
        notes.append(f"Score of a video: {escape(run.videos['rule']['words'])}")
    for name, value in run.summary["auc"].get("self_made", {}).items():
        source = name in run.summary.get("sources", ())
        why = "brought real faces of a new source" if source else "is made by the learner itself"
        notes.append(f"{escape(name)} {why} and counts in no mean (AUC {show(value)})")
    return html + (f'<p class="soft"><small>{". ".join(notes)}.</small></p>' if notes else "")


def _both(run: RunData, words: str, draw: Callable[[str], str]) -> str:
    """What `draw` makes at level frame and, below a heading, at level video where the run has videos."""
    if not run.videos:
        return draw("frame")
    told = f"{words}, one score a video: the {escape(run.videos['rule']['words'])}."
    return f"{draw('frame')}<h3>Video by video</h3><p>{told}</p>{draw('video')}"


def forgetting(run: RunData) -> str:
    """The forgetting curves."""
    key = ", ".join(f"{i} {escape(name)}" for i, name in enumerate(run.order, start=1)) if run.numbered else ""
    return (
        "<p>Each panel follows one forgery through the run: its AUC after every experience. Dashed: before it was "
        "learnt. Solid: after. A line that falls after its mark is forgetting. Shaded: 95 % interval; grey: the other "
        "forgeries.</p>"
        + (f'<p class="soft">Order of learning: {key}; – is the untrained model.</p>' if key else "")
        + _both(run, "The same curves on the same axis", lambda level: panels(forgetting_panels(run, level)))
    )


def unseen(run: RunData) -> str:
    """The unseen curve."""
    text = "<p>What the detector does on forgeries that it is never trained on, after every experience."
    if run.unseen:
        text += (
            ' <span style="color:var(--blue)">Blue</span>: mean over what it has seen so far; '
            '<span style="color:var(--orange)">orange</span>: never seen. The gap between the two is what it has '
            "learnt by heart.</p>"
        )
    else:
        text = "<p>No unseen stream was measured; this is the mean over what was learnt so far.</p>"
    return text + _both(run, "The same curves on the same axis", lambda level: panels(unseen_panels(run, level)))


def _heat(run: RunData, level: str) -> str:
    names = [("test", n) for n in run.order] + [("unseen", n) for n in run.unseen]
    value = {(s, n, p.after): p.value for s, n in names for p in run.curve(s, n, level=level)}
    gap = '<td class="gap"></td>' if run.unseen else ""
    style = "heat tall" if len(names) > 9 else "heat"
    split = len(run.order)
    heads = [f"<th><span>{escape(n)}</span></th>" for _, n in names]
    over = f'<tr><th></th><th colspan="{split}">tested on what is learnt in turn</th>'
    over += f'{gap}<th colspan="{len(run.unseen)}">never learnt</th>' if run.unseen else ""
    rows = [f"<thead>{over}</tr><tr><th></th>{''.join(heads[:split])}{gap}{''.join(heads[split:])}</tr></thead><tbody>"]
    for step, label in run.step_names():
        cells = []
        for k, (stream, name) in enumerate(names):
            v = value.get((stream, name, step), math.nan)
            back, letters = heat_colours(v)
            early = stream == "test" and run.order.index(name) > step
            shown = show(v, 2 if "tall" in style else 3)
            text = f"({shown})" if early and math.isfinite(v) else shown
            learnt = ' class="learnt"' if stream == "test" and run.order.index(name) == step else ""
            cells.append(
                (gap if k == split else "") + f'<td{learnt} style="background:{back};color:{letters}">{text}</td>'
            )
        words = escape(label) if step < 0 else f"after {escape(label)}"
        rows.append(f"<tr><th>{words}</th>{''.join(cells)}</tr>")
    return f'<div class="wide"><table class="{style}">{"".join(rows)}</tbody></table></div>'


def matrix(run: RunData) -> str:
    """The matrix as a heat map with numbers."""
    words = (
        "<p>AUC of each row's model on each column's forgery. Framed: just learnt. In parentheses: not learnt yet. "
        "Read a column downwards to see forgetting.</p>"
    )
    return words + _both(run, "The same matrix", lambda level: _heat(run, level))


def streams(run: RunData) -> str:
    """Every measure of every stream after the last experience."""
    words = "".join(f"<dt>{MEASURES[k][0]}</dt><dd>{MEASURES[k][1]}</dd>" for k in _measured(run, "frame"))
    html = f"<p>The last model, one row a test stream, face by face.</p>{_stream_table(run, 'frame')}"
    if run.videos:
        html += (
            f"<h3>Video by video</h3><p>The same, one score a video: the {escape(run.videos['rule']['words'])}.</p>"
            + _stream_table(run, "video")
        )
    return html + f'<dl class="facts">{words}</dl>'


def _measured(run: RunData, level: str) -> list[str]:
    m = run.matrix[(run.matrix["after"] == run.last) & (run.matrix["level"] == level)]
    return [k for k in MEASURES if m.loc[m["metric"] == k, "value"].notna().any()]


def _stream_table(run: RunData, level: str) -> str:
    m = run.matrix[(run.matrix["after"] == run.last) & (run.matrix["level"] == level)]
    known = _measured(run, level)
    rows = []
    for stream in ("test", "unseen"):
        for name in dict.fromkeys(
            [*(run.order if stream == "test" else run.unseen), *m.loc[m["stream"] == stream, "on"]]
        ):
            part = m[(m["stream"] == stream) & (m["on"] == name)].set_index("metric")["value"]
            note = " <small>unseen</small>" if stream == "unseen" else ""
            rows.append([escape(name) + note, *(show(part.get(k)) for k in known)])
    heads = ["Tested on", *(MEASURES[k][0] for k in known)]
    return table(heads, rows, set(range(1, len(heads))))


def losses(run: RunData) -> str:
    """Loss curves over the whole run."""
    return (
        "<p>Training losses over all steps, smoothed; a vertical line marks where the next forgery begins.</p>"
        + panels(loss_panels(run))
    )
