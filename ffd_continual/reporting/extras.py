"""The report's second half: sample faces, controls of the data, costs, configuration and environment."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from ffd_continual.measuring.matrix import TRACES
from ffd_continual.reporting.charts import escape
from ffd_continual.reporting.data import RunData
from ffd_continual.reporting.frame import show, table
from ffd_continual.reporting.pictures import data_uri, load_sample

# A probe of what no detector should need. Border: pixels that no forgery touched, so guessing (0.5) is right; a few
# hundredths above it are chance. Shallow: one number a picture; real forgeries leave some trace, but below 0.75.
BORDER_LIMIT, BORDER_SLACK, SHALLOW_LIMIT = 0.5, 0.1, 0.75
SAMPLES_SHOWN = 4  # a forgery


def samples(run: RunData) -> str:
    """Faces beside their trace maps, at most SAMPLES_SHOWN a forgery."""
    groups: dict[str, list[str]] = {}
    for entry in run.samples:
        kind = str(entry.get("forgery", "?"))
        group = groups.setdefault(kind, [])
        loaded = load_sample(run.path / "samples", entry) if len(group) < SAMPLES_SHOWN else None
        if loaded is None:
            continue
        picture, mapped = loaded
        forged = bool(entry.get("label", kind != "real"))
        words = f"{'forged' if forged else 'real'}: {escape(kind)}" if forged else "real"
        if entry.get("stream") == "unseen":
            words += ", unseen"
        said = ""
        z = entry.get("z")
        if isinstance(z, int | float):
            said = f"<br>score {show(float(z), 2)}"
            if run.threshold is not None:
                judged = z >= run.threshold
                style = "good" if judged == forged else "bad"
                said += f'<span class="{style}">judged {"forged" if judged else "real"}</span>'
        alt = f"{'forged' if forged else 'real'} face, {escape(kind)}"
        images = f'<img src="{data_uri(picture)}" alt="{alt}">'
        if mapped is not None:
            way = "Grad-CAM" if entry.get("map_kind") == "Grad-CAM" else "trace map"
            images += f'<img src="{data_uri(mapped)}" alt="{way} of the same face">'
            said += "<br>Grad-CAM" if way == "Grad-CAM" else ""
        group.append(f'<figure><div class="pair">{images}</div><figcaption>{words}{said}</figcaption></figure>')
    body = "".join(f'<h3>{escape(kind)}</h3><div class="faces">{"".join(g)}</div>' for kind, g in groups.items() if g)
    if not body:
        return ""
    drawn = {entry.get("map_kind", "trace") for entry in run.samples if entry.get("map")}
    text = "Test faces. Faces called forged are forged, by the method named."
    if "trace" in drawn:
        text += " Beside each, where the detector sees the trace of a forgery: the brighter, the surer."
    if "Grad-CAM" in drawn:
        text += (
            " This learner has no trace map: beside each, Grad-CAM shows what spoke for forged, each map scaled to its "
            "own maximum. It is not trained to find changed pixels and is not measured."
        )
    if any(entry.get("mask") for entry in run.samples):
        text += " Cyan: the outline of what was really changed."
    return f"<p>{text}</p>{body}"


def localisation(run: RunData) -> str:
    """How well the trace map finds the changed pixels, stream by stream; empty for a learner without one."""
    named = [("test", name) for name in run.order] + [("unseen", name) for name in run.unseen]
    curves = {
        (trace, stream, name): {p.after: p for p in run.curve(stream, name, trace)}
        for trace in TRACES
        for stream, name in named
    }
    if not any(math.isfinite(p.value) for curve in curves.values() for p in curve.values()):
        return ""

    def cell(trace: str, stream: str, name: str, after: int) -> str:
        point = curves[trace, stream, name].get(after)
        if point is None or not math.isfinite(point.value):
            return "–"
        spread = f" <small>[{show(point.low)}, {show(point.high)}]</small>" if math.isfinite(point.low) else ""
        return f"{show(point.value)}{spread}"

    rows = []
    for stream, name in named:
        learnt = run.order.index(name) if stream == "test" else -1
        early = cell("iou", stream, name, learnt) if 0 <= learnt <= run.last else "–"
        note = " <small>unseen</small>" if stream == "unseen" else ""
        prior = run.summary.get("trace_prior", {}).get(stream, {}).get(name, {})
        measured = (cell(t, stream, name, run.last) for t in TRACES)
        rows.append([escape(name) + note, *measured, early, *(show(prior.get(t)) for t in TRACES)])
    for key, words in (("aa", "mean, learnt"), ("unseen", "mean, unseen")):
        if any(run.summary.get(t, {}).get(key) is not None for t in TRACES):
            means = [_with_interval(run.summary.get(t, {}), key) for t in TRACES]
            early = _with_interval(run.summary.get("iou", {}), "diagonal") if key == "aa" else "–"
            stream = "test" if key == "aa" else "unseen"
            priors = run.summary.get("trace_prior", {}).get(stream, {}).values()
            constant = [show(sum(p[t] for p in priors) / len(priors) if priors else None) for t in TRACES]
            rows.append([f"<b>{words}</b>", *means, early, *constant])
    heads = ["Tested on", "IoU", "Pixel AUC", "IoU when just learnt", "Mean mask: IoU", "Mean mask: pixel AUC"]
    return (
        "<p>Does the trace map find what was changed? Mean over the forged faces whose changed pixels are known; real "
        "faces do not count, and forgeries that came without masks are in no mean. IoU is the overlap of changed "
        "pixels with the map where its probability is 0.5 or more; "
        "pixel AUC needs no threshold (0.5 is guessing). In brackets: 95 % intervals. <i>Mean mask</i> is what "
        "position alone reaches: the mean of the training masks, for every face. A map says something beyond it.</p>"
        + table(heads, rows, {1, 2, 3, 4, 5})
    )


def _with_interval(figures: dict[str, Any], key: str) -> str:
    low, high = figures.get("ci", {}).get(key, (None, None))
    spread = f" <small>[{show(low)}, {show(high)}]</small>" if low is not None and high is not None else ""
    return f"{show(figures.get(key))}{spread}"


class Control(NamedTuple):
    """Controls of one forgery, all AUC; an AUC below 0.5 of a plain feature counts by its distance from 0.5."""

    forgery: str
    border: float | None
    feature: str  # the strongest single one
    worst: float | None
    joint: float | None  # all plain features in one model


def verdict(control: Control) -> tuple[bool, str]:
    """Whether a forgery's data passed, and why in words."""
    if control.border is not None and max(control.border, 1 - control.border) > BORDER_LIMIT + BORDER_SLACK:
        return False, "leaks: untouched pixels tell forged from real"
    if control.worst is not None and control.worst >= SHALLOW_LIMIT:
        return False, "easy: a single plain number nearly suffices"
    if control.joint is not None and control.joint >= SHALLOW_LIMIT:
        return True, "passed; plain numbers do add up"
    return True, "passed"


