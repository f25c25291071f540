"""Whether checkpoints are whole, and how two of them differ, as data and as text for people."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mdp.io.errors import CheckpointError, MdpError
from mdp.io.run.checkpoint import load
from mdp.io.run.checkpoint_summary import classes_of
from mdp.io.run.checkpoints import checkpoints_in
from mdp.io.run.folder import checkpoint_of

_LISTED = 10  # lines of each kind in a report; --json has them all


def verify(path: Path) -> list[dict[str, Any]]:
    """Reads every checkpoint of a run folder, or one file: for each its path, step and what is wrong ("": nothing).

    Raises CheckpointError when there is none.
    """
    files = checkpoints_in(path) if path.is_dir() else [checkpoint_of(path)]
    if not files:
        raise CheckpointError(f"{path}: no checkpoints/*.safetensors in it; is it a run folder of mdp?")
    return [_verdict(file) for file in files]


def _verdict(file: Path) -> dict[str, Any]:
    try:
        return {"path": str(file), "step": load(file).about.get("step"), "problem": ""}
    except MdpError as error:
        return {"path": str(file), "step": None, "problem": _reason(file, error)}


def _reason(file: Path, error: MdpError) -> str:
    return str(error).removeprefix(f"{file}: ").removeprefix("damaged or not a checkpoint: ")


def verify_table(verdicts: list[dict[str, Any]]) -> str:
    """One line for each checkpoint."""
    return "\n".join(
        f"{row['path']}: DAMAGED: {row['problem']}" if row["problem"] else f"{row['path']}: OK (step {row['step']})"
        for row in verdicts
    )


def expect_whole(verdicts: list[dict[str, Any]]) -> None:
    """Raises CheckpointError, with the count, when a checkpoint is damaged."""
    damaged = sum(bool(row["problem"]) for row in verdicts)
    if damaged:
        raise CheckpointError(f"{damaged} of {len(verdicts)} checkpoints damaged")


# How two differ


def difference(first: Path, second: Path) -> dict[str, Any]:
    """How two checkpoints, or the last ones of two run folders, differ: settings, classes, other facts and tensors.

    `equal` is whether the tensors have the same names, types, shapes and bits.
    """
    files = checkpoint_of(first), checkpoint_of(second)
    left, right = load(files[0]), load(files[1])
    settings = _changed(_flat(left.about.get("recipe", {})), _flat(right.about.get("recipe", {})))
    apart = {"recipe", "labels"}
    facts = ({key: value for key, value in side.about.items() if key not in apart} for side in (left, right))
    shared = [name for name in left.tensors if name in right.tensors]
    tensors = {name: _compared(left.tensors[name], right.tensors[name]) for name in shared}
    only = [sorted(a.keys() - b.keys()) for a, b in ((left.tensors, right.tensors), (right.tensors, left.tensors))]
    differing = {name: entry for name, entry in tensors.items() if entry}
    return {
        "first": str(files[0]),
        "second": str(files[1]),
        "settings": settings,
        "classes": _changed(classes_of(files[0], left.about), classes_of(files[1], right.about)),
        "facts": _changed(*facts),
        "only_in_first": only[0],
        "only_in_second": only[1],
        "tensors": differing,
        "tensors_equal": len(shared) - len(differing),
        "equal": not differing and not any(only),
    }


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{a: {b: 1}}` -> `{a.b: 1}`."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _changed(left: Mapping[str, Any], right: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The keys whose values differ, with both; a key that one side lacks has None there."""
    return {key: [left.get(key), right.get(key)] for key in {**left, **right} if left.get(key) != right.get(key)}


def _compared(left: Tensor, right: Tensor) -> dict[str, Any]:
    """How two tensors differ; empty when they are the same bit for bit."""
    if left.shape != right.shape or left.dtype != right.dtype:
        kinds = [f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}" for tensor in (left, right)]
        return {"kinds": kinds}
    # bits, not values: NaN is equal to itself, and -0 is not 0
    bits = [tensor.reshape(-1, 1).view(torch.uint8) for tensor in (left, right)]  # (numbers, bytes of a number)
    differ = (bits[0] != bits[1]).any(1)
    if not differ.any():
        return {}
    apart = (left.reshape(-1)[differ].double() - right.reshape(-1)[differ].double()).abs().max().item()
    return {
        "numbers": left.numel(),
        "equal": left.numel() - int(differ.sum()),
        "max_difference": apart if math.isfinite(apart) else None,  # None: NaN or infinity on one side
    }


def difference_text(result: Mapping[str, Any]) -> str:
    """The text of `difference`, one line for each thing that differs, the verdict last."""
    lines = _listed("setting", [f"{key}: {a!r} -> {b!r}" for key, (a, b) in result["settings"].items()])
    lines += _listed("classes of", [_class_line(name, *pair) for name, pair in result["classes"].items()])
    lines += _listed("", [f"{key}: {a!r} -> {b!r}" for key, (a, b) in result["facts"].items()])
    lines += _listed("only in the first:", result["only_in_first"])
    lines += _listed("only in the second:", result["only_in_second"])
    lines += _listed("tensor", [_tensor_line(name, entry) for name, entry in result["tensors"].items()])
    return "\n".join([*lines, verdict(result)])


def verdict(result: Mapping[str, Any]) -> str:
    """Whether the tensors are the same, in one line."""
    if result["equal"]:
        return f"equal: all {result['tensors_equal']} tensors bit for bit"
    alone = len(result["only_in_first"]) + len(result["only_in_second"])
    others = f", {alone} in one only" if alone else ""
    return f"different: {len(result['tensors'])} tensors differ, {result['tensors_equal']} are bit-equal{others}"


def expect_equal(result: Mapping[str, Any]) -> None:
    """Raises CheckpointError with the verdict unless all tensors are the same."""
    if not result["equal"]:
        raise CheckpointError(f"{result['first']} and {result['second']} are {verdict(result)}")


def _listed(what: str, lines: list[str]) -> list[str]:
    shown = [f"{what} {line}".strip() for line in lines[:_LISTED]]
    more = len(lines) - len(shown)
    return [*shown, f"{what} ... and {more} more".strip()] if more else shown


def _class_line(name: str, left: list[str] | None, right: list[str] | None) -> str:
    if left is None or right is None:
        return f"{name}: only in the {'second' if left is None else 'first'}"
    gone, new = [c for c in left if c not in right], [c for c in right if c not in left]
    parts = [f"{len(left)} -> {len(right)}"]
    parts += [f"{word} {', '.join(names[:5])}" for word, names in (("without", gone), ("new", new)) if names]
    return f"{name}: {'; '.join(parts) if gone or new else 'another order'}"


def _tensor_line(name: str, entry: Mapping[str, Any]) -> str:
    if "kinds" in entry:
        return f"{name}: {entry['kinds'][0]} -> {entry['kinds'][1]}"
    apart = "no finite number" if entry["max_difference"] is None else f"{entry['max_difference']:.3g}"
    return f"{name}: differs by up to {apart}; {entry['equal']} of {entry['numbers']} numbers bit-equal"
