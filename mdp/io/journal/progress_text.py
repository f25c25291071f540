"""The facts of a run as lines of text: one line, or a block of at most six for a terminal with room for it.

No line is wider than it may be, whatever names are in it: widths are counted in the columns of a terminal, and what
its encoding lacks is escaped.
"""

import math
import unicodedata
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from mdp.io.files.reading import printable
from mdp.io.journal.progress import Facts, Record, shares

_ROWS, _COLUMNS = 10, 60  # a smaller terminal gets one line
_SPARK = 40  # columns at most
_BAR = 48
BOLD, CYAN, YELLOW = "1", "36", "33"  # as terminals number them


class Line(NamedTuple):
    """A line in one style."""

    text: str
    style: str = ""


class Marks(NamedTuple):
    """The characters that lines are drawn with."""

    bar: str  # from a column that is nearly empty to a full one
    spark: str  # from low to high
    empty: str
    dots: str
    encoding: str


def marks_for(encoding: str) -> Marks:
    """Blocks and dots where the encoding has them, else ASCII."""
    blocks = Marks("▏▎▍▌▋▊▉█", "▁▂▃▄▅▆▇█", "·", "…", encoding)
    try:
        "".join(blocks[:4]).encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return Marks("#", "_.-=*#", "-", "...", encoding)
    return blocks


def view(facts: Facts, columns: int, rows: int, marks: Marks) -> list[Line]:
    """The lines for a terminal of that size: a block, or one line where it is too small."""
    width = columns - 1  # the last column makes some terminals wrap
    if rows < _ROWS or columns < _COLUMNS:
        return [Line(cut(sentence(facts), width, marks))]
    slowest = next(iter(shares(facts.pace)))
    lines = [
        Line(cut_front(facts.folder, width, marks), BOLD),
        Line(_progress(facts, width, marks), CYAN),
        Line(_loss(facts, width, marks)),
        Line(f"time   slowest: {_shares(facts)}", "" if slowest == "compute" else YELLOW),
        *(Line(text) for text in _validated(facts.validated)),
    ]
    return [Line(cut(line.text, width, marks), line.style) for line in lines]


def sentence(facts: Facts) -> str:
    """How far the run is, in one line."""
    return (
        f"step {facts.step}/{facts.steps}  loss {_mean_loss(facts)}  lr {facts.lr:.2g}  {_speed(facts)}  "
        f"slowest: {_shares(facts)}  {duration(facts.left)} left"
    )


def _progress(facts: Facts, width: int, marks: Marks) -> str:
    share = facts.step / facts.steps if facts.steps else 1.0
    epoch = "" if facts.epoch is None else f"  epoch {facts.epoch + 1}"
    text = f" {share:4.0%}  step {facts.step:,}/{facts.steps:,}{epoch}"
    text += f"  {duration(facts.elapsed)} gone, {duration(facts.left)} left"
    return bar(share, min(_BAR, width - len(text)), marks) + text


def _loss(facts: Facts, width: int, marks: Marks) -> str:
    head, tail = f"loss   {_mean_loss(facts)} ", f"   lr {facts.lr:.2g}   {_speed(facts)}"
    room = min(_SPARK, width - len(head) - len(tail))
    return head + sparkline(facts.losses.means, room, marks) + tail


def _mean_loss(facts: Facts) -> str:
    return f"{facts.pace.loss / facts.pace.steps:.4f}" if facts.pace.steps else "?"


def _speed(facts: Facts) -> str:
    return f"{facts.pace.steps / facts.pace.seconds:.1f} img/s" if facts.pace.seconds else "? img/s"


def _shares(facts: Facts) -> str:
    """The slowest part first."""
    (first, most), *others = shares(facts.pace).items()
    return f"{first} {most:.0%} ({', '.join(f'{name} {share:.0%}' for name, share in others)})"


