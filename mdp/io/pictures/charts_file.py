"""Line charts as SVG text: axes with units, a legend, a band for the spread; no library, no script, no network.

Colours are Okabe and Ito's, which colour-blind readers can tell apart; beyond eight lines the dashes differ.
"""

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c6d31")
_DASHES = ("", "6 3", "2 3")
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM, _GAP = 300, 220, 46, 30, 40, 24  # of a panel's plot, and the space around it


class Line(NamedTuple):
    """A named line with a band around it."""

    name: str
    points: Sequence[tuple[float, float]]  # (x, y)
    band: Sequence[tuple[float, float]] = ()  # (low, high) at each point


class Panel(NamedTuple):
    """One plot of several beside each other; all have the same axes."""

    title: str
    lines: Sequence[Line]


def line_chart(panels: Sequence[Panel], title: str, x_label: str, y_label: str) -> str:
    """The panels beside each other, with one legend below.  Lines of one name have one colour.

    Raises ValueError when there is no point to draw.
    """
    xs = [x for panel in panels for line in panel.lines for x, _ in line.points]
    ys = [y for panel in panels for line in panel.lines for _, y in line.points]
    ys += [y for panel in panels for line in panel.lines for pair in line.band for y in pair]
    if not xs:
        raise ValueError("nothing to draw: no line has a point")
    x_ticks, y_ticks = ticks(min(xs), max(xs)), ticks(min(ys), max(ys))
    names = list(dict.fromkeys(line.name for panel in panels for line in panel.lines))
    style = {name: (_COLORS[i % 8], _DASHES[i // 8 % 3]) for i, name in enumerate(names)}
    width = _LEFT + max(len(panels) * (_WIDTH + _GAP), 8 * len(title))  # 8 pixels a letter at size 14
    entry = 30 + 7 * max(len(name) for name in names)
    columns = max(1, (width - _LEFT) // entry)
    height = _TOP + 20 + _HEIGHT + _BOTTOM + 18 * -(-len(names) // columns) + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="sans-serif" font-size="12" role="img" aria-label="{escape(title)}">',
        f'<title>{escape(title)}</title><rect width="100%" height="100%" fill="white"/>',
        f'<text x="{_LEFT}" y="18" font-size="14">{escape(title)}</text>',
    ]
    for index, panel in enumerate(panels):
        left = _LEFT + index * (_WIDTH + _GAP)
        parts += _panel(panel, left, _TOP + 20, x_ticks, y_ticks, style)
    middle = _TOP + 20 + _HEIGHT / 2
    parts.append(
        f'<text x="12" y="{middle}" transform="rotate(-90 12 {middle})" text-anchor="middle">{escape(y_label)}</text>'
    )
    bottom = _TOP + 20 + _HEIGHT
    middle = _LEFT + (len(panels) * (_WIDTH + _GAP) - _GAP) / 2
    parts.append(f'<text x="{middle}" y="{bottom + 32}" text-anchor="middle">{escape(x_label)}</text>')
    for i, name in enumerate(names):
        x, y = _LEFT + entry * (i % columns), bottom + _BOTTOM + 14 + 18 * (i // columns)
        color, dash = style[name]
        parts.append(
            f'<line x1="{x}" y1="{y - 4}" x2="{x + 22}" y2="{y - 4}" stroke="{color}" stroke-width="2" '
            f'stroke-dasharray="{dash}"/><text x="{x + 27}" y="{y}">{escape(name)}</text>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(
    panel: Panel,
    left: float,
    top: float,
    x_ticks: Sequence[float],
    y_ticks: Sequence[float],
    style: dict[str, tuple[str, str]],
) -> list[str]:
    """The grid, the bands and the lines of one plot."""

    def place(x: float, y: float) -> str:
        across = (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0])
        up = (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return f"{left + across * _WIDTH:.1f},{top + (1 - up) * _HEIGHT:.1f}"

    parts = [f'<text x="{left}" y="{top - 6}">{escape(panel.title)}</text>']
    for y in y_ticks:
        start, end = place(x_ticks[0], y).split(","), place(x_ticks[-1], y).split(",")
        parts.append(f'<line x1="{start[0]}" y1="{start[1]}" x2="{end[0]}" y2="{end[1]}" stroke="#dddddd"/>')
        if left == _LEFT:
            parts.append(f'<text x="{left - 5}" y="{float(start[1]) + 4}" text-anchor="end">{y:g}</text>')
    for x in x_ticks:
        across = place(x, y_ticks[0]).split(",")[0]
        parts.append(f'<text x="{across}" y="{top + _HEIGHT + 15}" text-anchor="middle">{x:g}</text>')
    for line in panel.lines:
        color, dash = style[line.name]
        if line.band:
            low = [place(x, pair[0]) for (x, _), pair in zip(line.points, line.band, strict=True)]
            high = [place(x, pair[1]) for (x, _), pair in zip(line.points, line.band, strict=True)]
            corners = " ".join(low + high[::-1])
            parts.append(f'<polygon points="{corners}" fill="{color}" opacity="0.12"/>')
        points = " ".join(place(x, y) for x, y in line.points)
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2" stroke-dasharray="{dash}">'
            f"<title>{escape(line.name)}</title></polyline>"
        )
    return parts


def ticks(low: float, high: float) -> list[float]:
    """Four to eight round numbers that enclose low and high.

    >>> ticks(0, 250), ticks(21.3, 29.9)
    ([0, 50, 100, 150, 200, 250], [20, 22, 24, 26, 28, 30])
    """
    flat = max(abs(low), abs(high), 1.0)
    span = high - low if high - low > 1e-6 * flat else flat
    raw = span / 5
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    found = [round(i * step, 10) for i in range(first, max(last, first + 1) + 1)]
    return [int(value) if value == int(value) else value for value in found]
