"""Whether an exported file gives what the network gives: it is read from disk again, by the library it is for.

Where that library is not there, the names are mapped back and our own network stands in for it.  Libraries do not
dilate their backbones unless asked, so features are compared at their stride, 32, and at the trained one where the
library has it.
"""

import importlib
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from mdp.core.networks.parameter_names import to_own
from mdp.io.errors import CheckpointError
from mdp.io.export.content import TIMM
from mdp.io.export.source import Source
from mdp.io.export.targets import Target
from mdp.io.export.targets._common import Function, Library

TOLERANCE = 1e-5  # of the largest value
SIZE = (97, 65)  # odd, so that a grid that is rounded otherwise shows
_TIMM_SIZE = (224, 224)  # the size that all of timm's models take as they are
_OTHER = (131, 94)  # for programs, which are traced at one size and have to take any


class Checked(NamedTuple):
    """The outcome of comparing an exported file with the network."""

    reader: str  # "timm 1.0.31", or our own network
    instead: str  # why our own network stood in for the library; "" when it did not
    strides: tuple[int, ...]  # of the features that were compared
    sizes: tuple[tuple[int, ...], ...]  # of the inputs
    difference: float  # the largest, as a part of the largest value


def check_export(target: Target, path: Path, source: Source) -> Checked:
    """Compares the file, or folder, with the network it was made from.

    Raises CheckpointError when the library does not load it, or its features or logits differ by more than 1e-5 of the
    largest value.
    """
    library = target.LIBRARY
    instead = "MMSegmentation itself is not tried" if library is None else _absent(library)
    load = _own(target) if library is None or instead else library.load
    reader = "mdp's own network" if library is None or instead else f"{library.package} {_version(library.package)}"
    channels, first = source.content.image_channels, _TIMM_SIZE if source.content.backbone.startswith(TIMM) else SIZE
    sizes: tuple[tuple[int, ...], ...] = ((2, channels, *first),)
    if source.size:
        sizes = ((2, channels, *source.size), (1, channels, *source.size))
    elif library is not None and library.program:
        sizes += ((1, channels, *_OTHER),)
    elif source.content.backbone.startswith(TIMM):  # tables of positions are stretched
        sizes += ((1, channels, 4 * source.content.stride, 7 * source.content.stride),)
    rng, strides = torch.Generator().manual_seed(0), target.strides(source.content)
    images = [torch.randn(size, generator=rng) for size in sizes]  # each (B, K, H, W)
    with torch.no_grad():
        differences = [_compare(load, path, source, stride, images, reader) for stride in strides]
    return Checked(reader, instead, strides, sizes, max(differences))


def _compare(
    load: Callable[[Path, Source, int], Function],
    path: Path,
    source: Source,
    stride: int,
    images: Sequence[Tensor],
    reader: str,
) -> float:
    network = source.rebuilt(stride=stride)
    what = "logits" if source.content.head else f"features at stride {stride}"
    try:
        loaded = load(path, source, stride)
        outputs = [loaded(one) for one in images]
    except Exception as error:  # whatever a library raises, the file is not one it takes
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{path.name}: {reader} does not load what was exported: {reason}; removed") from error
    return max(_apart(path, output, network(one), what, reader) for output, one in zip(outputs, images, strict=True))


def _apart(path: Path, output: Tensor, wanted: Tensor, what: str, reader: str) -> float:
    if output.shape != wanted.shape:
        raise CheckpointError(
            f"{path.name}: {reader} gives {what} of another size, {list(output.shape)}, than the network, "
            f"{list(wanted.shape)}; removed"
        )
    apart = difference(output, wanted)
    if not apart <= TOLERANCE:  # NaN is no smaller: it fails too
        raise CheckpointError(
            f"{path.name}: {reader} gives other {what} than the network: they differ by {apart:.3g} of the largest "
            f"value, where {TOLERANCE:g} is allowed; removed"
        )
    return apart


def difference(output: Tensor, wanted: Tensor) -> float:
    """The largest difference as a part of the largest value; NaN when nothing can be compared.

    >>> difference(torch.tensor([1.0, -3.5]), torch.tensor([1.0, -4.0])), difference(torch.zeros(2), torch.zeros(2))
    (0.125, nan)
    """
    return float((output.double() - wanted.double()).abs().max() / wanted.double().abs().max())


# The libraries


def _absent(library: Library) -> str:
    """Why a library cannot be used; "" when it can."""
    try:
        importlib.import_module(library.module)
    except ModuleNotFoundError as error:
        missing = error.name or library.module
        return f"{library.package} is not installed" if missing == library.module else f"{missing} is not installed"
    except (ImportError, RuntimeError, OSError, AttributeError) as error:  # libraries that do not fit each other
        return f"{library.package} is installed and cannot be imported: {str(error).strip().splitlines()[0]}"
    return ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "of unknown version"


def _own(target: Target) -> Callable[[Path, Source, int], Function]:
    """Our own network with the weights of the file, their names mapped back."""

    def load(path: Path, source: Source, stride: int) -> Function:
        layout = target.layout(source.content)
        mapped = {to_own(name, layout) or name: tensor for name, tensor in target.read(path).items()}
        return source.rebuilt(mapped, stride)

    return load
