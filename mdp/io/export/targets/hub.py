"""A folder as timm and its hub read it, with a model card: `timm.create_model("local-dir:...", pretrained=True)`."""

import importlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mdp.io.errors import RecipeError
from mdp.io.export.content import DEEP, TIMM, Content
from mdp.io.export.source import Source
from mdp.io.export.targets._common import Function, Library, read_safetensors
from mdp.io.export.targets._common import at_the_grid as sidecar
from mdp.io.export.targets._common import bare_or_deep as layout
from mdp.io.export.targets._common import nothing_to_install as expect
from mdp.io.export.targets.timm import filled, misfit, model_of, strides
from mdp.io.files.writing import write_text
from mdp.io.run.checkpoint import save_plain

__all__ = [
    "LIBRARY", "SUFFIX", "expect", "layout", "load_line", "misfit", "read", "refuse", "sidecar", "strides", "write",
]  # fmt: skip

SUFFIX = ""
WEIGHTS = "model.safetensors"


def refuse(source: Source) -> None:
    """Raises RecipeError when timm's model has parameters that give no features: it wants them all of a folder."""
    if not source.content.backbone.startswith(TIMM):
        return
    timm: Any = importlib.import_module("timm")
    name, settings = model_of(source.content)
    with torch.device("meta"):
        wanted = timm.create_model(name, **settings, num_classes=0).state_dict()
    lacking = [key for key in wanted if f"backbone.{key}" not in source.weights]
    if lacking:
        raise RecipeError(
            f"--to hub: timm wants all of {name} in a folder, and {lacking[0]}, which gives no features, was not "
            "trained; what can hold it: timm, safetensors, onnx"
        )


def write(path: Path, source: Source, tensors: dict[str, Tensor], known: Mapping[str, Any]) -> None:
    """The folder: weights, config.json and a model card."""
    path.mkdir()
    save_plain(path / WEIGHTS, tensors, {"format": "pt"})
    write_text(path / "config.json", json.dumps(config_of(source), indent=2) + "\n")
    write_text(path / "README.md", model_card(known, path.name))


def read(path: Path) -> dict[str, Tensor]:
    """The weights in the folder."""
    return read_safetensors(path / WEIGHTS)


def _load(path: Path, source: Source, stride: int) -> Function:
    timm: Any = importlib.import_module("timm")
    if source.content.backbone.startswith(TIMM):
        name, settings = model_of(source.content)
        return filled(timm.create_model(name, **settings, num_classes=0), read(path))
    network = timm.create_model(f"local-dir:{path}", pretrained=True, output_stride=stride)
    forward: Function = network.eval().forward_features
    return forward


LIBRARY = Library("timm", "timm", _load)


def load_line(path: Path, content: Content) -> str:
    """timm's own way."""
    return f"import timm; network = timm.create_model({'local-dir:' + str(path)!r}, pretrained=True)"


def config_of(source: Source) -> dict[str, Any]:
    """config.json of the folder."""
    name, settings = model_of(source.content)
    own = not source.content.backbone.startswith(TIMM)
    first = "conv1.0" if source.content.backbone.endswith(DEEP) else "conv1"
    channels, statistics = source.content.image_channels, source.recipe.model.statistics
    # timm would adapt the first convolution that is named here, as if it were for RGB
    named = {"pool_size": [7, 7], **({"first_conv": first} if channels == 3 else {}), "classifier": "fc"}
    return {
        "architecture": name.partition(".")[0],  # without the tag of somebody's weights
        "num_classes": 0,
        **({"model_args": settings} if settings else {}),
        "pretrained_cfg": {
            "tag": "mdp",
            "custom_load": False,
            "input_size": [channels, 224, 224],
            "fixed_input_size": False,
            "interpolation": "bilinear",
            "crop_pct": 0.875,
            "crop_mode": "center",
            "mean": list(statistics.mean),
            "std": list(statistics.std),
            "num_classes": 0,
            **(named if own else {}),
        },
    }


def model_card(known: Mapping[str, Any], name: str) -> str:
    """README.md of the folder."""
    names = ", ".join(entry["name"] for entry in known["datasets"])
    rows = [
        f"| {entry['name']} | {_count(entry['images'])} | {entry['classes']} | {_cell(entry['licence'])} |"
        for entry in known["datasets"]
    ]
    inputs = known["input"]
    mean, std = tuple(inputs["mean"]), tuple(inputs["std"])
    how = f"pretrained by the method `{known['method']}`" if known["kind"] == "pretrain" else "fine-tuned"
    lines = [
        "---",
        "library_name: timm",
        "tags:",
        "- timm",
        "- image-feature-extraction",
        "- semantic-segmentation",
        "---",
        f"# {name}",
        "",
        f"A {known['backbone']} backbone without classifier, {how} with mdp {known['mdp']} on {names} "
        f"({known['step']:,} steps).",
        "",
        "| dataset | images | classes | licence |",
        "| --- | --- | --- | --- |",
        *rows,
        "",
        "The licence of these weights is for their owner to state; those of the datasets stand above.",
        "",
        f"Input: {inputs['channels']}, {inputs['note']}; mean {mean}, standard deviation {std}.",
        "",
        "```python",
        "import timm",
        "",
        "network = timm.create_model('local-dir:FOLDER', pretrained=True)  # features_only=True for its feature maps",
        "```",
        "",
        *_known_lines(known),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _known_lines(known: Mapping[str, Any]) -> Sequence[str]:
    validation = known["metrics"]["last_validation"]
    lines = [f"Scores while training: `{json.dumps(validation)}`", ""] if validation else []
    lines += [f"Started from: {known['started_from']}", ""] if known["started_from"] else []
    return [*lines, f"Command: `{known['command']}`"] if known["command"] else lines


def _count(images: int | None) -> str:
    return "?" if images is None else f"{images:,}"


def _cell(text: str) -> str:
    """Text that stays within its cell of a table."""
    return " ".join(text.replace("|", "\\|").split())
