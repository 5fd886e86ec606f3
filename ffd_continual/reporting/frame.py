"""The page's frame: one file, no script, no address, light, printable, readable at 360 pixels' width."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ffd_continual.reporting.charts import Panel, escape, line_chart

STYLE = """
:root { --ink: #1d232d; --soft: #5a6472; --line: #dfe3e8; --tint: #f5f7f9; --blue: #0b5394; --orange: #c65102; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: #fff; color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto,
  "Noto Sans", "Liberation Sans", sans-serif; font-variant-numeric: tabular-nums; }
main { max-width: 1080px; margin: 0 auto; padding: 28px 20px 64px; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 4px; letter-spacing: -.01em; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 48px 0 6px; padding-top: 14px; border-top: 2px solid var(--ink); }
h3 { font-size: 1rem; margin: 22px 0 6px; }
p { margin: 0 0 12px; max-width: 68ch; }
.soft, figcaption span, small { color: var(--soft); }
.lead { font-size: 1.1rem; max-width: 62ch; margin: 16px 0 20px; }
nav { font-size: .875rem; margin: 10px 0 0; display: flex; flex-wrap: wrap; gap: 2px 16px; }
a { color: var(--blue); text-underline-offset: 2px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(200px, 1fr)); gap: 12px; margin: 0 0 22px; }
.tile { background: var(--tint); border-radius: 8px; padding: 12px 16px 10px; break-inside: avoid; }
.tile b { display: block; font-size: 2rem; line-height: 1.15; font-weight: 650; letter-spacing: -.02em; }
.tile.out b { color: var(--orange); }
.tile.in b { color: var(--blue); }
.tile div { font-size: .875rem; font-weight: 600; }
.tile small { display: block; font-size: .8125rem; line-height: 1.4; }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(270px, 1fr)); gap: 18px 22px; margin: 14px 0; }
figure { margin: 0; break-inside: avoid; }
figcaption { font-size: .875rem; font-weight: 650; line-height: 1.35; margin-bottom: 2px; overflow-wrap: anywhere; }
figcaption span { display: block; font-weight: 400; min-height: 1.3em; }
svg { display: block; width: 100%; height: auto; overflow: visible; font-family: inherit; }
svg .grid { stroke: #e9ecf0; stroke-width: 1; }
svg .rule { stroke: #7d8794; stroke-width: 1; stroke-dasharray: 1 3; }
svg .mark { stroke: #b3bac4; stroke-width: 1; }
svg .tick { font-size: 10.5px; fill: #5a6472; }
svg .value { font-size: 12px; font-weight: 650; }
.wide { overflow-x: auto; margin: 12px 0; }
table { border-collapse: collapse; font-size: .875rem; line-height: 1.4; }
th, td { text-align: left; padding: 6px 14px 6px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; color: var(--soft); font-size: .8125rem; vertical-align: bottom; }
tbody th { color: var(--ink); font-size: .875rem; vertical-align: top; }
td.n, th.n { text-align: right; white-space: nowrap; }
td small { white-space: nowrap; }
td.words { min-width: 240px; color: var(--soft); }
tr { break-inside: avoid; }
.good { color: #0a6b3d; font-weight: 600; }
.bad { color: #a82a12; font-weight: 600; }
table.heat { border-collapse: separate; border-spacing: 2px; }
table.heat td, table.heat th { border: 0; padding: 7px 8px; text-align: center; white-space: nowrap; }
table.heat tbody th { text-align: right; }
table.heat td { min-width: 62px; border-radius: 3px; }
table.heat td.learnt { outline: 2px solid var(--ink); outline-offset: -2px; }
table.heat .gap { min-width: 10px; padding: 0; background: none; }
table.heat.tall td { min-width: 0; padding: 6px 5px; font-size: .8125rem; }
table.heat.tall thead span { writing-mode: vertical-rl; transform: rotate(180deg); }
.faces { display: grid; grid-template-columns: repeat(auto-fill, minmax(240px, 1fr)); gap: 16px; }
.faces .pair { display: grid; grid-template-columns: 1fr 1fr; gap: 3px; }
.faces img { width: 100%; height: auto; display: block; border-radius: 4px; background: var(--tint); }
.faces figcaption { font-weight: 400; margin: 4px 0 0; font-size: .8125rem; }
pre { background: var(--tint); border-radius: 8px; padding: 14px 16px; font: 12.5px/1.5 ui-monospace, "SF Mono", Menlo,
  Consolas, "DejaVu Sans Mono", monospace; white-space: pre-wrap; overflow-wrap: anywhere; margin: 8px 0; }
dl.facts { display: grid; grid-template-columns: max-content 1fr; gap: 3px 18px; font-size: .875rem; margin: 8px 0; }
dl.facts dt { color: var(--soft); } dl.facts dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 560px) {
  main { padding: 18px 14px 40px; } h1 { font-size: 1.4rem; } .lead { font-size: 1rem; }
  .tiles { grid-template-columns: 1fr 1fr; gap: 8px; } .tile { padding: 10px 12px; } .tile b { font-size: 1.6rem; }
  .panels { grid-template-columns: 1fr; } .faces { grid-template-columns: 1fr; }
  table.stack thead { display: none; } table.stack, table.stack tbody, table.stack tr { display: block; }
  table.stack tr { border-bottom: 1px solid var(--line); padding: 8px 0; }
  table.stack td, table.stack th { display: block; border: 0; padding: 1px 0; text-align: left; min-width: 0; }
  table.stack td[data-name]::before { content: attr(data-name) " "; color: var(--soft); display: inline-block;
    min-width: 7.5em; margin-right: .8em; }
}
@media print {
  @page { margin: 14mm; } body { font-size: 10.5pt; } nav { display: none; } main { max-width: none; padding: 0; }
  h2 { break-after: avoid; margin-top: 26px; } .panels { grid-template-columns: repeat(3, 1fr); }
  .tiles { grid-template-columns: repeat(4, 1fr); } .wide { overflow: visible; }
  * { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
}
"""


def show(value: float | None, digits: int = 3) -> str:
    """A number, or a dash where it does not exist; a true minus sign."""
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{value:.{digits}f}"
    return text.replace("-", "−") if float(text) != 0 else text.lstrip("-")


def heat_colours(value: float) -> tuple[str, str]:
    """(background, letters) of an AUC: white at 0.5 and below, deep blue at 1; the letters keep a contrast of 4.5."""
    share = min(1.0, max(0.0, (value - 0.5) / 0.5)) if math.isfinite(value) else 0.0
    low, high = (246, 248, 251), (11, 83, 148)
    mixed = [round(a + (b - a) * share**1.25) for a, b in zip(low, high, strict=True)]
    linear = [(c / 255 / 12.92) if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in mixed]  # sRGB to light
    luminance = sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    return "#{:02x}{:02x}{:02x}".format(*mixed), "#ffffff" if luminance < 0.179 else "#000000"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], numeric: set[int], stack: bool = False) -> str:
    """A table of ready HTML cells; the first column is a row's name, `numeric` columns stand right.

    stack: on a narrow screen a row becomes a small block with the column's name before each cell.
    """
    kind = [' class="n"' if i in numeric else "" for i in range(len(heads))]
    head = "".join(f"<th{k}>{h}</th>" for h, k in zip(heads, kind, strict=True))
    body = []
    for row in rows:
        cells = [f"<th>{row[0]}</th>"]
        for i, cell in enumerate(row[1:], start=1):
            name = f' data-name="{heads[i]}"' if stack and i in numeric else ""
            words = ' class="words"' if i not in numeric and len(cell) > 40 else kind[i]
            cells.append(f"<td{words}{name}>{cell}</td>")
        body.append(f"<tr>{''.join(cells)}</tr>")
    style = ' class="stack"' if stack else ""
    return f'<div class="wide"><table{style}><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'


def panels(shown: Sequence[Panel]) -> str:
    """Charts in a grid that wraps, each under its title and note."""
    figures = [
        f"<figure><figcaption>{escape(p.title)}<span>{escape(p.note)}</span></figcaption>{line_chart(p)}</figure>"
        for p in shown
    ]
    return f'<div class="panels">{"".join(figures)}</div>'


def page(title: str, sections: Sequence[tuple[str, str, str]]) -> str:
    """The whole document from (anchor, heading, HTML); the first section stands under the title without a heading."""
    links = " ".join(f'<a href="#{a}">{escape(h)}</a>' for a, h, _ in sections[1:])
    body = [f"<h1>{escape(title)}</h1><nav>{links}</nav>{sections[0][2]}"]
    body += [f'<section id="{a}"><h2>{escape(h)}</h2>{inner}</section>' for a, h, inner in sections[1:]]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{escape(title)}</title><style>{STYLE}</style></head>'
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )
