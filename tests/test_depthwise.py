"""Depthwise convolutions with a backward pass of our own, against torch's gradients in float64 and its own layer."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mdp.core.networks.depthwise import DepthwiseConv2d, as_depthwise_
from tests.tensors import rng_of, seeds


def pair(kernel: int, dilation: int, bias: bool) -> tuple[nn.Conv2d, nn.Conv2d]:
    """Ours, and torch's of the same weights in float64."""
    padding = dilation * (kernel // 2)
    theirs = nn.Conv2d(8, 8, kernel, padding=padding, dilation=dilation, groups=8, bias=bias)
    ours = as_depthwise_(nn.Sequential(copy.deepcopy(theirs)))[0]
    assert type(ours) is DepthwiseConv2d
    return ours, theirs.double()


def gradients(conv: nn.Conv2d, maps: Tensor) -> list[Tensor]:
    leaf = maps.to(conv.weight.dtype).requires_grad_()
    out = conv(leaf)
    weights = torch.randn(out.shape, generator=rng_of(1), dtype=torch.float32)
    return [one.double() for one in torch.autograd.grad((out * weights).sum(), (leaf, *conv.parameters()))]


@given(
    height=st.integers(1, 11), width=st.integers(1, 11),
    kernel_dilation=st.sampled_from([(3, 2), (5, 1), (5, 2), (7, 1), (7, 2)]),
    bias=st.booleans(), last=st.booleans(), images=st.integers(1, 3), seed=seeds,
)  # fmt: skip
def test_gradients_are_those_of_torch_in_float64_and_the_forward_pass_has_its_bits(
    height: int, width: int, kernel_dilation: tuple[int, int], bias: bool, last: bool, images: int, seed: int
) -> None:
    ours, theirs = pair(*kernel_dilation, bias)
    maps = torch.randn((images, 8, height, width), generator=rng_of(seed))
    maps = maps.contiguous(memory_format=torch.channels_last) if last else maps
    for found, wanted in zip(gradients(ours, maps), gradients(theirs, maps), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=2e-5)
    plain = copy.deepcopy(ours)
    plain.__class__ = nn.Conv2d
    assert torch.equal(ours(maps), plain(maps))


def test_a_map_larger_than_the_limit_has_the_same_gradients() -> None:
    ours, theirs = pair(5, 2, False)
    maps = torch.randn((1, 8, 6, 70), generator=rng_of(0))
    for found, wanted in zip(gradients(ours, maps), gradients(theirs, maps), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    "part",
    [
        nn.Conv2d(8, 8, 5, padding=2, stride=2, groups=8), nn.Conv2d(8, 16, 5, padding=2, groups=8),
        nn.Conv2d(8, 8, 5, groups=8), nn.Conv2d(8, 8, 5, padding=2), nn.Conv2d(8, 8, 1, groups=8),
        nn.Conv2d(8, 8, (3, 5), padding=(1, 2), groups=8), nn.Conv2d(8, 8, 5, padding="same", groups=8),
        nn.Conv2d(8, 8, 5, padding=2, groups=8, padding_mode="reflect"), nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.Conv2d(8, 8, 3, padding=4, dilation=4, groups=8),
    ],
)  # fmt: skip
def test_other_convolutions_stay_as_they_are(part: nn.Conv2d) -> None:
    assert type(as_depthwise_(part)) is nn.Conv2d


def test_a_compiled_layer_and_one_under_autocast_are_torchs_own() -> None:
    ours, _ = pair(5, 2, False)
    maps = torch.randn((2, 8, 6, 6), generator=rng_of(0))
    with torch.autocast("cpu", torch.bfloat16):
        assert ours(maps).dtype == torch.bfloat16
    program = torch.export.export(ours, (maps,))
    assert "conv2d" in str(program.graph)
    torch.testing.assert_close(program.module()(maps), ours(maps))
    with torch.no_grad():
        assert ours(maps).grad_fn is None
