"""How pretraining is going, without fine-tuning: mIoU by the method's own class scores, and signs of collapse.

Every validation pixel takes the class, out of its own dataset's, that scores highest: by the nearest prototype, or by
the classifier of supervised training.  Methods without class scores, such as MoCo, have nothing to show here.  The
score is on the feature grid, on a fixed evenly spaced subset of the validation images, squeezed to the training crop.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from mdp.core.geometry import Box, Grid, View, cut_image, cut_labels, downsample_labels
from mdp.core.labels import IGNORE
from mdp.core.metrics import confusion_matrix, majority, mean_iou
from mdp.core.networks.freezing import evaluating
from mdp.core.photometry import as_float, normalise
from mdp.core.prototype_bank import Prototypes, effective_rank, mean_cosine
from mdp.io.data.pool import Pool
from mdp.io.pictures.best_and_worst import ImageScores, Scored, best_median_worst, prediction_sheet
from mdp.io.pictures.class_colors import colors_of_union
from mdp.io.processes.signals import Stop
from mdp.io.processes.world import ALONE, World
from mdp.io.recipe.settings import PretrainSettings

Classify = Callable[[Tensor], Tensor | None]  # images (B, 3, H, W) -> class scores (B, C, h, w), if there are any


class Probe(NamedTuple):
    """Scores of one moment of pretraining."""

    iou: dict[str, float]  # mIoU of each dataset that has validation images
    chance: dict[str, float]  # mIoU of always naming the dataset's most frequent class, on the same pixels
    known: Prototypes | None
    images: dict[str, ImageScores]  # of each dataset, this process's images

    @property
    def mean_iou(self) -> float:
        """The mean over datasets; minus infinity when none could be scored."""
        scores = [score for score in self.iou.values() if math.isfinite(score)]
        return sum(scores) / len(scores) if scores else -math.inf

    @property
    def unseen(self) -> list[int]:
        """Union classes without a prototype."""
        return [] if self.known is None else torch.nonzero(~self.known.present).flatten().tolist()

    def sentence(self, classes: int) -> str:
        """One line for people."""
        parts = [f"{name} {100 * self.iou[name]:.1f} (majority {100 * self.chance[name]:.1f})" for name in self.iou]
        if self.known is None:
            return "mIoU of the class scores " + ", ".join(parts) if parts else "no classes to score"
        scores = "nearest-prototype mIoU " + ", ".join(parts) if parts else "no validation images to score"
        return (
            f"{scores}; prototypes: mean cosine {mean_cosine(self.known):.2f}, effective rank "
            f"{effective_rank(self.known):.1f}, {len(self.unseen)} of {classes} classes not seen"
        )

    def as_json(self, names: tuple[str, ...]) -> dict[str, Any]:
        """For metrics.jsonl."""
        scores = {"miou": self.iou, "majority_miou": self.chance}
        if self.known is None:
            return scores
        return {
            **scores,
            "prototype_cosine": mean_cosine(self.known),
            "prototype_rank": effective_rank(self.known),
            "classes_unseen": [names[label] for label in self.unseen],
        }


class Looker(NamedTuple):
    """All that it takes to score the classes of an image."""

    classify: Classify
    pool: Pool
    settings: PretrainSettings
    grid: Grid  # that classes are scored on
    device: torch.device

    def look(self, index: int) -> tuple[Tensor, Tensor, Tensor] | None:
        """A sample squeezed to the crop (K, s, s), its predicted classes (h, w), and its labels (s, s).

        Classes are counted from the first of its dataset.  None when the method scores none of them.
        """
        among = self.pool.union.classes_of(self.pool.samples[index].dataset)
        image, labels = self.pool.read(index)
        whole, size = View(Box(0, 0, *labels.shape), False), (self.settings.crop, self.settings.crop)
        squeezed = cut_image(image, whole, size)
        image = normalise(as_float(squeezed[None].to(self.device)), self.pool.statistics)  # (1, K, s, s)
        scores = self.classify(image)  # (1, C, h, w)
        if scores is None or bool(scores[:, among].isneginf().all()):
            return None
        own = cut_labels(labels, whole, size)
        return squeezed, scores[0, among].argmax(0).cpu(), torch.where(own == IGNORE, IGNORE, own - among.start)


def probe(network: nn.Module, looker: Looker, known: Prototypes | None, stop: Stop, world: World = ALONE) -> Probe:
    """Scores `network`, whose classes the looker sees, in evaluation mode.

    The images are dealt out to all processes.  Raises DatasetError for a validation image that cannot be read.
    """
    iou, chance, images = {}, {}, {}
    with evaluating(network), torch.no_grad():
        own = [_confusion(looker, name, stop, world) for name in looker.pool.datasets]
    for name, (part, scores) in zip(looker.pool.datasets, own, strict=True):
        confusion = world.all_sum(part)
        if confusion.any():
            iou[name], chance[name] = mean_iou(confusion), mean_iou(majority(confusion))
            images[name] = scores
    return Probe(iou, chance, known, images)


def _confusion(looker: Looker, name: str, stop: Stop, world: World) -> tuple[Tensor, ImageScores]:
    """The confusion matrix of this process's images of one dataset over its own classes; zeros where none is scored."""
    pool, scores = looker.pool, ImageScores()
    among = pool.union.classes_of(name)
    chosen = pool.evenly(name, looker.settings.validate_images)
    classes = among.stop - among.start
    confusion = torch.zeros(classes, classes, dtype=torch.int64)
    for index in chosen[world.rank :: world.size]:
        if stop:
            break
        look = looker.look(index)
        if look is None:  # no class of this dataset is scored, in no image
            break
        _, guess, labels = look
        counts = confusion_matrix(guess, downsample_labels(labels[None], *looker.grid)[0], classes)
        scores.note_(index, counts)
        confusion += counts
    return confusion, scores


def draw_predictions(
    network: nn.Module, looker: Looker, name: str, scored: Sequence[Scored], title: str
) -> Image.Image:
    """A page with the best, median and worst images of a dataset, as the feature grid has them."""
    union = looker.pool.union
    space = next(space for space in union.spaces if space.name == name)
    space = replace(space, colors=colors_of_union(union)[union.classes_of(name)])  # those of the run's samples

    def guess(index: int) -> tuple[Tensor, Tensor, Tensor]:
        look = looker.look(index)
        assert look is not None  # it was scored a moment ago
        image, classes, labels = look
        stride, offset = looker.grid  # cell i is centred on pixel stride * i + offset
        cells = ((torch.arange(len(labels)) + stride // 2 - offset) // stride).clamp(0, len(classes) - 1)
        return image, classes[cells][:, cells], labels

    names = [sample.image for sample in looker.pool.samples]
    with evaluating(network), torch.no_grad():
        return prediction_sheet(best_median_worst(scored), guess, names, space, title)
