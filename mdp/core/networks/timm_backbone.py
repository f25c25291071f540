"""Backbones out of timm, an optional extra: any of its models whose feature maps lie on a regular grid.

The model is timm's own, so that its parameters have timm's names; random weights only, nothing is ever downloaded.
This file holds the one optional import of the core, inside a function: a network has to be a function of settings and
`rng` alone, for every method and notebook, which a builder handed in from outside would not let it be.
Shape legend: B images, H x W image, h x w feature grid, s stride.
"""

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mdp.core.networks.cell_centres import centre_of
from mdp.core.networks.depthwise import as_depthwise_
from mdp.core.networks.feature_maps import FeatureMaps
from mdp.core.photometry import Statistics

PREFIX = "timm:"
_PROBED = (448, 896)  # divisible by all strides, patches and windows there are, and not square
# what a model raises for an argument it does not have, or for a size it was not made for
_MISFIT = (TypeError, ValueError, AssertionError, NotImplementedError, RuntimeError, IndexError, KeyError)


class Description(NamedTuple):
    """A model's strides, channels and unused parameters, found on torch's meta device, without computing."""

    name: str
    arguments: tuple[tuple[str, Any], ...]  # for timm.create_model
    stride: int  # of the last feature map
    channels: int
    last: int  # its place among the model's feature maps
    low_channels: int | None  # of the finer map, if it was asked for
    low: int | None
    multiple: int  # images are padded to multiples of this, 1: not at all; then the grid is rounded up, see `maps`
    unused: tuple[str, ...]  # modules that do not run: final norms, classifiers
    silent: tuple[str, ...]  # other parameters that the feature maps do not depend on
    offset: int = 0  # the pixel of the stride that a cell of the last map is centred on
    finest_offset: int = 0  # likewise of the finer map, or of the first stage, where there are such
    stages: tuple[int, ...] = ()  # places of the maps of four stages, if they were asked for, the finest first
    stage_channels: tuple[int, ...] = ()
    stage_strides: tuple[int, ...] = ()


def describe(
    name: str,
    output_stride: int | None = None,
    low_stride: int | None = None,
    stages: bool = False,
    image_channels: int = 3,
) -> Description:
    """`timm:NAME` at that output stride (None: its own), with a finer map of stride `low_stride` or none, described.

    `stages`: with the maps of four stages.

    Raises ValueError, in one line, where timm is missing, the name is unknown, or the model has no such maps.
    """
    with _without_a_trace():
        return _described(name, output_stride, low_stride, stages, image_channels)


@lru_cache(maxsize=32)
def _described(
    name: str, output_stride: int | None, low_stride: int | None, staged: bool, image_channels: int
) -> Description:
    _refuse_unknown(name)
    arguments, trial = _at_stride(name, output_stride, image_channels)
    shapes = trial.shapes
    last, stride = len(shapes) - 1, _stride(shapes[-1])
    if stride is None:
        raise ValueError(f"backbone: the maps of {PREFIX}{name} do not lie on a regular grid; take another model")
    low = None if low_stride is None else _finer(name, shapes, low_stride)
    stages = _stages(name, shapes) if staged else ()
    wanted = _wanted(last, low, stages)
    maps = [trial.maps[place] for place in wanted]
    centres = [centre_of(cells, trial.image) for cells in maps]
    unused, silent = _left_over(trial, maps)
    return Description(
        name=name,
        arguments=tuple(arguments.items()),
        stride=stride,
        channels=shapes[last][1],
        last=last,
        low_channels=None if low is None else shapes[low][1],
        low=low,
        multiple=_multiple(name, trial.model, stride, arguments) if all(centre.fixed for centre in centres) else stride,
        unused=unused,
        silent=silent,
        offset=int(centres[-1].offset),
        finest_offset=int(centres[0].offset),
        stages=stages,
        stage_channels=tuple(shapes[place][1] for place in stages),
        stage_strides=tuple(_stride(shapes[place]) or 0 for place in stages),
    )


def _wanted(last: int, low: int | None, stages: tuple[int, ...]) -> list[int]:
    """The places of the maps that a forward pass gives, in order."""
    return [*stages] if stages else [last] if low is None else [low, last]


