"""Which weights of a file fit a network: found by name under any prefix, matched by name and shape.

Files wrap the same network differently (`module.encoder_q.conv1.weight`, `teacher.backbone.conv1.weight`), so where
it lies is not looked up in a list of projects but counted: it is where most of the network's names appear.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from mdp.core.networks.first_convolution import adaptable, adapted
from mdp.core.networks.parameter_names import (
    BARE,
    DEEP_STEM,
    MMSEG,
    MMSEG_CASCADE,
    TORCHVISION_DEEPLAB,
    Layout,
    to_foreign,
)

BACKBONE = "backbone."
# The first that fits as well as any names the file; each is tried under every prefix
LAYOUTS: dict[str, Layout] = {
    "mdp or MMSegmentation": (*MMSEG, ("projection_head.", "projection_head."), ("prototypes.", "prototypes.")),
    "torchvision segmentation": TORCHVISION_DEEPLAB,
    "bare backbone": BARE,
    "MMSegmentation, two heads": MMSEG_CASCADE,
    "bare backbone, timm's deep stem": DEEP_STEM,
}
# Where several fit equally well: averaged weights (DINO's authors advise the teacher), then what was trained by
# gradients (query, online, base, student), last what only follows it, and an optimizer's moments
_FIRST = {"teacher", "ema"}
_LAST = {"key", "k", "momentum", "target", "optimizer", "optim"}


class Location(NamedTuple):
    """A part of a file in which the network's names appear."""

    prefix: str  # before all names, such as `state_dict.module.`
    layout: str  # of the names after it, a key of LAYOUTS
    backbone: str  # before the backbone's names, such as `state_dict.module.backbone.`
    fits: int  # backbone tensors there, of the network's shape
    named: int  # backbone tensors there, of any shape
    rank: int  # 0 is preferred to 1 and 2 where as many tensors fit


class Match(NamedTuple):
    """The tensors that fit, and the names of those that do not."""

    tensors: dict[str, Tensor]  # by the network's own names
    missing: list[str]  # the network has it, the file does not
    unexpected: list[str]  # the file has it, the network does not
    wrong_shape: dict[str, tuple[int, ...]]  # both have it; the file's shape, which is not the network's (nor its kind)
    adapted: tuple[str, ...] = ()  # first convolutions that were for RGB, and were made to fit


def locations(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[Location]:
    """Where in a file the backbone of a network lies, the best location first; empty where none of its names is.

    The best is where most of the backbone's tensors fit, then where most are named, then where most of the whole
    network fits; then averaged weights before those of a gradient before followers, short prefixes before long ones.

    >>> import torch
    >>> weight = torch.zeros(2)
    >>> file = {"module.encoder_k.conv1.weight": weight, "module.encoder_q.conv1.weight": weight}
    >>> [location.backbone for location in locations(file, {"backbone.conv1.weight": weight})]
    ['module.encoder_q.', 'module.encoder_k.']
    """
    index: dict[str, list[tuple[str, str]]] = {}  # foreign name -> (layout, own name)
    for layout, table in LAYOUTS.items():
        for name in own:
            foreign = to_foreign(name, table)
            if foreign:
                index.setdefault(foreign, []).append((layout, name))
    counts: dict[tuple[str, str], list[int]] = {}  # backbone fits, backbone named, all that fit
    depth = max((foreign.count(".") for foreign in index), default=0) + 1
    for name, tensor in weights.items():
        for suffix in _suffixes(name, depth):
            for layout, own_name in index.get(suffix, ()):
                count = counts.setdefault((name.removesuffix(suffix), layout), [0, 0, 0])
                fits, backbone = same_kind(tensor, own[own_name]), own_name.startswith(BACKBONE)
                count[0] += fits and backbone
                count[1] += backbone
                count[2] += fits
    order = list(LAYOUTS)
    ranked = sorted(
        (-count[0], -count[1], -count[2], rank(prefix), len(prefix), prefix, order.index(layout))
        for (prefix, layout), count in counts.items()
        if count[1]
    )
    listed = [
        Location(
            prefix, order[number], prefix + (to_foreign(BACKBONE, LAYOUTS[order[number]]) or ""), -fits, -named, rank
        )
        for fits, named, _, rank, _, prefix, number in ranked
    ]
    best: dict[str, Location] = {}
    for location in listed:  # one backbone can be seen through several layouts; the first explains most of the file
        best.setdefault(location.backbone, location)
    return list(best.values())


def _suffixes(name: str, depth: int) -> Iterable[str]:
    """The last 1, 2, ... parts of a name, as many as the network's own names can have.

    >>> list(_suffixes("a.b.c", 2)), list(_suffixes("a", 2))
    (['c', 'b.c'], ['a'])
    """
    parts = name.rsplit(".", depth)
    end = len(parts) if len(parts) <= depth else depth
    return (".".join(parts[-count:]) for count in range(1, end + 1))


def rank(prefix: str) -> int:
    """0 for averaged weights, 1 for those of a gradient, 2 for what follows others.

    >>> rank("teacher.backbone."), rank("student.module.backbone."), rank("module.encoder_k.")
    (0, 1, 2)
    """
    words = set(prefix.replace("_", ".").split("."))
    return 0 if words & _FIRST else 2 if words & _LAST else 1


def same_kind(tensor: Tensor, own: Tensor) -> bool:
    """Whether shapes agree, and both hold fractions or neither does; precision may differ."""
    return tensor.shape == own.shape and tensor.is_floating_point() == own.is_floating_point()


def match_at(
    weights: Mapping[str, Tensor], own: Mapping[str, Tensor], parts: Sequence[str], location: Location
) -> Match:
    """Matches the weights at a location of a file to the named parts of a network's `state_dict`."""
    layout = LAYOUTS[location.layout]
    foreign = {
        name: location.prefix + theirs
        for name in own
        if name.split(".")[0] in parts and (theirs := to_foreign(name, layout)) is not None
    }
    there = {name: weights[theirs] for name, theirs in foreign.items() if theirs in weights}
    used = {foreign[name] for name in there}
    first = tuple(n for n, tensor in there.items() if n.startswith(BACKBONE) and adaptable(tensor, own[n]))
    there |= {name: adapted(there[name], own[name].shape[1]) for name in first}
    return Match(
        tensors={name: tensor for name, tensor in there.items() if same_kind(tensor, own[name])},
        missing=[name for name in own if name.split(".")[0] in parts and name not in there],
        unexpected=[name for name in weights if name not in used],
        wrong_shape={n: tuple(t.shape) for n, t in there.items() if not same_kind(t, own[n])},
        adapted=first,
    )


def match(weights: Mapping[str, Tensor], own: Mapping[str, Tensor], parts: Sequence[str]) -> Match:
    """Matches a file's weights, at their best location, to the named parts of a network's `state_dict`.

    >>> import torch
    >>> fit = match({"conv1.weight": torch.ones(2)}, {"backbone.conv1.weight": torch.zeros(2)}, ["backbone"])
    >>> list(fit.tensors), fit.missing
    (['backbone.conv1.weight'], [])
    """
    best = locations(weights, own)
    if best:
        return match_at(weights, own, parts, best[0])
    return Match({}, [name for name in own if name.split(".")[0] in parts], list(weights), {})
