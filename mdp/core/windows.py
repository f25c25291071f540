"""Class scores of a whole image from what a network says of its windows, some classes at a time.

A network's logits are small; what is large is the same logits at the image's resolution, for all classes at once.
Every class is resized and added up by itself, so some classes at a time give the same bits as all of them together,
and only a running maximum, or a running sum of exponentials, has to be kept.

Shape legend: C classes, c of them at a time, H x W image, h x w feature grid, n windows of a batch.
"""

from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from mdp.core.networks import upsample

_VECTOR = 16  # numbers that AVX-512 takes at a time; 8 with AVX2
LEAST_CLASSES = 19  # that must fit together, see `class_parts`


class Windows(NamedTuple):
    """A network's logits of an image, window by window; one window as large as the canvas is the whole image."""

    logits: tuple[Tensor, ...]  # batches (n, C, h, w)
    corners: tuple[tuple[int, int], ...]  # top and left of each window, in the order of the batches
    window: tuple[int, int]  # height and width
    canvas: tuple[int, int]  # height and width of the image that the network saw
    flip: bool  # whether that was mirrored

    @property
    def classes(self) -> int:
        """C."""
        return self.logits[0].shape[1]


def starts(length: int, window: int, stride: int) -> list[int]:
    """Where windows begin so that they cover `length` pixels.

    >>> starts(1025, 769, 513), starts(100, 769, 513)
    ([0, 256], [0])
    """
    count = max(length - window + stride - 1, 0) // stride + 1
    return [max(0, min(i * stride, length - window)) for i in range(count)]


def class_parts(classes: int, most: int) -> list[slice]:
    """All classes in parts of at most `most`, but of up to 19 where that is fewer, that are resized as all together.

    torch's CPU kernels take channels by 8 or 16 at a time, and round those that are left over in another way; three
    channels they may take by a kernel of its own.  So a part begins at a multiple of 16, and is not 1 to 3 classes.

    >>> class_parts(36, 20), class_parts(35, 20)
    ([slice(0, 16, None), slice(16, 32, None), slice(32, 36, None)], [slice(0, 16, None), slice(16, 35, None)])
    """
    if classes <= most:
        return [slice(0, classes)]
    step = max(_VECTOR, (most - 3) // _VECTOR * _VECTOR)
    ends = [*range(0, classes, step), classes]
    if len(ends) > 2 and ends[-1] - ends[-2] <= 3:
        del ends[-2]
    return [slice(first, last) for first, last in pairwise(ends)]


def assemble(windows: Windows, part: slice, size: tuple[int, int]) -> Tensor:
    """Logits (c, *size) of some classes: the mean over windows at the canvas's size, resized, mirrored back.

    The same bits as of all classes at once.
    """
    canvas = _whole(windows, part) if windows.window == windows.canvas else _mean(windows, part)  # (1, c, *canvas)
    scores = (canvas if size == windows.canvas else upsample(canvas, size))[0]  # (c, *size)
    return scores.flip(-1) if windows.flip else scores


def _whole(windows: Windows, part: slice) -> Tensor:
    return upsample(of_part(windows.logits[0], part), windows.canvas)


def _mean(windows: Windows, part: slice) -> Tensor:
    """Logits (1, c, *canvas) of some classes: the mean over the windows that see a pixel."""
    height, width = windows.window
    first = windows.logits[0]
    count = len(range(*part.indices(windows.classes)))
    total = first.new_zeros(1, count, *windows.canvas, dtype=torch.float32)
    hits = total.new_zeros(1, 1, *windows.canvas)
    pieces = (batch[i : i + 1] for batch in windows.logits for i in range(len(batch)))
    for (y, x), piece in zip(windows.corners, pieces, strict=True):
        total[:, :, y : y + height, x : x + width] += upsample(of_part(piece, part), windows.window)
        hits[:, :, y : y + height, x : x + width] += 1
    return total.div_(hits)


def of_part(logits: Tensor, part: slice) -> Tensor:
    """Some classes of logits, in the memory layout of all: torch has a kernel for each, which round differently."""
    last = logits.is_contiguous(memory_format=torch.channels_last) and not logits.is_contiguous()
    return logits[:, part].contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def first_maximum(parts: Iterable[Tensor]) -> Tensor:
    """The class of the highest score at each pixel, (H, W) int64, of parts (c, H, W) of the classes in order.

    As `torch.cat(parts).argmax(0)`: the first of equal scores wins, and NaN is above all.

    >>> first_maximum([torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[1.0, 5.0]], [[3.0, 5.0]]])]).tolist()
    [[2, 1]]
    """
    best: Tensor | None = None
    place = torch.empty(0)
    seen = 0
    for part in parts:
        scores, index = part.max(0)  # (H, W) each
        index += seen
        seen += len(part)
        del part  # or it would live on while the next one is made
        if best is None:
            best, place = scores, index
            continue
        newer = (scores > best) | (scores.isnan() & ~best.isnan())
        best, place = torch.where(newer, scores, best), torch.where(newer, index, place)
    return place


def log_partition(parts: Iterable[Tensor]) -> Tensor:
    """log of the sum of exponentials over all classes, (H, W), of parts (c, H, W): what softmax divides by.

    >>> log_partition([torch.zeros(3, 1, 1), torch.zeros(1, 1, 1)]).exp().tolist()
    [[4.0]]
    """
    total: Tensor | None = None
    for part in parts:
        share = part.logsumexp(0)  # (H, W)
        del part
        total = share if total is None else torch.logaddexp(total, share)
    assert total is not None, "there is at least one class"
    return total


def mean_probabilities(views: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """The mean over views of softmax scores (c, H, W), each view given as logits (c, H, W) and `log_partition`."""
    total: Tensor | None = None
    count = 0
    for logits, partition in views:
        shares = (logits - partition).exp_()
        del logits
        total = shares if total is None else total.add_(shares)
        count += 1
    assert total is not None, "there is at least one view"
    return total if count == 1 else total.div_(count)
