"""How pretraining is going, without fine-tuning: nearest-prototype mIoU and signs of collapse.

Every validation pixel takes the class, out of its own dataset's, whose prototype is nearest to its embedding.  The
score is on the feature grid, on a fixed evenly spaced subset of the validation images, squeezed to the training crop.
"""

import math
from typing import Any, NamedTuple

import torch

from mdp.core.geometry import Box, View, cut_image, cut_labels, downsample_labels
from mdp.core.labels import IGNORE
from mdp.core.metrics import confusion_matrix, majority, mean_iou
from mdp.core.networks import EmbeddingNetwork
from mdp.core.photometry import normalise
from mdp.core.prototypes import Prototypes, effective_rank, mean_cosine, nearest_class
from mdp.io.errors import MdpError
from mdp.io.loading import Pool, WholeItems
from mdp.io.recipe import PretrainSettings
from mdp.io.signals import Stop


class Probe(NamedTuple):
    """Scores of one moment of pretraining."""

    iou: dict[str, float]  # nearest-prototype mIoU of each dataset that has validation images
    chance: dict[str, float]  # mIoU of always naming the dataset's most frequent class, on the same pixels
    cosine: float  # mean cosine between different prototypes: near 1 is collapse
    rank: float  # effective rank of the prototypes: near 1 is collapse
    unseen: list[int]  # union classes without a prototype

    @property
    def mean_iou(self) -> float:
        """The mean over datasets; minus infinity when none could be scored."""
        scores = [score for score in self.iou.values() if math.isfinite(score)]
        return sum(scores) / len(scores) if scores else -math.inf

    def sentence(self, classes: int) -> str:
        """One line for people."""
        parts = [f"{name} {100 * self.iou[name]:.1f} (majority {100 * self.chance[name]:.1f})" for name in self.iou]
        scores = "nearest-prototype mIoU " + ", ".join(parts) if parts else "no validation images to score"
        return (
            f"{scores}; prototypes: mean cosine {self.cosine:.2f}, effective rank {self.rank:.1f}, "
            f"{len(self.unseen)} of {classes} classes not seen"
        )

    def as_json(self, names: tuple[str, ...]) -> dict[str, Any]:
        """For metrics.jsonl."""
        return {
            "nearest_prototype_miou": self.iou,
            "majority_miou": self.chance,
            "prototype_cosine": self.cosine,
            "prototype_rank": self.rank,
            "classes_unseen": [names[label] for label in self.unseen],
        }


def probe(
    network: EmbeddingNetwork,
    known: Prototypes,
    pool: Pool,
    settings: PretrainSettings,
    device: torch.device,
    stop: Stop,
) -> Probe:
    """Scores the query encoder against the prototypes; the network is back in training mode afterwards.

    Raises DatasetError for a validation image that cannot be read.
    """
    iou, chance = {}, {}
    network.eval()
    with torch.no_grad():
        for name in pool.datasets:
            confusion = _confusion(network, known, pool, name, settings, device, stop)
            if confusion is not None:
                iou[name], chance[name] = mean_iou(confusion), mean_iou(majority(confusion))
    network.train()
    unseen = torch.nonzero(~known.present).flatten().tolist()
    return Probe(iou, chance, mean_cosine(known), effective_rank(known), unseen)


def _confusion(
    network: EmbeddingNetwork,
    known: Prototypes,
    pool: Pool,
    name: str,
    settings: PretrainSettings,
    device: torch.device,
    stop: Stop,
) -> torch.Tensor | None:
    """The confusion matrix of one dataset over its own classes; None when nothing can be scored."""
    among = pool.union.classes_of(name)
    own = [index for index, sample in enumerate(pool.samples) if sample.dataset == name]
    if not own or settings.validate_images == 0 or not bool(known.present[among].any()):
        return None
    count = min(len(own), settings.validate_images)
    chosen = [own[i * len(own) // count] for i in range(count)]  # evenly spaced
    size, items = (settings.crop, settings.crop), WholeItems(pool)
    classes = among.stop - among.start
    confusion = torch.zeros(classes, classes, dtype=torch.int64)
    for index in chosen:
        if stop:
            return None
        item = items[0, index]
        if isinstance(item, MdpError):
            raise item
        whole = View(Box(0, 0, *item.labels.shape), False)
        image = normalise(cut_image(item.image, whole, size)[None].to(device).float() / 255)
        embeddings = network(image)  # (1, D, h, w)
        guess = nearest_class(embeddings, known, among).cpu() - among.start  # (1, h, w)
        labels = downsample_labels(cut_labels(item.labels, whole, size)[None], network.output_stride)
        labels = torch.where(labels == IGNORE, IGNORE, labels - among.start)
        confusion += confusion_matrix(guess, labels, classes)
    return confusion