def _stages(name: str, shapes: list[torch.Size]) -> tuple[int, ...]:
    """The places of four maps: the last of each stride, or, where all have one (a ViT's), at quarters of the depth."""
    strides = [_stride(shape) for shape in shapes]
    if len(shapes) < 4 or None in strides:
        found = f"{len(shapes)} maps, not all of them on a regular grid" if None in strides else f"{len(shapes)} maps"
        raise ValueError(f"head: it joins four feature maps, and {PREFIX}{name} has {found}; take another head")
    places = [strides.index(s) + strides.count(s) - 1 for s in sorted({s for s in strides if s})]
    if len(shapes) <= 5:  # a map a stage, and some have the stem's
        return tuple(range(len(shapes) - 4, len(shapes)))
    quarters = [len(shapes) * (part + 1) // 4 - 1 for part in range(4)]
    return tuple(places[-4:]) if len(places) >= 4 else tuple(quarters)


@lru_cache(maxsize=32)
def expect_drop_path(name: str) -> None:
    """Raises ValueError where the model has no blocks that images can pass by in training."""
    _refuse_unknown(name)
    model: nn.Module | None = None
    with _without_a_trace(), suppress(TypeError):
        model = _model(name, {"drop_path_rate": 0.1})
    if model is None or not any(isinstance(module, _timm().layers.DropPath) for module in model.modules()):
        raise ValueError(f"drop_path: {PREFIX}{name} has no blocks that can be passed by; leave it at 0")


def build(description: Description, drop_path: float = 0.0) -> nn.Module:
    """timm's model as described, its weights drawn from torch's global CPU generator, which the caller guards.

    In training, a share of the images that rises to `drop_path` passes its blocks by, by torch's global generator.
    What does not run is taken out; other parameters without gradient are frozen.  All other names are timm's.
    """
    depth = {"drop_path_rate": drop_path} if drop_path else {}
    model = _model(description.name, dict(description.arguments) | depth)
    for name in description.unused:
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, nn.Identity())
    for name in description.silent:
        model.get_parameter(name).requires_grad_(False)
    return as_depthwise_(model).train()


