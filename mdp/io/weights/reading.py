"""Reading files of weights: checkpoints of mdp, safetensors and pickles of others, as one flat table of tensors.

What other projects nest in dictionaries (`state_dict`, `teacher`, an optimizer's moments) keeps its path in the name,
`state_dict.module.conv1.weight`, so that nothing is chosen, and nothing dropped, before the names are looked at.
"""

import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from mdp.io.errors import CheckpointError
from mdp.io.files.reading import printable, shown
from mdp.io.run.checkpoint import read_tensors
from mdp.io.run.header import HEADER_LIMIT, opened, read_about, read_header
from mdp.io.run.opened import open_run, part_of, whose
from mdp.io.run.record import RunRecord, record_of
from mdp.io.run.restore import section
from mdp.io.weights.pickle_parts import Name, PickledTensor, Unknown
from mdp.io.weights.pickled_file import read_pickled, tensors_of
from mdp.io.weights.transformers_names import from_transformers

# what is raised for damaged files
_UNREADABLE = (RuntimeError, AssertionError, EOFError, ValueError, LookupError, TypeError, AttributeError, MemoryError)
_LIMIT = 4 * 2**30  # bytes; larger files are no segmentation network
_PICKLES = (".pth", ".pt", ".bin", ".tar", ".ckpt", ".pkl")
_DEPTH, _ENTRIES, _NAME = 12, 200_000, 1000  # of dictionaries in dictionaries: one that holds itself would never end
_TOO_DEEP, _PASSED = object(), object()
_KINDS = 6  # of skipped objects in a line


class WeightsFile(NamedTuple):
    """A file's tensors and what stands beside them."""

    tensors: dict[str, Tensor]  # by their path: keys of dictionaries and the name, joined by points
    run: RunRecord | None  # of a checkpoint of mdp; None for the files of others
    container: str  # safetensors, or how torch.save wrote it
    tables: tuple[str, ...]  # the paths of dictionaries that hold tensors themselves, without the outermost
    others: dict[str, Any]  # by their path: what is no tensor
    skipped: tuple[tuple[str, int], ...] = ()  # classes of the objects that were left out, and how many of each
    translated: str = ""  # what the network is where its names were another library's, in words
    which: str = ""  # of a run's weights, in words, where it has two kinds
    backbone: str = ""  # and which `model.backbone` has its shapes; "" where none is known


def read_file(path: Path) -> WeightsFile:
    """Everything in a file of weights; nothing in it is executed.

    Of a checkpoint of mdp: the query encoder of a pretraining run, the network of a fine-tuning run; of a run with an
    average of its weights, that.
    Raises CheckpointError naming the file.
    """
    if _pickled(path):
        return _renamed(_foreign(path))
    if read_header(path).texts.get("format") != "mdp":
        tensors, texts = read_tensors(path)
        return _renamed(WeightsFile(tensors, None, "safetensors", (), dict(texts)))
    whole = open_run(path)
    container, which = f"{whole.record.kind} checkpoint of mdp", whose(whole.weights())
    return WeightsFile(section(whole.tensors, part_of(whole)), whole.record, container, (), {}, which=which)


def _renamed(file: WeightsFile) -> WeightsFile:
    """The file with the names that backbones here have, where it has those of Hugging Face's transformers."""
    found = from_transformers(file.tensors)
    if found is None:
        return file
    return file._replace(tensors=found.weights, translated=found.words, backbone=found.backbone)


def read_weights(path: Path) -> tuple[dict[str, Tensor], RunRecord | None]:
    """The tensors of a file by their paths, and the record of the run that wrote it (None for foreign files)."""
    file = read_file(path)
    return file.tensors, file.run


def translated_line(file: WeightsFile) -> str:
    """Whose names were read as whose; "" where they were taken as they are."""
    whose = "torchvision's" if file.translated.endswith("ResNet") else "timm's"
    return f"its names are those of {file.translated}; they are read as {whose}" if file.translated else ""


def skipped_line(file: WeightsFile) -> str:
    """How many objects of a file were left out, and of which classes; "" when there were none.

    >>> skipped_line(WeightsFile({}, None, "", (), {}, (("numpy.ndarray", 2), ("argparse.Namespace", 1))))
    '3 objects that are no tensors were skipped, unread: 2 numpy.ndarray, 1 argparse.Namespace'
    """
    if not file.skipped:
        return ""
    count, kinds = sum(count for _, count in file.skipped), len(file.skipped)
    listed = ", ".join(f"{number} {printable(name)}" for name, number in file.skipped[:_KINDS])
    more = f" and {kinds - _KINDS} more kinds" if kinds > _KINDS else ""
    objects = "1 object that is no tensor was" if count == 1 else f"{count} objects that are no tensors were"
    return f"{objects} skipped, unread: {listed}{more}"


