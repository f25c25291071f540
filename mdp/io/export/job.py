"""The job behind `mdp export`: weights out of a run, into a file that another library loads, checked by loading it.

A file is made and checked in a folder of its own beside its place and renamed into it: what has the final name has
passed the check.  The name ends in the first digits of the file's SHA-256, as torch.hub checks them.
"""

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from mdp.io.errors import RecipeError, ResourceError
from mdp.io.export.asked import ExportQuestion
from mdp.io.export.card import facts, stem_of
from mdp.io.export.check import Checked, check_export
from mdp.io.export.content import TIMM, Content
from mdp.io.export.source import Source, crop_of, exported, read_source
from mdp.io.export.targets import find, refuse_misfit
from mdp.io.export.tracing import one_size_reason
from mdp.io.files.writing import make, write_text
from mdp.io.processes.device import memory_in_one_line
from mdp.io.run.folder import home_of
from mdp.io.run.opened import whose

_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class Export(NamedTuple):
    """An exported file, and how it was checked."""

    path: Path  # of the file or folder
    sidecar: Path
    state: str  # new | already there | replaced
    note: str  # what else to say; "" when there is nothing
    bytes: int
    sha256: str
    tensors: int
    parameters: int  # numbers in them that are trained: BatchNorm's statistics are not
    content: Content
    average: str | None  # ema or raw, of a checkpoint that has both
    checked: Checked
    line: str  # of Python, that loads it
    images: tuple[int, int] | None  # height and width of the only images that a program takes
    why: str  # of that size only; "" when it takes any


def run_export(asked: ExportQuestion) -> Export:
    """Exports the backbone of a run, or the whole network, to RUN/export/ (or `out`) and checks what was written.

    Raises RecipeError when the library cannot hold it or something else is in its place, CheckpointError when the run
    has no whole checkpoint or the file does not pass the check: then nothing is left of it.
    """
    target = asked.library
    library = find(target)
    library.expect()
    with memory_in_one_line():
        source = read_source(asked.run, asked.which, asked.segmentor, asked.weights)
        refuse_misfit(target, source.content)
        library.refuse(source)
        size, why = _only_size(source, target, asked.size)
        source = source._replace(size=size)
        folder = make(asked.out or home_of(source.path) / "export")
        try:
            workplace = Path(tempfile.mkdtemp(prefix=".export-", suffix=".tmp", dir=folder))
        except OSError as error:
            raise ResourceError(f"{folder}: cannot be written: {error.strerror}") from error
        try:
            return _export(source, target, folder, workplace, asked.overwrite)._replace(why=why)
        finally:
            shutil.rmtree(workplace, ignore_errors=True)


def _export(source: Source, target: str, folder: Path, workplace: Path, overwrite: bool) -> Export:
    library, known = find(target), facts(source)
    tensors = exported(source.weights, library.layout(source.content))
    stem = stem_of(source, target)
    made = workplace / f"{stem}{library.SUFFIX}"
    library.write(made, source, tensors, known)
    weights = made / "model.safetensors" if made.is_dir() else made
    digest, size = _sha256(weights), weights.stat().st_size
    checked = check_export(library, made, source)
    path = folder / f"{stem}-{digest[:8]}{library.SUFFIX}"
    count, numbers = len(tensors), sum(t.numel() for name, t in tensors.items() if not name.endswith(_STATISTICS))
    card: dict[str, Any] = {
        "file": path.name,
        "to": target,
        "sha256": digest,
        **({"sha256_of": f"{path.name}/{weights.name}"} if weights != made else {}),
        "bytes": size,
        "tensors": count,
        "parameters": numbers,
        "load": library.load_line(Path(path.name), source.content),
        "checked": checked._asdict(),
        **known,
    }
    card |= library.sidecar(known)
    state = _put(made, path, overwrite)
    side = folder / f"{stem}-{digest[:8]}.json"
    note = _put_text(side, json.dumps(card, indent=1) + "\n", overwrite)
    line = library.load_line(path.resolve(), source.content)
    return Export(
        path, side, state, note, size, digest, count, numbers, source.content, source.average, checked, line,
        source.size, "",
    )  # fmt: skip


