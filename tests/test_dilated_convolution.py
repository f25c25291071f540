"""Dilated convolutions without the taps that cannot touch the map, against torch's own with all of them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.export import Dim, export

from mdp.core.networks.dilated_convolution import DilatedConv2d
from tests.tensors import rng_of, seeds


def pair(kernel: int, dilation: int, groups: int, seed: int) -> tuple[DilatedConv2d, nn.Conv2d]:
    """Ours, and torch's of the same weights, in float64."""
    ours = DilatedConv2d(8, 8, kernel, dilation, groups).double()
    with torch.no_grad():
        ours.weight.normal_(generator=rng_of(seed))
    padding = dilation * (kernel // 2)
    theirs = nn.Conv2d(8, 8, kernel, padding=padding, dilation=dilation, groups=groups, bias=False).double()
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def answer(conv: nn.Conv2d, maps: Tensor) -> tuple[Tensor, ...]:
    """The output, and the gradients of its weighted sum by maps and weight."""
    leaf = maps.clone().requires_grad_()
    out = conv(leaf)
    weights = torch.randn(out.shape, generator=rng_of(1), dtype=out.dtype)
    return (out.detach(), *torch.autograd.grad((out * weights).sum(), (leaf, conv.weight)))


@given(
    height=st.integers(1, 14), width=st.integers(1, 14), dilation=st.integers(2, 12), kernel=st.sampled_from([3, 5]),
    groups=st.sampled_from([1, 8]), seed=seeds,
)  # fmt: skip
def test_values_and_gradients_are_those_of_all_taps_and_the_same_bits_where_all_touch_the_map(
    height: int, width: int, dilation: int, kernel: int, groups: int, seed: int
) -> None:
    ours, theirs = pair(kernel, dilation, groups, seed)
    maps = torch.randn((2, 8, height, width), generator=rng_of(seed), dtype=torch.float64)
    found, wanted = answer(ours, maps), answer(theirs, maps)
    whole = min(height, width) > dilation * (kernel // 2)
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(one, other) if whole else True
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_a_branch_wider_than_the_map_is_its_middle_tap_and_the_others_have_a_gradient_of_zero() -> None:
    ours, _ = pair(3, 36, 1, 0)
    maps = torch.randn((2, 8, 28, 28), generator=rng_of(0), dtype=torch.float64)
    out, _, gradient = answer(ours, maps)
    torch.testing.assert_close(out, torch.einsum("oi,bihw->bohw", ours.weight[:, :, 1, 1], maps))
    assert gradient[:, :, 1, 1].abs().min() > 0
    gradient[:, :, 1, 1] = 0
    assert not gradient.any()


def test_an_exported_program_keeps_all_taps_for_larger_maps() -> None:
    ours, theirs = pair(3, 6, 1, 0)
    dynamic = {2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    program = export(ours, (torch.zeros(1, 8, 5, 4).double(),), dynamic_shapes=(dynamic,), strict=False).module()
    maps = torch.randn((1, 8, 9, 17), generator=rng_of(0), dtype=torch.float64)
    torch.testing.assert_close(program(maps), theirs(maps))


@pytest.mark.parametrize("dilation", [2, 3])
def test_parameters_are_drawn_and_named_as_torchs_are(dilation: int) -> None:
    torch.manual_seed(3)
    ours = DilatedConv2d(8, 8, 3, dilation).state_dict()
    torch.manual_seed(3)
    theirs = nn.Conv2d(8, 8, 3, padding=dilation, dilation=dilation, bias=False).state_dict()
    assert ours.keys() == theirs.keys()
    assert torch.equal(ours["weight"], theirs["weight"])
