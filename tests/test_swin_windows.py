"""Swin Transformers in the form that torch can trace: the same numbers as timm's, for images of any size."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mdp.io.export.tracing import one_size_reason, traced
from mdp.io.export.windows import rewrite_windows_
from tests.peers import library_or_skip


class Maps(nn.Module):
    """The last map of a model of timm's."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model: Any = model

    def forward(self, images: Tensor) -> Tensor:
        last: Tensor = self.model.forward_intermediates(images, intermediates_only=True)[-1]
        return last


@pytest.fixture(scope="module")
def swin() -> Maps:
    """Two stages, with windows of 3, of which those of the second block are shifted."""
    library_or_skip("timm")
    module = library_or_skip("timm.models.swin_transformer")
    torch.manual_seed(0)
    model = module.SwinTransformer(
        img_size=48, patch_size=4, embed_dim=8, depths=(2, 1), num_heads=(2, 2), window_size=3, num_classes=0,
        strict_img_size=False,
    )  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return Maps(model).eval()


@given(height=st.integers(1, 20), width=st.integers(1, 20), seed=st.integers(0, 99))
def test_windows_rewritten_give_the_same_bits_for_every_size(swin: Maps, height: int, width: int, seed: int) -> None:
    images = torch.randn((2, 3, 4 * height, 4 * width), generator=torch.Generator().manual_seed(seed))
    ours = copy.deepcopy(swin)
    rewrite_windows_(ours)
    with torch.no_grad():
        assert torch.equal(ours(images), swin(images))


def test_a_traced_program_of_windows_holds_for_other_sizes(swin: Maps) -> None:
    program = traced(copy.deepcopy(swin), 3, None).module()
    for size in ((1, 3, 4, 92), (2, 3, 24, 24), (3, 3, 52, 36)):  # one window high; whole windows; neither
        images = torch.randn(size, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            torch.testing.assert_close(program(images), swin(images), rtol=1e-5, atol=1e-5)


def test_windows_that_cannot_be_traced_for_every_size_are_known_beforehand(swin: Maps) -> None:
    second = library_or_skip("timm.models.swin_transformer_v2")
    assert one_size_reason(swin) == ""
    block = second.SwinTransformerV2Block(8, (6, 6), 2, 3)
    assert one_size_reason(nn.Sequential(block)) == "tracing the windows of Swin v2 for every size does not end"
