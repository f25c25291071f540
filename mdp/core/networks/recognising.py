"""Which ResNet a file holds, told from the names and shapes of its tensors alone (He et al. 2016)."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from mdp.core.networks.resnet import LAYOUTS
from mdp.core.networks.segmentor import NetworkSettings
from mdp.core.networks.transfer import rank

_DEEP = "_v1c"  # ends the names of networks with a stem of three convolutions
_MARK = "layer4.0.conv1.weight"  # every ResNet has it, once
_BLOCK = re.compile(r"layer([1-4])\.([0-9]{1,3})\.conv1\.weight")


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
    >>> file = {name: torch.zeros(8 * 2 ** (int(name[5]) - 1), 1, 3, 3) for name in names}
    >>> recognise(file)[:2]
    ('resnet18', 8)
    """
    prefixes = [name.removesuffix(_MARK) for name in weights if name.endswith(_MARK)]
    prefixes = [prefix for prefix in prefixes if not prefix or prefix.endswith(".")]
    if not prefixes:
        return None
    start = min(prefixes, key=lambda prefix: (rank(prefix), len(prefix), prefix))
    own = {name.removeprefix(start): tuple(t.shape) for name, t in weights.items() if name.startswith(start)}
    places = [found for name in own if (found := _BLOCK.fullmatch(name))]
    blocks = tuple(len({place[2] for place in places if place[1] == stage}) for stage in "1234")
    bottleneck = "layer1.0.conv3.weight" in own
    width = (own.get("layer1.0.bn2.weight") or own.get("layer1.0.conv2.weight") or (0,))[0]
    plain = {name: layout[:2] for name, layout in LAYOUTS.items() if not name.endswith(_DEEP)}
    name = next((name for name, layout in plain.items() if layout == (blocks, bottleneck)), "")
    inside = [own.get(f"layer{stage + 1}.0.conv2.weight", (0,))[:1] == (width * 2**stage,) for stage in range(4)]
    last, expansion = ("conv3", 4) if bottleneck else ("conv2", 1)
    outside = own.get(f"layer4.0.{last}.weight", (0,))[0] == width * 8 * expansion
    grouped = bottleneck and own.get("layer1.0.conv2.weight", (0, width))[1] != width
    return Recognised(
        name=name,
        width=width,
        deep_stem=any(own.get(first, ())[2:] == (3, 3) for first in ("stem.0.weight", "conv1.0.weight")),
        pooled_shortcut=len(own.get("layer2.0.downsample.1.weight", ())) == 4,
        other_widths=not all(inside) or not outside or grouped,
    )


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
