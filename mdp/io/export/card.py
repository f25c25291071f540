"""The facts about an exported file, for people and programs: those of the run, for the side-car and the file itself.

Everything comes from the run's checkpoint and folder; what is not known there says so.
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import mdp
from mdp.io.data.selection import named
from mdp.io.errors import MdpError
from mdp.io.export.source import Source
from mdp.io.journal.journal import finite
from mdp.io.run.folder import home_of
from mdp.io.run.record import PRETRAIN, Position

UNKNOWN = "unknown: state it yourself"
_NOTE = "values of 0 to 1, minus the mean, over the standard deviation of each channel"
_INSIDE = (
    "mdp", "what", "backbone", "width", "output_stride", "first_dilation", "head", "kind", "method", "step", "classes",
    "palette", "input", "weights",
)  # fmt: skip


def facts(source: Source) -> dict[str, Any]:
    """The facts of the run, as JSON; the same for the same run."""
    record, content, folder = source.record, source.content, home_of(source.path)
    pretrained = record.kind == PRETRAIN
    known: dict[str, Any] = {
        "mdp": mdp.__version__,
        "torch": str(torch.__version__),
        "what": "segmentor" if content.head else "backbone",
        "backbone": content.backbone,
        "width": content.width,
        "output_stride": content.stride,
        **({"first_dilation": content.first_dilation} if content.first_dilation != "before" else {}),
        "head": content.head or None,
        "run": folder.resolve().name,
        "checkpoint": source.path.name,
        "kind": record.kind,
        "method": source.recipe.method.name if pretrained else "fine-tuning",
        "step": record.position.step,
        **({"weights": source.average} if source.average else {}),
        "steps": _steps(folder),
        "datasets": _datasets(source, folder),
        "started_from": _start(folder),
        "metrics": _metrics(record.position, folder),
        "command": _text(folder / "command.txt").strip() or None,
        "input": input_of(source),
    }
    if content.head:
        known["classes"] = [name for space in record.labels for name in space.classes]
        colors = [list(color) for space in source.record.labels for color in space.colors]
        known |= {"palette": colors} if colors else {}
        known["output"] = f"logits of {content.classes} classes"
    result: dict[str, Any] = finite(known)
    return result


def input_of(source: Source) -> dict[str, Any]:
    """The images that the network expects."""
    channels, statistics = source.content.image_channels, source.recipe.model.statistics
    height, width = source.size or ("H", "W")
    rules = {name: rule.as_json() for name, rule in source.record.photos.items()}
    return {
        "channels": "RGB" if channels == 3 else f"{channels} channels",
        "layout": f"B x {channels} x {height} x {width}, float32",
        "range": [0, 1],
        "mean": list(statistics.mean),
        "std": list(statistics.std),
        "note": _NOTE,
        # the files' values that were 0 and 1, and which bands were the channels, of each dataset that says so
        **({"photos": rules} if rules else {}),
    }


def stem_of(source: Source, target: str) -> str:
    """The file's name without hash and suffix; no dash in it, so that torch.hub finds the hash.

    Datasets, backbone, head and target, such as `voc+ade20k_resnet50_torchvision`.
    """
    content = source.content
    names = "+".join(space.name for space in source.record.labels)[:80]
    parts = [names, content.backbone, *([content.head] if content.head else []), target]
    return "_".join(re.sub(r"[^A-Za-z0-9+_]", "_", part) for part in parts)


def _datasets(source: Source, folder: Path) -> list[dict[str, Any]]:
    counts = {entry["name"]: entry.get("images") for entry in _table(folder / "labels.json")}
    terms = _terms(source)
    return [
        {
            "name": space.name,
            "images": counts.get(space.name),
            "classes": len(space.classes),
            "licence": terms.get(space.name) or UNKNOWN,
        }
        for space in source.record.labels
    ]


def _terms(source: Source) -> dict[str, str]:
    """The licence of each dataset as its makers state it, as far as mdp or its YAML file knows."""
    recipe = source.recipe
    texts = recipe.pretrain.datasets if source.record.kind == PRETRAIN else (recipe.finetune.target,)
    terms = {}
    for text in texts:
        try:
            dataset, _ = named(text)
        except MdpError:  # its YAML file may be gone, and what it said with it
            continue
        terms[dataset.name] = dataset.terms
    return terms


def _metrics(position: Position, folder: Path) -> dict[str, Any]:
    """The last validation up to the checkpoint's step, and the best score that the checkpoint knows of."""
    records = [record for record in _lines(folder / "metrics.jsonl") if record.get("kind") == "validate"]
    # a record without a step counts as later
    passed = [record for record in records if record.get("step", position.step + 1) <= position.step]
    return {
        "last_validation": passed[-1] if passed else None,
        "best": position.best if math.isfinite(position.best) else None,
    }


def _steps(folder: Path) -> int | None:
    try:
        steps = json.loads(_text(folder / "status.json")).get("steps")
    except (ValueError, AttributeError):
        return None
    return steps if isinstance(steps, int) else None


def _start(folder: Path) -> str | None:
    """The line of the log about the weights that the run started from."""
    lines = [line.partition(" ")[2].partition(" ")[2] for line in _text(folder / "log.txt").splitlines()]
    return next((line for line in lines if line.startswith(("loaded ", "starting from "))), None)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _lines(path: Path) -> list[dict[str, Any]]:
    records = []
    for line in _text(path).splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue  # the last line of a killed run may be cut short
        records += [record] if isinstance(record, dict) else []
    return records


def _table(path: Path) -> list[dict[str, Any]]:
    try:
        entries = json.loads(_text(path))
    except ValueError:
        return []
    return [entry for entry in entries if isinstance(entry, dict) and "name" in entry]


# What goes into the files


def texts_of(known: Mapping[str, Any]) -> dict[str, str]:
    """The facts as the free text of a safetensors or ONNX file; `format` is what Hugging Face's readers ask for.

    Only what the checkpoint says: the same weights give the same bytes on every machine.
    """
    inside = {key: known[key] for key in _INSIDE if key in known}
    inside["datasets"] = [entry["name"] for entry in known["datasets"]]
    return {"format": "pt", "mdp": json.dumps(inside, sort_keys=True)}
