"""Criteria of fine-tuning, one file each.

Logits are (B, C, H, W), labels (B, H, W) with `IGNORE` for pixels that do not count; every loss is in float32.
"""

from mdp.core.criteria.cross_entropy import cross_entropy
from mdp.core.criteria.dice import DiceSums, dice, dice_sums
from mdp.core.criteria.focal import focal
from mdp.core.criteria.lovasz import jaccard_steps, lovasz_softmax
from mdp.core.criteria.ohem import hard_labels, hard_pixels
from mdp.core.criteria.weighted import balanced_weights, total_weight, weighted_cross_entropy

__all__ = [
    "DiceSums",
    "balanced_weights",
    "cross_entropy",
    "dice",
    "dice_sums",
    "focal",
    "hard_labels",
    "hard_pixels",
    "jaccard_steps",
    "lovasz_softmax",
    "total_weight",
    "weighted_cross_entropy",
]
