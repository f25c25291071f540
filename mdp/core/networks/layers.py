"""The depth of a network's layers, for learning rates that fall towards the input.

Fine-tuning with such rates is BEiT's (arXiv 2106.08254), after ELECTRA (arXiv 2003.10555): what lies near the input is
general, and changes least.
"""

from collections.abc import Iterable

from torch import nn

from mdp.core.networks import timm_backbone
from mdp.core.networks.resnet import ResNet

_PREFIX = "backbone."


def layers_of(network: nn.Module) -> dict[str, int]:
    """The layer of every parameter, by its name: 0 is the backbone's stem, then one number a block.

    All that comes after the backbone is one layer more.  Blocks of timm's models are those of its own grouping.
    """
    backbone = network.get_submodule("backbone")
    depths = _resnet_layers(backbone) if isinstance(backbone, ResNet) else timm_backbone.layers(backbone)
    last = max(depths.values()) + 1
    names = (name for name, _ in network.named_parameters())
    return {name: depths[name.removeprefix(_PREFIX)] if name.startswith(_PREFIX) else last for name in names}


def undecayed(network: nn.Module) -> set[str]:
    """The names of parameters that are not meant to be decayed although they have several dimensions.

    timm's models name theirs: tables of positions, tokens.
    """
    backbone = getattr(network, "backbone", None)
    named: Iterable[str] = getattr(backbone, "no_weight_decay", tuple)()
    return {_PREFIX + name for name in named}


def _resnet_layers(backbone: nn.Module) -> dict[str, int]:
    blocks: dict[str, int] = {}
    layers = {}
    for name, _ in backbone.named_parameters():
        stage, number, *_ = name.split(".")
        layers[name] = blocks.setdefault(f"{stage}.{number}", len(blocks) + 1) if stage.startswith("layer") else 0
    return layers