def read_record(path: Path) -> RunRecord | None:
    """The record of the run that wrote a file, its weights unread; None for foreign files."""
    if _pickled(path) or read_header(path).texts.get("format") != "mdp":
        return None
    return record_of(path, read_about(path))


def _pickled(path: Path) -> bool:
    """Whether to read it as a pickle: by its first bytes, for names lie; by its name where they say nothing."""
    with opened(path, "weights file") as file:
        start = file.read(9)
    length = int.from_bytes(start[:8], "little")
    if start[8:] == b"{" and 2 <= length <= HEADER_LIMIT:
        return False
    return start.startswith((b"PK\x03\x04", b"\x80")) or path.suffix in _PICKLES


def _foreign(path: Path) -> WeightsFile:
    """A file of torch.save.  Raises CheckpointError, saying why, where it is damaged, made to harm, or no weights."""
    try:
        with opened(path, "weights file") as file:
            size = os.fstat(file.fileno()).st_size
            if size > _LIMIT:
                raise CheckpointError(f"{path}: {size} bytes; weights files of up to {_LIMIT} are read")
            container = "torch.save" if file.read(2) == b"PK" else "torch.save, before version 1.6"
            file.seek(0)
            pickled = read_pickled(file, size)
            found, others, tables = _sorted_out(path, pickled.value)
            tensors = tensors_of(pickled, found)
    except (zipfile.BadZipFile, zlib.error, *_UNREADABLE) as error:
        reason = printable(str(error).split("\n")[0])[:200] or type(error).__name__
        raise CheckpointError(
            f"{path}: cannot be read as plain weights ({reason}); files that run code when loaded are refused: "
            "save the bare state_dict"
        ) from error
    return WeightsFile(tensors, None, container, tables, others, tuple(pickled.skipped.most_common()))


def _sorted_out(path: Path, value: Any) -> tuple[dict[str, PickledTensor], dict[str, Any], tuple[str, ...]]:
    """The tensors of what was saved, what else there is, both by their paths, and the dictionaries with tensors."""
    if not isinstance(value, dict) and not _holds(value):
        raise CheckpointError(f"{path}: expected a state_dict, found {_kind(value)}")
    tensors: dict[str, PickledTensor] = {}
    others: dict[str, Any] = {}
    tables: dict[str, None] = {}
    for count, (table, name, entry) in enumerate(_entries(value, "", 1, set())):
        if count >= _ENTRIES or len(name) > _NAME or entry is _TOO_DEEP:
            raise CheckpointError(f"{path}: its dictionaries are nested too deeply, or too large, for weights")
        if entry is _PASSED:
            continue
        if name in tensors or name in others:
            raise CheckpointError(f"{path}: two things in it are called {shown(name)}; save the bare state_dict")
        if isinstance(entry, PickledTensor):
            tensors[name] = entry
            tables[table] = None
        elif not _holds(entry):
            others[name] = entry
    if not tensors:
        raise CheckpointError(f"{path}: no tensors in it{_keys(others)}")
    return tensors, others, tuple(table for table in tables if table)


def _holds(value: Any) -> bool:
    """Whether it is a dictionary, or an object of an unknown class, with something in it."""
    return bool(value.items or value.state) if isinstance(value, Unknown) else isinstance(value, dict) and bool(value)


def _kind(value: Any) -> str:
    if isinstance(value, Unknown | Name):
        return f"an object of {printable(value.name.replace(' ', '.'))}"
    return "Tensor" if isinstance(value, PickledTensor) else type(value).__name__


def _entries(holder: Any, path: str, depth: int, seen: set[int]) -> Iterator[tuple[str, str, Any]]:
    """(path of the dictionary, path of the value, value) of everything in it, and in the dictionaries in it.

    Objects of unknown classes are looked into once, since they may hold each other; of their attributes only what may
    hold tensors counts, the rest is passed.
    """
    attributes = isinstance(holder, Unknown) and not holder.items
    for key, value in holder.pairs() if isinstance(holder, Unknown) else holder.items():
        name = f"{path}.{key}" if path else key
        if id(value) in seen or (attributes and not isinstance(value, PickledTensor | Unknown | dict)):
            yield path, name, _PASSED
            continue
        inside = _holds(value)
        yield path, name, _TOO_DEEP if inside and depth == _DEPTH else value
        if inside and isinstance(value, Unknown):
            seen.add(id(value))
        if inside and depth < _DEPTH:
            yield from _entries(value, name, depth + 1, seen)


def _keys(others: Mapping[str, Any]) -> str:
    return f" (it has {', '.join(shown(name) for name in list(others)[:5])})" if others else ""
