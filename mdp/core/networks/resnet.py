"""ResNet feature extractors with torchvision's parameter names (He et al. 2016), dilated for dense prediction.

`output_stride` 8 or 16 trades the stride of the last stages for dilation; the first block of a dilated stage keeps
the dilation before it, as torchvision and MMSegmentation have it, or has the stage's own, as MoCo's dense transfer and
segmentation_models_pytorch have it.  Shape legend: B images, H x W image, s stride.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mdp.core.networks.feature_maps import FeatureMaps


class Layout(NamedTuple):
    """Blocks in each stage, whether they are bottlenecks, and whether the stem has three convolutions."""

    blocks: tuple[int, int, int, int]
    bottleneck: bool
    deep_stem: bool = False


_PLAIN = {
    "resnet18": Layout((2, 2, 2, 2), False),
    "resnet34": Layout((3, 4, 6, 3), False),
    "resnet50": Layout((3, 4, 6, 3), True),
    "resnet101": Layout((3, 4, 23, 3), True),
}
FIRST_DILATIONS = ("before", "own")  # of the first block of a dilated stage
# MMSegmentation's ResNetV1c, which its published DeepLabs have
LAYOUTS = _PLAIN | {f"{name}_v1c": layout._replace(deep_stem=True) for name, layout in _PLAIN.items()}


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (ResNet-18 and -34).

    torchvision does not dilate this block; here the second convolution, which comes after the place of the stride,
    has the stage's new dilation, so that a dilated network samples what the strided one does.
    """

    expansion = 1

    def __init__(self, inputs: int, planes: int, stride: int, first_dilation: int, dilation: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, first_dilation, first_dilation, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(inputs, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        out: Tensor = self.relu(y + (x if self.downsample is None else self.downsample(x)))
        return out


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 and a shortcut, the stride on the 3x3 (ResNet-50 and deeper)."""

    expansion = 4

    def __init__(self, inputs: int, planes: int, stride: int, first_dilation: int, dilation: int) -> None:
        super().__init__()
        outputs = planes * self.expansion
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, first_dilation, first_dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        out: Tensor = self.relu(y + (x if self.downsample is None else self.downsample(x)))
        return out


def shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    """A projection where the shape changes, nothing where it does not."""
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


def deep_stem(width: int, image_channels: int = 3) -> nn.Sequential:
    """Three 3x3 convolutions of width / 2, width / 2 and width channels, the first with stride 2 (He et al. 2019)."""
    half = max(1, width // 2)
    layers: list[nn.Module] = []
    for inputs, outputs, stride in ((image_channels, half, 2), (half, half, 1), (half, width, 1)):
        layers += [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)]
        layers += [nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def stage_channels(name: str, width: int) -> tuple[int, int, int, int]:
    """Channels of the four stages.

    >>> stage_channels("resnet50", 64)
    (256, 512, 1024, 2048)
    """
    first = width * (Bottleneck.expansion if LAYOUTS[name].bottleneck else BasicBlock.expansion)
    return first, 2 * first, 4 * first, 8 * first


class ResNet(nn.Module):
    """Features of a residual network; no pooling, no classifier.

    `width` is the number of channels of the first stage: 64 in the published networks, less for small machines.
    `first_dilation` is that of the 3x3 convolution in place of the stride, `before` or `own`.
    Raises ValueError for an unknown name, stride or first dilation.
    """

    def __init__(
        self,
        name: str,
        width: int = 64,
        output_stride: int = 8,
        image_channels: int = 3,
        first_dilation: str = "before",
    ) -> None:
        super().__init__()
        if name not in LAYOUTS:
            raise ValueError(f"backbone: expected one of {', '.join(LAYOUTS)}, got {name!r}")
        if output_stride not in (8, 16, 32):
            raise ValueError(f"output_stride: expected 8, 16 or 32, got {output_stride}")
        if first_dilation not in FIRST_DILATIONS:
            raise ValueError(f"first_dilation: expected {' or '.join(FIRST_DILATIONS)}, got {first_dilation!r}")
        layout = LAYOUTS[name]
        block = Bottleneck if layout.bottleneck else BasicBlock
        self.deep_stem = layout.deep_stem
        if layout.deep_stem:
            self.stem = deep_stem(width, image_channels)
        else:
            self.conv1 = nn.Conv2d(image_channels, width, 7, 2, 3, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs, reached, dilation = width, 4, 1
        stages = []
        for stage, count in enumerate(layout.blocks):
            planes, stride, first = width * 2**stage, 1 if stage == 0 else 2, dilation
            if stride == 2 and reached == output_stride:
                stride, dilation = 1, dilation * 2
            reached *= stride
            first = dilation if first_dilation == "own" else first
            blocks = [block(inputs, planes, stride, first, dilation)]
            inputs = planes * block.expansion
            blocks += [block(inputs, planes, 1, dilation, dilation) for _ in range(count - 1)]
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.channels, self.low_channels = inputs, width * block.expansion
        self.stage_channels = stage_channels(name, width)
        self.checkpointed = False  # see gradient_checkpointing.py

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, channels, ceil(H / s), ceil(W / s)), the features of stage 4."""
        return self.maps(images).last

    def maps(self, images: Tensor) -> FeatureMaps:
        """The features of stage 4, and those of stage 1 as the finer map."""
        x = self.stem(images) if self.deep_stem else self.relu(self.bn1(self.conv1(images)))  # (B, width, H/2, W/2)
        low = self._stage(self.layer1, self.maxpool(x))  # (B, low_channels, ceil(H / 4), ceil(W / 4))
        x = self._stage(self.layer2, low)  # (B, ., ceil(H / 8), ceil(W / 8))
        x = self._stage(self.layer3, x)
        return FeatureMaps(self._stage(self.layer4, x), low)  # (B, channels, ceil(H / s), ceil(W / s))

    def stages(self, images: Tensor) -> FeatureMaps:
        """The features of all four stages; `maps` lets go of those it does not give."""
        x = self.stem(images) if self.deep_stem else self.relu(self.bn1(self.conv1(images)))  # (B, width, H/2, W/2)
        first = self._stage(self.layer1, self.maxpool(x))  # (B, ., ceil(H / 4), ceil(W / 4))
        second = self._stage(self.layer2, first)  # (B, ., ceil(H / 8), ceil(W / 8))
        third = self._stage(self.layer3, second)
        fourth = self._stage(self.layer4, third)  # (B, channels, ceil(H / s), ceil(W / s))
        return FeatureMaps(fourth, None, (first, second, third, fourth))

    def _stage(self, stage: nn.Module, x: Tensor) -> Tensor:
        """A stage, of which only the inputs of its blocks are kept where `checkpointed` says so."""
        if not (self.checkpointed and torch.is_grad_enabled()):
            out: Tensor = stage(x)
            return out
        for block in stage.children():
            x = checkpoint(block, x, use_reentrant=False)
        return x


def initialise_(network: nn.Module, rng: torch.Generator) -> None:
    """Kaiming-normal convolutions (fan out, ReLU), unit BatchNorm, zero biases; every residual branch starts at zero.
    Linear layers as torch starts them.

    All draws come from `rng`, in the order of the modules.  Raises ValueError for a module with weights of its own
    that has no rule here.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=rng)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            if module.affine:
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):  # torch's own rule, which MoCo keeps
            nn.init.kaiming_uniform_(module.weight, a=5**0.5, generator=rng)
            if module.bias is not None:
                nn.init.uniform_(module.bias, -(module.in_features**-0.5), module.in_features**-0.5, generator=rng)
        elif next(module.parameters(recurse=False), None) is not None:
            raise ValueError(f"initialise_: expected convolutions, BatchNorm and Linear, got {type(module).__name__}")
    for module in network.modules():
        if isinstance(module, Bottleneck):
            nn.init.zeros_(module.bn3.weight)
        elif isinstance(module, BasicBlock):
            nn.init.zeros_(module.bn2.weight)
