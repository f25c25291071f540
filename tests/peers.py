"""Libraries that networks are compared with, where they are installed; a test that needs one skips without it."""

import warnings
from importlib.util import find_spec
from types import ModuleType

import pytest
import torch

_OPERATORS: list[torch.library.Library] = []  # they are gone when the library object is


def torchvision_or_skip() -> ModuleType:
    """torchvision; its networks are pure Python, also beside a torch that its compiled part does not fit."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return pytest.importorskip("torchvision")
        except RuntimeError as error:
            if "operator torchvision::" not in str(error):
                raise
        library = torch.library.Library("torchvision", "FRAGMENT")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _OPERATORS.append(library)
        return pytest.importorskip("torchvision")


def timm_or_skip() -> ModuleType:
    """timm, which imports torchvision where it is installed."""
    if find_spec("torchvision"):
        torchvision_or_skip()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("timm")
