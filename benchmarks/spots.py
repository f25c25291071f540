"""The list of spots: one module of this folder each, in the order of the table."""

from collections.abc import Callable
from importlib import import_module

from benchmarks.measure import Case

SPOTS = (
    "prototype_loss", "pixel_loss", "memory_contrast", "sinkhorn", "pixel_attention", "class_pooling", "bank",
    "key_encoder", "mixing", "confusion", "aspp", "depthwise",
    "upsampling", "boundary", "luss_scores", "threshold_sweep", "distance_matching", "assignment", "kmeans",
    "neighbours", "views", "six_views", "autoaugment",
    "step", "finetuning_step", "loop",
)  # fmt: skip


def cases(spot: str) -> dict[str, Callable[[], Case]]:
    """Functions that make a spot's cases, by label, the smallest case first."""
    found: dict[str, Callable[[], Case]] = import_module(f"benchmarks.{spot}").cases()
    return found


def summary(spot: str) -> str:
    """The first line of a spot's docstring."""
    return (import_module(f"benchmarks.{spot}").__doc__ or "").partition("\n")[0]
