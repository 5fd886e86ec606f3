"""The report's second half: sample faces, controls of the data, costs, configuration and environment."""

from __future__ import annotations

from typing import Any

from ffd_continual.report_charts import escape
from ffd_continual.report_data import RunData
from ffd_continual.report_html import show, table
from ffd_continual.report_samples import data_uri, load_sample

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
            images += f'<img src="{data_uri(mapped)}" alt="trace map of the same face">'
        group.append(f'<figure><div class="pair">{images}</div><figcaption>{words}{said}</figcaption></figure>')
    body = "".join(f'<h3>{escape(kind)}</h3><div class="faces">{"".join(g)}</div>' for kind, g in groups.items() if g)
    return (
        "<p>Test faces, and beside each where the detector sees the trace of a forgery: the brighter, the surer. Cyan: "
        "the outline of what was really changed. Faces called forged are forged, by the method named.</p>" + body
        if body
        else ""
    )


def verdict(border: float | None, worst: float | None) -> tuple[bool, str]:
    """Whether a forgery's data passed, and why in words."""
    if border is not None and max(border, 1 - border) > BORDER_LIMIT + BORDER_SLACK:
        return False, "leaks: untouched pixels tell forged from real"
    if worst is not None and worst >= SHALLOW_LIMIT:
        return False, "easy: a single plain number nearly suffices"
    return True, "passed"


def control_rows(controls: dict[str, Any]) -> list[tuple[str, float | None, str, float | None]]:
    """(forgery, border probe, strongest shallow feature, its AUC); an AUC below 0.5 counts by its distance from it."""
    border = controls.get("border_probe") or {}
    shallow = controls.get("shallow") or {}
    rows: list[tuple[str, float | None, str, float | None]] = []
    for name in dict.fromkeys([*border, *shallow]):
        known = {k: max(float(v), 1 - float(v)) for k, v in (shallow.get(name) or {}).items() if v is not None}
        feature = max(known, key=lambda k: known[k]) if known else ""
        probe = border.get(name)
        rows.append((str(name), None if probe is None else float(probe), feature, known.get(feature)))
    return rows


def controls(run: RunData) -> str:
    """What can be told without looking at the forgery, with the limits and a verdict in words."""
    rows = control_rows(run.controls)
    last = {
        n: p.value for s, names in (("test", run.order), ("unseen", run.unseen)) for n in names for p in run.curve(s, n)
    }
    bad = [name for name, border, _, worst in rows if not verdict(border, worst)[0]]
    if bad:
        text = f"{', '.join(map(escape, bad))}: part of the figures above may come from the data, not from the forgery."
        total = f'<p><span class="bad">Read with care.</span> {text}</p>'
    else:
        total = '<p><span class="good">All passed.</span> The figures above do not rest on such clues.</p>'
    shown = []
    for name, border, feature, worst in rows:
        passed, words = verdict(border, worst)
        plain = f"{show(worst, 2)} <small>{escape(feature)}</small>" if feature else "–"
        mark = f'<span class="{"good" if passed else "bad"}">{words}</span>'
        shown.append([escape(name), show(border, 2), plain, show(last.get(name), 2), mark])
    heads = ["Forgery", "Border probe", "Strongest plain feature", "Detector", "Verdict"]
    return (
        "<p>Could the data be told apart without looking at the forgery at all? The border probe sees only pixels that "
        f"no forgery touched: it should guess ({BORDER_LIMIT}). Plain features (sharpness, JPEG grid, saturation and "
        f"the like) should each stay below {SHALLOW_LIMIT}. All figures are AUC.</p>"
        + total
        + table(heads, shown, {1, 2, 3}, stack=True)
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
