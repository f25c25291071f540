"""Where the cells of a feature map look: the arithmetic of receptive fields along the shortest way to the image.

A convolution or pooling of kernel k, dilation d, stride s and padding p centres cell i on cell s i + d (k - 1) / 2 - p
of what it is given, which is the middle of what it sees.  What takes blocks of s x s cells apart without a kernel, as
Swin does, sees [s i, s i + s), whose middle is s i + (s - 1) / 2.  Along the shortest way, the one through all
shortcuts, these compose; attention and residual branches look around that place evenly.
The way is read out of autograd's graph, so it takes a forward pass on torch's meta device and no number.
"""

from collections import deque
from typing import Any, NamedTuple

from torch import Tensor

_PADDINGS = ("ConstantPadNd", "ReflectionPad2D", "ReplicationPad2D")


class Centre(NamedTuple):
    """Cell i of a map is centred on place stride * i + offset of the image, 0 being the first pixel."""

    offset: float
    fixed: bool  # whether that holds for images of every size, and not only for whole multiples of the stride


def centre_of(cells: Tensor, image: Tensor) -> Centre:
    """Where the cells of a map (B, ., h, w) look, which was made of an image (B, ., H, W) that asks for gradients.

    Both axes are taken to be alike.  Padding of two unequal sides is TensorFlow's, which depends on the size.
    Raises ValueError where no way leads from the map to the image.

    >>> import torch
    >>> image = torch.empty(1, 3, 32, 32, requires_grad=True)
    >>> centre_of(torch.nn.Conv2d(3, 8, 4, stride=4)(image), image)
    Centre(offset=1.5, fixed=True)
    """
    count, stride, offset, fixed = float(image.shape[2]), 1.0, 0.0, True  # cells in a column, and where they look
    for node in _shortest_way(cells, image):
        if node.name().startswith(_PADDINGS):
            before, after = _top_and_bottom(node)
            offset -= stride * before
            count += before + after
            fixed = fixed and before == after
        elif (window := _window(node)) is not None:
            offset, stride = _regrouped(offset, stride, count / window.cells)
            offset += stride * (window.span / 2 - window.padding)
            stride *= window.stride
            count = (window.cells + 2 * window.padding - window.span - 1) // window.stride + 1
    offset, _ = _regrouped(offset, stride, count / cells.shape[2])
    return Centre(offset, fixed)


def _regrouped(offset: float, stride: float, ratio: float) -> tuple[float, float]:
    """Offset and stride after so many cells have become one, or (a ratio below 1) one has become several."""
    ratio = float(round(ratio)) if ratio >= 1 else 1 / round(1 / ratio)  # a pooling may round up
    return offset + stride * (ratio - 1) / 2, stride * ratio


def _shortest_way(cells: Tensor, image: Tensor) -> list[Any]:
    """The operations of autograd's graph from the image to the map, by the way with the fewest of them."""
    after: dict[Any, Any] = {cells.grad_fn: None}
    waiting = deque([cells.grad_fn])
    while waiting:
        node = waiting.popleft()
        if getattr(node, "variable", None) is image:
            way = []
            while node is not None:
                way.append(node)
                node = after[node]
            return way
        for before, _ in node.next_functions if node is not None else ():
            if before is not None and before not in after:
                after[before] = node
                waiting.append(before)
    raise ValueError("cells: expected a map that was made of the image with gradients, found no way between them")


class _Window(NamedTuple):
    """A convolution or pooling along one axis."""

    cells: int  # that it is given
    span: int  # from the first cell that it sees at once to the last
    stride: int
    padding: int  # on either side


def _window(node: Any) -> _Window | None:
    """What an operation sees at once; None for one that is no convolution or pooling of a plane."""
    name = node.name()
    if name.startswith("ConvolutionBackward"):
        given, side = node._saved_input, node._saved_weight.shape[-2]
    elif name.startswith(("MaxPool2D", "AvgPool2D")):
        given, side = node._saved_self, node._saved_kernel_size[0]
    else:
        return None
    if given.ndim != 4:
        return None
    span = (side - 1) * getattr(node, "_saved_dilation", (1,))[0]
    return _Window(given.shape[2], span, (node._saved_stride or (side,))[0], node._saved_padding[0])


def _top_and_bottom(node: Any) -> tuple[int, int]:
    """The rows that a padding adds; none where it pads other axes (windows of attention)."""
    sides = node._saved_pad if hasattr(node, "_saved_pad") else node._saved_padding
    return (sides[2], sides[3]) if len(sides) == 4 else (0, 0)
