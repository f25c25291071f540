"""Pixel cross-entropy, the criterion of ordinary fine-tuning."""

from torch import Tensor
from torch.nn import functional as F

from mdp.core.contrast import mean_over
from mdp.core.labels import IGNORE


def cross_entropy(logits: Tensor, labels: Tensor, pixels: Tensor) -> Tensor:
    """Pixel cross-entropy of logits (B, C, H, W) and labels (B, H, W), in float32, divided by so many pixels.

    Those are the valid pixels of the whole batch, or all of them, ignored ones counting as 0 (MMSegmentation before
    0.23).
    """
    losses = F.cross_entropy(logits.float(), labels, ignore_index=IGNORE, reduction="none")  # (B, H, W)
    return mean_over(losses.sum(), pixels.float())  # CUDA has no deterministic reduction="sum"
