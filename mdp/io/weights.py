"""Starting weights: from a run of mdp or a plain weights file into a network, with a report of what was loaded."""

import os
import pickle
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mdp.core.networks import Match, match
from mdp.io.checkpoint import load, opened, read_about, read_header, read_tensors
from mdp.io.engine import section
from mdp.io.errors import CheckpointError
from mdp.io.files import printable
from mdp.io.pickles import check_pickled

_CLASSIFIER = "decode_head.conv_seg."
# what zipfile, torch and its reader of pickles raise for damaged files
_UNREADABLE = (RuntimeError, AssertionError, EOFError, ValueError, LookupError, TypeError, AttributeError, MemoryError)
_LIMIT = 4 * 2**30  # bytes; larger files are no segmentation network


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The weights of a checkpoint file and what it says about itself (empty for foreign files).

    A pretraining run gives its query encoder, a fine-tuning run its network.  `.pth` and `.pt` files are read without
    executing anything in them.  Raises CheckpointError naming the file.
    """
    if path.suffix in (".pth", ".pt", ".bin"):
        return _foreign(path), {}
    if read_header(path).texts.get("format") != "mdp":
        return read_tensors(path)[0], {}
    whole = load(path)
    kind = whole.about.get("kind")
    if kind not in ("pretrain", "finetune"):
        raise CheckpointError(f"{path}: its kind is {kind!r}; expected a pretrain or finetune run")
    return section(whole.tensors, "query" if kind == "pretrain" else "network"), whole.about


def about_weights(path: Path) -> dict[str, Any]:
    """What a checkpoint file says about itself, without its weights; empty for foreign files."""
    foreign = path.suffix in (".pth", ".pt", ".bin") or read_header(path).texts.get("format") != "mdp"
    return {} if foreign else read_about(path)


def _foreign(path: Path) -> dict[str, Tensor]:
    loaded = _unpickled(path)
    for key in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{path}: expected a state_dict, found {type(loaded).__name__}")
    weights = {name: tensor for name, tensor in loaded.items() if isinstance(tensor, Tensor)}
    if not weights:
        raise CheckpointError(f"{path}: no tensors in it")
    return weights


def _unpickled(path: Path) -> Any:
    try:
        with opened(path, "weights file") as file:
            size = os.fstat(file.fileno()).st_size
            if size > _LIMIT:
                raise CheckpointError(f"{path}: {size} bytes; weights files of up to {_LIMIT} are read")
            check_pickled(file, size)
            return torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, zipfile.BadZipFile, zlib.error, *_UNREADABLE) as error:
        reason = printable(str(error).split("\n")[0])[:200] or type(error).__name__
        raise CheckpointError(
            f"{path}: cannot be read as plain weights ({reason}); files that run code when loaded are refused: "
            "save the bare state_dict"
        ) from error


def fit(weights: dict[str, Tensor], network: nn.Module, parts: tuple[str, ...], path: Path) -> tuple[Match, str]:
    """What of `weights` fits the named parts of the network, and the report for people.

    Raises CheckpointError, saying which tensors, unless all of the backbone fits and no shape differs.
    """
    own = network.state_dict()
    # a classifier's outputs are the classes of another training, whatever their number: it is never taken over
    body = {name: tensor for name, tensor in own.items() if not name.startswith(_CLASSIFIER)}
    found = match(weights, body, parts)
    backbone = [name for name in own if name.startswith("backbone.")]
    loaded = sum(name in found.tensors for name in backbone)
    if found.wrong_shape:
        name, shape = next(iter(found.wrong_shape.items()))
        raise CheckpointError(
            f"{path}: {len(found.wrong_shape)} tensors have another shape, such as {name}: {list(shape)} in the "
            f"file, {list(own[name].shape)} in the network; set model.backbone, model.width and model.channels to the "
            "file's"
        )
    if loaded < len(backbone):
        first = [name for name in backbone if name not in found.tensors][:3]
        raise CheckpointError(
            f"{path}: only {loaded} of the {len(backbone)} backbone tensors are in the file (missing: "
            f"{', '.join(first)}, ...); is it a {type(network).__name__} of another backbone?"
        )
    _refuse_part_of_a_head(found, parts, path)
    lines = [f"{part} {sum(n.startswith(part + '.') for n in found.tensors)} tensors" for part in parts]
    new = sorted({_group(name) for name in own} - {_group(name) for name in found.tensors})
    unused = sorted({_group(name) for name in found.unexpected})
    report = f"loaded {', '.join(lines)} from {path}"
    report += f"; not in the file, starts at random: {', '.join(new)}" if new else ""
    report += f"; in the file, not used: {', '.join(unused)}" if unused else ""
    return found, report


def _refuse_part_of_a_head(found: Match, parts: tuple[str, ...], path: Path) -> None:
    """Raises CheckpointError when the file has a head, and it is another one: heads share some names by chance."""
    if "decode_head" not in parts:
        return
    loaded, missing, unknown = (
        [n for n in names if n.startswith("decode_head.") and not n.endswith("num_batches_tracked")]
        for names in (found.tensors, found.missing, found.unexpected)
    )
    unknown = [name for name in unknown if not name.startswith(_CLASSIFIER)]
    if unknown or (loaded and missing):
        odd = f"it has {unknown[0]}" if unknown else f"it lacks {missing[0]}"
        raise CheckpointError(
            f"{path}: the head in the file is not the network's ({odd}); set model.head and model.dilations to the "
            "file's, or load the backbone alone (finetune --backbone-only)"
        )


def _group(name: str) -> str:
    """`decode_head.conv_seg.weight` -> `decode_head.conv_seg`, `projection_head.3.bias` -> `projection_head`."""
    part, name = name.split(".")[:2]
    return part if name.isdigit() else f"{part}.{name}"
