"""Where cells of feature maps look: receptive fields by hand, and the centroid of gradients over ten families."""

from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from mdp.core.geometry import Grid, downsample_labels
from mdp.core.networks.backbones import build_backbone
from mdp.core.networks.cell_centres import Centre, centre_of
from mdp.core.networks.timm_backbone import describe
from tests.laws import pure_call
from tests.peers import library_or_skip
from tests.tensors import rng_of


class Family(NamedTuple):
    """A family's own layers, narrow and shallow, and what is known of them by hand."""

    name: str
    arguments: dict[str, Any]
    stride: int
    offset: float
    cells: int = 7  # of a side; wide enough that the border cuts nothing off
    draws: int = 8


SHALLOW = {"depths": (1, 1, 1, 1)}
FAMILIES = (
    Family("vit_tiny_patch16_224", {"depth": 2, "dynamic_img_size": True}, 16, 7.5),
    Family("vit_small_patch14_dinov2", {"depth": 2, "embed_dim": 96, "dynamic_img_size": True}, 14, 6.5),
    Family("vit_small_patch16_dinov3", {"depth": 2, "embed_dim": 96, "dynamic_img_size": True}, 16, 7.5),
    Family("swin_tiny_patch4_window7_224", {**SHALLOW, "embed_dim": 24, "strict_img_size": False}, 32, 15.5),
    Family("convnext_atto", SHALLOW, 32, 15.5),
    Family("test_efficientnet", {"pad_type": "same"}, 32, 31, 11),  # TensorFlow's padding
    Family("resnet10t", {}, 32, 14, 9, 3),  # its shortcuts pool 2 x 2
    Family("regnetx_002", {}, 32, 0, 9, 4),
    Family("mobilenetv3_small_050", {}, 32, 0, 11),
    Family("pvt_v2_b0", SHALLOW, 32, 0, 9, 4),
)


def last_map(model: nn.Module, image: Tensor) -> Tensor:
    found: list[Tensor] = model.forward_intermediates(  # type: ignore[operator]
        image, intermediates_only=True, output_fmt="NCHW"
    )
    return found[-1]


def looks_at(model: nn.Module, family: Family) -> float:
    """The centroid of the squared gradients of one cell in the middle, less its corner: a mean over random weights."""
    middle, side, found = family.cells // 2, family.cells * family.stride, []
    for draw in range(family.draws):
        torch.manual_seed(draw)
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.reset_parameters()
        image = torch.randn(2, 3, side, side, requires_grad=True)
        cell = last_map(model, image)[:, :, middle, middle]
        (gradient,) = torch.autograd.grad((cell * torch.randn(cell.shape)).sum(), image)
        energy, places = gradient.square().sum((0, 1)), torch.arange(side).float()
        found += [energy.sum(axis) @ places / energy.sum() - family.stride * middle for axis in (0, 1)]
    return float(torch.stack(found).mean())


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_cell_looks_where_its_label_is_taken(family: Family) -> None:
    timm = library_or_skip("timm")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = timm.create_model(family.name, pretrained=False, num_classes=0, **family.arguments).eval()
        side = family.cells * family.stride
        image = torch.zeros(1, 3, side, side, requires_grad=True)
        found = centre_of(last_map(model, image), image)
        assert found == Centre(family.offset, fixed=family.name != "test_efficientnet")
        assert abs(looks_at(model, family) - found.offset) <= 0.5


@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize(
    ("name", "stride", "offset", "multiple"),
    [
        ("vit_tiny_patch16_224", 16, 7, 16),
        ("swin_tiny_patch4_window7_224", 32, 15, 32),
        ("convnext_atto", 32, 15, 32),
        ("tf_efficientnet_lite0", 32, 31, 32),
        ("resnet18", 32, 0, 1),
    ],
)
def test_a_model_of_timms_is_described_with_the_pixel_of_its_cells(
    name: str, stride: int, offset: int, multiple: int
) -> None:
    found = describe(name)
    assert (found.stride, found.offset, found.multiple) == (stride, offset, multiple)


@pytest.fixture
def timm() -> None:
    library_or_skip("timm")