def _validated(record: Record | None) -> list[str]:
    """The scores of a validation, and the signs of collapse on a line of their own."""
    if record is None:
        return []
    signs = {
        "prototype_cosine": "mean cosine {:.2f}",
        "prototype_rank": "effective rank {:.1f}",
        "classes_unseen": "{} classes not seen",
    }
    collapse = [words.format(_count(record[name])) for name, words in signs.items() if record.get(name) is not None]
    line = f"scores step {record['step']:,}: {_scores(record)}"
    return [line, f"       prototypes: {', '.join(collapse)}"] if collapse else [line]


def _scores(record: Record) -> str:
    miou = record.get("miou")
    if isinstance(miou, Mapping):
        return "mIoU " + (", ".join(f"{name} {percent(score)}" for name, score in miou.items()) or "of no class")
    accuracy = f", aAcc {percent(record['aacc'])}" if "aacc" in record else ""
    return f"mIoU {percent(miou)}{accuracy}"


def _count(value: object) -> object:
    return len(value) if isinstance(value, list) else value


def percent(score: float | None) -> str:
    """A score in 0..1 with one digit."""
    return "-" if score is None else f"{100 * score:.1f}"


def duration(seconds: float) -> str:
    """A time in its two largest units.

    >>> duration(59.6), duration(3725.0), duration(200_000.0), duration(math.nan)
    ('1m00s', '1h02m', '2d07h', '?')
    """
    if not math.isfinite(seconds):
        return "?"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours:02d}h"
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{seconds:02d}s"


# Drawings


def bar(share: float, width: int, marks: Marks) -> str:
    """A bar of `width` columns, filled to `share`; nothing where there is no room for one.

    >>> bar(0.3, 10, marks_for("ascii")), bar(0.55, 4, marks_for("utf-8"))
    ('###-------', '██▏·')
    """
    if width < 4:
        return ""
    levels = len(marks.bar)
    eighths = math.floor(min(max(share, 0.0), 1.0) * width * levels + 1e-9)
    full, rest = divmod(eighths, levels)
    begun = marks.bar[rest - 1] if rest else ""
    return (full * marks.bar[-1] + begun).ljust(width, marks.empty)


def sparkline(values: Sequence[float], width: int, marks: Marks) -> str:
    """The course of the values in at most `width` columns, each a mean; from the least to the greatest.

    >>> sparkline([4.0, 3.0, 2.0, 1.0], 4, marks_for("utf-8")), sparkline([1.0, 1.0], 4, marks_for("utf-8"))
    ('█▆▃▁', '▁▁')
    """
    count = min(width, len(values))
    if count < 1:
        return ""
    edges = [i * len(values) // count for i in range(count + 1)]
    means = [math.fsum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means), max(means)
    steps = len(marks.spark) - 1
    return "".join(marks.spark[round(steps * (mean - low) / (high - low or 1.0))] for mean in means)


# Widths


def width_of(text: str) -> int:
    """The columns that the text takes in a terminal.

    >>> width_of("ab"), width_of("道路"), width_of("e\u0301")
    (2, 4, 1)
    """
    return sum(map(_width, text))


def _width(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def cut(text: str, width: int, marks: Marks) -> str:
    """The text as the terminal can show it, its end cut off where it is wider than `width`."""
    safe = _safe(text, marks)
    if width_of(safe) <= width:
        return safe
    room, kept = width - len(marks.dots), ""
    for character in safe:
        room -= _width(character)
        if room < 0:
            break
        kept += character
    return (kept + marks.dots)[: max(width, 0)]


def cut_front(text: str, width: int, marks: Marks) -> str:
    """The same with the beginning cut off: of a path the end tells most."""
    safe = _safe(text, marks)
    while width_of(safe) > width:
        safe = marks.dots + safe.removeprefix(marks.dots)[1:]
    return safe


def _safe(text: str, marks: Marks) -> str:
    """On one line, without what a terminal obeys or its encoding lacks."""
    return printable(text).encode(marks.encoding, "backslashreplace").decode(marks.encoding)
