"""Labels carried through a video by similarity: each cell of a frame asks the most similar cells of earlier frames.

As arXiv 2006.14613 evaluates features without training; scores are those of DAVIS (arXiv 1704.00675): J, the overlap of
regions, and F, the agreement of their contours.
Shape legend: h x w feature grid, P cells, D channels, M earlier frames, C objects and the background, k neighbours.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from mdp.core.geometry import Grid

_PART = 256  # cells at a time
TOLERANCE = 0.008  # of contours, in shares of the diagonal: DAVIS's


def near_cells(height: int, width: int, radius: float) -> Tensor:
    """Which cells (P, P) bool lie within so many cells of each other.

    >>> near_cells(1, 3, 1).tolist()
    [[True, True, False], [True, True, True], [False, True, True]]
    """
    rows, columns = torch.arange(height).repeat_interleave(width), torch.arange(width).repeat(height)
    squares = (rows[:, None] - rows).square() + (columns[:, None] - columns).square()
    return squares <= radius**2


def propagated(
    cells: Tensor,
    earlier: Sequence[Tensor],
    labels: Sequence[Tensor],
    near: Tensor,
    k: int,
    temperature: float,
) -> Tensor:
    """Shares (P, C) of each object in the cells (P, D) of a frame, by those (P, C) of M earlier ones (P, D).

    Of the cells that are `near` (P, P), in all earlier frames, the k with the largest products speak, each with the
    weight exp(product / temperature); rows are of length 1.  Raises ValueError for fewer cells than k.
    """
    asked = len(earlier) * int(near.sum(1).min())
    if not 1 <= k <= asked:
        raise ValueError(f"k: expected 1 to {asked}, the cells that are asked, got {k}")
    count, known, shares = len(cells), torch.cat(list(labels)), []
    for own, beside in zip(torch.split(cells, _PART), torch.split(near, _PART), strict=True):
        best = [(own @ frame.T).masked_fill(~beside, -math.inf).topk(min(k, count), dim=1) for frame in earlier]
        values = torch.cat([top.values for top in best], 1)  # (p, M k)
        places = torch.cat([top.indices + number * count for number, top in enumerate(best)], 1)
        chosen = values.topk(k, dim=1)  # (p, k)
        weights = (chosen.values / temperature).softmax(1)
        shares.append(torch.einsum("pk,pkc->pc", weights, known[places.gather(1, chosen.indices)]))
    return torch.cat(shares)


def shares_at(shares: Tensor, size: tuple[int, int], seen: tuple[int, int], grid: Grid) -> Tensor:
    """Shares (C, h, w) of cells at each pixel of a map of another size, (C, *size): linear between their middles.

    `seen` is the size of the image that the network saw, `grid` where its cells look.
    """
    places = []
    for count, length, cells in zip(size, seen, shares.shape[1:], strict=True):
        middles = (torch.arange(count) + 0.5) * length / count - 0.5
        between = ((middles - grid.offset) / grid.stride).clamp(0, cells - 1)
        places.append(2 * between / max(1, cells - 1) - 1)
    down, across = torch.meshgrid(*places, indexing="ij")
    where = torch.stack([across, down], -1)[None]
    return F.grid_sample(shares[None], where, mode="bilinear", padding_mode="border", align_corners=True)[0]


def region_similarity(predicted: Tensor, truth: Tensor) -> float:
    """J: intersection over union of two masks (H, W) bool; 1 where both are empty.

    >>> region_similarity(torch.tensor([[True, True]]), torch.tensor([[False, True]]))
    0.5
    """
    union = int((predicted | truth).sum())
    return int((predicted & truth).sum()) / union if union else 1.0


def contour_accuracy(predicted: Tensor, truth: Tensor, tolerance: float = TOLERANCE) -> float:
    """F: the harmonic mean of precision and recall of contour pixels of two masks (H, W) bool.

    A pixel counts where the other contour is within `tolerance` of the diagonal, rounded up.  1 where both are empty, 0
    where one is.
    """
    reach = math.ceil(tolerance * math.hypot(*truth.shape))
    ours, theirs = contour(predicted), contour(truth)
    if not ours.any() or not theirs.any():
        return float(not ours.any() and not theirs.any())
    precision = float((ours & _grown(theirs, reach)).sum() / ours.sum())
    recall = float((theirs & _grown(ours, reach)).sum() / theirs.sum())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def contour(mask: Tensor) -> Tensor:
    """The pixels (H, W) bool whose right, lower or lower right neighbour is on the other side; DAVIS's contour.

    >>> contour(torch.tensor([[False, True, True], [False, True, True]])).int().tolist()
    [[1, 0, 0], [1, 0, 0]]
    """
    padded = F.pad(mask[None, None].float(), (0, 1, 0, 1), mode="replicate")[0, 0].bool()
    right, below, across = padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    return (mask != right) | (mask != below) | (mask != across)


def _grown(mask: Tensor, reach: int) -> Tensor:
    """The pixels (H, W) bool within `reach` of the mask, in straight lines."""
    side = torch.arange(-reach, reach + 1)
    disk = (side[:, None].square() + side.square() <= reach**2).float()[None, None]
    return F.conv2d(mask[None, None].float(), disk, padding=reach)[0, 0] > 0.5
