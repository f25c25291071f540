"""The confusion matrix of a label map and a prediction, with ignored pixels; integers are exact."""

from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from benchmarks import inputs
from benchmarks.measure import Case, Entry, Gate, Run
from benchmarks.peers import peer
from mdp.core.labels import IGNORE
from mdp.core.metrics import confusion_matrix

_IGNORED = 255  # in files
FAST_HIST, REFERENCE, AREAS = (
    "fast_hist, NumPy",
    "torchvision's reference formula",
    "mmseg's intersect_and_union formula",
)


def cases() -> dict[str, Callable[[], Case]]:
    """The sizes of ADE20K and Cityscapes."""
    return {
        "512x683 C=150": partial(_case, 512, 683, 150),
        "1024x2048 C=19": partial(_case, 1024, 2048, 19),
        "512x683 C=150, bytes": partial(_bytes, 512, 683, 150),
        "1024x2048 C=19, bytes": partial(_bytes, 1024, 2048, 19),
    }


def _bytes(height: int, width: int, classes: int) -> Case:
    """Both maps as files have them: a byte a pixel, 255 for what is ignored."""
    guess, labels = _maps(height, width, classes)
    ignored = labels == IGNORE
    found, truth = guess.to(torch.uint8), labels.masked_fill(ignored, _IGNORED).to(torch.uint8)
    entries = (
        Entry("confusion_matrix", "ours", lambda: confusion_matrix(found, truth, classes, _IGNORED)),
        Entry(FAST_HIST, "plain", lambda: _fast_hist(found, truth, classes)),
        Entry("reading both maps once", "floor", lambda: (found.sum(), truth.sum())),
    )
    return Case(
        "confusion matrix", f"{height}x{width} C={classes}, bytes", entries, (Gate(FAST_HIST, 1.5),),
        lambda: (_fast_hist(guess, labels.long(), classes),),
    )  # fmt: skip


def _maps(height: int, width: int, classes: int) -> tuple[Tensor, Tensor]:
    """A prediction, a fifth of it drawn at random, and its labels."""
    rng = inputs.rng_of(1)
    labels = inputs.label_maps(rng, 1, height, width, classes)[0].to(torch.int16)  # as our readers give them
    wrong = torch.randint(classes, labels.shape, generator=rng)
    return torch.where(torch.rand(labels.shape, generator=rng) < 0.2, wrong, labels.clamp(min=0)), labels


def _case(height: int, width: int, classes: int) -> Case:
    guess, labels = _maps(height, width, classes)
    entries = tuple(_entries(guess, labels, classes))
    gates = [Gate(FAST_HIST, 1.5), Gate(REFERENCE, 8.0), Gate(AREAS, 20.0)]
    gates += [Gate(entry.name, 20.0) for entry in entries if entry.name.startswith("confusion_matrix (")]
    return Case(
        "confusion matrix", f"{height}x{width} C={classes}", entries, tuple(gates),
        lambda: (_fast_hist(guess, labels.long(), classes),),
    )  # fmt: skip


def _entries(guess: Tensor, labels: Tensor, classes: int) -> Iterator[Entry]:
    yield Entry("confusion_matrix", "ours", lambda: confusion_matrix(guess, labels, classes))
    wide = labels.long()  # as the others want them
    yield peer("confusion_matrix", "torchmetrics.functional", partial(_torchmetrics, guess, wide, classes))
    yield peer("JaccardIndex.update", "torchmetrics", partial(_jaccard, guess, wide, classes), exact=False)
    yield Entry(REFERENCE, "peer", lambda: _reference(guess, wide, classes))
    yield Entry(AREAS, "peer", lambda: _areas(guess, wide, classes), exact=False)
    yield Entry(FAST_HIST, "plain", lambda: _fast_hist(guess, wide, classes))
    yield Entry("reading both maps once", "floor", lambda: (guess.sum(), labels.sum()))


def _fast_hist(guess: Tensor, labels: Tensor, classes: int) -> Tensor:
    truth, found = labels.numpy().ravel(), guess.numpy().ravel()
    valid = (truth >= 0) & (truth < classes)
    counts = np.bincount(classes * truth[valid].astype(np.int64) + found[valid], minlength=classes**2)
    return torch.from_numpy(counts.reshape(classes, classes))


def _reference(guess: Tensor, labels: Tensor, classes: int) -> Tensor:
    truth, found = labels.flatten(), guess.flatten()
    valid = (truth >= 0) & (truth < classes)
    return torch.bincount(classes * truth[valid].long() + found[valid], minlength=classes**2).view(classes, classes)


def _areas(guess: Tensor, labels: Tensor, classes: int) -> list[Tensor]:
    """Pixels of each class in both maps, in the prediction and in the labels."""
    valid = labels != IGNORE
    truth, found = labels[valid], guess[valid]
    return [
        torch.histc(values.float(), bins=classes, min=0, max=classes - 1)
        for values in (found[found == truth], found, truth)
    ]


def _torchmetrics(guess: Tensor, labels: Tensor, classes: int, functional: ModuleType) -> Run:
    return lambda: functional.confusion_matrix(
        guess, labels, task="multiclass", num_classes=classes, ignore_index=IGNORE
    )


def _jaccard(guess: Tensor, labels: Tensor, classes: int, library: ModuleType) -> Run:
    metric = library.JaccardIndex(task="multiclass", num_classes=classes, ignore_index=IGNORE)
    return lambda: metric.update(guess, labels)
