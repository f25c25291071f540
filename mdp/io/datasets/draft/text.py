"""A draft of a dataset's YAML file, and its text."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from mdp.io.files.reading import printable

_PATHS = ("images", "labels", "annotations", "list")  # keys of a split that hold paths


@dataclass
class Draft:
    """The lines of a YAML file.  A line that begins with # is a comment."""

    about: str  # what the folder was taken for
    splits: dict[str, dict[str, str]]
    classes: list[str] = field(default_factory=list)  # lines below `classes:`
    more: list[str] = field(default_factory=list)  # further lines, at the left
    notes: list[str] = field(default_factory=list)  # what is not certain, in a sentence each


def class_line(key: Any, entry: Any, comment: str = "") -> str:
    """A line below `classes:`, such as `1: road  # 12.5% of the pixels`."""
    text = f"{plain(key)}: {flow(entry)}"
    return f"{text}  # {comment}" if comment else text


def plain(value: Any) -> str:
    """A value of YAML on one line, in quotes only where it needs them.

    >>> plain("road"), plain("no"), plain("a: b")
    ('road', "'no'", "'a: b'")
    """
    if isinstance(value, str) and re.fullmatch(r"[\w./-]+", value) and isinstance(yaml.safe_load(value), str):
        return value
    text: str = yaml.safe_dump(value, width=10**6, allow_unicode=True, default_flow_style=True)
    return text.removesuffix("\n").removesuffix("\n...")


def flow(entry: Any) -> str:
    """A value, or a table and the lists in it, on one line."""
    if isinstance(entry, Mapping):
        return "{" + ", ".join(f"{key}: {flow(value)}" for key, value in entry.items()) + "}"
    if isinstance(entry, list):
        return "[" + ", ".join(flow(item) for item in entry) + "]"
    if isinstance(entry, str) and not re.fullmatch(r"[\w./-]+", entry):
        return json.dumps(entry, ensure_ascii=False)
    return plain(entry)


def yaml_text(draft: Draft, name: str, prefix: str, file: str) -> str:
    """The text of the file.  Paths get the prefix, which leads from the file to the folder."""
    lines = [f"# Written by `mdp datasets init`, which took the folder for {draft.about}."]
    lines += [f"# {line}" for line in (*draft.notes, f"Look through it, then: mdp check {printable(file)}")]
    lines += [f"name: {plain(name)}"]
    if prefix.startswith(("/", "..")):
        lines.append("outside: true  # the files lie outside of this file's folder")
    lines.append("splits:")
    for split, keys in draft.splits.items():
        values = {key: _placed(value, prefix) if key in _PATHS else value for key, value in keys.items()}
        lines.append(f"  {plain(split)}: {flow(values)}")
    lines += [*(["classes:"] if draft.classes else []), *(_indented(draft.classes)), *draft.more]
    return "\n".join(lines) + "\n"


def _placed(path: str, prefix: str) -> str:
    if not prefix:
        return path
    return prefix if path == "." else f"{prefix}/{path}"


def _indented(lines: Sequence[str]) -> list[str]:
    return [f"  {line}" for line in lines]
