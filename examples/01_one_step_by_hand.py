"""One pretraining step by hand, with the functions of `mdp.core` and nothing else.

Two datasets, two images each: "a" knows walls, "b" tells brick from panel.  No class of one is told to be a class of
the other; the prototypes' similarity says so by itself, here because the made-up embeddings do.
"""

import numpy as np
import torch
from torch.nn import functional as F

from mdp.core import (
    LabelSpace,
    LabelUnion,
    class_sums,
    empty_bank,
    generator,
    hard_targets,
    pixel_rows,
    pixel_similarity,
    prototype_nce,
    prototypes,
    push,
    sparse_targets,
)

# Label spaces side by side: raw file values become classes of the union, 255 is ignored
a = LabelSpace(name="a", classes=("floor", "wall"))
b = LabelSpace(name="b", classes=("floor", "wall-brick", "wall-panel"))
union = LabelUnion([a, b])
print("union:", ", ".join(union.names))

raw_a = np.array([[[1, 1, 255], [0, 0, 0]]] * 2)
raw_b = np.array([[[1, 1, 2], [0, 0, 0]], [[2, 2, 2], [0, 0, 255]]])
labels = torch.cat([union.to_union(raw_a, "a"), union.to_union(raw_b, "b")])  # (4, 2, 3)

# Embeddings as a network would give them: unit length, one direction for floors, one for walls, plus noise
rng = generator(0, "example")
directions = {"floor": torch.tensor([1.0, 0, 0, 0]), "wall": torch.tensor([0, 1.0, 0, 0])}
meant = torch.stack([directions[name.split("/")[1].split("-")[0]] for name in union.names])  # (5, 4)
embeddings = meant[labels.clamp(min=0).long()].permute(0, 3, 1, 2)  # (4, 4, 2, 3)
embeddings = F.normalize(embeddings + 0.3 * torch.randn(embeddings.shape, generator=rng), dim=1)

# Class sums -> bank -> prototypes (eq. 3); the bank holds the last so many batches
bank = empty_bank(classes=union.size, channels=4, size=165)
bank = push(bank, class_sums(embeddings, labels, union.size))
known = prototypes(bank)
print("similarity of the prototypes:")
for name, row in zip(union.names, known.vectors @ known.vectors.T, strict=True):
    print(f"  {name:<14}", "  ".join(f"{value:5.2f}" for value in row))

# The loss (eq. 4), and with cross-class sparse coding (eq. 8)
targets = hard_targets(labels)
loss = prototype_nce(embeddings, known, targets, temperature=0.07).mean()
similarity = pixel_similarity(pixel_rows(embeddings), known)
coded = sparse_targets(targets, similarity, known, k=1, weight=0.1)
print(f"loss {loss:.3f}, with sparse coding {prototype_nce(embeddings, known, coded, temperature=0.07).mean():.3f}")
