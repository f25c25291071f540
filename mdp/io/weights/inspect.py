"""`mdp inspect`: what a file of weights holds, and what of it `--init` would take, as data and as text for people."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mdp.core.networks import NetworkSettings, Segmentor
from mdp.core.networks.identify import backbone_for, recognise
from mdp.core.networks.timm_backbone import PREFIX
from mdp.core.networks.transfer import Location
from mdp.io.errors import CheckpointError
from mdp.io.files.reading import printable
from mdp.io.recipe.layers import Layer, merge, resolve
from mdp.io.run.folder import checkpoint_of
from mdp.io.weights.init import (
    Judged,
    dictionary_and_prefix,
    float32,
    in_words,
    judge,
    listed,
    part_of,
    uncounted,
    unused_groups,
    whole_parts,
)
from mdp.io.weights.reading import WeightsFile, read_file, skipped_line, translated_line

_MARKS = (  # what lies beside the backbone, and who names it so
    ("decode_head", "MMSegmentation's or mdp's network"),
    ("projection_head", "mdp's network"),
    ("classifier", "torchvision's segmentation network"),
    ("decoder", "segmentation_models_pytorch's network"),
    ("fc", "a backbone with a classifier or projection `fc`"),
    ("head", "a backbone with a head"),
)
_PARTS = ("backbone", "decode_head")


def inspect(path: Path, asked: Layer, start: str = "") -> dict[str, Any]:
    """The contents of a weights file, a checkpoint or a run folder, held against the network that `asked` describes.

    Where it does not name a backbone, the network is the run's own, or the ResNet that the file's shapes show.
    Raises CheckpointError when the file cannot be read, RecipeError for settings that do not fit.
    """
    file_path = checkpoint_of(path)
    file = read_file(file_path)
    holds = recognise(file.tensors)
    model, source = model_of(file, asked)
    with torch.device("meta"):  # names and shapes, without numbers
        own = Segmentor(model, 2).state_dict()
    judged = judge(file, own, _PARTS, start)
    return {
        "path": printable(file_path),
        "container": file.container,
        "file_bytes": file_path.stat().st_size,
        "sha256": _digest(file_path),
        "tensors": len(file.tensors),
        "numbers": sum(tensor.numel() for tensor in file.tensors.values()),
        "types": _types(file.tensors),
        "not_finite": [name for name, t in float32(file.tensors).items() if not torch.isfinite(t).all()],
        "others": list(file.others),
        "skipped": dict(file.skipped),
        "skipped_line": skipped_line(file),
        "holds": in_words(holds) if holds else file.translated or None,
        "translated": translated_line(file),
        "network": {"backbone": model.backbone, "width": model.width, "channels": model.channels, "source": source},
        "kind": file.run.kind if file.run else None,
        **_taken(file, judged),
        "parts": [{"part": row.part, **_counts(row[1:])} for row in judged.rows],
        "uncounted": len(uncounted(whole_parts(judged.rows)[0])),
        "missing": judged.match.missing,
        "wrong_shape": _shapes(judged, own),
        "unexpected": judged.match.unexpected,
        "unexpected_groups": unused_groups(judged),
        "notes": judged.notes,
        "problem": judged.problem,
    }


def model_of(file: WeightsFile, asked: Layer) -> tuple[NetworkSettings, str]:
    """The network to hold a file against, and where its settings come from."""
    holds = recognise(file.tensors)
    if file.run:
        return resolve({"model": file.run.recipe["model"]}, asked).model, "of the run that wrote it"
    named = resolve(asked).model
    if "backbone" in (asked.get("model") or {}):
        return named, "as asked for"
    if holds is None:
        advice = f"--backbone {file.backbone} is like it" if file.backbone else "--backbone NAME chooses"
        return named, f"the default: the file holds no ResNet; {advice}"
    name = backbone_for(holds)
    if not name:
        return named, "the default: no network here is like the file's; --backbone NAME chooses"
    guess = {"model": {"backbone": name, "width": holds.width}}
    return resolve(merge(guess, asked)).model, "guessed from the shapes in the file; --backbone NAME chooses"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _types(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    return dict(Counter(str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()).most_common())


def _counts(names: tuple[list[str], ...]) -> dict[str, int]:
    return dict(zip(("own", "matched", "missing", "wrong_shape"), map(len, names), strict=True))


def _taken(file: WeightsFile, judged: Judged) -> dict[str, Any]:
    if judged.location is None:
        return {"dictionary": None, "prefix": None, "layout": None, "left": {}}
    table, prefix = dictionary_and_prefix(file, judged.location)
    left = {location.backbone: location.fits for location in judged.left}
    return {"dictionary": table, "prefix": prefix, "layout": _layout(file, judged.location), "left": left}


def _layout(file: WeightsFile, location: Location) -> str:
    """Whose way of naming it is, told from what lies beside the backbone."""
    root = location.backbone.removesuffix("backbone.").removesuffix("encoder.")
    beside = {name.removeprefix(root).split(".")[0] for name in file.tensors if name.startswith(root)}
    return next((whose for mark, whose in _MARKS if mark in beside), "a backbone without a head")


def _shapes(judged: Judged, own: Mapping[str, Tensor]) -> dict[str, dict[str, list[int]]]:
    return {
        name: {"file": list(shape), "network": list(own[name].shape)}
        for name, shape in judged.match.wrong_shape.items()
    }


def inspection(report: Mapping[str, Any]) -> str:
    """The text of `inspect`: what the file is, where the weights lie, a table by parts, what to know, the verdict."""
    network, types = report["network"], ", ".join(f"{count} {kind}" for kind, count in report["types"].items())
    size, others = f"{report['file_bytes'] / 2**20:.2f} MiB", report["others"]
    about = [
        f"{report['path']}: {report['container']}, {size}, SHA-256 begins with {report['sha256'][:8]}",
        f"tensors  {report['tensors']:,} with {report['numbers']:,} numbers ({types})",
        *([f"beside   {listed(others)}"] if others else []),
        *([f"skipped  {report['skipped_line']}"] if report["skipped"] else []),
        f"holds    {report['holds'] or 'no ResNet with the usual names'}",
        *_location_lines(report),
        f"network  {_network(network)}: {network['source']}",
    ]
    translated = [report["translated"]] if report["translated"] else []
    end = [
        *(f"note: {note}" for note in (*report["notes"], *translated)),
        *_not_finite(report["not_finite"]),
        _verdict(report),
    ]
    if report["kind"]:
        end.append(f"its run, step and classes: mdp checkpoint show {report['path']}")
    return "\n".join([*about, "", *_table(report["parts"]), *_name_lines(report), "", *end])


def _network(network: Mapping[str, Any]) -> str:
    """The network's name, and its width where it has one to choose."""
    name = str(network["backbone"])
    return name if name.startswith(PREFIX) else f"{name} of width {network['width']}"


