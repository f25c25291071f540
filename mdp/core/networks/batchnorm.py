"""BatchNorm over the images of all processes, and over groups of images one at a time (arXiv 1502.03167).

Both are layers in the place of another, with its tensors under their names, and in evaluation they are what it was.
Statistics over processes come from sums that these add up.  torch's own SyncBatchNorm gathers counts and chooses those
of processes with images by a mask, for which the host waits in every layer and every pass.
Shape legend: B images, C channels, N values of a channel.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from mdp.core.float64 import in_float64

AllSum = Callable[[Tensor], Tensor]  # the sum over processes, the same bits on each, as `Processes` has it


def over_processes_(network: nn.Module, all_sum: AllSum) -> None:
    """Every BatchNorm of a network looks at the images of all processes in training; other norms stay."""
    _replace_(network, lambda norm: Synchronised(norm, all_sum))


def by_groups_(network: nn.Module) -> None:
    """Every BatchNorm of a network can look at one group of images at a time in training."""
    _replace_(network, Grouped)


def _replace_(network: nn.Module, make: Callable[[_BatchNorm], _BatchNorm]) -> None:
    for name, part in network.named_children():
        if isinstance(part, _BatchNorm):
            network.add_module(name, make(part))
        else:
            _replace_(part, make)


class _InPlaceOf(_BatchNorm):
    """A layer that has the tensors of another BatchNorm, and what that has inside: timm's have an activation."""

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__(
            norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats, device="meta"
        )
        self._parameters.update(norm._parameters)
        self._buffers.update(norm._buffers)
        for name, part in norm.named_children():
            self.add_module(name, part)
        self.train(norm.training)

    def _check_input_dim(self, input: Tensor) -> None:
        """All numbers of axes will do."""

    def forward(self, input: Tensor) -> Tensor:
        found = self.normalised(input) if self.training else super().forward(input)
        for part in self.children():
            found = part(found)
        return found

    def normalised(self, images: Tensor) -> Tensor:
        """In training: images (B, C, ...) of mean 0 and variance 1, scaled and shifted; running statistics follow."""
        raise NotImplementedError


# Groups of images


class Grouped(_InPlaceOf):
    """Normalises one of `groups` groups of images after the other, where `in_groups` says that there are several."""

    groups = 1

    def normalised(self, images: Tensor) -> Tensor:
        if self.groups == 1:
            return _BatchNorm.forward(self, images)
        parts = images.tensor_split(self.groups)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(len(parts))
        running = (self.running_mean, self.running_var, self.weight, self.bias)
        assert self.momentum is not None  # see `in_groups`
        return torch.cat([F.batch_norm(part, *running, True, self.momentum, self.eps) for part in parts])


def in_groups(
    network: nn.Module, forward: Callable[[Tensor], tuple[Tensor, ...]], images: Tensor, groups: int
) -> tuple[Tensor, ...]:
    """What `forward` makes of images (B, ...) with `network`: in training, BatchNorm sees one group at a time.

    On a CPU all layers do.  A GPU would stand still between the many small kernels of that: there the other layers take
    all images at once, where `by_groups_` has prepared the network and no block is computed again, without groups.
    """
    parts = list(network.modules())
    layers = [part for part in parts if isinstance(part, Grouped)]
    norms = [part for part in parts if isinstance(part, _BatchNorm)]
    # a plain mean of all batches has a rate for each group, which only the layer itself knows
    unable = any(not isinstance(norm, Grouped) or norm.momentum is None for norm in norms) or any(
        getattr(part, "checkpointed", False) or getattr(part, "grad_checkpointing", False) for part in parts
    )
    if groups == 1 or not images.is_cuda or unable:
        return tuple(map(torch.cat, zip(*map(forward, images.tensor_split(groups)), strict=True)))
    for layer in layers:
        layer.groups = groups
    try:
        return forward(images)
    finally:
        for layer in layers:
            layer.groups = 1


# Images of all processes


class Synchronised(_InPlaceOf):
    """Normalises by the mean and variance of all processes' images."""

    def __init__(self, norm: _BatchNorm, all_sum: AllSum) -> None:
        super().__init__(norm)
        self.all_sum: AllSum = lambda tensor: all_sum(tensor)  # noqa: PLW0108 - copies of a network share a function

    def normalised(self, images: Tensor) -> Tensor:
        normalised, mean, variance, count = synchronised(images, self.weight, self.bias, self.eps, self.all_sum)
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            with torch.no_grad():
                self.num_batches_tracked.add_(1)
                follows = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
                unbiased = variance * count / (count - 1).clamp(min=1)
                self.running_mean.lerp_(mean.to(self.running_mean.dtype), follows)
                self.running_var.lerp_(unbiased.to(self.running_var.dtype), follows)
        return normalised


