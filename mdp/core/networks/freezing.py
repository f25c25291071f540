"""Freezing parts of a network by name, and the modes of its modules.

What is frozen takes no gradient and is in evaluation mode: BatchNorm there normalises by its running statistics and
leaves them as they are, and nothing is dropped.
"""

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase

from torch import nn


def frozen_names(network: nn.Module, patterns: Sequence[str]) -> list[str]:
    """The parameters, in their order, that the patterns name: by the names of modules, or by their own.

    `backbone.layer1` is all that is in it; `backbone.layer[12]`, `backbone.*.bn?` and `*.bias` are a shell's patterns.
    Raises ValueError, in one line, for a pattern that names nothing, and where nothing is left to train.
    """
    parameters = [name for name, _ in network.named_parameters()]
    modules = [name for name, _ in network.named_modules() if name]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in (*parameters, *modules)):
            raise ValueError(_nothing(pattern, [*modules, *parameters]))
    frozen = [name for name in parameters if _named(name, patterns)]
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    if trained and trained.issubset(frozen):
        raise ValueError(f"freeze: {', '.join(patterns)} leaves nothing to train; name less")
    return frozen


def freeze_(network: nn.Module, patterns: Sequence[str]) -> None:
    """Freezes what the patterns name.  Raises ValueError as `frozen_names` does."""
    frozen = set(frozen_names(network, patterns))
    for name, parameter in network.named_parameters():
        if name in frozen:
            parameter.requires_grad_(False)
    for name, module in network.named_modules():
        own = [f"{name}.{part}" for part, _ in module.named_parameters(recurse=False)]
        if _named(name, patterns) or (own and frozen.issuperset(own)):
            module.training = False  # and not by eval(), which would take along what is below it


def _named(name: str, patterns: Sequence[str]) -> bool:
    """Whether a pattern names it, or anything around it."""
    parts = name.split(".")
    around = [".".join(parts[:count]) for count in range(1, len(parts) + 1)]
    return any(fnmatchcase(part, pattern) for part in around for pattern in patterns)


def _nothing(pattern: str, names: list[str]) -> str:
    near = difflib.get_close_matches(pattern, names, n=3) or [name for name in names if "." not in name]
    return f"freeze: {pattern!r} names no part of the network; near it: {', '.join(near)}"


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """The network in evaluation mode: without dropout, by its running statistics; its modes are put back afterwards."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
