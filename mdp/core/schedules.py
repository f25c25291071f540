"""Schedules: training progress in 0..1 -> a factor or a learning rate.  Progress of step t out of T is t / T."""

import math


def cosine(progress: float) -> float:
    """From 1 to 0 along half a cosine (MoCo-v2's schedule, here per step).

    >>> cosine(0.0), round(cosine(0.5), 6), cosine(1.0)
    (1.0, 0.5, 0.0)
    """
    return 0.5 * (1 + math.cos(math.pi * progress))


def polynomial(progress: float, start: float, end: float, power: float = 0.9) -> float:
    """From `start` to `end` along (1 - progress)^power (MMSegmentation's schedule: power 0.9, 0.01 to 1e-4).

    >>> round(polynomial(0.5, 0.01, 1e-4), 10)
    0.0054052786
    """
    return (start - end) * math.pow(1 - progress, power) + end


def warm_up(step: int, steps: int) -> float:
    """A factor that rises linearly from 1 / steps to 1 over the first `steps` steps; 1 when there is no warm-up.

    >>> [warm_up(step, 4) for step in range(5)], warm_up(0, 0)
    ([0.25, 0.5, 0.75, 1.0, 1.0], 1.0)
    """
    return min(1.0, (step + 1) / steps) if steps else 1.0
