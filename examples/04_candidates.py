"""The losses of the paper's comparison are one quotient with different candidates.

Each is -log of the positive's share among its candidates (eq. 1, 2, 4), so when nothing is more similar than anything
else, the loss is the log of the number of candidates.  Then the same losses on embeddings that know their classes: with
one positive they fall to 0, with several (eq. 2, regions) to the log of the number of positives, which share the pull.
"""

import math

import torch
from torch.nn import functional as F

from mdp.core import (
    class_means,
    class_sums,
    empty_bank,
    empty_queues,
    enqueue_classes,
    generator,
    hard_targets,
    instance_nce,
    noise_queue,
    pixel_nce,
    prototype_nce,
    prototypes,
    push,
    region_nce,
)

CLASSES, CHANNELS, TAU = 5, 16, 0.07
rng = generator(0, "candidates")
labels = torch.randint(0, CLASSES, (4, 6, 6), generator=rng)  # (B, h, w)
directions = F.normalize(torch.randn(CLASSES, CHANNELS, generator=rng), dim=1)  # (C, D)


def embeddings(knowledge: float) -> torch.Tensor:
    """Unit pixel embeddings (B, D, h, w): all alike at 0, their class's direction and some noise at 1."""
    noise = torch.randn(4, 6, 6, CHANNELS, generator=rng)
    vectors = (1 - knowledge) * torch.ones(CHANNELS) + knowledge * (directions[labels] + 0.2 * noise)
    return F.normalize(vectors, dim=3).permute(0, 3, 1, 2)


for name, knowledge in (("all embeddings alike", 0.0), ("embeddings that know their class", 1.0)):
    queries, keys = embeddings(knowledge), embeddings(knowledge)
    known = prototypes(push(empty_bank(CLASSES, CHANNELS, 10), class_sums(keys, labels, CLASSES)))
    queues = enqueue_classes(empty_queues(CLASSES, 8, CHANNELS), *class_means(keys, labels, CLASSES))
    others = noise_queue(rng, 63, CHANNELS) if knowledge else F.normalize(torch.ones(63, CHANNELS), dim=1)
    image_queries, image_keys = (F.normalize(x.mean((2, 3)), dim=1) for x in (queries, keys))  # (B, D)
    losses = {
        "image and queue (eq. 1)": (instance_nce(image_queries, image_keys, others, TAU), 64),
        "pixel and pixels of the other view (eq. 2)": (pixel_nce(queries, keys, labels, labels, TAU), 36),
        "pixel and prototypes (eq. 4)": (prototype_nce(queries, known, hard_targets(labels), TAU), CLASSES),
        "pixel and regions": (region_nce(queries, labels, queues, TAU), int(queues.filled.sum())),
    }
    print(f"{name}:")
    for what, (loss, candidates) in losses.items():
        print(f"  {what:<44}{float(loss.mean()):6.3f}   log of {candidates:>2} candidates {math.log(candidates):.3f}")
