"""Whether an exported file gives what the network gives: it is read from disk again, by the library it is for.

Where that library is not there, the names are mapped back and our own network stands in for it.  Libraries do not
dilate their backbones unless asked, so features are compared at their stride, 32, and at the trained one where the
library has it.
"""

import importlib
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mdp.core.networks.parameter_names import to_own
from mdp.io.errors import CheckpointError, RecipeError
from mdp.io.export.onnx_file import run_onnx
from mdp.io.export.source import Source
from mdp.io.export.targets import TIMM, UNDILATED, dilates_alike, layout_of, timm_model
from mdp.io.run.checkpoint import read_tensors

TOLERANCE = 1e-5  # of the largest value
SIZE = (2, 3, 97, 65)  # odd, so that a grid that is rounded otherwise shows
_TIMM_SIZE = (2, 3, 224, 224)  # the size that all of timm's models take as they are
Function = Callable[[Tensor], Tensor]


class Library(NamedTuple):
    """What reads the files of a target."""

    module: str
    package: str
    load: Callable[[Path, Source, int], Function]


class Checked(NamedTuple):
    """What an exported file was compared with."""

    reader: str  # "timm 1.0.31", or our own network
    instead: str  # why our own network stood in for the library; "" when it did not
    strides: tuple[int, ...]  # of the features that were compared
    size: tuple[int, ...]  # of the input
    difference: float  # the largest, as a part of the largest value


def check_export(target: str, path: Path, source: Source) -> Checked:
    """Compares the file, or folder, with the network it was made from.

    Raises CheckpointError when the library does not load it, or its features or logits differ by more than 1e-5 of the
    largest value.
    """
    library = LIBRARIES.get(target)
    instead = "MMSegmentation itself is not tried" if library is None else _absent(library)
    load = _own(target) if library is None or instead else library.load
    reader = "mdp's own network" if library is None or instead else f"{library.package} {_version(library.package)}"
    size = _TIMM_SIZE if source.content.backbone.startswith(TIMM) else SIZE
    images = torch.randn(size, generator=torch.Generator().manual_seed(0))  # (2, 3, H, W)
    strides = _strides(target, source)
    with torch.no_grad():
        found = [_compare(load, path, source, stride, images, reader) for stride in strides]
    return Checked(reader, instead, strides, size, max(found))


def _compare(
    load: Callable[[Path, Source, int], Function],
    path: Path,
    source: Source,
    stride: int,
    images: Tensor,
    reader: str,
) -> float:
    wanted = source.rebuilt(stride=stride)(images)
    try:
        found = load(path, source, stride)(images)
    except Exception as error:  # whatever a library raises, the file is not one it takes
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{path.name}: {reader} does not load what was exported: {reason}; removed") from error
    what = "logits" if source.content.head else f"features at stride {stride}"
    if found.shape != wanted.shape:
        raise CheckpointError(
            f"{path.name}: {reader} gives {what} of another size, {list(found.shape)}, than the network, "
            f"{list(wanted.shape)}; removed"
        )
    apart = difference(found, wanted)
    if not apart <= TOLERANCE:
        raise CheckpointError(
            f"{path.name}: {reader} gives other {what} than the network: they differ by {apart:.3g} of the largest "
            f"value, where {TOLERANCE:g} is allowed; removed"
        )
    return apart


def difference(found: Tensor, wanted: Tensor) -> float:
    """The largest difference as a part of the largest value; NaN when nothing can be compared.

    >>> difference(torch.tensor([1.0, -3.5]), torch.tensor([1.0, -4.0])), difference(torch.zeros(2), torch.zeros(2))
    (0.125, nan)
    """
    return float((found.double() - wanted.double()).abs().max() / wanted.double().abs().max())


def _strides(target: str, source: Source) -> tuple[int, ...]:
    """The strides to compare at: the library's own, and the trained one where the library has it."""
    content, trained = source.content, source.content.stride
    if content.head or target in ("safetensors", "onnx") or content.backbone.startswith(TIMM):
        return (trained,)
    return (UNDILATED, trained) if trained != UNDILATED and dilates_alike(target, content) else (UNDILATED,)


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


