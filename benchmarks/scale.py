"""How time and memory grow: with pixels, classes, similar classes, the bank, the crop and the number of datasets.

`python -m benchmarks.scale --write` measures all and writes scale.md and scale.svg beside this file.  An exponent is
the slope of a least-squares line through the logarithms of the upper sizes: 1 is linear, 0 is flat.
Shape legend: B images, N = B h w pixels, C classes, D = 256 channels, K similar classes a pixel, T batches in the bank.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

import click
import numpy as np
import torch
from torch import Tensor

from benchmarks import inputs, report
from benchmarks.measure import peak_memory
from benchmarks.recipes import RESNET18, pretraining
from mdp.core.chance import generator
from mdp.core.contrast import prototype_nce
from mdp.core.photometry import PhotometrySettings, apply_photometry, draw_photometry, normalise, stack_draws
from mdp.core.prototype_bank import Prototypes, class_sums, empty_bank, prototypes, push
from mdp.core.targets import Targets, hard_targets, prototype_similarity, sparse_targets
from mdp.io.pictures.charts import Line, Panel, line_chart

CHANNELS, SIDE, TAU = 256, 28, 0.07
HERE = Path(__file__).parent

Work = Callable[[], object]
_INTRODUCTION = """Written by `python -m benchmarks.scale --write`. An exponent is the slope of a least-squares
line through the logarithms of the larger sizes (three or more): 1 is linear growth, 0 is none. Memory is the peak of
one call beyond its inputs.
"""


class Growth(NamedTuple):
    """Something that grows, and a maker of the work at each size."""

    name: str
    sizes: Sequence[int]
    make: Callable[[int], Work]


class Point(NamedTuple):
    """A measurement."""

    size: int
    seconds: float
    memory: int | None  # bytes at the peak of a call, its result included


def growths() -> list[Growth]:
    """All that is measured."""
    return [
        Growth("loss, pixels N", (3136, 6272, 12544, 25088, 50176), lambda n: _loss(n // SIDE**2, 342)),
        Growth("loss, classes C", (64, 128, 256, 512, 1024), lambda c: _loss(8, c)),
        Growth("loss, similar classes K", (1, 2, 5, 10, 20), lambda k: _loss(8, 342, k)),
        Growth("class sums, pixels N", (3136, 6272, 12544, 25088, 50176), lambda n: _pooling(n // SIDE**2, 342)),
        Growth("class sums, classes C", (64, 128, 256, 512, 1024), lambda c: _pooling(16, c)),
        Growth("bank, batches T", (128, 256, 512, 1024, 2048), _bank),
        Growth("photometry, pixels of a crop", (112**2, 160**2, 224**2, 320**2, 448**2), _photometry),
        Growth("step, pixels of a crop", (48**2, 64**2, 96**2, 128**2), _step),
        Growth("loss, class sums and bank, datasets of 20 classes", (1, 2, 4, 8, 16), _datasets),
    ]


def _loss(count: int, classes: int, similar: int = 0) -> Work:
    rng = inputs.rng_of(0)
    raw = inputs.embeddings(rng, count, CHANNELS, SIDE, SIDE)
    known = inputs.prototypes(rng, classes, CHANNELS)
    targets = hard_targets(inputs.label_maps(rng, count, SIDE, SIDE, classes))
    if similar:
        targets = sparse_targets(targets, prototype_similarity(targets, known), known, similar, 0.1)
    return partial(_graded, raw, known, targets)


def _graded(raw: Tensor, known: Prototypes, targets: Targets) -> Tensor:
    leaf = raw.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(prototype_nce(leaf, known, targets, TAU, unit=False).mean(), leaf)
    return gradient


def _pooling(count: int, classes: int) -> Work:
    rng = inputs.rng_of(0)
    keys = inputs.embeddings(rng, count, CHANNELS, SIDE, SIDE)
    return partial(class_sums, keys, inputs.label_maps(rng, count, SIDE, SIDE, classes), classes)


def _bank(size: int) -> Work:
    """A full bank takes one batch more."""
    sums = class_sums(*_embedded(4, 60), 60, unit=True)
    bank = empty_bank(60, CHANNELS, size)
    for _ in range(size):
        bank = push(bank, sums)
    return lambda: prototypes(push(bank, sums))


def _embedded(count: int, classes: int) -> tuple[Tensor, Tensor]:
    rng = inputs.rng_of(0)
    keys = inputs.embeddings(rng, count, CHANNELS, SIDE, SIDE)
    return keys, inputs.label_maps(rng, count, SIDE, SIDE, classes)


def _photometry(pixels: int) -> Work:
    side = math.isqrt(pixels)
    images = torch.randint(0, 256, (8, 3, side, side), generator=inputs.rng_of(0)).to(torch.uint8)
    draws = stack_draws([draw_photometry(generator(i), PhotometrySettings()) for i in range(8)])
    return lambda: normalise(apply_photometry(images, draws))


def _step(pixels: int) -> Work:
    return pretraining(replace(RESNET18, crop=math.isqrt(pixels)))


def _datasets(count: int) -> Work:
    """As many pixels whatever the number of datasets: more of them are more classes."""
    classes = 20 * count
    keys, labels = _embedded(8, classes)
    loss = _loss(8, classes)
    bank = push(empty_bank(classes, CHANNELS, 2), class_sums(keys, labels, classes, unit=True))

    def work() -> tuple[object, object]:
        return prototypes(push(bank, class_sums(keys, labels, classes, unit=True))), loss()

    return work


# Measuring and fitting


def measure(growth: Growth, rounds: int) -> Iterator[Point]:
    """Each size: the median process CPU time of a call, and the memory of one."""
    for size in growth.sizes:
        work = growth.make(size)
        work()
        yield Point(size, median(_seconds(work) for _ in range(rounds)), peak_memory(work))


def _seconds(work: Work) -> float:
    """Of a call; short ones are repeated."""
    calls, began = 0, time.process_time()
    while calls == 0 or time.process_time() - began < 0.05:
        work()
        calls += 1
    return (time.process_time() - began) / calls


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """The slope of log(value) over log(size) by least squares.  Raises ValueError below two sizes.

    >>> round(exponent([1, 2, 4], [5, 20, 80]), 6), exponent([1, 2], [3, 3])
    (2.0, 0.0)
    """
    if len(set(sizes)) < 2 or len(sizes) != len(values):
        raise ValueError(f"an exponent needs two sizes or more, and a value for each: {sizes}, {values}")
    xs, ys = [math.log(size) for size in sizes], [math.log(value) for value in values]
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / sum((a - x) ** 2 for a in xs)


def upper(points: Sequence[Point]) -> Sequence[Point]:
    """The larger sizes, three at least where there are: constants hide the growth of the smaller ones."""
    return points[-max(3, len(points) // 2 + 1) :]


def table(found: Sequence[tuple[str, Sequence[Point]]]) -> str:
    """Rows of Markdown: sizes, time and memory of the largest, exponents."""
    rows = ["| what grows | sizes | time of the largest | exponent | memory | exponent |", "|---|---|---|---|---|---|"]
    for name, points in found:
        top, last = upper(points), points[-1]
        sizes = f"{points[0].size:,} .. {last.size:,}"
        time_slope = exponent([p.size for p in top], [p.seconds for p in top])
        rows.append(f"| {name} | {sizes} | {1000 * last.seconds:.3g} ms | {time_slope:.2f} | {_memory(top)} |")
    return "\n".join(rows)


def _memory(points: Sequence[Point]) -> str:
    last = points[-1].memory
    if last is None:
        return "- | -"
    least = 2**20  # below a MiB it is noise
    if last < least:
        return "below 1 MiB | -"
    slope = exponent([p.size for p in points], [max(p.memory or 0, least) for p in points])
    return f"{last / 2**20:.1f} MiB | {slope:.2f}"


def chart(found: Sequence[tuple[str, Sequence[Point]]]) -> str:
    """Doublings of time, and of memory, over doublings of the size: slope 1 is linear."""
    style = {name: index for index, (name, _) in enumerate(found)}
    times = [_line(name, style[name], points, [p.seconds for p in points]) for name, points in found]
    kept = [(name, points) for name, points in found if all((p.memory or 0) >= 2**20 for p in points)]
    memories = [_line(name, style[name], points, [float(p.memory or 1) for p in points]) for name, points in kept]
    panels = [Panel("time", times)] + ([Panel("peak memory of a call", memories)] if memories else [])
    return line_chart(panels, "What grows how, on one CPU thread", "doublings of the size", "doublings")


def _line(name: str, style: int, points: Sequence[Point], values: Sequence[float]) -> Line:
    sizes = np.array([point.size for point in points], dtype=np.float64)
    return Line(name, style, np.log2(sizes / sizes[0]), np.log2(np.array(values) / values[0]))


@click.command()
@click.option("--write", is_flag=True, help="Write scale.md and scale.svg beside this file.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="How often each size is timed.")
@click.option("--only", default="", help="What grows must contain this text.")
def main(write: bool, rounds: int, only: str) -> None:
    """Measure how time and memory grow, on one thread."""
    torch.set_num_threads(1)
    found = []
    for growth in growths():
        if only in growth.name:
            found.append((growth.name, list(measure(growth, rounds))))
            click.echo(table(found[-1:]).splitlines()[-1])
    if write:
        text = f"# How it grows\n\n{_INTRODUCTION}\n{report.machine(1)}.\n\n{table(found)}\n\n![growth](scale.svg)\n"
        (HERE / "scale.md").write_text(text, encoding="utf-8")
        (HERE / "scale.svg").write_text(chart(found), encoding="utf-8")


if __name__ == "__main__":
    main()
