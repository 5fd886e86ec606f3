"""Small line charts as inline SVG: no library, no address, text in the page's own font.

Every chart is drawn for about 300 CSS pixels and reports show them side by side in a grid that wraps, so that letters
stay readable on a telephone and on paper. Blue #0b5394 and orange #c65102 differ in lightness as well as in hue.
"""

from __future__ import annotations

import colorsys
import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

BLUE, ORANGE, GREY, INK = "#0b5394", "#c65102", "#c9ced6", "#333a45"
#: Told apart by lightness as well as hue, as far as so many can be.
COLOURS = (
    "#0b5394", "#c65102", "#1b7f4d", "#8e3aa8", "#b8860b", "#d6336c", "#17a2b8", "#5c4033", "#7a869a", "#6a9a1f",
    "#e08e79", "#222831",
)  # fmt: skip
WIDTH, HEIGHT = 300, 190
LEFT, RIGHT, TOP = 34, 40, 10
Scale = Callable[[float], float]


@dataclass(frozen=True)
class Line:
    """A curve: points (x, y), NaN = gap; band (x, low, high) around it; dashed before x = `solid_from`."""

    points: Sequence[tuple[float, float]]
    colour: str = BLUE
    width: float = 2.2
    label: str = ""
    band: Sequence[tuple[float, float, float]] = field(default_factory=list)
    solid_from: float = -math.inf
    dots: bool = True
    end_value: bool = True


@dataclass(frozen=True)
class Panel:
    """A small chart: the same data becomes SVG in the page and a PNG beside it."""

    title: str
    lines: Sequence[Line]
    x_ticks: Sequence[tuple[float, str]]
    y_range: tuple[float, float]
    note: str = ""
    rule: tuple[float, str] | None = None  # horizontal (y, word)
    marks: Sequence[tuple[float, str]] = ()  # vertical (x, word)


def colours(count: int) -> list[str]:
    """`count` different colours: the hand-picked ones, then hues a golden angle apart."""
    more = []
    for i in range(max(0, count - len(COLOURS))):
        r, g, b = colorsys.hls_to_rgb((0.13 + i * 0.381966) % 1.0, 0.33 + 0.2 * (i % 2), 0.6)
        more.append(f"#{round(255 * r):02x}{round(255 * g):02x}{round(255 * b):02x}")
    return [*COLOURS, *more][:count]


def escape(text: object) -> str:
    """Text for HTML. An address loses its "://" form: a report names no place that a browser could ask."""
    return html.escape(str(text), quote=True).replace("://", ":&#47;&#47;")


