"""The facts of a run while it goes, which grow record by record, by pure functions."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

Record = Mapping[str, Any]

_SECONDS = 10.0  # until what is shown of speed, shares and loss has forgotten all but a third
_POINTS = 64  # of the course of the loss, at least, once there are as many steps


class Pace(NamedTuple):
    """Sums over the latest steps, older ones fading."""

    steps: float = 0.0
    loss: float = 0.0
    seconds: float = 0.0  # an image
    data: float = 0.0  # of these seconds, waiting for the loader
    communication: float | None = None  # in collectives; None: one process


class Course(NamedTuple):
    """Means of as many values each, and the sum of those that are not yet enough for a mean."""

    means: tuple[float, ...] = ()
    every: int = 1
    total: float = 0.0
    values: int = 0


class Facts(NamedTuple):
    """A run so far: steps, time, speed, loss and scores."""

    folder: str
    steps: int  # in all
    step: int = 0  # done
    epoch: int | None = None
    elapsed: float = 0.0  # seconds since this start of the run
    left: float = math.nan  # seconds
    lr: float = math.nan
    pace: Pace = Pace()
    losses: Course = Course()
    validated: Record | None = None  # the last record of a validation


def trained(facts: Facts, record: Record, seconds: float) -> Facts:
    """The facts after a step, whose record came so many seconds after the one before."""
    loss = record.get("loss")
    return facts._replace(
        step=record["step"],
        epoch=record.get("epoch"),
        lr=record.get("lr", math.nan),
        pace=paced(facts.pace, record, seconds),
        losses=facts.losses if loss is None else extended(facts.losses, loss),
    )


def paced(pace: Pace, record: Record, seconds: float) -> Pace:
    """The sums, faded by so many seconds, with one more training record."""
    speed, communication = record.get("images_per_second"), record.get("communication")
    fade, took = math.exp(-seconds / _SECONDS), 1 / speed if speed else 0.0
    loss = record.get("loss")
    before = (pace.communication or 0.0) * fade
    return Pace(
        fade * pace.steps + 1,
        fade * pace.loss + (pace.loss / max(pace.steps, 1) if loss is None else loss),
        fade * pace.seconds + took,
        fade * pace.data + took * (record.get("data_wait") or 0.0),
        None if communication is None else before + took * communication,
    )


def shares(pace: Pace) -> dict[str, float]:
    """The shares of time, largest first: data, compute and, among processes, communication."""
    took = pace.seconds or math.inf
    parts = {"data": pace.data / took}
    if pace.communication is not None:
        parts["communication"] = pace.communication / took
    parts["compute"] = max(0.0, 1 - sum(parts.values()))
    return dict(sorted(parts.items(), key=lambda item: -item[1]))


def extended(course: Course, value: float) -> Course:
    """The course with one more value; when it has many means, neighbours become one.

    >>> course = Course()
    >>> for value in range(300):
    ...     course = extended(course, value)
    >>> course.every, len(course.means), course.means[:2]
    (4, 75, (1.5, 5.5))
    """
    means, every, total, count = course.means, course.every, course.total + value, course.values + 1
    if count < every:
        return Course(means, every, total, count)
    means = (*means, total / every)
    if len(means) == 2 * _POINTS:
        means, every = tuple((a + b) / 2 for a, b in zip(means[::2], means[1::2], strict=True)), 2 * every
    return Course(means, every)
