"""How pretraining is going, without fine-tuning: mIoU by the method's own class scores, and signs of collapse.

Every validation pixel takes the class, out of its own dataset's, that scores highest: by the nearest prototype, or by
the classifier of supervised training.  Methods without class scores, such as MoCo, have nothing to show here.  The
score is on the feature grid, on a fixed evenly spaced subset of the validation images, squeezed to the training crop.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mdp.core.geometry import Box, View, cut_image, cut_labels, downsample_labels
from mdp.core.labels import IGNORE
from mdp.core.metrics import confusion_matrix, majority, mean_iou
from mdp.core.photometry import normalise
from mdp.core.prototypes import Prototypes, effective_rank, mean_cosine
from mdp.io.distributed import ALONE, World
from mdp.io.errors import MdpError
from mdp.io.loading import Pool, WholeItems
from mdp.io.recipe import PretrainSettings
from mdp.io.signals import Stop

Classify = Callable[[Tensor], Tensor | None]  # images (B, 3, H, W) -> class scores (B, C, h, w), if there are any


class Probe(NamedTuple):
    """Scores of one moment of pretraining."""

    iou: dict[str, float]  # mIoU of each dataset that has validation images
    chance: dict[str, float]  # mIoU of always naming the dataset's most frequent class, on the same pixels
    known: Prototypes | None

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
            return "mIoU of the class scores " + ", ".join(parts) if parts else "no class scores to look at"
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


def probe(
    network: nn.Module,
    classify: Classify,
    known: Prototypes | None,
    pool: Pool,
    settings: PretrainSettings,
    stride: int,
    device: torch.device,
    stop: Stop,
    world: World = ALONE,
) -> Probe:
    """Scores `network` by its class scores at that output stride; it is back in training mode afterwards.

    The images are dealt out to all processes.  Raises DatasetError for a validation image that cannot be read.
    """
    iou, chance = {}, {}
    network.eval()
    with torch.no_grad():
        own = [_confusion(classify, pool, name, settings, stride, device, stop, world) for name in pool.datasets]
    for name, part in zip(pool.datasets, own, strict=True):
        confusion = world.all_sum(part)
        if confusion.any():
            iou[name], chance[name] = mean_iou(confusion), mean_iou(majority(confusion))
    network.train()
    return Probe(iou, chance, known)


def _confusion(
    classify: Classify,
    pool: Pool,
    name: str,
    settings: PretrainSettings,
    stride: int,
    device: torch.device,
    stop: Stop,
    world: World,
) -> Tensor:
    """The confusion matrix of this process's images of one dataset over its own classes; zeros where none is scored."""
    among = pool.union.classes_of(name)
    own = [index for index, sample in enumerate(pool.samples) if sample.dataset == name]
    count = min(len(own), settings.validate_images)
    chosen = [own[i * len(own) // count] for i in range(count)]  # evenly spaced
    size, items = (settings.crop, settings.crop), WholeItems(pool)
    classes = among.stop - among.start
    confusion = torch.zeros(classes, classes, dtype=torch.int64)
    for index in chosen[world.rank :: world.size]:
        if stop:
            break
        item = items[0, index]
        if isinstance(item, MdpError):
            raise item
        whole = View(Box(0, 0, *item.labels.shape), False)
        image = normalise(cut_image(item.image, whole, size)[None].to(device).float() / 255)
        scores = classify(image)  # (1, C, h, w)
        if scores is None or bool(scores[:, among].isneginf().all()):
            break  # the method scores no classes, or has seen none of these
        guess = scores[:, among].argmax(1).cpu()  # (1, h, w)
        labels = downsample_labels(cut_labels(item.labels, whole, size)[None], stride)
        labels = torch.where(labels == IGNORE, IGNORE, labels - among.start)
        confusion += confusion_matrix(guess, labels, classes)
    return confusion
