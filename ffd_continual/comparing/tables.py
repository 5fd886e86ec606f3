"""A comparison as text: for the terminal (80 columns), as CSV, Markdown and LaTeX."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from ffd_continual.comparing.finished import COSTS, METRICS, SHOWN, Estimate, Method
from ffd_continual.comparing.paired import FIGURES, Compared, Difference, Differences
from ffd_continual.measuring.matrix import TRACES

HEADS = {
    "aa": "AA",
    "diagonal": "Diagonal",
    "forgetting_signed": "Forgetting",
    "forgetting_max": "Forgetting, max",
    "bwt": "BWT",
    "fwt": "FWT",
    "unseen": "Unseen",
}
COST_HEADS = {
    "train_seconds": "Train, s",
    "step_ms": "Step, ms",
    "judge_ms_per_face": "Judging, ms a face",
    "stored_bytes": "Stored",
    "learner_bytes": "Learner",
    "parameters": "Parameters",
}
TRACE_HEADS = {
    ("iou", "aa"): "IoU",
    ("iou", "unseen"): "IoU, unseen",
    ("pixel_auc", "aa"): "Pixel AUC",
    ("pixel_auc", "unseen"): "Pixel AUC, unseen",
}
PAIRED_HEADS = {"aa": "AA", "unseen": "Unseen"}
DASH = "–"
HALF = 0.0005  # below it three digits show zero, which has no sign
Show = Callable[[Estimate], str]


def compact(count: float) -> str:
    """A number of bytes or parameters: 553.0k, 13.9M; decimal thousands."""
    if not math.isfinite(count):
        return DASH
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(count) >= size:
            return f"{count / size:.1f}{letter}"
    return f"{count:.0f}"


def cost(key: str, value: float) -> str:
    """A cost with the digits that mean something."""
    if not math.isfinite(value):
        return DASH
    return f"{value:.1f}" if key in ("train_seconds", "step_ms", "judge_ms_per_face") else compact(value)


def trace_columns(methods: Sequence[Method]) -> list[tuple[str, str]]:
    """The figures of the trace map that some method has."""
    return [key for key in TRACE_HEADS if any(math.isfinite(method.figures[key].value) for method in methods)]


def cost_columns(methods: Sequence[Method]) -> list[str]:
    """The costs that some method has."""
    return [key for key in COST_HEADS if any(math.isfinite(method.costs[key]) for method in methods)]


def intervals_used(methods: Sequence[Method]) -> str:
    """Which interval stands beside which method, in words."""
    kinds = dict.fromkeys(method.interval for method in methods)
    if len(kinds) == 1:
        return next(iter(kinds))
    return "; ".join(f"{kind}: {', '.join(m.name for m in methods if m.interval == kind)}" for kind in kinds)


def csv_table(methods: Sequence[Method], compared: Compared) -> pd.DataFrame:
    """One row a method, everything in full precision: figures with low and high, costs, differences."""
    rows = []
    for method in methods:
        row: dict[str, object] = {"method": method.name, "seeds": " ".join(map(str, method.seeds))}
        row["interval"] = method.interval
        for metric in METRICS:
            for figure in SHOWN if metric not in TRACES else ("aa", "unseen"):
                one = method.figures[(metric, figure)]
                row |= {f"{metric}_{figure}{end}": v for end, v in zip(("", "_low", "_high"), one, strict=True)}
        for (metric, figure), one in method.videos.items():
            row |= {f"video_{metric}_{figure}{end}": v for end, v in zip(("", "_low", "_high"), one, strict=True)}
        row |= {key: method.costs[key] for key in COSTS}
        row["baseline"] = compared.baseline
        for figure in FIGURES:
            row |= _gap_cells(f"difference_{figure}", compared.differences.get((method.name, figure)))
        for figure in FIGURES if compared.videos else ():
            row |= _gap_cells(f"video_difference_{figure}", compared.videos.get((method.name, figure)))
        rows.append(row)
    return pd.DataFrame(rows).dropna(axis="columns", how="all")


def _gap_cells(name: str, gap: Difference | None) -> dict[str, object]:
    values = (gap.value, gap.low, gap.high) if gap else (math.nan,) * 3
    cells: dict[str, object] = {f"{name}{end}": v for end, v in zip(("", "_low", "_high"), values, strict=True)}
    return {**cells, f"{name}_excludes_0": gap.apart if gap else None}


def _number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else DASH


def _signed(value: float) -> str:
    return f"{value:+.3f}" if abs(value) >= HALF else "0.000"


def _spread(one: Estimate) -> str:
    return f"[{one.low:.3f}, {one.high:.3f}]" if math.isfinite(one.low) else ""


def _gap(gap: Difference | None) -> str:
    if gap is None or not math.isfinite(gap.value):
        return DASH
    return f"{_signed(gap.value)} [{gap.low:+.3f}, {gap.high:+.3f}]" + ("*" if gap.apart else "")


def _rows(methods: Sequence[Method], show: Show) -> tuple[list[str], list[list[str]]]:
    traces, costs = trace_columns(methods), cost_columns(methods)
    heads = ["Method", "Seeds", *HEADS.values(), *(TRACE_HEADS[key] for key in traces)]
    heads += [COST_HEADS[key] for key in costs]
    rows = []
    for method in methods:
        cells = [show(method.figures[("auc", figure)]) for figure in HEADS]
        cells += [show(method.figures[key]) for key in traces]
        cells += [cost(key, method.costs[key]) for key in costs]
        rows.append([method.name, str(len(method.runs)), *cells])
    return heads, rows


def video_rows(methods: Sequence[Method], show: Show) -> tuple[list[str], list[list[str]]]:
    """Heads and cells of the figures at video level; no rows where the runs' faces are no frames of videos."""
    columns = [("auc", figure) for figure in HEADS] + [("acc", "aa"), ("acc", "unseen")]
    heads = ["Video level", *HEADS.values(), "ACC", "ACC, unseen"]
    return heads, [[m.name, *(show(m.videos[key]) for key in columns)] for m in methods if m.videos]


