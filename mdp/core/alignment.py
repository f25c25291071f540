"""Pixel-to-pixel alignment: what two views of an image have at the same points is to agree (2106.03149, eq. 2).

Nothing is pushed apart: a predictor on one side and a stop of the gradient on the other keep it from collapsing.
Shape legend: B images, D embedding channels, h x w feature grid, n points a side.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from mdp.core.contrast_chunked import EPS


def matched_features(maps: Tensor, grid: Tensor) -> Tensor:
    """Maps (B, D, h, w) at the points of a grid (B, n, n, 2) of `mdp.core.views.matched_grids`: (B, D, n, n) float32.

    Bilinear between the centres of cells; zeros outside.

    >>> matched_features(torch.ones(1, 2, 4, 4), torch.zeros(1, 3, 3, 2)).shape
    torch.Size([1, 2, 3, 3])
    """
    return F.grid_sample(maps.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def alignment_loss(predicted: Tensor, projected: Tensor) -> Tensor:
    """-(cos(p_0, z_1) + cos(p_1, z_0)) / 2, the mean over points, of each image: (B,) (eq. 2).

    `predicted` p and `projected` z are those of both views, (2, B, D, n, n); no gradient goes into z.  Where a vector
    is zero, as where two views do not overlap, the cosine is 0.
    """
    cosines = F.cosine_similarity(predicted.float(), projected.detach().flip(0).float(), dim=2, eps=EPS)  # (2, B, n, n)
    return -cosines.mean((0, 2, 3))


def point_contrast(predicted: Tensor, projected: Tensor, temperature: float) -> Tensor:
    """Alignment that also pushes apart: each point against all of the other view, of each image, (B,).

    The paper names this variant (table IX a) and gives no formula; here a point's positive is the same point of the
    other view, its negatives are that view's other points, and no gradient goes into these.  An image whose views do
    not overlap has loss 0.
    """
    rows = F.normalize(predicted.float().flatten(3), dim=2, eps=EPS)  # (2, B, D, n n)
    against = F.normalize(projected.detach().flip(0).float().flatten(3), dim=2, eps=EPS)
    logits = torch.einsum("vbdi,vbdj->vbij", rows, against) / temperature  # (2, B, n n, n n)
    losses = logits.logsumexp(3) - logits.diagonal(dim1=2, dim2=3)  # (2, B, n n)
    overlaps = against.flatten(2).any(2).float()  # (2, B)
    return (losses.mean(2) * overlaps).mean(0)