def control_rows(controls: dict[str, Any]) -> list[Control]:
    """A row a forgery from {"border_probe": {forgery: auc}, "shallow": {forgery: {feature: auc}}}; "joint..." = all."""
    border, shallow = controls.get("border_probe") or {}, controls.get("shallow") or {}
    rows = []
    for name in dict.fromkeys([*border, *shallow]):
        known = {k: max(float(v), 1 - float(v)) for k, v in (shallow.get(name) or {}).items() if v is not None}
        single = {k: v for k, v in known.items() if not k.startswith("joint")}
        joint = max((v for k, v in known.items() if k.startswith("joint")), default=None)
        feature = max(single, key=lambda k: single[k]) if single else ""
        probe = border.get(name)
        rows.append(Control(str(name), None if probe is None else float(probe), feature, single.get(feature), joint))
    return rows


def source_sentence(probe: dict[str, Any]) -> str:
    """The probe's outcome in words, without markup."""
    if probe["accuracy"] is None:
        text = "No real face belongs to one experience alone, so there is no source to tell"
    else:
        text = (
            f"A linear probe on frozen features names the experience of {100 * probe['accuracy']:.0f} % of real faces "
            f"(chance {100 * probe['chance']:.0f} %)"
        )
    told = probe["label_by_source"].get("all")
    return text + ("." if told is None else f"; the source alone tells forged from real with an AUC of {told:.2f}.")


