"""The libraries that weights are exported to: what each can hold, its names for the parameters, the line that loads it.

A backbone is what pretraining is for; a whole network (`--segmentor`) needs a head with the same layers in the library.
"""

from pathlib import Path
from typing import NamedTuple

from mdp.core.networks.parameter_names import BARE, DEEP_STEM, MMSEG, TORCHVISION_DEEPLAB, Layout
from mdp.io.errors import RecipeError

TIMM = "timm:"  # before the name of a backbone out of timm
DEEP = "_v1c"  # after the name of a backbone with a stem of three convolutions
WIDTH = 64  # channels of the first stage, in every library
UNDILATED = 32  # the stride of a backbone in every library that was not asked for another
_BOTTLENECKS = ("resnet50", "resnet101")


class Content(NamedTuple):
    """What an exported file holds."""

    backbone: str  # as in `model.backbone`
    width: int
    stride: int  # of the backbone's features, as it was trained
    head: str = ""  # of a whole network; "" for a bare backbone
    channels: int | None = None  # of the head; None: the head's own number
    dilations: tuple[int, ...] | None = None  # likewise
    classes: int = 0


class Target(NamedTuple):
    """A library, and what of ours it can hold."""

    suffix: str  # of the file; "" for a folder
    deep: bool  # backbones with a stem of three convolutions
    timm: bool  # timm's backbones
    narrow: bool  # any width
    heads: tuple[str, ...] | None  # of whole networks; None: all


TARGETS = {
    "torchvision": Target(".pth", deep=False, timm=False, narrow=False, heads=("deeplabv3_torchvision",)),
    "timm": Target(".safetensors", deep=True, timm=True, narrow=False, heads=()),
    "smp": Target(".pth", deep=False, timm=False, narrow=False, heads=()),
    "mmseg": Target(".pth", deep=True, timm=False, narrow=False, heads=("deeplabv3", "deeplabv3plus", "fcn")),
    "safetensors": Target(".safetensors", deep=True, timm=True, narrow=True, heads=None),
    "onnx": Target(".onnx", deep=True, timm=True, narrow=True, heads=None),
    "hub": Target("", deep=True, timm=True, narrow=False, heads=()),
}


def refuse_misfit(target: str, content: Content) -> None:
    """Raises RecipeError, in one line that says which targets can, when the library cannot hold the network."""
    reason = _misfit(target, content)
    if reason:
        can = ", ".join(name for name in TARGETS if not _misfit(name, content))
        raise RecipeError(f"--to {target}: {reason}; what can hold it: {can}")


def _misfit(target: str, content: Content) -> str:
    """Why the library cannot hold the network; "" when it can."""
    can = TARGETS[target]
    if content.head and can.heads == ():
        return "it holds backbones only, leave --segmentor out"
    if content.backbone.startswith(TIMM) and not can.timm:
        return f"it does not have timm's backbones, such as this {content.backbone.removeprefix(TIMM)}"
    if content.backbone.endswith(DEEP) and not can.deep:
        return f"its ResNets begin with a 7x7 convolution, {content.backbone} with three of 3x3"
    if content.width != WIDTH and not can.narrow:
        return f"its networks have {WIDTH} channels in the first stage, this one has {content.width} (model.width)"
    if content.head and can.heads is not None and content.head not in can.heads:
        return f"its heads are {', '.join(can.heads)}, and {content.head} has other layers (model.head)"
    if content.head and target == "torchvision":
        return _not_deeplab(content)
    if content.head and target == "mmseg" and not dilates_alike(target, content):
        return f"it dilates {content.backbone} in other convolutions, so that the same weights give other logits"
    return ""


def dilates_alike(target: str, content: Content) -> bool:
    """Whether the library, asked to, gives the features that the backbone was trained for, at their stride.

    torchvision does not dilate basic blocks, MMSegmentation dilates their first convolution where we dilate the second,
    and segmentation_models_pytorch dilates the first block of a stage like the others.
    """
    if content.stride == UNDILATED:
        return True
    bottlenecks = content.backbone.removesuffix(DEEP) in _BOTTLENECKS
    return target in ("timm", "hub", "safetensors", "onnx") or (target in ("torchvision", "mmseg") and bottlenecks)