def _location_lines(report: Mapping[str, Any]) -> list[str]:
    """Where the weights lie, and where else they could have been."""
    if report["layout"] is None:
        return []
    words = [f"dictionary {printable(report['dictionary'])}"] if report["dictionary"] else []
    words += [f"names after {printable(report['prefix'])}"] if report["prefix"] else []
    lines = [f"taken    {', '.join(words) or 'the names as they are'}: {report['layout']}"]
    left = [
        f"{printable(location) or '(none)'} ({fits} tensors fit there)" for location, fits in report["left"].items()
    ]
    return [*lines, f"left     {', '.join(left)}; --init-from chooses"] if left else lines


def _table(rows: list[dict[str, Any]]) -> list[str]:
    width = max(len("part"), *(len(row["part"]) for row in rows))
    keys = ("own", "matched", "missing", "wrong_shape")
    total = {"part": "in all", **{key: sum(row[key] for row in rows) for key in keys}}
    head = f"{'part':{width}}  network  matched  missing  wrong shape"
    body = [
        f"{printable(row['part']):{width}}{row['own']:9}{row['matched']:9}{row['missing']:9}{row['wrong_shape']:13}"
        for row in (*rows, total)
    ]
    return [head, *body]


def _name_lines(report: Mapping[str, Any]) -> list[str]:
    """The first names of each kind."""
    shapes = [f"{n} {s['file']} instead of {s['network']}" for n, s in report["wrong_shape"].items()]
    groups = [f"{name} ({count})" for name, count in report["unexpected_groups"].items()]
    gone = {row["part"]: row["own"] for row in report["parts"] if row["missing"] == row["own"]}
    missing = [f"all of {part} ({count})" for part, count in gone.items()]
    missing += [name for name in report["missing"] if part_of(name) not in gone]
    kinds = {"missing": missing, "wrong shape": shapes, "not used": groups}
    return [f"{kind}: {listed(names)}" for kind, names in kinds.items() if names]


def _not_finite(names: list[str]) -> list[str]:
    return [f"not finite: {listed(names)}"] if names else []


def _verdict(report: Mapping[str, Any]) -> str:
    if report["problem"]:
        return f"--init refuses it: {report['problem']}"
    matched, own = (sum(row[key] for row in _backbone(report["parts"])) for key in ("matched", "own"))
    head = sum(row["matched"] for row in report["parts"] if row["part"] == "decode_head")
    return f"--init takes {matched} of {own - report['uncounted']} backbone tensors" + (
        f" and {head} of the head" if head else ""
    )


def _backbone(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if row["part"] != "decode_head"]


def expect_usable(report: Mapping[str, Any]) -> None:
    """Raises CheckpointError when `--init` would refuse the file; the text of `inspect` says why."""
    if report["problem"]:
        raise CheckpointError(f"{report['path']}: --init refuses it")
