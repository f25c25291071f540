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
from mdp.io.export.targets.timm import last_map, misfit, model_of, strides
from mdp.io.files.writing import write_text
from mdp.io.run.checkpoint import save_plain

__all__ = [
    "LIBRARY", "SUFFIX", "expect", "layout", "load_line", "misfit", "read", "refuse", "sidecar", "strides", "write",
]  # fmt: skip

SUFFIX = ""
WEIGHTS = "model.safetensors"


def refuse(source: Source) -> None:
    """Raises RecipeError when timm's model has random parameters that give no features: it wants them all."""
    random = [name for name, tensor in untrained(source).items() if bool((tensor != tensor.flatten()[0]).any())]
    if random:
        raise RecipeError(
            f"--to hub: timm wants all of {model_of(source.content)[0]} in a folder, and {random[0]}, which gives no "
            "features, was not trained; what can hold it: timm, safetensors, onnx, torch_export"
        )


def untrained(source: Source) -> dict[str, Tensor]:
    """What timm's model has besides the run's backbone, as it starts: a last norm of ones and zeros, a classifier."""
    if not source.content.backbone.startswith(TIMM):
        return {}
    timm: Any = importlib.import_module("timm")
    name, settings = model_of(source.content)
    with torch.random.fork_rng(devices=[]):
        whole = timm.create_model(name, **settings, num_classes=0).state_dict()
    return {key: tensor for key, tensor in whole.items() if f"backbone.{key}" not in source.weights}


def write(path: Path, source: Source, tensors: dict[str, Tensor], known: Mapping[str, Any]) -> None:
    """The folder: weights, config.json and a model card."""
    path.mkdir()
    fresh = untrained(source)
    save_plain(path / WEIGHTS, {**tensors, **fresh}, {"format": "pt"})
    write_text(path / "config.json", json.dumps(config_of(source), indent=2) + "\n")
    write_text(path / "README.md", model_card(known, path.name, tuple(fresh)))


def read(path: Path) -> dict[str, Tensor]:
    """The weights in the folder."""
    return read_safetensors(path / WEIGHTS)


def _load(path: Path, source: Source, stride: int) -> Function:
    timm: Any = importlib.import_module("timm")
    if source.content.backbone.startswith(TIMM):
        return last_map(timm.create_model(f"local-dir:{path}", pretrained=True))
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
    size, fixed = _made_for(source)
    own = not source.content.backbone.startswith(TIMM)
    first = "conv1.0" if source.content.backbone.endswith(DEEP) else "conv1"
    channels, statistics = source.content.image_channels, source.recipe.model.statistics
    # timm would adapt the first convolution that is named here, as if it were for RGB
    named = {"pool_size": [7, 7], **({"first_conv": first} if channels == 3 else {}), "classifier": "fc"}
    return {
        "architecture": name.partition(".")[0],  # without the tag of somebody's weights
        "num_classes": 0,
        **({"model_args": {**settings, **fixed}} if settings or fixed else {}),
        "pretrained_cfg": {
            "tag": "mdp",
            "custom_load": False,
            "input_size": [source.content.image_channels, *size],
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


def _made_for(source: Source) -> tuple[list[int], dict[str, Any]]:
    """The height and width that timm's model is made for, and the argument that makes it so again, if it has one.

    Made for another size its table of positions would be stretched twice.
    """
    if not source.content.backbone.startswith(TIMM):
        return [224, 224], {}
    timm: Any = importlib.import_module("timm")
    with torch.device("meta"):
        default = timm.create_model(model_of(source.content)[0]).pretrained_cfg
    size = list(default["input_size"][1:])
    return size, {"img_size": size} if default.get("fixed_input_size") else {}


def model_card(known: Mapping[str, Any], name: str, fresh: Sequence[str] = ()) -> str:
    """README.md of the folder; `fresh` parameters were never trained."""
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
        *(
            [f"Not trained, as timm starts them, and without a part in the feature maps: {', '.join(fresh)}.", ""]
            if fresh
            else []
        ),
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
