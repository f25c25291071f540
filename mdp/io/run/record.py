"""The record of a run that every checkpoint carries beside its tensors, made from JSON and written as JSON here only.

Nothing here reads a tensor or needs torch.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from mdp.io.data.identity import DataDigest
from mdp.io.errors import CheckpointError
from mdp.io.files.reading import printable
from mdp.label_space import LabelSpace
from mdp.photo_rule import PhotoRule, rule_of

PRETRAIN, FINETUNE = "pretrain", "finetune"  # kinds of runs
_Value = TypeVar("_Value")


class Position(NamedTuple):
    """Where a run is; all of it is in every checkpoint."""

    step: int = 0  # steps done
    validated: int = 0  # the step of the last finished validation
    best: float = -math.inf  # the best validation score
    stale: int = 0  # finished validations since there was a better one than all before


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A run's kind, position, settings and labels when its checkpoint was written."""

    kind: str
    position: Position
    recipe: Mapping[str, Any]  # the settings, as a layer: a later mdp may know more of them
    labels: tuple[LabelSpace, ...]
    processes: int | None = None  # None here and below: an older mdp did not write it
    threads: int | None = None
    torch: str | None = None  # its version
    scaler: Mapping[str, Any] = field(default_factory=dict)  # of fp16 gradients; empty for other precisions
    last: float | None = None  # the last validation mIoU of fine-tuning
    data: tuple[DataDigest, ...] = ()  # older versions of mdp did not write it
    photos: Mapping[str, PhotoRule] = field(default_factory=dict)  # of datasets that declare how photos are read

    def as_json(self) -> dict[str, Any]:
        """The record as checkpoints keep it."""
        step, validated, best, stale = self.position
        return {
            "kind": self.kind,
            "step": step,
            "validated": validated,
            "best": best if math.isfinite(best) else None,
            **({"stale": stale} if stale else {}),
            "recipe": dict(self.recipe),
            "labels": [space_json(space) for space in self.labels],
            "processes": self.processes,
            "threads": self.threads,
            "torch": self.torch,
            "scaler": dict(self.scaler),
            **({"last": self.last} if self.kind == FINETUNE else {}),
            **({"data": [digest._asdict() for digest in self.data]} if self.data else {}),
            **({"photos": {name: rule.as_json() for name, rule in self.photos.items()}} if self.photos else {}),
        }


def record_of(path: Path, about: Mapping[str, Any]) -> RunRecord:
    """The record in the JSON of a checkpoint file; what older versions did not write has its default.

    Raises CheckpointError, naming the file and the key, where it is not as mdp writes it.
    """
    kind = about.get("kind")
    if not isinstance(kind, str):
        raise unknown_kind(path, kind)
    try:
        return _record(path, kind, about)
    except CheckpointError:
        if kind in (PRETRAIN, FINETUNE):
            raise
        raise unknown_kind(path, kind) from None  # what it lacks of a run, it need not have


def unknown_kind(path: Path, kind: object) -> CheckpointError:
    """The error that a file is a checkpoint of something else."""
    return CheckpointError(f"{path}: its kind is {kind!r}; expected a pretrain or finetune run")


def _record(path: Path, kind: str, about: Mapping[str, Any]) -> RunRecord:
    best = _value(path, about, "best", _optional(_number), None)
    return RunRecord(
        kind=kind,
        position=Position(
            step=_value(path, about, "step", _count),
            validated=_value(path, about, "validated", _count, 0),
            best=-math.inf if best is None else best,
            stale=_value(path, about, "stale", _count, 0),
        ),
        recipe=_value(path, about, "recipe", _table),
        labels=labels_of(path, about.get("labels")),
        processes=_value(path, about, "processes", _optional(_count), None),
        threads=_value(path, about, "threads", _optional(_count), None),
        torch=_value(path, about, "torch", _optional(_text), None),
        scaler=_value(path, about, "scaler", _table, {}),
        last=_value(path, about, "last", _optional(_number), None),
        data=_value(path, about, "data", _digests, ()),
        photos=_value(path, about, "photos", _rules, {}),
    )


_NEEDED = object()  # in place of a default


def _value(
    path: Path, about: Mapping[str, Any], key: str, read: Callable[[Any], _Value], default: Any = _NEEDED
) -> _Value:
    if key not in about:
        if default is _NEEDED:
            raise CheckpointError(f"{path}: expected the key `{key}` in what it says of its run, found none")
        return default  # type: ignore[no-any-return]
    try:
        return read(about[key])
    except TypeError as error:
        value = printable(repr(about[key]))[:80]
        raise CheckpointError(f"{path}: its {key} is {value}, expected {error}") from error


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:  # a bool is an int in Python
        raise TypeError("a whole number")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("a number")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("text")
    return value


def _table(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError("a table")
    return value


def _digests(value: Any) -> tuple[DataDigest, ...]:
    if not isinstance(value, list) or not all(isinstance(row, Mapping) for row in value):
        raise TypeError("a list of digests of data")
    if not all(set(row) == set(DataDigest._fields) and type(row["images"]) is int for row in value):
        raise TypeError("a list of digests of data")
    return tuple(DataDigest(**row) for row in value)


def _rules(value: Any) -> Mapping[str, PhotoRule]:
    try:
        return {str(name): rule_of(rule) for name, rule in _table(value).items()}
    except (ValueError, TypeError) as error:
        raise TypeError("rules by which photos are read") from error


def _optional(read: Callable[[Any], _Value]) -> Callable[[Any], _Value | None]:
    return lambda value: None if value is None else read(value)


# Label spaces


def space_json(space: LabelSpace) -> dict[str, Any]:
    """A label space as JSON: enough to compare and to draw, without the files."""
    lookup = None if space.lookup is None else {str(raw): target for raw, target in space.lookup.items()}
    ranges = {"ranges": [list(entry) for entry in space.ranges]} if space.ranges else {}
    return {
        "name": space.name,
        "classes": list(space.classes),
        "ignore_index": space.ignore_index,
        "lookup": lookup,
        **ranges,
        "colors": [list(color) for color in space.colors],
    }


def labels_of(path: Path, entries: Any) -> tuple[LabelSpace, ...]:
    """The label spaces in the JSON of a checkpoint file.

    Raises CheckpointError where they are not as mdp writes them.
    """
    try:
        return tuple(map(_space, entries))
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        text = printable(str(entries))[:80]
        raise CheckpointError(f"{path}: its label spaces are not as mdp writes them: {text}") from error


def _space(entry: Mapping[str, Any]) -> LabelSpace:
    """`space_json` backwards.  Raises one of several errors where it is none."""
    lookup, classes = entry.get("lookup"), entry["classes"]
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in (entry["name"], *classes)):
        raise TypeError(classes)
    return LabelSpace(
        name=entry["name"],
        classes=tuple(classes),
        ignore_index=entry.get("ignore_index", 255),
        lookup=None if lookup is None else {int(raw): target for raw, target in lookup.items()},
        ranges=tuple((first, last, target) for first, last, target in entry.get("ranges", [])),
        colors=tuple((red, green, blue) for red, green, blue in entry.get("colors", [])),
    )