def paired_levels(compared: Compared) -> list[tuple[str, Differences]]:
    """(heading of the first column, differences) of each level that has some."""
    return [one for one in (("Method", compared.differences), ("Video level", compared.videos)) if one[1]]


def _paired_tables(methods: Sequence[Method], compared: Compared) -> list[tuple[list[str], list[list[str]]]]:
    """Heads and cells, a table a level."""
    heads = [f"{PAIRED_HEADS[figure]} minus {compared.baseline}" for figure in FIGURES]
    others = [method.name for method in methods if method.name != compared.baseline]
    return [
        ([head, *heads], [[n, *(_gap(gaps.get((n, f))) for f in FIGURES)] for n in others])
        for head, gaps in paired_levels(compared)
    ]


def notes(methods: Sequence[Method], compared: Compared) -> list[str]:
    """What the figures and intervals mean, a sentence each."""
    said = [f"Frame-level AUC, mean over seeds, 95 % interval ({intervals_used(methods)})."]
    if methods[0].videos:
        said.append(f"Score of a video: {methods[0].video_words}.")
    if compared.differences:
        drawn = f"cluster bootstrap over {compared.groups} {compared.unit}, shared seeds averaged"
        said.append(f"Differences: 95 % interval, {drawn}; * excludes 0.")
    return said


def markdown(methods: Sequence[Method], compared: Compared) -> str:
    """Both tables for a README."""

    def grid(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
        lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
        return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)

    def shown(one: Estimate) -> str:
        return f"{_number(one.value)} {_spread(one)}".strip()

    parts = [grid(*_rows(methods, shown))]
    if methods[0].videos:
        parts.append(grid(*video_rows(methods, shown)))
    for heads, rows in _paired_tables(methods, compared):
        parts.append(grid(heads, [[cell.replace("*", r"\*") for cell in row] for row in rows]))
    said = " ".join(notes(methods, compared)).replace("*", r"\*")
    return "\n\n".join([*parts, said]) + "\n"


