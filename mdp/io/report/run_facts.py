"""The facts in the files of a run folder.

A run may be going on, broken or of an older version: what is missing or cannot be read becomes a note, and the rest is
kept.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mdp.io.errors import MdpError, RecipeError
from mdp.io.files.reading import printable, read_bytes
from mdp.io.files.strict_yaml import parse_yaml
from mdp.io.journal.history import History, read_history
from mdp.io.report.pictures import Picture, read_pictures

_SMALL, _LARGE = 2**24, 2**28  # bytes of files that are read: texts, scores
_BINS = 11  # of overlaps: none, and tenths


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """The facts that are known of a run."""

    name: str  # short, and unlike that of any other run on the page
    folder: str
    history: History
    command: str = ""
    config: str = ""  # YAML
    settings: Mapping[str, str] = field(default_factory=dict)  # every setting by its full name
    environment: Mapping[str, Any] = field(default_factory=dict)
    datasets: Sequence[Mapping[str, Any]] = ()  # of labels.json
    status: Mapping[str, Any] = field(default_factory=dict)
    diverged: Mapping[str, Any] = field(default_factory=dict)
    evaluations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # scores.json by its folder's name
    pictures: Sequence[Picture] = ()
    shares: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # of class_shares.json, by dataset
    overlaps: Mapping[str, Any] = field(default_factory=dict)  # of view_overlaps.json
    log: str = ""
    changed: float | None = None  # when the journal was written to last, seconds since 1970
    notes: Sequence[str] = ()  # what is missing or cannot be read


def unique_names(folders: Sequence[Path]) -> list[str]:
    """A short name for each folder, with as many of the folders above as it takes to tell them apart.

    >>> unique_names([Path("a/x"), Path("b/x"), Path("b/y")])
    ['a/x', 'b/x', 'b/y']
    """
    parts = [folder.resolve().parts for folder in folders]
    for count in range(1, max(map(len, parts), default=0) + 1):
        names = ["/".join(path[-count:]) for path in parts]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]


def read_run(folder: Path, name: str) -> RunFacts:
    """All facts of a run."""
    notes: list[str] = []
    history = read_history(folder / "metrics.jsonl")
    if history.damaged:
        count = f"{history.damaged:,}"
        notes.append(f"metrics.jsonl: lines that are no record, left out: {count} (a killed run leaves one)")
    config = _text(folder / "config.yaml", notes)
    labels = _json(folder / "labels.json", notes, list)
    return RunFacts(
        name=name,
        folder=str(folder),
        history=history,
        command=_text(folder / "command.txt", notes).strip(),
        config=config,
        settings=_settings(config, notes),
        environment=_json(folder / "env.json", notes, dict),
        datasets=[entry for entry in labels if isinstance(entry, dict)],
        status=_json(folder / "status.json", notes, dict),
        diverged=_json(folder / "diverged.json", notes, dict) if (folder / "diverged.json").exists() else {},
        evaluations=_evaluations(folder, notes),
        pictures=read_pictures(folder, notes),
        shares=_shares(folder, notes),
        overlaps=_overlaps(folder, notes),
        log=_text(folder / "log.txt", notes),
        changed=_changed(folder / "metrics.jsonl"),
        notes=notes,
    )


def _text(path: Path, notes: list[str], limit: int = _SMALL) -> str:
    """A file's text; "" and a note where there is none."""
    try:
        return read_bytes(str(path), "file", limit).decode("utf-8", "replace")
    except MdpError as error:
        notes.append(str(error))
        return ""


def _json(path: Path, notes: list[str], kind: type, limit: int = _SMALL) -> Any:
    """The content of a JSON file, if it is of that kind; an empty one and a note else."""
    words = _text(path, notes, limit)
    if not words:
        return kind()
    try:
        value = json.loads(words)
    except (ValueError, RecursionError):
        notes.append(f"{printable(path)}: not JSON, left out")
        return kind()
    if not isinstance(value, kind):
        notes.append(f"{printable(path)}: expected a JSON {kind.__name__}, left out")
        return kind()
    return value


def _settings(config: str, notes: list[str]) -> dict[str, str]:
    try:
        return dict(flat(parse_yaml(config, "config.yaml")))
    except RecipeError as error:
        notes.append(str(error))
        return {}


def flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings by their full names.

    >>> flat({"run": {"seed": 0}, "eval": {"split": None}})
    [('run.seed', '0'), ('eval.split', 'null')]
    """
    pairs: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, dict):
            pairs += flat(value, f"{prefix}{key}.")
        else:
            pairs.append((f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value, default=str)))
    return pairs


def _evaluations(folder: Path, notes: list[str]) -> dict[str, Any]:
    """The scores of each evaluation of the run that has what the page shows."""
    evaluations = {}
    for path in sorted((folder / "eval").glob("*/scores.json")):
        scores = _json(path, notes, dict, _LARGE)
        if scores and not _drawable(scores):
            notes.append(f"{printable(path)}: not the scores of an evaluation, left out")
        elif scores:
            evaluations[path.parent.name] = scores
    return evaluations


def _drawable(scores: Mapping[str, Any]) -> bool:
    """Whether there is a row for each class, and a square confusion matrix of counts."""
    rows, confusion = scores.get("classes"), scores.get("confusion")
    if not isinstance(rows, list) or not isinstance(confusion, list) or not rows or len(rows) != len(confusion):
        return False
    named = all(isinstance(row, dict) and isinstance(row.get("name"), str) for row in rows)
    square = all(isinstance(row, list) and len(row) == len(rows) for row in confusion)
    return named and square and all(type(count) is int and 0 <= count < 2**63 for row in confusion for count in row)


def _shares(folder: Path, notes: list[str]) -> dict[str, Any]:
    """The pixel counts of each dataset; older versions kept none."""
    path = folder / "class_shares.json"
    entries = _json(path, notes, list) if path.exists() else []
    counted = {str(entry["name"]): entry for entry in entries if isinstance(entry, dict) and _counted(entry)}
    if len(counted) < len(entries):
        notes.append(f"{printable(path)}: not the pixel counts of datasets, left out")
    return counted


def _counted(entry: Mapping[str, Any]) -> bool:
    pixels = entry.get("pixels")
    counts = [*pixels, entry.get("ignored"), entry.get("images")] if isinstance(pixels, list) else [None]
    return "name" in entry and all(type(count) is int and 0 <= count < 2**63 for count in counts)


def _overlaps(folder: Path, notes: list[str]) -> dict[str, Any]:
    """How much views overlap; older versions, and runs that compare no views, have none."""
    path = folder / "view_overlaps.json"
    found = _json(path, notes, dict) if path.exists() else {}
    pairs = found.get("pairs")
    counts = [*pairs, found.get("images")] if isinstance(pairs, list) and len(pairs) == _BINS else [None]
    if not all(type(count) is int and 0 <= count < 2**63 for count in counts) or not sum(pairs or ()):
        if found:
            notes.append(f"{printable(path)}: not the overlaps of views, left out")
        return {}
    return dict(found)


def _changed(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None