def _own(target: str) -> Callable[[Path, Source, int], Function]:
    """Our own network with the weights of the file, their names mapped back."""

    def load(path: Path, source: Source, stride: int) -> Function:
        layout = layout_of(target, source.content)
        mapped = {to_own(name, layout) or name: tensor for name, tensor in read_back(target, path).items()}
        return source.rebuilt(mapped, stride)

    return load


def read_back(target: str, path: Path) -> dict[str, Tensor]:
    """The tensors of an exported file or folder, by the library's names."""
    if path.is_dir():
        path = path / "model.safetensors"
    if path.suffix == ".safetensors":
        return read_tensors(path)[0]
    loaded: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return dict(loaded["state_dict"] if target == "mmseg" else loaded)


def _torchvision(path: Path, source: Source, stride: int) -> Function:
    models: Any = importlib.import_module("torchvision.models")
    state, content = torch.load(path, map_location="cpu", weights_only=True), source.content
    if content.head:
        name, classes = f"deeplabv3_{content.backbone}", content.classes
        segmentor = models.get_model(name, weights=None, weights_backbone=None, num_classes=classes).eval()
        segmentor.load_state_dict(state)
        return lambda images: segmentor(images)["out"]
    dilated = {8: [False, True, True], 16: [False, False, True]}.get(stride)
    settings = {"replace_stride_with_dilation": dilated} if dilated else {}
    network = models.get_model(content.backbone, weights=None, **settings).eval()
    network.fc = nn.Identity()
    network.load_state_dict(state)
    return nn.Sequential(*list(network.children())[:-2])  # up to the pooling


def _smp(path: Path, source: Source, stride: int) -> Function:
    library: Any = importlib.import_module("segmentation_models_pytorch")
    encoder = library.Unet(source.content.backbone, encoder_weights=None).encoder.eval()
    encoder.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return lambda images: encoder(images)[-1]


def _timm(path: Path, source: Source, stride: int) -> Function:
    timm: Any = importlib.import_module("timm")
    name, settings = timm_model(source.content)
    if source.content.backbone.startswith(TIMM):
        return _timm_own(timm.create_model(name, num_classes=0), read_back("timm", path))
    if path.is_dir():
        network = timm.create_model(f"local-dir:{path}", pretrained=True, output_stride=stride)
    else:
        network = timm.create_model(name, **settings, num_classes=0, output_stride=stride, checkpoint_path=str(path))
    forward: Function = network.eval().forward_features
    return forward


def _timm_own(network: Any, state: dict[str, Tensor]) -> Function:
    """A backbone of timm's back in timm: what gives no features, such as a last norm, was never in the run."""
    unknown = network.load_state_dict(state, strict=False).unexpected_keys
    if unknown:
        raise CheckpointError(f"timm has no {unknown[0]}")
    network.eval()
    return lambda images: network.forward_intermediates(images, intermediates_only=True, output_fmt="NCHW")[-1]


def refuse_incomplete(source: Source) -> None:
    """Raises RecipeError when timm's model has parameters that give no features: it wants them all of a folder."""
    timm: Any = importlib.import_module("timm")
    name, _ = timm_model(source.content)
    with torch.device("meta"):
        wanted = timm.create_model(name, num_classes=0).state_dict()
    lacking = [key for key in wanted if f"backbone.{key}" not in source.weights]
    if lacking:
        raise RecipeError(
            f"--to hub: timm wants all of {name} in a folder, and {lacking[0]}, which gives no features, was not "
            "trained; what can hold it: timm, safetensors, onnx"
        )


def _safetensors(path: Path, source: Source, stride: int) -> Function:
    library: Any = importlib.import_module("safetensors.torch")
    state = library.load_file(str(path))
    layout = layout_of("safetensors", source.content)
    return source.rebuilt({to_own(name, layout) or name: tensor for name, tensor in state.items()}, stride)


def _onnx(path: Path, source: Source, stride: int) -> Function:
    return run_onnx(path)


LIBRARIES = {
    "torchvision": Library("torchvision", "torchvision", _torchvision),
    "timm": Library("timm", "timm", _timm),
    "smp": Library("segmentation_models_pytorch", "segmentation-models-pytorch", _smp),
    "safetensors": Library("safetensors.torch", "safetensors", _safetensors),
    "onnx": Library("onnxruntime", "onnxruntime", _onnx),
    "hub": Library("timm", "timm", _timm),
}
