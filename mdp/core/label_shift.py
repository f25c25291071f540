"""Whether a label map lies beside its photo: its edges against the photo's, for every shift of a few pixels.

A map that was drawn on another version of the photo, or cut or padded differently, has all its edges a few pixels
aside; moved back, they fall on the photo's.  That asks for no model.
Shape legend: K channels, H x W image, R the reach in pixels, S = 2 R + 1.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

REACH = 10  # pixels that a map is moved by at most, at the size that it is looked at
_AROUND = 12  # pixels on each side by whose mean strength an edge is measured
_FAINT = 0.01  # of an image in 0..1: edges that are not told from noise; added to that mean
_NEAR = 1.5  # pixels: shifts of less are none


def photo_edges(image: Tensor) -> tuple[Tensor, Tensor]:
    """How strong the edge between a pixel and the one right of it, and below it, is: twice (H, W), 1 as usual around.

    Of an image (K, H, W) in 0..1: differences of the image smoothed by 3 x 3 means, the largest of its channels, by
    their mean within 12 pixels.  Zero in the last column, and row.
    """
    smooth = F.avg_pool2d(F.pad(image[None], (1, 1, 1, 1), mode="replicate"), 3, 1)[0]
    right, down = smooth.diff(dim=2).abs().amax(0), smooth.diff(dim=1).abs().amax(0)
    return tuple(_by_usual(edge) for edge in (F.pad(right, (0, 1)), F.pad(down, (0, 0, 0, 1))))  # type: ignore[return-value]


def _by_usual(edges: Tensor) -> Tensor:
    """Edges (H, W) by their mean within 12 pixels each way, by cumulative sums: columns, then rows."""
    around = edges
    for axis, length in enumerate(edges.shape):
        sums = torch.cat([around.narrow(axis, 0, 1) * 0, around.cumsum(axis)], axis)
        first = (torch.arange(length) - _AROUND).clamp(min=0)
        end = (torch.arange(length) + _AROUND + 1).clamp(max=length)
        count = (end - first).view(-1, *[1] * (1 - axis))
        around = (sums.index_select(axis, end) - sums.index_select(axis, first)) / count
    return edges / (around.clamp(min=0) + _FAINT)


def label_edges(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Whether a pixel and the one right of it, and below it, have different labels: twice (H, W) float32 of 0 and 1."""
    right, down = labels[:, 1:] != labels[:, :-1], labels[1:] != labels[:-1]
    return F.pad(right.float(), (0, 1)), F.pad(down.float(), (0, 0, 0, 1))


def edge_fit(image: Tensor, labels: Tensor, reach: int = REACH) -> Tensor | None:
    """The mean strength of the photo's edges under the edges of the labels (H, W), for each shift of these, (S, S).

    Entry (R + y, R + x) is of the map moved down by y and right by x pixels.  Edges within R pixels of the border are
    left out.  None where the map has no others.
    """
    fit, count = torch.zeros(2 * reach + 1, 2 * reach + 1, dtype=torch.float64), 0
    height, width = labels.shape
    if min(height, width) <= 2 * reach:
        return None
    inside = torch.zeros(height, width)
    inside[reach:-reach, reach:-reach] = 1
    for drawn, seen in zip(label_edges(labels), photo_edges(image), strict=True):
        counted = drawn * inside
        count += int(counted.sum())
        # what wraps round is of edges within R pixels of the border, of which there are none
        product = torch.fft.rfft2(counted).conj() * torch.fft.rfft2(seen)
        fit += torch.fft.irfft2(product, s=(height, width)).roll((reach, reach), (0, 1))[: len(fit), : len(fit)]
    return fit / count if count else None


class Shift(NamedTuple):
    """A move by which a label map fits its photo better."""

    down: int
    right: int
    gain: float  # mean strength of the edges under it, above that where it lies and what others gain likewise


def best_shift(fit: Tensor, usual: Tensor) -> Shift:
    """The move that an image's fit (S, S) gains most by, beyond what is usual (S, S), both by `gains`."""
    reach = len(fit) // 2
    moves = torch.arange(-reach, reach + 1)
    near = (moves[:, None].square() + moves.square()).sqrt() < _NEAR
    gain = (fit - usual).masked_fill(near, -torch.inf)
    at = int(gain.argmax())
    return Shift(at // len(fit) - reach, at % len(fit) - reach, float(gain.flatten()[at]))


def gains(fit: Tensor) -> Tensor:
    """What each move gains over none, (S, S), of a fit smoothed by 3 x 3 means."""
    smooth = F.avg_pool2d(F.pad(fit[None], (1, 1, 1, 1), mode="replicate"), 3, 1)[0]
    middle = len(fit) // 2
    return smooth - smooth[middle, middle]
