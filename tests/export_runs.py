"""Run folders with random weights, written as runs write them, for tests of exports."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mdp.core.labels import LabelSpace, LabelUnion
from mdp.core.methods import Data
from mdp.io.recipe.layers import Layer, as_layer, merge, nest, resolve
from mdp.io.recipe.methods import find_method
from mdp.io.run.checkpoint import save
from mdp.io.run.opened import new_segmentor
from mdp.io.run.record import space_json
from mdp.io.run.restore import prefixed

SHAPES = [
    LabelSpace(name="shapes-coarse", classes=("disc", "box"), colors=((1, 2, 3), (4, 5, 6))),
    LabelSpace(name="my.site", classes=("road", "car", "tree"), colors=((7, 8, 9), (0, 1, 0), (0, 0, 2))),
]
SMALL: Layer = {
    "model": {"backbone": "resnet18", "channels": 8, "dilations": [1, 2], "output_stride": 16},
    "pretrain": {"datasets": ["shapes-coarse", "gone/my.yaml"]},
    "finetune": {"target": "shapes-target"},
}


def awaken_(network: nn.Module, seed: int = 0) -> None:
    """Random statistics and scales in every BatchNorm, so that a parameter at the wrong place shows in the features."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                assert module.num_batches_tracked is not None
                for tensor, low, high in (
                    (module.weight, 0.5, 1.0), (module.bias, -0.2, 0.2), (module.running_mean, -0.2, 0.2),
                    (module.running_var, 0.5, 2.0),
                ):  # fmt: skip
                    tensor.copy_(low + (high - low) * torch.rand(tensor.shape, generator=rng))
                module.num_batches_tracked.fill_(7)


def make_run(folder: Path, kind: str, *changes: tuple[str, Any], name: str = "last") -> Path:
    """A run folder with a checkpoint after step 7; `changes` are settings of its recipe."""
    asked = merge(SMALL, *(nest(key, value) for key, value in changes))
    recipe = resolve({"method": {"embedding": 8, "hidden": 8}, **asked})
    if kind == "pretrain":
        data = Data(LabelUnion(SHAPES), 4, 1, recipe.model.last_channels)
        network = find_method(recipe.method.name).build(
            recipe.method.settings, recipe.model, data, torch.Generator().manual_seed(1)
        ).query  # fmt: skip
    else:
        network = new_segmentor(recipe, 5)
    awaken_(network)
    about = {
        "kind": kind, "step": 7, "validated": 7, "best": 0.5, "recipe": as_layer(recipe),
        "labels": [space_json(space) for space in SHAPES],
    }  # fmt: skip
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    section = "query" if kind == "pretrain" else "network"
    save(folder / "checkpoints" / f"{name}.safetensors", prefixed(section, network.state_dict()), about)
    (folder / "labels.json").write_text(json.dumps([{**space_json(s), "images": 3} for s in SHAPES[:1]]))
    (folder / "command.txt").write_text("mdp pretrain --datasets shapes-coarse,gone/my.yaml\n")
    (folder / "status.json").write_text(json.dumps({"state": "done", "steps": 9}))
    records = [{"kind": "validate", "step": step, "miou": {"shapes-coarse": step / 10}} for step in (4, 7, 9)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records) + '{"kind": "va')
    (folder / "log.txt").write_text("2026-01-01 10:00:00 loaded backbone 3 tensors from x.pth\n")
    return folder
