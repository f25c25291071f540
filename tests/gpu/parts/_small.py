"""Pretraining small enough to be repeated: what the parts `methods` and `bits` take steps of."""

import torch

from mdp.io.recipe.layers import Layer
from tests.whole_steps import NARROW, Sizes, Training, method_layer

ONE_EACH = ("multi_dataset, mix, csc2", "supervised", "pixel_pairs", "region_bank", "moco")  # what must be quick
EVERY_METHOD = (*ONE_EACH, "knn_moco", "pass_s", "pixel_attention", "swav")  # a form of each

MODEL: Layer = {"backbone": "resnet18", "width": 16, "channels": 32, "output_stride": 8, "dilations": [1, 3, 6]}
SIZES = Sizes(model=MODEL, batch=8, crop=96, classes=40)
QUICK = Sizes(model=NARROW, batch=4, crop=48, classes=9)


def training(form: str, device: torch.device, quick: bool, run: Layer) -> Training:
    """A run of a method's form."""
    sizes = QUICK if quick else SIZES
    return Training(method_layer(form, channels=16), device, run, sizes, pin=device.type == "cuda")