def nice_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers inside [low, high], at most about `most` of them."""
    if not high > low:
        return [low]
    rough = (high - low) / (most - 0.5)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough - 1e-12)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 10) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _path(points: Sequence[tuple[float, float]]) -> str:
    parts, pen_up = [], True
    for x, y in points:
        if math.isfinite(y):
            parts.append(f"{'M' if pen_up else 'L'}{x:.1f} {y:.1f}")
        pen_up = not math.isfinite(y)
    return "".join(parts)


def line_chart(panel: Panel) -> str:
    """The panel as an <svg> element, without its title and note."""
    lines, x_ticks, rule = panel.lines, panel.x_ticks, panel.rule
    xs = [x for line in lines for x, _ in line.points] + [x for x, _ in x_ticks]
    x_low, x_high = (min(xs), max(xs)) if xs else (0.0, 1.0)
    y_low, y_high = panel.y_range
    slot = (WIDTH - LEFT - RIGHT) / max(1, len(x_ticks) - 1)
    longest = max((len(name) for _, name in x_ticks), default=0)
    turned = longest * 5.6 > slot
    bottom = HEIGHT - (14 + min(46.0, longest * 3.6) if turned else 24)

    def px(x: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * ((x - x_low) / (x_high - x_low) if x_high > x_low else 0.5)

    def py(y: float) -> float:
        return bottom - (bottom - TOP) * (y - y_low) / ((y_high - y_low) or 1.0)

    out = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(panel.title)}: {escape(panel.note)}">']
    for tick in nice_ticks(y_low, y_high):
        out.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{py(tick):.1f}" y2="{py(tick):.1f}"/>')
        out.append(f'<text class="tick" x="{LEFT - 5}" y="{py(tick) + 3.5:.1f}" text-anchor="end">{tick:g}</text>')
    for x, name in x_ticks:
        at = px(x)
        if turned:
            turn = f'transform="rotate(-38 {at + 3:.1f} {bottom + 12:.1f})"'
            short = name if len(name) <= 13 else name[:12] + "…"
            out.append(f'<text class="tick" x="{at + 3:.1f}" y="{bottom + 12:.1f}" text-anchor="end" {turn}>')
            out.append(f"{escape(short)}</text>")
        else:
            where = f'x="{at:.1f}" y="{bottom + 14:.1f}" text-anchor="middle"'
            out.append(f'<text class="tick" {where}>{escape(name)}</text>')
    if rule and y_low <= rule[0] <= y_high:
        out.append(
            f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{py(rule[0]):.1f}" y2="{py(rule[0]):.1f}"/>'
        )
        out.append(f'<text class="tick" x="{WIDTH - RIGHT + 4}" y="{py(rule[0]) + 3.5:.1f}">{escape(rule[1])}</text>')
    for x, word in panel.marks:
        out.append(f'<line class="mark" x1="{px(x):.1f}" x2="{px(x):.1f}" y1="{TOP}" y2="{bottom:.1f}"/>')
        if word:
            side, shift = ("end", -4) if px(x) > WIDTH * 0.6 else ("start", 4)
            where = f'x="{px(x) + shift:.1f}" y="{bottom - 5:.1f}" text-anchor="{side}"'
            out.append(f'<text class="tick" {where}>{escape(word)}</text>')
    taken: list[float] = [py(rule[0])] if rule else []
    for line in lines:
        out.extend(_draw(line, px, py, taken))
    return "".join([*out, "</svg>"])


def _draw(line: Line, px: Scale, py: Scale, taken: list[float]) -> list[str]:
    out = []
    inside = [(px(x), py(low), py(high)) for x, low, high in line.band if math.isfinite(low) and math.isfinite(high)]
    if len(inside) > 1:
        edge = [f"{x:.1f} {low:.1f}" for x, low, _ in inside] + [f"{x:.1f} {high:.1f}" for x, _, high in inside[::-1]]
        out.append(f'<path d="M{"L".join(edge)}Z" fill="{line.colour}" opacity=".16"/>')
    at = [(px(x), py(y)) for x, y in line.points]
    early = [p for p, (x, _) in zip(at, line.points, strict=True) if x <= line.solid_from]
    late = [p for p, (x, _) in zip(at, line.points, strict=True) if x >= line.solid_from]
    style = f'fill="none" stroke="{line.colour}" stroke-width="{line.width}" stroke-linejoin="round"'
    if len(early) > 1:
        out.append(f'<path d="{_path(early)}" {style} stroke-dasharray="3 3"/>')
    out.append(f'<path d="{_path(late)}" {style}/>')
    known = [(p, x, y) for p, (x, y) in zip(at, line.points, strict=True) if math.isfinite(y)]
    if line.dots:
        for (x, y), at_x, value in known:
            hollow = "#fff" if at_x < line.solid_from else line.colour
            out.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{hollow}" stroke="{line.colour}">')
            out.append(f"<title>{escape(line.label)} {value:.3f}</title></circle>")
    if line.end_value and known:
        (x, y), _, value = known[-1]
        # Two labels on one height would hide each other: the nearest free height.
        free = [y + 2.75 * k * side for k in range(24) for side in (1, -1)]
        y = next((at for at in free if all(abs(at - other) >= 11 for other in taken)), y)
        taken.append(y)
        words = f"{value:.3g}" if abs(value) >= 0.01 else f"{value:.2g}"  # six letters fit into the margin
        out.append(f'<text class="value" x="{x + 6:.1f}" y="{y + 4:.1f}" fill="{line.colour}">{words}</text>')
    return out
