"""`mdp inspect`: what a file of weights holds, and what of it `--init` would take, as data and as text for people."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mdp.core.networks import NetworkSettings, Segmentor
from mdp.core.networks.identify import Recognised, backbone_for, recognise
from mdp.core.networks.transfer import Place
from mdp.io.errors import CheckpointError
from mdp.io.files.reading import printable
from mdp.io.recipe.layers import Layer, merge, resolve
from mdp.io.run.folder import checkpoint_of
from mdp.io.weights.init import Judged, float32, judge, listed, part_of, place_of, told, unused_groups
from mdp.io.weights.reading import WeightsFile, read_file

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
    """What a weights file, a checkpoint or a run folder holds, held against the network that `asked` describes.

    Where it does not name a backbone, the network is the run's own, or the ResNet that the file's shapes show.
    Raises CheckpointError when the file cannot be read, RecipeError for settings that do not fit.
    """
    file_path = checkpoint_of(path)
    file = read_file(file_path)
    holds = recognise(file.tensors)
    model, source = _model(file, holds, asked)
    with torch.device("meta"):  # names and shapes, without numbers
        own = Segmentor(model, 2).state_dict()
    found = judge(file, own, _PARTS, start)
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
        "holds": told(holds) if holds else None,
        "network": {"backbone": model.backbone, "width": model.width, "channels": model.channels, "source": source},
        "kind": file.run.kind if file.run else None,
        **_taken(file, found),
        "parts": [{"part": row.part, **_counts(row[1:])} for row in found.rows],
        "missing": found.match.missing,
        "wrong_shape": _shapes(found, own),
        "unexpected": found.match.unexpected,
        "unexpected_groups": unused_groups(found),
        "notes": found.notes,
        "problem": found.problem,
    }


def _model(file: WeightsFile, holds: Recognised | None, asked: Layer) -> tuple[NetworkSettings, str]:
    """The network to hold the file against, and where its settings come from."""
    if file.run:
        return resolve({"model": file.run.recipe["model"]}, asked).model, "of the run that wrote it"
    named = resolve(asked).model
    if "backbone" in (asked.get("model") or {}):
        return named, "as asked for"
    if holds is None:
        return named, "the default: the file holds no ResNet; --backbone NAME chooses"
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


def _taken(file: WeightsFile, found: Judged) -> dict[str, Any]:
    if found.place is None:
        return {"dictionary": None, "prefix": None, "layout": None, "left": {}}
    table, prefix = place_of(file, found.place)
    left = {place.backbone: place.fits for place in found.left}
    return {"dictionary": table, "prefix": prefix, "layout": _layout(file, found.place), "left": left}


def _layout(file: WeightsFile, place: Place) -> str:
    """Whose way of naming it is, told from what lies beside the backbone."""
    root = place.backbone.removesuffix("backbone.").removesuffix("encoder.")
    beside = {name.removeprefix(root).split(".")[0] for name in file.tensors if name.startswith(root)}
    return next((whose for mark, whose in _MARKS if mark in beside), "a backbone without a head")


def _shapes(found: Judged, own: Mapping[str, Tensor]) -> dict[str, dict[str, list[int]]]:
    return {
        name: {"file": list(shape), "network": list(own[name].shape)} for name, shape in found.match.wrong_shape.items()
    }


def inspection(found: Mapping[str, Any]) -> str:
    """The text of `inspect`: what the file is, where the weights lie, a table by parts, what to know, the verdict."""
    network, types = found["network"], ", ".join(f"{count} {kind}" for kind, count in found["types"].items())
    size, others = f"{found['file_bytes'] / 2**20:.2f} MiB", found["others"]
    about = [
        f"{found['path']}: {found['container']}, {size}, SHA-256 begins with {found['sha256'][:8]}",
        f"tensors  {found['tensors']:,} with {found['numbers']:,} numbers ({types})",
        *([f"beside   {listed(others)}"] if others else []),
        f"holds    {found['holds'] or 'no ResNet with the usual names'}",
        *_place_lines(found),
        f"network  {network['backbone']} of width {network['width']}: {network['source']}",
    ]
    end = [*(f"note: {note}" for note in found["notes"]), *_not_finite(found["not_finite"]), _verdict(found)]
    if found["kind"]:
        end.append(f"its run, step and classes: mdp checkpoint show {found['path']}")
    return "\n".join([*about, "", *_table(found["parts"]), *_name_lines(found), "", *end])


def _place_lines(found: Mapping[str, Any]) -> list[str]:
    """Where the weights were found, and where else they could have been."""
    if found["layout"] is None:
        return []
    words = [f"dictionary {printable(found['dictionary'])}"] if found["dictionary"] else []
    words += [f"names after {printable(found['prefix'])}"] if found["prefix"] else []
    lines = [f"taken    {', '.join(words) or 'the names as they are'}: {found['layout']}"]
    left = [f"{printable(place) or '(none)'} ({fits} tensors fit there)" for place, fits in found["left"].items()]
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


def _name_lines(found: Mapping[str, Any]) -> list[str]:
    """The first names of each kind."""
    shapes = [f"{n} {s['file']} instead of {s['network']}" for n, s in found["wrong_shape"].items()]
    groups = [f"{name} ({count})" for name, count in found["unexpected_groups"].items()]
    gone = {row["part"]: row["own"] for row in found["parts"] if row["missing"] == row["own"]}
    missing = [f"all of {part} ({count})" for part, count in gone.items()]
    missing += [name for name in found["missing"] if part_of(name) not in gone]
    kinds = {"missing": missing, "wrong shape": shapes, "not used": groups}
    return [f"{kind}: {listed(names)}" for kind, names in kinds.items() if names]


def _not_finite(names: list[str]) -> list[str]:
    return [f"not finite: {listed(names)}"] if names else []


def _verdict(found: Mapping[str, Any]) -> str:
    if found["problem"]:
        return f"--init refuses it: {found['problem']}"
    matched, own = (sum(row[key] for row in _backbone(found["parts"])) for key in ("matched", "own"))
    head = sum(row["matched"] for row in found["parts"] if row["part"] == "decode_head")
    return f"--init takes {matched} of {own} backbone tensors" + (f" and {head} of the head" if head else "")


def _backbone(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if row["part"] != "decode_head"]


def expect_usable(found: Mapping[str, Any]) -> None:
    """Raises CheckpointError when `--init` would refuse the file; the report has said why."""
    if found["problem"]:
        raise CheckpointError(f"{found['path']}: --init refuses it")