def _tex(text: str) -> str:
    for plain, escaped in (("\\", r"\textbackslash "), ("%", r"\%"), ("_", r"\_"), ("&", r"\&"), ("#", r"\#")):
        text = text.replace(plain, escaped)
    return text.replace("~", r"\textasciitilde ").replace("+-", r"$\pm$").replace(DASH, "--")


def latex(methods: Sequence[Method], compared: Compared) -> str:
    """Both tables as tabular environments; they need \\usepackage{booktabs}."""

    def grid(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
        lines = [f"\\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}", r"\toprule"]
        lines += [" & ".join(map(_tex, heads)) + r" \\", r"\midrule"]
        lines += [" & ".join([_tex(row[0]), *row[1:]]) + r" \\" for row in rows]
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])

    def number(one: Estimate) -> str:
        if not math.isfinite(one.value):
            return "--"
        return f"${one.value:.3f}$" + (rf" {{\scriptsize ${_spread(one)}$}}" if _spread(one) else "")

    parts = [grid(*_rows(methods, number)).replace(DASH, "--")]
    if methods[0].videos:
        parts.append(grid(*video_rows(methods, number)).replace(DASH, "--"))
    for heads, rows in _paired_tables(methods, compared):
        parts.append(grid(heads, [[row[0], *(f"${c}$" if c != DASH else "--" for c in row[1:])] for row in rows]))
    said = "\n".join(f"% {line}" for line in ["needs booktabs", *notes(methods, compared)])
    return said + "\n" + "\n\n".join(parts) + "\n"


def _short(names: Sequence[str], width: int) -> dict[str, str]:
    """Names cut to `width`, numbered where the cut made two alike."""
    cut = {name: name if len(name) <= width else name[: width - 1] + "~" for name in names}
    return {
        n: c if list(cut.values()).count(c) == 1 else f"{c[: width - 3]}~{i}" for i, (n, c) in enumerate(cut.items())
    }


def terminal(methods: Sequence[Method], compared: Compared) -> str:
    """Both tables in at most 80 columns."""

    def interval(low: float, high: float, sign: str) -> str:
        return f" [{low:{sign}.3f},{high:{sign}.3f}]" if math.isfinite(low) else ""

    short = _short([method.name for method in methods], 18)

    def figures(head: str, at: Callable[[Method], Mapping[tuple[str, str], Estimate]]) -> list[str]:
        said = [f"{head:18s}{'n':>3s} {'AA':21s}{'diag':>6s}{'forget':>7s}  {'unseen':21s}".rstrip()]
        for method in methods:
            f = {figure: at(method)[("auc", figure)] for figure in HEADS}
            wide = [_number(f[n].value) + interval(f[n].low, f[n].high, "") for n in ("aa", "unseen")]
            narrow = f"{_number(f['diagonal'].value):>6s}{_number(f['forgetting_signed'].value):>7s}"
            said.append(f"{short[method.name]:18s}{len(method.runs):>3d} {wide[0]:21s}{narrow}  {wide[1]:21s}".rstrip())
        return said

    lines = figures("method", lambda m: m.figures)
    if methods[0].videos:
        lines += ["", *figures("video level", lambda m: m.videos)]
    for _, gaps in paired_levels(compared):
        minus = f"minus {short[compared.baseline]}" if gaps is compared.differences else "videos, minus the same"
        lines += ["", f"{minus:26s}{'AA':27s}unseen"]
        for method in methods:
            both = [gaps.get((method.name, figure)) for figure in FIGURES]
            if both[0] is None:
                continue
            cells = [
                f"{_signed(g.value):>6s}{interval(g.low, g.high, '+')}{'*' if g.apart else ''}"
                if g and math.isfinite(g.value)
                else DASH
                for g in both
            ]
            lines.append(f"{short[method.name]:26s}{cells[0]:27s}{cells[1]}".rstrip())
    return "\n".join(lines)
