"""Reading files of weights: checkpoints of mdp, safetensors and pickles of others, as one flat table of tensors.

What other projects nest in dictionaries (`state_dict`, `teacher`, an optimizer's moments) keeps its path in the name,
`state_dict.module.conv1.weight`, so that nothing is chosen, and nothing dropped, before the names are looked at.
"""

import os
import pickle
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mdp.io.errors import CheckpointError
from mdp.io.files.reading import printable, shown
from mdp.io.run.checkpoint import read_tensors
from mdp.io.run.header import HEADER_LIMIT, opened, read_about, read_header
from mdp.io.run.opened import open_run, trained_part
from mdp.io.run.record import RunRecord, record_of
from mdp.io.run.restore import section
from mdp.io.weights.pickles import check_pickled

# what zipfile, torch and its reader of pickles raise for damaged files
_UNREADABLE = (RuntimeError, AssertionError, EOFError, ValueError, LookupError, TypeError, AttributeError, MemoryError)
_LIMIT = 4 * 2**30  # bytes; larger files are no segmentation network
_PICKLES = (".pth", ".pt", ".bin", ".tar", ".ckpt", ".pkl")
_DEPTH, _ENTRIES, _NAME = 6, 200_000, 1000  # of dictionaries in dictionaries: one that holds itself would never end
_TOO_DEEP = object()
# whose objects checkpoints hold besides tensors: only for these is it worth while to open the file with its code
_HONEST = re.compile(r"asks for (argparse|numpy|torch\.nn|torchvision|timm|omegaconf|mmengine|(pytorch_)?lightning)\.")
_RESAVE = (
    'if you trust its source (this runs what is in it), keep its tensors: python -c "import torch; c = torch.load('
    "'{file}', map_location='cpu', weights_only=False); c = c.state_dict() if hasattr(c, 'state_dict') else c; "
    "torch.save({{k: v for k, v in c.items() if torch.is_tensor(v) or isinstance(v, dict) and all(map(torch.is_tensor, "
    "v.values()))}}, 'bare.pth')\""
)


class WeightsFile(NamedTuple):
    """A file's tensors and what stands beside them."""

    tensors: dict[str, Tensor]  # by their path: keys of dictionaries and the name, joined by points
    run: RunRecord | None  # of a checkpoint of mdp; None for the files of others
    container: str  # safetensors, or how torch.save wrote it
    tables: tuple[str, ...]  # the paths of dictionaries that hold tensors themselves, without the outermost
    others: dict[str, Any]  # by their path: what is no tensor


def read_file(path: Path) -> WeightsFile:
    """Everything in a file of weights; nothing in it is executed.

    Of a checkpoint of mdp: the query encoder of a pretraining run, the network of a fine-tuning run.
    Raises CheckpointError naming the file.
    """
    if _pickled(path):
        return _foreign(path)
    if read_header(path).texts.get("format") != "mdp":
        tensors, texts = read_tensors(path)
        return WeightsFile(tensors, None, "safetensors", (), dict(texts))
    whole = open_run(path)
    part = trained_part(path, whole.record)
    return WeightsFile(section(whole.tensors, part), whole.record, f"{whole.record.kind} checkpoint of mdp", (), {})


def read_weights(path: Path) -> tuple[dict[str, Tensor], RunRecord | None]:
    """The tensors of a file by their paths, and the record of the run that wrote it (None for foreign files)."""
    file = read_file(path)
    return file.tensors, file.run


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
    loaded, container = _unpickled(path)
    if not isinstance(loaded, Mapping):
        raise CheckpointError(f"{path}: expected a state_dict, found {type(loaded).__name__}")
    tensors: dict[str, Tensor] = {}
    others: dict[str, Any] = {}
    tables: dict[str, None] = {}
    for count, (table, name, value) in enumerate(_entries(loaded, "", 1)):
        if count >= _ENTRIES or len(name) > _NAME or value is _TOO_DEEP:
            raise CheckpointError(f"{path}: its dictionaries are nested too deeply, or too large, for weights")
        if name in tensors or name in others:
            raise CheckpointError(f"{path}: two things in it are called {shown(name)}; save the bare state_dict")
        if isinstance(value, Tensor):
            tensors[name] = value
            tables[table] = None
        elif not isinstance(value, Mapping) or not value:
            others[name] = value
    if not tensors:
        raise CheckpointError(f"{path}: no tensors in it{_keys(others)}")
    return WeightsFile(tensors, None, container, tuple(table for table in tables if table), others)


def _entries(table: Mapping[Any, Any], path: str, depth: int) -> Iterator[tuple[str, str, Any]]:
    """(path of the dictionary, path of the value, value) of everything in it, and in the dictionaries in it."""
    for key, value in table.items():
        name = f"{path}.{key}" if path else str(key)
        inside = isinstance(value, Mapping) and len(value) > 0
        yield path, name, _TOO_DEEP if inside and depth == _DEPTH else value
        if inside and depth < _DEPTH:
            yield from _entries(value, name, depth + 1)


def _keys(others: Mapping[str, Any]) -> str:
    return f" (it has {', '.join(shown(name) for name in list(others)[:5])})" if others else ""


def _unpickled(path: Path) -> tuple[Any, str]:
    try:
        with opened(path, "weights file") as file:
            size = os.fstat(file.fileno()).st_size
            if size > _LIMIT:
                raise CheckpointError(f"{path}: {size} bytes; weights files of up to {_LIMIT} are read")
            container = "torch.save" if file.read(2) == b"PK" else "torch.save, before version 1.6"
            file.seek(0)
            check_pickled(file, size)
            return torch.load(file, map_location="cpu", weights_only=True), container
    except (pickle.UnpicklingError, zipfile.BadZipFile, zlib.error, *_UNREADABLE) as error:
        reason = printable(str(error).split("\n")[0])[:200] or type(error).__name__
        raise CheckpointError(
            f"{path}: cannot be read as plain weights ({reason}); files that run code when loaded are refused: "
            f"save the bare state_dict{_resave(path) if _HONEST.search(reason) else ''}"
        ) from error


def _resave(path: Path) -> str:
    """The line that makes a plain file of one with other objects in it."""
    return "; " + _RESAVE.format(file=path if re.fullmatch(r"[\w./+=-]+", str(path)) else "FILE")
