"""A whole step of pretraining beside a supervised step of the same network, images and memory layout.

The method's own work is what a step takes without the forward pass of the keys, beyond a supervised step; the floor is
what the networks take alone.  Peak memory does not count what stays from step to step, such as a dense bank.
"""

from collections.abc import Callable
from functools import partial

from benchmarks.measure import Case, Entry, Gate
from benchmarks.naive_step import naive
from benchmarks.recipes import RESNET18, RESNET50, StepRecipe, in_layout, network_alone, pretraining, supervised


def cases() -> dict[str, Callable[[], Case]]:
    """A small network, then ResNet-50 with DeepLab-v3, each in both layouts."""
    made: dict[str, Callable[[], Case]] = {}
    for name, recipe in (("ResNet-18 / 16", RESNET18), ("ResNet-50", RESNET50)):
        for layout in ("NCHW", "channels_last"):
            size = f"{name}, 2 x {recipe.images} crops of {recipe.crop}^2, C={recipe.classes}, {layout}"
            made[size] = partial(_case, size, in_layout(recipe, layout))
    return made


def _case(size: str, recipe: StepRecipe) -> Case:
    entries = (
        Entry("multi_dataset", "ours", pretraining(recipe)),
        Entry("without the keys' forward pass", "ours", pretraining(recipe, key_forward=False)),
        Entry("a supervised step", "plain", supervised(recipe)),
        Entry("multi_dataset with loops, masks and a dense bank", "plain", naive(recipe)),
        Entry("the networks' passes alone", "floor", network_alone(recipe)),
    )
    gates = (
        Gate("a supervised step", at_most=1.38),
        Gate("a supervised step", at_most=1.05, of="without the keys' forward pass"),
        Gate("multi_dataset with loops, masks and a dense bank", at_least=1.0),
    )
    return Case("step", size, entries, gates if recipe.network.backbone == "resnet50" else ())
