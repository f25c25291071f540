"""Functions that several targets share."""

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mdp.core.networks.parameter_names import BARE, DEEP_STEM, Layout
from mdp.io.export.card import texts_of
from mdp.io.export.content import BOTTLENECKS, DEEP, TIMM, UNDILATED, WIDTH, Content
from mdp.io.export.source import Source
from mdp.io.files.writing import write_atomically
from mdp.io.run.checkpoint import read_tensors, save_plain

Function = Callable[[Tensor], Tensor]


class Library(NamedTuple):
    """The library that reads the files of a target."""

    module: str
    package: str
    load: Callable[[Path, Source, int], Function]  # at that stride
    program: bool = False  # its files hold the network itself, traced at one size: tried at another one too


def nothing_to_install() -> None:
    """Of targets that are written without a library."""


def any_source(source: Source) -> None:
    """Of targets that take whatever does not misfit."""


def misfit(
    content: Content, *, deep: bool, timm: bool, narrow: bool, heads: tuple[str, ...] | None, rgb: bool = False
) -> str:
    """Why a library cannot hold the network; "" when it can.

    `deep`: it has backbones with a stem of three convolutions; `timm`: timm's; `narrow`: of any width; `heads`: of
    whole networks, None for all; `rgb`: its first convolution is for three channels.
    """
    if rgb and content.image_channels != 3:
        return f"its networks take three channels, this one {content.image_channels} (image.bands of the data)"
    if content.head and heads == ():
        return "it holds backbones only, leave --segmentor out"
    if content.backbone.startswith(TIMM) and not timm:
        return f"it does not have timm's backbones, such as this {content.backbone.removeprefix(TIMM)}"
    if content.backbone.endswith(DEEP) and not deep:
        return f"its ResNets begin with a 7x7 convolution, {content.backbone} with three of 3x3"
    if content.width != WIDTH and not narrow:
        return f"its networks have {WIDTH} channels in the first stage, this one has {content.width} (model.width)"
    if content.head and heads is not None and content.head not in heads:
        return f"its heads are {', '.join(heads)}, and {content.head} has other layers (model.head)"
    return ""


def has_bottlenecks(content: Content) -> bool:
    """Whether the backbone is a ResNet of bottleneck blocks, which most libraries dilate as we do."""
    return content.plain in BOTTLENECKS


def bare(content: Content) -> Layout:
    """torchvision's names of a backbone."""
    return BARE


def bare_or_deep(content: Content) -> Layout:
    """timm's names of a backbone."""
    return DEEP_STEM if content.backbone.endswith(DEEP) else BARE


def trained_stride(content: Content) -> tuple[int, ...]:
    """Of files that our own network, or itself, makes features of."""
    return (content.stride,)


def library_strides(content: Content, dilates: bool) -> tuple[int, ...]:
    """The library's own stride, and the trained one where the library, asked to, dilates as it was trained."""
    if content.head or content.backbone.startswith(TIMM):
        return (content.stride,)
    return (UNDILATED, content.stride) if content.stride != UNDILATED and dilates else (UNDILATED,)


def write_pickle(path: Path, source: Source, tensors: dict[str, Tensor], known: Mapping[str, Any]) -> None:
    """A file of torch's, of the tensors alone."""
    write_atomically(path, [pickled(tensors)])


def pickled(value: Any) -> bytes:
    """The bytes that torch.save writes; in memory, because the file's name would become part of them."""
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def read_pickle(path: Path) -> dict[str, Tensor]:
    """The tensors of such a file."""
    return dict(torch.load(path, map_location="cpu", weights_only=True))


def write_safetensors(path: Path, source: Source, tensors: dict[str, Tensor], known: Mapping[str, Any]) -> None:
    """A file of safetensors', with the facts as its free text."""
    save_plain(path, tensors, texts_of(known))


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of such a file."""
    return read_tensors(path)[0]


def enlarged(known: Mapping[str, Any]) -> dict[str, Any]:
    """Of a whole network as a program, that its logits are those of pixels."""
    where = "the input's resolution (bilinear, align_corners false)"
    return {"output": f"{known['output']} at {where}"} if "output" in known else {}


def at_the_grid(known: Mapping[str, Any]) -> dict[str, Any]:
    """Of a whole network, what it gives: our heads do not enlarge."""
    return {"output": f"{known['output']} at the feature grid"} if "output" in known else {}