def _not_deeplab(content: Content) -> str:
    """Why a network with torchvision's head is none of those that torchvision builds; "" when it is."""
    if content.backbone not in _BOTTLENECKS:
        return f"it builds DeepLab on {' and '.join(_BOTTLENECKS)}, this one is on {content.backbone}"
    if content.stride != 8:
        return f"its DeepLab has output stride 8, this one {content.stride} (model.output_stride)"
    if content.channels not in (None, 256):
        return f"its head has 256 channels, this one {content.channels} (model.channels)"
    if content.dilations not in (None, (1, 12, 24, 36)):
        return f"its head has the dilations 1, 12, 24, 36, this one {content.dilations} (model.dilations)"
    return ""


def layout_of(target: str, content: Content) -> Layout:
    """The library's names for our parameters."""
    if content.head:
        return TORCHVISION_DEEPLAB if target == "torchvision" else MMSEG
    if target == "mmseg":
        return (("backbone.", "backbone."),)
    return DEEP_STEM if target in ("timm", "hub") and content.backbone.endswith(DEEP) else BARE


def timm_model(content: Content) -> tuple[str, dict[str, object]]:
    """timm's name of the backbone, and what else `timm.create_model` has to be told.

    >>> timm_model(Content("resnet50_v1c", 64, 8)), timm_model(Content("resnet18_v1c", 64, 8))
    (('resnet50c', {}), ('resnet18', {'stem_type': 'deep', 'stem_width': 32}))
    """
    if content.backbone.startswith(TIMM):
        return content.backbone.removeprefix(TIMM), {}
    plain = content.backbone.removesuffix(DEEP)
    if plain == content.backbone:
        return plain, {}
    return (f"{plain}c", {}) if plain in _BOTTLENECKS else (plain, {"stem_type": "deep", "stem_width": WIDTH // 2})


def mmseg_backbone(content: Content) -> str:
    """The backbone as an MMSegmentation configuration has it.

    >>> mmseg_backbone(Content("resnet50_v1c", 64, 8))
    'type="ResNetV1c", depth=50'
    """
    plain = content.backbone.removesuffix(DEEP)
    kind = "ResNet" if plain == content.backbone else "ResNetV1c"
    return f'type="{kind}", depth={plain.removeprefix("resnet")}'


def load_line(target: str, path: Path, content: Content) -> str:
    """One line of Python that loads the file or folder in the library."""
    place, name = repr(str(path)), repr(content.backbone)
    if target == "torchvision" and content.head:
        return (
            f"import torch, torchvision; network = torchvision.models.segmentation.deeplabv3_{content.backbone}"
            f"(weights=None, weights_backbone=None, num_classes={content.classes}); "
            f"network.load_state_dict(torch.load({place}, weights_only=True))"
        )
    if target == "torchvision":
        return (
            f"import torch, torchvision; network = torchvision.models.{content.backbone}(weights=None); "
            f"network.fc = torch.nn.Identity(); network.load_state_dict(torch.load({place}, weights_only=True))"
        )
    if target == "smp":
        return (
            "import torch, segmentation_models_pytorch as smp; "
            f"network = smp.Unet({name}, encoder_weights=None); "
            f"network.encoder.load_state_dict(torch.load({place}, weights_only=True))"
        )
    if target == "mmseg" and content.head:
        return f"load_from = {place}"
    if target == "mmseg":
        return (
            f"model = dict(backbone=dict({mmseg_backbone(content)}, "
            f'init_cfg=dict(type="Pretrained", checkpoint={place}, prefix="backbone.")))'
        )
    if target == "safetensors":
        return f"from safetensors.torch import load_file; weights = load_file({place})"
    if target == "onnx":
        return f"import onnxruntime; session = onnxruntime.InferenceSession({place})"
    if target == "hub":
        return f"import timm; network = timm.create_model({'local-dir:' + str(path)!r}, pretrained=True)"
    return _timm_line(place, content)


def _timm_line(place: str, content: Content) -> str:
    model, others = timm_model(content)
    if content.backbone.startswith(TIMM):  # parts that give no features, such as a last norm, are not in the file
        return (
            f"import timm, safetensors.torch; network = timm.create_model({model!r}, num_classes=0); "
            f"network.load_state_dict(safetensors.torch.load_file({place}), strict=False)"
        )
    settings = "".join(f", {key}={value!r}" for key, value in others.items())
    return f"import timm; network = timm.create_model({model!r}{settings}, num_classes=0, checkpoint_path={place})"
