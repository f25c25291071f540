"""Line charts as SVG: for a page that anybody may open anywhere, and for a file of its own; no library, no network.

On a page the style sheet sets colours, a script reads the values that the lines carry, and the chart says in words what
it shows, has its numbers in a table, and keeps spikes however long the run was.  In a file the colours stand in the
marks, several panels share their axes, and a band shows the spread.  Colours are Okabe and Ito's, which colour-blind
readers can tell apart; lines of one colour differ in their dashes.
"""

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mdp.core.thinning import bucket_means, thin
from mdp.io.pictures.html import folded, table, text

WIDTH, HEIGHT = 400, 220  # of a page's picture; a phone shows it at nine tenths
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 12, 34  # around its plot
_BUCKETS = 2000  # of all lines of a page's chart together: four points at most are drawn of each
_DENSE = 150  # points beyond which the means are drawn over the recorded values
_MEANS = 60  # means of a line
_PANEL, _HEADING, _LABELS, _GAP = (300, 220), 50, 40, 24  # a file's plots, and the space above, below and between them
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c6d31")  # page.css has them
_DASHES = ("", "7 3", "2 3")
REFERENCE = -1  # the style of a line that is there to compare with


class Line(NamedTuple):
    """A named curve; `style` tells which run it is of, so that a run looks the same in all charts."""

    name: str
    style: int
    x: NDArray[np.float64]  # (N,), ascending
    y: NDArray[np.float64]  # (N,)
    missing: int = 0  # values that are no finite numbers
    band: NDArray[np.float64] | None = None  # (N, 2), low and high around each point; drawn in files


class Chart(NamedTuple):
    """Curves over steps that share their axes, on a page."""

    title: str
    unit: str
    lines: Sequence[Line]
    from_zero: bool = True  # whether 0 is on the axis, however far away
    note: str = ""


class Panel(NamedTuple):
    """One plot of several beside each other in a file; all have the same axes."""

    title: str
    lines: Sequence[Line]


