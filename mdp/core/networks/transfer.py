"""Which weights of a file fit a network: matched by name and shape, with a report of what does not."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

_WRAPPERS = ("module.", "_orig_mod.", "encoder_q.")  # DistributedDataParallel's, torch.compile's, MoCo's query encoder


class Match(NamedTuple):
    """The tensors that fit, and the names of those that do not."""

    tensors: dict[str, Tensor]  # by the network's own names
    missing: list[str]  # the network has it, the file does not
    unexpected: list[str]  # the file has it, the network does not
    wrong_shape: dict[str, tuple[int, ...]]  # both have it; the file's shape, which is not the network's


def match(weights: Mapping[str, Tensor], own: Mapping[str, Tensor], parts: Sequence[str]) -> Match:
    """Matches a file's weights to a network's `state_dict`, looking at the named parts of the network only.

    Wrapper prefixes are stripped, in any order.  A file that names no part of the network (`conv1.weight`, ...) counts
    as a bare backbone, `backbone.*`.

    >>> import torch
    >>> found = match({"conv1.weight": torch.ones(2)}, {"backbone.conv1.weight": torch.zeros(2)}, ["backbone"])
    >>> list(found.tensors), found.missing
    (['backbone.conv1.weight'], [])
    """
    named = {_strip(name): tensor for name, tensor in weights.items()}
    known = {name.split(".")[0] for name in own}
    if not any(name.split(".")[0] in known for name in named):
        named = {f"backbone.{name}": tensor for name, tensor in named.items()}
    wanted = {name: tensor for name, tensor in own.items() if name.split(".")[0] in parts}
    return Match(
        tensors={n: named[n] for n, t in wanted.items() if n in named and named[n].shape == t.shape},
        missing=[n for n in wanted if n not in named],
        unexpected=[n for n in named if n not in wanted],
        wrong_shape={n: tuple(named[n].shape) for n, t in wanted.items() if n in named and named[n].shape != t.shape},
    )


def _strip(name: str) -> str:
    while name.startswith(_WRAPPERS):
        name = name.split(".", 1)[1]
    return name