def _only_size(source: Source, target: str, asked: tuple[int, int] | None) -> tuple[tuple[int, int] | None, str]:
    """The size of the only images that the file is for, and why; None where it takes any.

    Raises RecipeError where a size is asked of a file that holds weights alone.
    """
    library = find(target).LIBRARY
    if library is None or not library.program:
        if asked:
            raise RecipeError(f"--size: a file for {target} holds weights, which fit images of all sizes; leave it out")
        return None, ""
    if asked:
        return asked, "as --size asks"
    if source.content.backbone.startswith(TIMM) and (reason := one_size_reason(source.rebuilt())):
        return crop_of(source), f"the run's crop: {reason}; --size HEIGHT WIDTH takes another"
    return None, ""


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# Putting it in its place


def _put(made: Path, path: Path, overwrite: bool) -> str:
    """Renames what was made into place, and says whether it is new, already there, or replaced.

    Raises RecipeError when something else has the name.
    """
    if not os.path.lexists(path):
        _rename(made, path)
        return "new"
    if _same(made, path):
        return "already there"
    if not overwrite:
        raise RecipeError(f"{path}: something else has this name; look at it, then add --overwrite")
    _remove(path)
    _rename(made, path)
    return "replaced"


def _same(made: Path, path: Path) -> bool:
    """Whether both hold the same bytes: of folders, the same files."""
    if made.is_dir():
        names = sorted(file.name for file in made.iterdir())
        there = path.is_dir() and sorted(file.name for file in path.iterdir()) == names
        return there and all(_same(made / name, path / name) for name in names)
    return path.is_file() and _sha256(made) == _sha256(path)


def _remove(path: Path) -> None:
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    except OSError as error:
        raise ResourceError(f"{path}: cannot be replaced: {error.strerror}") from error


def _rename(made: Path, path: Path) -> None:
    try:
        made.rename(path)
    except OSError as error:
        raise ResourceError(f"{path}: cannot be written: {error.strerror}") from error


def _put_text(path: Path, text: str, overwrite: bool) -> str:
    """Writes the side-car unless there is another one; a note when there is."""
    if path.exists() and not overwrite:
        try:
            if path.read_text(encoding="utf-8") == text:
                return ""
        except (OSError, ValueError):
            pass
        return f"{path} says something else and was kept; --overwrite replaces it"
    write_text(path, text)
    return ""


# In words


def as_json(export: Export) -> dict[str, Any]:
    """The result for programs."""
    return {
        "path": str(export.path),
        "sidecar": str(export.sidecar),
        "state": export.state,
        "note": export.note,
        "bytes": export.bytes,
        "sha256": export.sha256,
        "tensors": export.tensors,
        "parameters": export.parameters,
        **({"weights": export.average} if export.average else {}),
        "images": export.images,
        "checked": export.checked._asdict(),
        "load": export.line,
    }


def report(export: Export) -> str:
    """The result for people; the last line loads what was exported."""
    checked = export.checked
    sizes = " and a ".join("x".join(map(str, size)) for size in checked.sizes)
    what = "logits" if export.content.head else f"features at stride {' and '.join(map(str, checked.strides))}"
    instead = f" ({checked.instead})" if checked.instead else ""
    lines = [
        f"file     {export.path} ({export.state})",
        f"size     {export.bytes / 2**20:.2f} MiB, {export.tensors} tensors, {export.parameters:,} parameters",
        f"sha256   {export.sha256}",
        f"facts    {export.sidecar}",
        *([f"weights  {whose(export.average)}"] if export.average else []),
        f"checked  with {checked.reader}{instead}: {what} of a {sizes} input, largest difference "
        f"{checked.difference:.1e} of the largest value",
        *([f"images   of {' x '.join(map(str, export.images))} only, {export.why}"] if export.images else []),
        *([f"note     {export.note}"] if export.note else []),
        f"load     {export.line}",
    ]
    return "\n".join(lines)
