"""Charts for a page that anybody may open anywhere: inline SVG whose colours the page's style sheet sets.

Every chart says in words what it shows, has its numbers in a table, and keeps spikes however long the run was.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mdp.core.thinning import bucket_means, thin
from mdp.io.pictures.charts_file import ticks
from mdp.io.pictures.html import folded, table, text

WIDTH, HEIGHT = 400, 220  # of the whole picture; a phone shows it at nine tenths
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 12, 34  # around the plot
_BUCKETS = 2000  # of all lines of a chart together: four points at most are drawn of each
_DENSE = 150  # points beyond which the means are drawn over the recorded values
_MEANS = 60  # means of a line
_DASHES = ("", "7 3", "2 3")
REFERENCE = -1  # the style of a line that is there to compare with


class Line(NamedTuple):
    """A named curve; `style` tells which run it is of, so that a run looks the same in all charts."""

    name: str
    style: int
    x: NDArray[np.float64]  # (N,), ascending
    y: NDArray[np.float64]  # (N,)
    missing: int = 0  # values that are no finite numbers


class Chart(NamedTuple):
    """Curves over steps that share their axes."""

    title: str
    unit: str
    lines: Sequence[Line]
    from_zero: bool = True  # whether 0 is on the axis, however far away
    note: str = ""


class Axis(NamedTuple):
    """Round numbers that enclose what is drawn."""

    ticks: Sequence[float]

    def share(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Where values lie between the first tick (0) and the last (1)."""
        low, high = self.ticks[0], self.ticks[-1]
        return (values - low) / (high - low)


def axis(low: float, high: float) -> Axis:
    """An axis for numbers of any size.

    >>> axis(0, 0.0003).ticks
    [0.0, 0.0001, 0.0002, 0.0003]
    """
    largest = max(abs(low), abs(high))
    scale = 10.0 ** math.floor(math.log10(largest)) if largest > 1e-300 else 1.0
    return Axis([float(f"{tick * scale:.12g}") for tick in ticks(low / scale, high / scale)])


def style_of(style: int) -> tuple[str, str]:
    """The style sheet's class and the dashes of a line; of 24 no two share both.

    >>> style_of(0), style_of(1), style_of(8)
    (('c0', ''), ('c1', '7 3'), ('c0', '7 3'))
    """
    if style == REFERENCE:
        return "reference", "1 4"
    return f"c{style % 8}", _DASHES[(style % 8 + style // 8) % 3]


def figure(chart: Chart, number: int | str) -> str:
    """The chart as a figure of a page, `number` (or a word) its own on it; "" when it has no point."""
    drawn = [line for line in chart.lines if len(line.x)]
    if not drawn:
        return ""
    xs, ys = np.concatenate([line.x for line in drawn]), np.concatenate([line.y for line in drawn])
    low = min(ys.min(), 0.0) if chart.from_zero else ys.min()
    # all charts begin at step 0, so that what happened at one time is seen at one place
    across, up = axis(0.0, max(5.0, float(xs.max()))), axis(float(low), float(max(ys.max(), low)))
    buckets = max(20, min(300, _BUCKETS // len(drawn)))
    parts = [*_grid(across, up), *(part for line in drawn for part in _curve(line, across, up, buckets))]
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


def _grid(across: Axis, up: Axis) -> list[str]:
    right, bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM
    parts = []
    for tick, y in zip(up.ticks, _down(up, np.array(up.ticks)), strict=True):
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{right}"/>')
        parts.append(f'<text x="{_LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{tick:.6g}</text>')
    for tick, x in zip(across.ticks, _along(across, np.array(across.ticks)), strict=True):
        words = _count(tick)
        inside = min(x, WIDTH - 4 * len(words))  # half of what a letter is wide: the last number stays in the picture
        parts.append(f'<text x="{inside:.1f}" y="{bottom + 15}" text-anchor="middle">{words}</text>')
    parts.append(f'<text x="{(_LEFT + right) / 2:.0f}" y="{bottom + 29}" text-anchor="middle">step</text>')
    return parts


def _count(step: float) -> str:
    """A number of steps, short.

    >>> _count(250), _count(40000), _count(2.5)
    ('250', '40k', '2.5')
    """
    return f"{step / 1000:g}k" if step >= 10_000 else f"{step:g}"


def _along(across: Axis, x: NDArray[np.float64]) -> NDArray[np.float64]:
    return _LEFT + across.share(x) * (WIDTH - _LEFT - _RIGHT)


def _down(up: Axis, y: NDArray[np.float64]) -> NDArray[np.float64]:
    return _TOP + (1 - up.share(y)) * (HEIGHT - _TOP - _BOTTOM)


def _curve(line: Line, across: Axis, up: Axis, buckets: int) -> list[str]:
    """The recorded values, which a pointer can read; where they are many also their means, over them."""
    color, dash = style_of(line.style)
    kept = thin(line.x, line.y, buckets)
    x, y = line.x[kept], line.y[kept]
    values = ";".join(f"{step:.12g},{value:.5g}" for step, value in zip(x, y, strict=True))
    told = f'data-name="{text(line.name)}" data-values="{values}"'
    if len(line.x) == 1:
        place = f'cx="{_along(across, x)[0]:.1f}" cy="{_down(up, y)[0]:.1f}"'
        return [f'<circle class="dot {color}" {place} r="3" {told}/>']
    if len(line.x) <= _DENSE:
        return [f'<path class="line {color}" stroke-dasharray="{dash}" d="{_path(across, up, x, y)}" {told}/>']
    means = _path(across, up, *bucket_means(line.x, line.y, _MEANS))
    return [
        f'<path class="line faint {color}" d="{_path(across, up, x, y)}" {told}/>',
        f'<path class="line {color}" stroke-dasharray="{dash}" d="{means}"/>',
    ]


def _path(across: Axis, up: Axis, x: NDArray[np.float64], y: NDArray[np.float64]) -> str:
    places = zip(_along(across, x), _down(up, y), strict=True)
    return "M" + "L".join(f"{right:.1f} {down:.1f}" for right, down in places)


def _legend(drawn: Sequence[Line]) -> str:
    if len(drawn) == 1 and drawn[0].style != REFERENCE:
        return ""
    rows = "".join(f"<li>{swatch(line.style)} {text(line.name, 60)}</li>" for line in drawn)
    return f'<ul class="legend">{rows}</ul>'


def _words(chart: Chart, drawn: Sequence[Line]) -> str:
    """What a picture shows, for those who do not see it."""
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


def _at(line: Line, place: int) -> str:
    return f"{line.y[place]:.5g} <small>at step {line.x[place]:,.0f}</small>"