def source_words(run: RunData) -> str:
    """Where faces come from and what that says, as HTML; empty for a run without the source probe."""
    probe = run.controls.get("source_probe")
    if not probe:
        return ""
    streams = {k: v for k, v in probe["label_by_source"].items() if v is not None}
    worst = max(streams.values(), key=lambda v: abs(v - 0.5), default=0.5)
    if abs(worst - 0.5) > BORDER_SLACK:
        named = ", ".join(f"{escape(k)} {show(v, 2)}" for k, v in streams.items() if abs(v - 0.5) > BORDER_SLACK)
        mark = f'<span class="bad">Read with care:</span> sources are not forged equally often ({named}).'
    else:
        mark = '<span class="good">Passed:</span> no source is forged more often than another.'
    return (
        f"<h3>Sources</h3><p>{escape(source_sentence(probe))} {mark} Source: experience, data set and camera of a face."
        " What is told from the source alone (0.5 is guessing) no detector owes to forgeries; where the probe names"
        " sources, part of what is forgotten is the change of source.</p>"
    )


def controls(run: RunData) -> str:
    """What can be told without looking at the forgery, with the limits and a verdict in words."""
    rows = control_rows(run.controls)
    if not rows:
        return source_words(run)
    last = {
        n: p.value for s, names in (("test", run.order), ("unseen", run.unseen)) for n in names for p in run.curve(s, n)
    }
    bad = [row.forgery for row in rows if not verdict(row)[0]]
    if bad:
        text = f"{', '.join(map(escape, bad))}: part of the figures above may come from the data, not from the forgery."
        total = f'<p><span class="bad">Read with care.</span> {text}</p>'
    else:
        total = '<p><span class="good">All passed.</span> The figures above do not rest on such clues.</p>'
    together = any(row.joint is not None for row in rows)
    shown = []
    for row in rows:
        passed, words = verdict(row)
        plain = f"{show(row.worst, 2)} <small>{escape(row.feature)}</small>" if row.feature else "–"
        mark = f'<span class="{"good" if passed else "bad"}">{words}</span>'
        cells = [escape(row.forgery), show(row.border, 2), plain, *([show(row.joint, 2)] if together else [])]
        shown.append([*cells, show(last.get(row.forgery), 2), mark])
    heads = ["Forgery", "Border probe", "Strongest plain feature", *(["All together"] if together else []), "Detector"]
    return (
        "<p>Could the data be told apart without looking at the forgery at all? The border probe sees only pixels that "
        f"no forgery touched: it should guess ({BORDER_LIMIT}). Plain features (sharpness, JPEG grid, saturation and "
        f"the like) should each stay below {SHALLOW_LIMIT}. All figures are AUC.</p>"
        + total
        + table([*heads, "Verdict"], shown, set(range(1, len(heads))), stack=True)
        + source_words(run)
    )


def _cost(key: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return escape(value)
    if "byte" in key:
        return f"{value / 1e6:,.2f} MB"
    if "second" in key or key.endswith(("_s", "time")):
        return f"{value * 1000:,.1f} ms" if value < 1 else f"{value:,.2f} s"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def costs(run: RunData) -> str:
    """What each forgery adds: parameters, bytes, time. Rows are the objects in costs.json, facts its plain values."""
    per = {k: v for k, v in run.costs.items() if isinstance(v, dict)}
    facts = {k: v for k, v in run.costs.items() if not isinstance(v, dict | list)}
    html = "<p>What the detector costs, and what each forgery added to it.</p>"
    if per:
        keys = list(dict.fromkeys(k for row in per.values() for k in row))
        rows = [[escape(n), *(_cost(k, row[k]) if k in row else "–" for k in keys)] for n, row in per.items()]
        heads = ["", *(escape(k.replace("_seconds", " time").replace("_", " ")) for k in keys)]
        html += table(heads, rows, set(range(1, len(heads))))
    return html + _facts({k.replace("_", " "): _cost(k, v) for k, v in facts.items()}, ready=True)


def _facts(facts: dict[str, Any], ready: bool = False) -> str:
    rows = "".join(f"<dt>{escape(k)}</dt><dd>{v if ready else escape(v)}</dd>" for k, v in facts.items())
    return f'<dl class="facts">{rows}</dl>' if rows else ""


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        name = f"{prefix}{key}"
        if isinstance(inner, dict):
            flat.update(_flat(inner, name + " · "))
        elif inner not in ("", None):
            flat[name] = ", ".join(map(str, inner)) if isinstance(inner, list) else inner
    return flat


def setting(run: RunData) -> str:
    """Environment and resolved configuration: all that is needed to run it again."""
    html = "<p>All that is needed to run this again.</p>"
    if run.environment:
        html += "<h3>Environment</h3>" + _facts(_flat(run.environment))
    if run.config:
        html += f"<h3>Configuration</h3><pre>{escape(run.config.strip())}</pre>"
    return html
