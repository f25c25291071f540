"""The segmentation heads by name."""

from mdp.core.networks.heads import (
    Head,
    deeplabv3,
    deeplabv3_torchvision,
    deeplabv3plus,
    fcn,
    fcn_dilated,
    hrnet,
    linear,
    ocr,
    segformer,
    upernet,
)

LOW_STRIDE = 4  # of the finer map

HEADS: dict[str, Head] = {
    "deeplabv3": deeplabv3.HEAD,
    "deeplabv3plus": deeplabv3plus.HEAD,
    "fcn": fcn.HEAD,
    "deeplabv3_torchvision": deeplabv3_torchvision.HEAD,
    "fcn_dilated": fcn_dilated.HEAD,
    "hrnet": hrnet.HEAD,
    "linear": linear.HEAD,
    "ocr": ocr.HEAD,
    "segformer": segformer.HEAD,
    "upernet": upernet.HEAD,
}
