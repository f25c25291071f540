"""Schedules: training progress in 0..1 -> a factor or a learning rate.  Progress of step t out of T is t / T."""

import math
from collections.abc import Sequence


def cosine(progress: float, start: float = 1.0, end: float = 0.0) -> float:
    """From `start` to `end` along half a cosine (SGDR without restarts, arXiv 1608.03983; MoCo-v2's schedule).

    >>> cosine(0.0), round(cosine(0.5), 6), cosine(1.0), cosine(1.0, 0.6, 0.0006)
    (1.0, 0.5, 0.0, 0.0006)
    """
    return (start - end) * (0.5 * (1 + math.cos(math.pi * progress))) + end


def polynomial(progress: float, start: float, end: float, power: float = 0.9) -> float:
    """From `start` to `end` along (1 - progress)^power (MMSegmentation's schedule: power 0.9, 0.01 to 1e-4).

    >>> round(polynomial(0.5, 0.01, 1e-4), 10)
    0.0054052786
    """
    return (start - end) * math.pow(1 - progress, power) + end


def stepped(position: float, milestones: Sequence[float], factor: float = 0.1) -> float:
    """A factor that is multiplied by `factor` at each milestone that the position has reached.

    >>> [round(stepped(epoch, (30, 40)), 10) for epoch in (29, 30, 40)]
    [1.0, 0.1, 0.01]
    """
    return factor ** sum(position >= milestone for milestone in milestones)


def warm_up(step: int, steps: int) -> float:
    """A factor that rises linearly from 1 / steps to 1 over the first `steps` steps; 1 when there is no warm-up.

    >>> [warm_up(step, 4) for step in range(5)], warm_up(0, 0)
    ([0.25, 0.5, 0.75, 1.0, 1.0], 1.0)
    """
    return min(1.0, (step + 1) / steps) if steps else 1.0
