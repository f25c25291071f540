"""The scores of ImageNet-S for one photo: areas, four sizes, image accuracy, F-beta and boundaries of all categories.

Shape legend: C categories, H x W label map.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks import inputs
from benchmarks.measure import Case, Entry, Gate
from mdp.core.boundaries import RATIO, boundary_width
from mdp.core.luss import image_marks, join_marks, luss_scores, same_names

HEIGHT, WIDTH = 375, 500
FEW = 50
SMALL = (5, 25, 50, 100)  # percent of the image that objects of each size have at most


def cases() -> dict[str, Callable[[], Case]]:
    """By the number of categories; a photo has a handful of them."""
    return {f"{categories} categories": partial(_case, categories) for categories in (FEW, 919)}


def _case(categories: int) -> Case:
    guess, labels = _maps(categories)
    entries = [
        Entry("image_marks, luss_scores", "ours", lambda: _ours(guess, labels, categories)),
        Entry("histograms a size, a mask a value", "plain", lambda: _plain(guess, labels, categories)),
        Entry("reading both maps once", "floor", lambda: (guess.sum(), labels.sum())),
    ]
    gates = [Gate("plain", 8.0)] if categories > FEW else []
    if categories > FEW:
        few = _maps(FEW)
        entries.append(Entry(f"{FEW} categories", "ours", lambda: _ours(*few, FEW), exact=False))
        gates.append(Gate(f"{FEW} categories", at_most=1.25))
    size = f"{HEIGHT}x{WIDTH}, {categories} categories"
    return Case(
        "scores of ImageNet-S", size, tuple(entries), tuple(gates), lambda: (_plain(guess, labels, categories),)
    )


def _maps(categories: int) -> tuple[Tensor, Tensor]:
    """A photo's labels, and the same a few pixels off."""
    labels = inputs.label_maps(inputs.rng_of(1), 1, HEIGHT, WIDTH, categories + 1, own=4, ignored=0, patches=4)[0]
    return labels.roll((5, 7), (0, 1)), labels


def _ours(guess: Tensor, labels: Tensor, categories: int) -> Tensor:
    found = luss_scores(join_marks([image_marks(guess, labels)]), same_names(categories), categories)
    return torch.tensor([found.miou, found.boundary_miou, found.image_accuracy, *found.miou_by_size]).nan_to_num(0)


def _plain(guess: Tensor, labels: Tensor, categories: int) -> Tensor:
    """In the order of the benchmark's evaluator: histograms of all categories for the whole and for each size.

    A mask for boundaries is eroded for each value that occurs.
    """
    bins = categories + 1
    areas = _histograms(guess.flatten(), labels.flatten(), bins)
    edges = torch.zeros(3, bins)
    for value in torch.unique(torch.cat([guess.flatten(), labels.flatten()])).tolist():
        true, made = _edge(labels == value), _edge(guess == value)
        edges[:, value] = torch.stack([(true & made).sum(), made.sum(), true.sum()])
    by_size = []
    for low, high in zip((0, *SMALL), SMALL, strict=False):
        shares = torch.ceil(100 * areas[2] / labels.numel())
        own = ((shares > low) & (shares <= high)).nonzero().flatten().tolist()
        chosen = torch.isin(labels, torch.tensor([0, *(value for value in own if value)]))
        part = _histograms(guess[chosen], labels[chosen], bins)
        by_size.append(_iou(part)[part[2] > 0].mean())
    largest = int(areas[1][1:].argmax()) + 1
    right = (areas[2][largest] > 0) & (areas[1][largest] > 0)
    scores = torch.stack([_iou(areas).mean(), _iou(edges).mean(), right.float(), *by_size])
    return scores.nan_to_num(0)


def _histograms(guess: Tensor, labels: Tensor, bins: int) -> Tensor:
    """(3, C + 1): pixels of each category in both, in the prediction, in the labels."""
    maps = (guess[guess == labels], guess, labels)
    return torch.stack([torch.histc(values.float(), bins, 0, bins - 1) for values in maps])


def _iou(counts: Tensor) -> Tensor:
    return counts[0] / (counts[1] + counts[2] - counts[0] + 1e-10)


def _edge(mask: Tensor) -> Tensor:
    """The part of a mask (H, W) that is within d of its outside."""
    distance = boundary_width(HEIGHT, WIDTH, RATIO)
    outside = F.pad((~mask).float()[None, None], (distance,) * 4, value=1.0)
    near = F.max_pool2d(F.max_pool2d(outside, (2 * distance + 1, 1), 1), (1, 2 * distance + 1), 1)[0, 0]
    return mask & (near > 0)