@pytest.mark.usefixtures("timm")
def test_finer_maps_have_offsets_of_their_own() -> None:
    assert build_backbone("timm:test_convnext", 64, None, "low").grid("low") == Grid(4, 1)
    assert build_backbone("timm:test_convnext", 64, None, "stages").grid("stages") == Grid(4, 1)


@pytest.mark.usefixtures("timm")
def test_tensorflows_padding_does_not_move_the_cells_with_the_size() -> None:
    """Where images are padded to whole cells, what lies to the right and below changes nothing on the left."""
    built = build_backbone("timm:tf_efficientnet_lite0", 64, None, "last")
    assert built.grid("last") == Grid(32, 31)
    model, photo = built.module.eval(), torch.randn(1, 3, 96, 96, generator=rng_of(0))
    odd = F.pad(photo[:, :, :90, :75], (0, 21, 0, 6))  # with 0, the mean colour
    with torch.no_grad():
        torch.testing.assert_close(maps_of(built, model, photo[:, :, :90, :75]), maps_of(built, model, odd))


def maps_of(built: Any, model: nn.Module, photo: Tensor) -> Tensor:
    found: Tensor = built.maps(model, photo).last
    return found


@pytest.mark.parametrize(
    ("layers", "centre"),
    [
        ([nn.Conv2d(3, 8, 16, 16)], Centre(7.5, True)),
        ([nn.Conv2d(3, 8, 7, 2, 3), nn.MaxPool2d(3, 2, 1)], Centre(0, True)),
        ([nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 8, 2, 2)], Centre(1.5 + 4 * 0.5, True)),
        ([nn.Conv2d(3, 8, 3, 2, 1), nn.AvgPool2d(2)], Centre(2 * 0.5, True)),
        ([nn.MaxPool2d(3, 2, ceil_mode=True), nn.Conv2d(3, 8, 1)], Centre(1, True)),
        ([nn.Conv2d(3, 8, 3, 1, 2, dilation=2)], Centre(0, True)),
        ([nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 8, 3, 2)], Centre(1, False)),
        ([nn.ReflectionPad2d(1), nn.Conv2d(3, 8, 3, 2)], Centre(0, True)),
        ([nn.PixelUnshuffle(4), nn.Conv2d(48, 8, 3, 2, 1), nn.PixelUnshuffle(2)], Centre(1.5 + 8 * 0.5, True)),
        ([nn.Conv2d(3, 8, 8, 8), nn.Upsample(scale_factor=2)], Centre(3.5 - 8 * 0.25, True)),
    ],
)
def test_receptive_fields_compose_as_by_hand(layers: list[nn.Module], centre: Centre) -> None:
    with torch.device("meta"):
        image = torch.empty(1, 3, 64, 128, requires_grad=True)
        assert centre_of(nn.Sequential(*layers).to("meta")(image), image) == centre


def test_the_shortest_way_goes_through_the_shortcut() -> None:
    image = torch.zeros(1, 8, 16, 16, requires_grad=True)
    branch = nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 1, 1))
    assert centre_of(branch(image) + nn.AvgPool2d(2)(image), image) == Centre(0.5, True)


def test_a_map_that_is_not_made_of_the_image_is_refused() -> None:
    image = torch.zeros(1, 8, 16, 16, requires_grad=True)
    with pytest.raises(ValueError, match=r"^cells: expected a map that was made of the image"):
        centre_of(nn.Conv2d(8, 8, 1)(torch.zeros(1, 8, 16, 16)), image)


@given(st.integers(1, 50), st.integers(1, 50), st.sampled_from([4, 14, 16]), st.integers(0, 13))
def test_labels_are_those_under_the_cells_centres_or_of_the_last_pixel(
    height: int, width: int, stride: int, offset: int
) -> None:
    labels = torch.arange(height * width).view(1, height, width)
    found = pure_call(downsample_labels, labels, stride, offset)
    for i in range(-(-height // stride)):
        for j in range(-(-width // stride)):
            row, column = min(stride * i + offset, height - 1), min(stride * j + offset, width - 1)
            assert found[0, i, j] == labels[0, row, column]
    assert found.shape == (1, -(-height // stride), -(-width // stride))
