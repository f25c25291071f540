"""The learning rate of a step, by the recipe's schedule."""

import math

from mdp.core.schedules import cosine, polynomial, stepped, warm_up
from mdp.io.recipe.settings import OptimizationSettings


def learning_rate(settings: OptimizationSettings, step: int, steps: int, epoch_steps: float) -> float:
    """The rate of a step (from 0) out of `steps`, of which `epoch_steps` are an epoch.

    By epoch, the rate changes only where an epoch begins; a warm-up always rises step by step.
    """
    position, unit = float(step), 1.0
    if settings.schedule_by == "epoch":
        position, unit = math.floor(step / epoch_steps + 1e-9), epoch_steps
    progress = min(1.0, position * unit / steps)
    lr, least = settings.lr, settings.min_lr
    if settings.schedule == "cosine":
        rate = cosine(progress, lr, least)
    elif settings.schedule == "polynomial":
        rate = polynomial(progress, lr, least, settings.power)
    else:
        rate = max(least, lr * stepped(position, settings.milestones, settings.factor))
    return rate * warm_up(step, settings.warmup_steps)
