"""Random tensors for property tests: Hypothesis draws shapes and a seed, a torch.Generator fills them."""

from typing import NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from mdp.core.prototype_bank import Prototypes


class Scene(NamedTuple):
    """Pixel embeddings, labels and prototypes that fit each other."""

    embeddings: Tensor  # (B, D, h, w) unit length
    labels: Tensor  # (B, h, w) in -1 .. C - 1
    known: Prototypes  # C unit vectors, all present
    rng: torch.Generator


@st.composite
def scenes(draw: st.DrawFn, max_classes: int = 6) -> Scene:
    rng = torch.Generator().manual_seed(draw(st.integers(0, 2**31 - 1)))
    batch, channels = draw(st.integers(1, 3)), draw(st.integers(2, 5))
    height, width = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    classes = draw(st.integers(1, max_classes))
    embeddings = F.normalize(torch.randn(batch, channels, height, width, generator=rng), dim=1)
    labels = torch.randint(-1, classes, (batch, height, width), generator=rng)
    vectors = F.normalize(torch.randn(classes, channels, generator=rng), dim=1)
    return Scene(embeddings, labels, Prototypes(vectors, torch.ones(classes, dtype=torch.bool)), rng)


seeds = st.integers(0, 2**31 - 1)


def rng_of(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
