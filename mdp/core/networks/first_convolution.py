"""The first convolution of a network for RGB, adapted to images of other channels.

Shape legend: O outputs, K channels, k x k the kernel.
"""

import torch
from torch import Tensor

RGB = 3


def adapted(weight: Tensor, channels: int) -> Tensor:
    """Weights (O, 3, k, k) for images of `channels` channels: (O, K, k, k).

    The filters of red, green and blue are repeated in order and scaled by 3 / K, so that sums over the channels stay of
    the size they had; for one channel they are summed, which gives of a grey image what it gave before.  (timm's rule
    for `in_chans`: Wightman, timm, `adapt_input_conv`.)

    >>> weight = torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1)
    >>> adapted(weight, 6).flatten(), adapted(weight, 1).flatten()
    (tensor([0.5000, 1.0000, 1.5000, 0.5000, 1.0000, 1.5000]), tensor([6.]))
    """
    if channels == 1:
        return weight.sum(1, keepdim=True)  # (O, 1, k, k)
    place = torch.arange(channels, device=weight.device) % RGB
    return weight[:, place] * (RGB / channels)  # (O, K, k, k)


def adaptable(theirs: Tensor, own: Tensor) -> bool:
    """Whether a convolution of a file is that of the network, but for RGB where it takes other channels."""
    return (
        theirs.dim() == own.dim() == 4
        and theirs.is_floating_point()
        and theirs.shape[1] == RGB != own.shape[1]
        and (theirs.shape[0], *theirs.shape[2:]) == (own.shape[0], *own.shape[2:])
    )
