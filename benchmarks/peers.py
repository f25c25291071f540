"""The libraries that mdp is compared with: imported where they are installed, and named where they are not."""

import os
import warnings
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import torch

from benchmarks.measure import Entry, Run

DISTRIBUTIONS = {  # top-level module -> what to install
    "torchvision": "torchvision",
    "torchmetrics": "torchmetrics",
    "pytorch_metric_learning": "pytorch-metric-learning",
    "lightly": "lightly",
    "cv2": "opencv-python-headless",
    "albumentations": "albumentations",
    "sklearn": "scikit-learn",
    "faiss": "faiss-cpu",
    "scipy": "scipy",
}
_OPERATORS: list[torch.library.Library] = []  # they are gone when the library object is


def peer(name: str, module: str, make: Callable[[ModuleType], Run], exact: bool = True) -> Entry:
    """An entry that needs a library; `make` gets the module, which may be a dotted one.

    Where the library is not installed, the entry says so.
    """
    distribution = DISTRIBUTIONS[module.partition(".")[0]]
    found = load(module)
    if found is None:
        return Entry(name, "peer", None, missing=f"{distribution} is not installed")
    return Entry(f"{name} ({distribution} {version(distribution)})", "peer", make(found), exact)


@cache
def load(module: str) -> ModuleType | None:
    """The module, or None where its library is not installed; one that is there and broken raises what it raises."""
    top = module.partition(".")[0]
    if find_spec(top) is None:
        return None
    declare_operators()  # many of them import torchvision
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask the network for a newer version
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return import_module(module)


@cache
def declare_operators() -> None:
    """torchvision can be imported without its compiled part once the operators exist that it builds upon."""
    spec = find_spec("torchvision")
    if spec is None or spec.origin is None:
        return
    try:
        for compiled in Path(spec.origin).parent.glob("_C*"):
            torch.ops.load_library(compiled)  # type: ignore[no-untyped-call]
    except OSError:  # built for another torch
        library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
        _OPERATORS.append(library)


def installed() -> dict[str, str]:
    """The version of every peer by the name to install it by; empty where it is not installed."""
    return {name: version(name) if find_spec(module) else "" for module, name in DISTRIBUTIONS.items()}
