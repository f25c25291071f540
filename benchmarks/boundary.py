"""Counts of boundary pixels by class (boundary IoU): its time should not grow with the number of classes."""

from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks import inputs
from benchmarks.measure import Case, Entry, Gate, Run
from benchmarks.peers import peer
from mdp.core.boundaries import boundary_counts, boundary_width

HEIGHT, WIDTH, RATIO = 512, 683, 0.02  # 17 pixels
FEW = 11


def cases() -> dict[str, Callable[[], Case]]:
    """By the number of classes in the maps."""
    return {f"{classes} classes": partial(_case, classes) for classes in (FEW, 31, 147)}


def _case(classes: int) -> Case:
    guess, labels = _maps(classes)
    entries = list(_entries(guess, labels, classes))
    gates = [Gate("best peer", at_least) for at_least in {11: (3.5,), 31: (7.0,), 147: (30.0,)}[classes]]
    if classes > FEW:
        few = _maps(FEW)
        entries.append(Entry(f"{FEW} classes", "ours", lambda: boundary_counts(*few, FEW, RATIO), exact=False))
        gates.append(Gate(f"{FEW} classes", at_most=1.25))
    return Case(
        "boundary counts", f"{HEIGHT}x{WIDTH} d={boundary_width(HEIGHT, WIDTH, RATIO)}, {classes} classes",
        tuple(entries), tuple(gates), lambda: (_counted(_pooled, guess, labels, classes),),
    )  # fmt: skip


def _maps(classes: int) -> tuple[Tensor, Tensor]:
    """The labels, and the same a few pixels off."""
    labels = inputs.label_maps(
        inputs.rng_of(1), 1, HEIGHT, WIDTH, classes, own=classes, ignored=0, patches=max(8, round(2 * classes**0.5))
    )[0]
    return labels.roll((3, 5), (0, 1)), labels


def _entries(guess: Tensor, labels: Tensor, classes: int) -> Iterator[Entry]:
    yield Entry("boundary_counts", "ours", lambda: boundary_counts(guess, labels, classes, RATIO))
    yield peer("erode, class by class", "cv2", partial(_eroded, guess, labels, classes))
    if classes == FEW:
        yield Entry("max_pool2d, class by class", "plain", lambda: _counted(_pooled, guess, labels, classes))
    yield Entry("reading both maps once", "floor", lambda: (guess.sum(), labels.sum()))


def _counted(edge: Callable[[Tensor], Tensor], guess: Tensor, labels: Tensor, classes: int) -> Tensor:
    """(C, 3): boundary pixels of each class in both maps, in the labels, in the prediction."""
    counts = torch.zeros(classes, 3, dtype=torch.int64)
    for label in range(classes):
        true, found = edge(labels == label), edge(guess == label)
        counts[label] = torch.stack([(true & found).sum(), true.sum(), found.sum()])
    return counts


def _pooled(mask: Tensor) -> Tensor:
    """The part of a mask (H, W) that is within d of its outside."""
    distance = boundary_width(HEIGHT, WIDTH, RATIO)
    outside = F.pad((~mask).float()[None, None], (distance,) * 4, value=1.0)
    near = F.max_pool2d(F.max_pool2d(outside, (2 * distance + 1, 1), 1), (1, 2 * distance + 1), 1)[0, 0]
    return mask & (near > 0)


def _eroded(guess: Tensor, labels: Tensor, classes: int, cv2: ModuleType) -> Run:
    """Each mask less itself eroded d times by a 3 x 3 square, where beyond the image is outside."""
    distance, square = boundary_width(HEIGHT, WIDTH, RATIO), torch.ones(3, 3, dtype=torch.uint8).numpy()

    def edge(mask: Tensor) -> Tensor:
        framed = F.pad(mask.to(torch.uint8), (1, 1, 1, 1)).numpy()
        inner = torch.from_numpy(cv2.erode(framed, square, iterations=distance))[1:-1, 1:-1]
        return mask & (inner == 0)

    return lambda: _counted(edge, guess, labels, classes)