def maps(description: Description, model: nn.Module, images: Tensor) -> FeatureMaps:
    """The model's feature maps of images (B, 3, H, W), on grids (ceil(H / s), ceil(W / s)), as they leave the stages.

    There is no final norm: every head begins with a convolution and BatchNorm, which undo a scale.
    TensorFlow's padding lies on other sides at other sizes, up to half a stride a layer; at multiples of the stride,
    to which images are padded for such a model, its cells are centred on the same place in all sizes.
    """
    height, width = images.shape[2:]
    if description.multiple > 1:  # without asking whether the size needs it: an exported program is of any size
        padding = (0, -width % description.multiple, 0, -height % description.multiple)
        images = F.pad(images, padding)  # with 0, the mean colour
    found = _forward(model, images, _wanted(description.last, description.low, description.stages))
    if description.stages:  # on grids that are rounded up, without what lies in the padding
        sides = [(-(-height // stride), -(-width // stride)) for stride in description.stage_strides]
        stages = [one[:, :, :h, :w] for one, (h, w) in zip(found, sides, strict=True)]
        return FeatureMaps(stages[-1], None, tuple(stages))
    return FeatureMaps(found[-1], None if description.low is None else found[0])


def layers(model: nn.Module) -> dict[str, int]:
    """The layer of every parameter by its name, 0 nearest to the input: timm's own finest grouping.

    Raises ValueError for a model that has none.
    """
    matcher = getattr(model, "group_matcher", None)
    if matcher is None:
        raise ValueError(f"layer_decay: {type(model).__name__} of timm does not say which layers it has; leave it at 1")
    grouped: dict[str, int] = _timm().models.group_parameters(model, matcher(coarse=False), reverse=True)
    return grouped


def statistics(name: str) -> Statistics | None:
    """The mean and deviation by which timm gives the model its images; None where it says none."""
    config = _timm().get_pretrained_cfg(name)
    return None if config is None else Statistics(tuple(config.mean), tuple(config.std))


def pretrained(name: str) -> tuple[str, str] | None:
    """Where timm has the weights of a model: its repository on the hub and the file's address elsewhere.

    "" for either that there is not, None where there are none at all.  Nothing is fetched.  Raises ValueError for a
    name that timm does not know.
    """
    _refuse_unknown(name)
    config = _timm().get_pretrained_cfg(name)
    return None if config is None or not config.has_weights else (config.hf_hub_id or "", config.url or "")


# timm


def _timm() -> ModuleType:
    try:
        import timm
    except ImportError as error:
        raise ValueError(
            f"backbone: {PREFIX}... needs the extra timm, which cannot be imported ({error}); "
            "pip install 'mdp-segmentation[timm]'"
        ) from error
    except RuntimeError as error:
        reason = str(error).strip().split("\n")[0]
        if "torchvision::" in reason:  # its compiled part was not loaded: one wheel is for CUDA, the other for the CPU
            reason = (
                f"its torchvision does not fit torch {torch.__version__} ({reason}): the two come from different "
                "sources; install both from one, in one command, with the index that torch came from: "
                "pip install --force-reinstall torch torchvision --index-url INDEX"
            )
        raise ValueError(f"backbone: timm is installed and cannot be imported: {reason}") from error
    module: ModuleType = timm
    return module


def _refuse_unknown(name: str) -> None:
    """Only what timm itself lists: create_model would also take addresses of hubs and folders."""
    timm = _timm()
    plain, _, tag = name.partition(".")
    known = timm.list_models()
    if plain not in known:
        raise ValueError(_no_such(plain, difflib.get_close_matches(plain, known, n=3)))
    tagged = timm.list_pretrained(f"{plain}.*") if tag else [name]
    if name not in tagged:
        raise ValueError(_no_such(name, [plain, *difflib.get_close_matches(name, tagged, n=3)]))


def _no_such(name: str, near: list[str]) -> str:
    close = ", ".join(PREFIX + other for other in near) or "nothing; timm.list_models() lists them"
    return f"backbone: timm {_timm().__version__} has no model {name!r}; near it: {close}"


def _model(name: str, arguments: dict[str, Any]) -> nn.Module:
    model: nn.Module = _timm().create_model(name, pretrained=False, num_classes=0, **arguments)
    return model


def _forward(model: nn.Module, images: Tensor, wanted: list[int] | None) -> list[Tensor]:
    found: list[Tensor] = model.forward_intermediates(  # type: ignore[operator]
        images, indices=wanted, intermediates_only=True, output_fmt="NCHW"
    )
    return found


# Finding out


@contextmanager
def _without_a_trace() -> Iterator[None]:
    """On the meta device, with gradients whatever is set outside, and with the global generator put back."""
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=[]), torch.device("meta"):
        yield


class _Trial(NamedTuple):
    """A forward pass of the probed size, from which everything is read that a description says."""

    model: nn.Module
    image: Tensor  # asks for gradients
    maps: list[Tensor]  # all there are
    ran: set[str]  # the modules that were called

    @property
    def shapes(self) -> list[torch.Size]:
        return [found.shape for found in self.maps]


def _at_stride(name: str, output_stride: int | None, image_channels: int) -> tuple[dict[str, Any], _Trial]:
    """The model with that output stride, dilated if need be: its arguments, and what it does."""
    arguments: dict[str, Any] = {} if image_channels == 3 else {"in_chans": image_channels}
    sized, model = _of_any_size(name, arguments)
    arguments |= sized
    trial = _tried(name, model, arguments)
    stride = _stride(trial.shapes[-1])
    if output_stride in (None, stride):
        return arguments, trial
    if stride is None:
        raise ValueError(f"backbone: the maps of {PREFIX}{name} do not lie on a regular grid; take another model")
    dilated = _dilated(name, arguments, output_stride)
    if dilated is None:
        raise ValueError(f"output_stride: {PREFIX}{name} has {_strides(name, arguments, stride)}, got {output_stride}")
    return {**arguments, "output_stride": output_stride}, dilated


def _finer(name: str, shapes: list[torch.Size], stride: int) -> int:
    """The place of the last map with that stride."""
    places = [place for place, shape in enumerate(shapes) if _stride(shape) == stride]
    if not places:
        found = ", ".join(map(str, sorted({s for s in map(_stride, shapes) if s})))
        raise ValueError(
            f"head: it joins features of stride {stride}, and those of {PREFIX}{name} have {found}; take another head"
        )
    return places[-1]


def _of_any_size(name: str, arguments: dict[str, Any]) -> tuple[dict[str, Any], nn.Module]:
    """The model, and the argument that lets a transformer take images of any size; none for models without it."""
    sized = {"dynamic_img_size": True}
    try:
        return sized, _model(name, sized | arguments)
    except TypeError as error:
        if "dynamic_img_size" not in str(error):
            raise
    return {}, _model(name, arguments)


def _images(arguments: dict[str, Any], height: int, width: int) -> Tensor:
    """Two images of as many channels as the model takes."""
    return torch.empty(2, arguments.get("in_chans", 3), height, width)


def _tried(name: str, model: nn.Module, arguments: dict[str, Any]) -> _Trial:
    """What the model makes of an image of the probed size.  Raises ValueError where it has no feature maps."""
    if not hasattr(model, "forward_intermediates"):
        raise ValueError(f"backbone: {PREFIX}{name} gives no feature maps; take another model")
    image = _images(arguments, *_PROBED).requires_grad_()
    ran: set[str] = set()
    names = {module: name for name, module in model.named_modules()}
    hooks = [module.register_forward_hook(lambda module, *_: ran.add(names[module])) for module in names]
    try:
        return _Trial(model, image, _forward(model.eval(), image, None), ran)
    except _MISFIT as error:
        raise ValueError(_one_size(name, error)) from error
    finally:
        for hook in hooks:
            hook.remove()


def _one_size(name: str, error: Exception) -> str:
    reason = (str(error) or type(error).__name__).split("\n")[0][:100]
    return f"backbone: {PREFIX}{name} does not take images of any size ({reason}); take another model"


def _stride(shape: torch.Size) -> int | None:
    """The whole number that the probed size was divided by, in both directions; None where there is none."""
    if len(shape) != 4 or not shape[2]:
        return None
    stride = _PROBED[0] // shape[2]
    return stride if tuple(stride * side for side in shape[2:]) == _PROBED else None


def _dilated(name: str, arguments: dict[str, Any], stride: int | None) -> _Trial | None:
    """The model at another output stride; None where timm cannot do that."""
    try:
        trial = _tried(name, _model(name, {**arguments, "output_stride": stride}), arguments)
    except _MISFIT:
        return None
    return trial if _stride(trial.shapes[-1]) == stride else None


def _strides(name: str, arguments: dict[str, Any], own: int) -> str:
    """`features of stride 8, 16 or 32`."""
    found = [stride for stride in (8, 16, 32) if stride == own or _dilated(name, arguments, stride)]
    return f"features of stride {' or '.join(map(str, sorted({*found, own})))}"


def _multiple(name: str, model: nn.Module, stride: int, arguments: dict[str, Any]) -> int:
    """The multiple that image sizes must be padded to for a grid that is rounded up; most often 1, or the stride."""
    sizes = 9 * stride + 1, 11 * stride + 1
    problem: Exception = ValueError("the grid is not regular")
    for multiple in (1, stride):
        padded = [size + -size % multiple for size in sizes]
        try:
            with torch.no_grad():
                shape = _forward(model, _images(arguments, *padded), None)[-1].shape
        except _MISFIT as error:
            problem = error
            continue
        if tuple(shape[2:]) == (10, 12):
            return multiple
    raise ValueError(_one_size(name, problem))


def _left_over(trial: _Trial, maps: list[Tensor]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The modules (outermost only) that neither run nor matter, and the parameters that do not matter otherwise."""
    reached = _reached(maps)
    silent, alive = [], set(trial.ran)
    for name, parameter in trial.model.named_parameters():
        silent.append(name) if id(parameter) not in reached else alive.add(name)
    alive = _outer(alive)
    idle = (_outer(silent) & {name for name, _ in trial.model.named_modules()}) - alive
    unused = tuple(sorted(name for name in idle if name.rpartition(".")[0] not in idle))
    return unused, tuple(name for name in silent if not _outer([name]) & {*unused})


def _reached(maps: list[Tensor]) -> set[int]:
    """By `id`, the tensors that would have a gradient if the maps had one: the leaves of autograd's graph."""
    waiting: list[Any] = [one.grad_fn for one in maps]
    seen, leaves = set(waiting), set()
    while waiting:
        node = waiting.pop()
        leaves.add(id(getattr(node, "variable", None)))
        new = {before for before, _ in node.next_functions if before is not None} - seen
        seen |= new
        waiting.extend(new)
    return leaves


def _outer(names: Iterable[str]) -> set[str]:
    """The names, and those of everything around them: `a.b` gives `a.b`, `a` and the model itself, ``."""
    parts = [name.split(".") for name in names]
    return {"", *(".".join(some[:count]) for some in parts for count in range(1, len(some) + 1))}
