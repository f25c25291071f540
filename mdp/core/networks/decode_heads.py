"""The segmentation heads by name."""

from mdp.core.networks.heads import Head, deeplabv3, deeplabv3_torchvision, deeplabv3plus, fcn

LOW_STRIDE = 4  # of the finer map

HEADS: dict[str, Head] = {
    "deeplabv3": deeplabv3.HEAD,
    "deeplabv3plus": deeplabv3plus.HEAD,
    "fcn": fcn.HEAD,
    "deeplabv3_torchvision": deeplabv3_torchvision.HEAD,
}
