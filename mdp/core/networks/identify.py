"""Which ResNet a file holds, told from the names and shapes of its tensors alone (He et al. 2016)."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from mdp.core.networks.resnet import LAYOUTS
from mdp.core.networks.segmentor import NetworkSettings
from mdp.core.networks.transfer import rank

_DEEP = "_v1c"  # ends the names of networks with a stem of three convolutions
_MARK = "layer4.0.conv1.weight"  # every ResNet has it, once


class Recognised(NamedTuple):
    """A ResNet as its tensors show it."""

    name: str  # of the published network with these blocks and the usual stem; "" when there is none here
    width: int  # channels of the first stage
    deep_stem: bool  # three 3x3 convolutions instead of one 7x7 (ResNetV1c, timm's resnet50c)
    pooled_shortcut: bool  # average pooling before the shortcut's convolution (ResNet-D): not the networks here
    other_widths: bool  # ResNeXt, Wide ResNet and others with the same names


def recognise(weights: Mapping[str, Tensor]) -> Recognised | None:
    """The ResNet in a file, at whatever prefix; of several the preferred one, then the first.  None without any.

    >>> import torch
    >>> names = [f"layer{i}.{j}.conv{k}.weight" for i in (1, 2, 3, 4) for j in (0, 1) for k in (1, 2)]
    >>> file = {name: torch.zeros(4 * 2 ** int(name[5]), 1, 3, 3) for name in names}
    >>> recognise(file)[:2]
    ('resnet18', 8)
    """
    prefixes = [name.removesuffix(_MARK) for name in weights if name.endswith(_MARK)]
    prefixes = [prefix for prefix in prefixes if not prefix or prefix.endswith(".")]
    if not prefixes:
        return None
    start = min(prefixes, key=lambda prefix: (rank(prefix), len(prefix), prefix))
    shapes = {name.removeprefix(start): tuple(t.shape) for name, t in weights.items() if name.startswith(start)}

    def size(name: str, axis: int = 0) -> int:
        """Channels out (0) or in (1), or the kernel's sides (2, 3); 0 where there is no such tensor."""
        return (*shapes.get(name, ()), 0, 0, 0, 0)[axis]

    stages = [name.split(".")[0] for name in shapes if _opens_block(name)]
    blocks = tuple(stages.count(f"layer{stage}") for stage in (1, 2, 3, 4))
    bottleneck = "layer1.0.conv3.weight" in shapes
    width = size("layer1.0.conv2.weight")
    if width == 0:
        return None
    plain = {name: layout[:2] for name, layout in LAYOUTS.items() if not name.endswith(_DEEP)}
    inside = [(size(f"layer{n}.0.conv2.weight"), width * 2 ** (n - 1)) for n in (1, 2, 3, 4)]
    if bottleneck:  # what goes in is grouped in ResNeXt; what comes out is not four times as much in Wide ResNet
        inside += [(size("layer1.0.conv2.weight", 1), width), (size("layer4.0.conv3.weight"), 32 * width)]
    return Recognised(
        name=next((name for name, layout in plain.items() if layout == (blocks, bottleneck)), ""),
        width=width,
        deep_stem=any(size(first, 2) == 3 for first in ("stem.0.weight", "conv1.0.weight")),
        pooled_shortcut=size("layer2.0.downsample.1.weight", 3) > 0,
        other_widths=any(found != published for found, published in inside),
    )


def _opens_block(name: str) -> bool:
    """Whether it is the first convolution of a block, `layer3.5.conv1.weight`."""
    stage, _, rest = name.partition(".")
    number, _, last = rest.partition(".")
    return stage.startswith("layer") and number.isdigit() and last == "conv1.weight"


def backbone_for(found: Recognised) -> str:
    """The backbone to choose for what was recognised; "" when there is none like it here.

    >>> backbone_for(Recognised("resnet50", 64, False, False, False))
    'resnet50'
    """
    name = f"{found.name}{_DEEP}" if found.deep_stem else found.name
    if not found.name or found.pooled_shortcut or found.other_widths or found.width < 1:
        return ""
    try:
        return NetworkSettings(backbone=name).backbone
    except ValueError:
        return ""