class Axis(NamedTuple):
    """Round numbers that enclose what is drawn."""

    ticks: Sequence[float]

    def share(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Where values lie between the first tick (0) and the last (1)."""
        low, high = self.ticks[0], self.ticks[-1]
        return (values - low) / (high - low)


class Plot(NamedTuple):
    """The rectangle of a picture that curves are drawn in, and its axes."""

    left: float
    right: float
    top: float
    bottom: float
    across: Axis
    up: Axis

    def along(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Where values stand from left to right."""
        return self.left + self.across.share(x) * (self.right - self.left)

    def down(self, y: NDArray[np.float64]) -> NDArray[np.float64]:
        """Where values stand from top to bottom."""
        return self.top + (1 - self.up.share(y)) * (self.bottom - self.top)

    def path(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> str:
        """A path through the points."""
        points = zip(self.along(x), self.down(y), strict=True)
        return "M" + "L".join(f"{right:.1f} {down:.1f}" for right, down in points)


def axis(low: float, high: float) -> Axis:
    """An axis for numbers of any size.

    >>> axis(0, 0.0003).ticks
    [0.0, 0.0001, 0.0002, 0.0003]
    """
    largest = max(abs(low), abs(high))
    scale = 10.0 ** math.floor(math.log10(largest)) if largest > 1e-300 else 1.0
    return Axis([float(f"{tick * scale:.12g}") for tick in ticks(low / scale, high / scale)])


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
    values = [round(i * step, 10) for i in range(first, max(last, first + 1) + 1)]
    return [int(value) if value == int(value) else value for value in values]


def style_of(style: int) -> tuple[str, str]:
    """The style sheet's class and the dashes of a line; of 24 no two share both.

    >>> style_of(0), style_of(1), style_of(8)
    (('c0', ''), ('c1', '7 3'), ('c0', '7 3'))
    """
    if style == REFERENCE:
        return "reference", "1 4"
    return f"c{style % 8}", _DASHES[(style % 8 + style // 8) % 3]


def _grid(plot: Plot, look: str, inside: float, numbers: bool = True) -> list[str]:
    """A line for each number upwards, and the numbers of both axes; `inside`: the picture's width."""
    parts = []
    for tick, y in zip(plot.up.ticks, plot.down(np.array(plot.up.ticks)), strict=True):
        parts.append(f'<path {look} d="M{plot.left:g} {y:.1f}H{plot.right:g}"/>')
        if numbers:
            parts.append(f'<text x="{plot.left - 5:g}" y="{y + 4:.1f}" text-anchor="end">{tick:.6g}</text>')
    for tick, x in zip(plot.across.ticks, plot.along(np.array(plot.across.ticks)), strict=True):
        words = _count(tick)
        middle = min(x, inside - 4 * len(words))  # half of what a letter is wide: the last number stays in the picture
        parts.append(f'<text x="{middle:.1f}" y="{plot.bottom + 15:g}" text-anchor="middle">{words}</text>')
    return parts


def _count(step: float) -> str:
    """A number of steps, short.

    >>> _count(250), _count(40000), _count(2.5)
    ('250', '40k', '2.5')
    """
    return f"{step / 1000:g}k" if step >= 10_000 else f"{step:g}"


# On a page


def figure(chart: Chart, number: int | str) -> str:
    """The chart as a figure of a page, `number` (or a word) its own on it; "" when it has no point."""
    drawn = [line for line in chart.lines if len(line.x)]
    if not drawn:
        return ""
    xs, ys = np.concatenate([line.x for line in drawn]), np.concatenate([line.y for line in drawn])
    low = min(ys.min(), 0.0) if chart.from_zero else ys.min()
    # all charts begin at step 0, so that what happened at one time stands at the same point of each
    across, up = axis(0.0, max(5.0, float(xs.max()))), axis(float(low), float(max(ys.max(), low)))
    buckets = max(20, min(300, _BUCKETS // len(drawn)))
    plot = Plot(_LEFT, WIDTH - _RIGHT, _TOP, HEIGHT - _BOTTOM, across, up)
    curves = [part for line in drawn for part in _curve(line, plot, buckets)]
    below = f'<text x="{(plot.left + plot.right) / 2:.0f}" y="{plot.bottom + 29}" text-anchor="middle">step</text>'
    parts = [*_grid(plot, 'class="grid"', WIDTH), below, *curves]
    frame = f"{_LEFT} {WIDTH - _RIGHT} {_TOP} {HEIGHT - _BOTTOM} {across.ticks[0]:.12g} {across.ticks[-1]:.12g}"
    return (
        f'<figure id="chart-{number}"><figcaption><h3>{text(chart.title)}</h3> '
        f"<span>{text(chart.unit)}</span></figcaption>\n"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" tabindex="0" aria-label="{_words(chart, drawn)}" '
        f'data-plot="{frame}">\n{"".join(parts)}</svg>\n'
        f'<output aria-live="polite" style="min-height:{1.4 * len(drawn):.1f}em"></output>{_legend(drawn)}'
        f"{f'<p class=note>{text(chart.note)}</p>' if chart.note else ''}"
        f"{folded('Numbers', _numbers(chart, drawn))}</figure>\n"
    )


def swatch(style: int) -> str:
    """A short piece of a line, to know it by."""
    color, dash = style_of(style)
    return (
        f'<svg class="swatch" viewBox="0 0 26 8" aria-hidden="true"><path class="line {color}" d="M0 4H26" '
        f'stroke-dasharray="{dash}"/></svg>'
    )


def _curve(line: Line, plot: Plot, buckets: int) -> list[str]:
    """The recorded values, which a pointer can read; where they are many also their means, over them."""
    color, dash = style_of(line.style)
    kept = thin(line.x, line.y, buckets)
    x, y = line.x[kept], line.y[kept]
    values = ";".join(f"{step:.12g},{value:.5g}" for step, value in zip(x, y, strict=True))
    data = f'data-name="{text(line.name)}" data-values="{values}"'
    if len(line.x) == 1:
        centre = f'cx="{plot.along(x)[0]:.1f}" cy="{plot.down(y)[0]:.1f}"'
        return [f'<circle class="dot {color}" {centre} r="3" {data}/>']
    if len(line.x) <= _DENSE:
        return [f'<path class="line {color}" stroke-dasharray="{dash}" d="{plot.path(x, y)}" {data}/>']
    means = plot.path(*bucket_means(line.x, line.y, _MEANS))
    return [
        f'<path class="line faint {color}" d="{plot.path(x, y)}" {data}/>',
        f'<path class="line {color}" stroke-dasharray="{dash}" d="{means}"/>',
    ]


def _legend(drawn: Sequence[Line]) -> str:
    if len(drawn) == 1 and drawn[0].style != REFERENCE:
        return ""
    rows = "".join(f"<li>{swatch(line.style)} {text(line.name, 60)}</li>" for line in drawn)
    return f'<ul class="legend">{rows}</ul>'


def _words(chart: Chart, drawn: Sequence[Line]) -> str:
    """A picture in words, for those who do not see it."""
    rows = [
        f"{text(line.name, 60)}: from {line.y[0]:.4g} at step {line.x[0]:.0f} to {line.y[-1]:.4g} at step "
        f"{line.x[-1]:.0f}, lowest {line.y.min():.4g}, highest {line.y.max():.4g}"
        for line in drawn[:6]
    ]
    left = [f"and {len(drawn) - 6} more lines"] if len(drawn) > 6 else []
    return f"{text(chart.title)} ({text(chart.unit)}) by step. " + "; ".join([*rows, *left])


def _numbers(chart: Chart, drawn: Sequence[Line]) -> str:
    heads = ("line", "values", "first", "lowest", "highest", "last", "not finite")
    rows = [
        (
            f"{swatch(line.style)} {text(line.name)}",
            f"{len(line.x):,}",
            _at(line, 0),
            _at(line, int(line.y.argmin())),
            _at(line, int(line.y.argmax())),
            _at(line, -1),
            f"{line.missing:,}",
        )
        for line in drawn
    ]
    return table(f"{text(chart.title)} ({text(chart.unit)})", heads, rows)


def _at(line: Line, index: int) -> str:
    return f"{line.y[index]:.5g} <small>at step {line.x[index]:,.0f}</small>"


# In a file


def line_chart(panels: Sequence[Panel], title: str, x_label: str, y_label: str) -> str:
    """The panels beside each other, with one legend below; a file of its own.

    Raises ValueError when there is no point to draw.
    """
    lines = [line for panel in panels for line in panel.lines if len(line.x)]
    if not lines:
        raise ValueError("nothing to draw: no line has a point")
    xs = np.concatenate([line.x for line in lines])
    ys = np.concatenate([line.y if line.band is None else np.append(line.band, line.y) for line in lines])
    across, up = axis(float(xs.min()), float(xs.max())), axis(float(ys.min()), float(ys.max()))
    styles = {line.name: line.style for panel in panels for line in panel.lines}
    width = _LEFT + max(len(panels) * (_PANEL[0] + _GAP), 8 * len(title))  # 8 pixels a letter at size 14
    entry = 30 + 7 * max(len(name) for name in styles)
    columns = max(1, (width - _LEFT) // entry)
    bottom, middle = _HEADING + _PANEL[1], _HEADING + _PANEL[1] / 2
    height = bottom + _LABELS + 18 * -(-len(styles) // columns) + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="sans-serif" font-size="12" role="img" aria-label="{escape(title)}">',
        f'<title>{escape(title)}</title><rect width="100%" height="100%" fill="white"/>',
        f'<text x="{_LEFT}" y="18" font-size="14">{escape(title)}</text>',
        f'<text x="12" y="{middle}" transform="rotate(-90 12 {middle})" text-anchor="middle">{escape(y_label)}</text>',
    ]
    for index, panel in enumerate(panels):
        left = _LEFT + index * (_PANEL[0] + _GAP)
        plot = Plot(left, left + _PANEL[0], _HEADING, bottom, across, up)
        parts.append(f'<text x="{left}" y="{_HEADING - 6}">{escape(panel.title)}</text>')
        parts += _grid(plot, 'stroke="#dddddd"', width, numbers=index == 0)
        parts += [part for line in panel.lines if len(line.x) for part in _banded(line, plot)]
    across_all = _LEFT + (len(panels) * (_PANEL[0] + _GAP) - _GAP) / 2
    parts.append(f'<text x="{across_all}" y="{bottom + 32}" text-anchor="middle">{escape(x_label)}</text>')
    for i, (name, style) in enumerate(styles.items()):
        x, y = _LEFT + entry * (i % columns), bottom + _LABELS + 14 + 18 * (i // columns)
        parts.append(
            f'<path d="M{x} {y - 4}H{x + 22}" {_look(style)}/><text x="{x + 27}" y="{y}">{escape(name)}</text>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _look(style: int) -> str:
    """A line's colour and dashes; dashes begin where the colours are used up."""
    dash = _DASHES[style // 8 % 3]
    return f'fill="none" stroke="{_COLORS[style % 8]}" stroke-width="2" stroke-dasharray="{dash}"'


def _banded(line: Line, plot: Plot) -> list[str]:
    if len(line.x) == 1:
        return _dot(line, plot)
    parts = []
    if line.band is not None:
        there_and_back = np.append(line.x, line.x[::-1]), np.append(line.band[:, 0], line.band[::-1, 1])
        color = _COLORS[line.style % 8]
        parts.append(f'<path d="{plot.path(*there_and_back)}Z" fill="{color}" opacity="0.12"/>')
    parts.append(f'<path d="{plot.path(line.x, line.y)}" {_look(line.style)}><title>{escape(line.name)}</title></path>')
    return parts


def _dot(line: Line, plot: Plot) -> list[str]:
    """A single point, and its band as a bar."""
    x, y = float(plot.along(line.x)[0]), float(plot.down(line.y)[0])
    color = _COLORS[line.style % 8]
    words = f"<title>{escape(line.name)}</title>"
    parts = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{color}">{words}</circle>']
    if line.band is not None:
        low, high = plot.down(line.band[0])
        parts.append(f'<path d="M{x:.1f} {low:.1f}V{high:.1f}" stroke="{color}" stroke-width="1.5"/>')
    return parts