def synchronised(
    images: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, all_sum: AllSum
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images (B, C, ...) normalised, with gradient; mean and biased variance (C,) of all processes' and their N ().

    The gradients of weight and bias (C,) are those of this process's images.  The gradient can be taken once.

    >>> images = torch.tensor([[0.0], [2.0]])
    >>> [tensor.flatten().tolist() for tensor in synchronised(images, None, None, 0.0, lambda tensor: tensor)]
    [[-1.0, 1.0], [1.0], [1.0], [2.0]]
    """
    found: tuple[Tensor, Tensor, Tensor, Tensor] = _Synchronised.apply(images, weight, bias, eps, all_sum)  # type: ignore[no-untyped-call]
    return found


class _Synchronised(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, images: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, all_sum: AllSum
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        channels = images.shape[1]
        kind = images.dtype if images.dtype == torch.float64 else torch.float32  # of statistics
        scale = torch.ones(channels, dtype=kind, device=images.device) if weight is None else weight
        total, squares, count = torch.split(all_sum(_sums(images, scale, eps)), [channels, channels, 1])
        exact_mean = total / count  # (C,)
        exact_variance = (squares / count - exact_mean**2).clamp(min=0)  # (C,)
        mean, variance = exact_mean.to(scale.dtype), exact_variance.to(scale.dtype)
        normalised = F.batch_norm(images, mean, variance, weight, bias, eps=eps)
        ctx.save_for_backward(images, scale, mean, variance, count)
        ctx.eps, ctx.all_sum = eps, all_sum
        found = (exact_mean, exact_variance, count[0])
        ctx.mark_non_differentiable(*found)
        return normalised, *found

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, gradient: Tensor, *_: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        images, scale, mean, variance, count = ctx.saved_tensors
        if images.is_contiguous(memory_format=torch.channels_last):
            gradient = gradient.contiguous(memory_format=torch.channels_last)
        # the gradients of weight and bias are sums, (C,) each, of gradient * normalised and of gradient
        matched = summed = torch.zeros_like(mean)
        if images.numel():  # torch divides by 0 for a process without images
            _, matched, summed = torch.ops.aten.native_batch_norm_backward(
                gradient, images, scale, mean, variance, None, None, False, ctx.eps, [False, True, True]
            )
        slopes = None
        if ctx.needs_input_grad[0]:
            everyone = ctx.all_sum(torch.cat([in_float64(matched), in_float64(summed)])) / count
            slopes = _slopes(gradient, images, everyone.chunk(2), scale, mean, variance, ctx.eps)
        of_weight, of_bias = ctx.needs_input_grad[1:3]
        return slopes, matched if of_weight else None, summed if of_bias else None, None, None


def _sums(images: Tensor, scale: Tensor, eps: float) -> Tensor:
    """What is added up over processes, (2 C + 1,) float64: of values, of their squares, and how many there are."""
    channels = images.shape[1]
    count = images.numel() // channels
    if not count:  # a process without images
        return torch.zeros(2 * channels + 1, dtype=in_float64(images).dtype, device=images.device)
    # torch's own mean and deviation, which it makes in one pass and keeps in float32 where the scale is, do not cancel
    _, own_mean, own_scale = torch.native_batch_norm(images, scale, None, None, None, True, 0.0, eps)
    mean, variance = in_float64(own_mean), in_float64(own_scale) ** -2 - eps  # (C,)
    return torch.cat([count * mean, count * (variance + mean**2), torch.full_like(mean[:1], count)])


def _slopes(
    gradient: Tensor,
    images: Tensor,
    means: tuple[Tensor, Tensor],
    scale: Tensor,
    mean: Tensor,
    variance: Tensor,
    eps: float,
) -> Tensor:
    """The gradient of the images, a sum of the outer gradient and the images, each times a number a channel.

    `means` (C,) are those over all values of gradient * normalised and of gradient.
    """
    matched, summed = means
    inverse = (in_float64(variance) + eps) ** -0.5  # (C,)
    of_gradient = in_float64(scale) * inverse
    of_images = -of_gradient * inverse * matched
    constant = -of_gradient * summed - of_images * mean
    shape = (1, -1, *(1,) * (images.dim() - 2))
    first, second, third = (t.to(mean.dtype).view(shape) for t in (of_gradient, of_images, constant))
    return torch.addcmul(third, images, second).addcmul_(gradient, first).to(images.dtype)
