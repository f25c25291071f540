"""YAML that refuses what people do not mean: duplicate keys, odd numbers, python tags, documents that explode.

`safe_load` with three differences: a key given twice is an error, `1e-4` is a number, and anchors are not resolved.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from mdp.io.errors import RecipeError

_LIMIT = 2**20  # bytes; a recipe or dataset description is a few kilobytes
_DEPTH = 32


class _Loader(yaml.SafeLoader):
    """A SafeLoader with YAML 1.2's floats, without aliases and without duplicate keys."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.YAMLError(f"line {event.start_mark.line + 1}: aliases (*name) are not supported")
        self.depth += 1
        if self.depth > _DEPTH:
            raise yaml.YAMLError(f"nested more than {_DEPTH} deep")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if not isinstance(key, str | int | float | bool | None):
                raise yaml.YAMLError(f"line {line}: a key must be a word or a number")
            if key in seen:
                raise yaml.YAMLError(f"line {line}: key {key!r} is given twice")
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
)


def load_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.  Raises RecipeError naming file and line."""
    try:
        if path.stat().st_size > _LIMIT:
            raise RecipeError(f"{path}: {path.stat().st_size} bytes; a YAML file of mdp has at most {_LIMIT}")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8 text") from error
    return parse_yaml(text, str(path))


def parse_yaml(text: str, where: str) -> dict[str, Any]:
    """The mapping that the text holds; an empty text is an empty mapping.  Raises RecipeError naming `where`.

    >>> parse_yaml("lr: 1e-4", "example")
    {'lr': 0.0001}
    """
    try:
        loaded = yaml.load(text, _Loader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise RecipeError(f"{where}: not valid YAML: {_one_line(error)}") from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise RecipeError(f"{where}: expected `key: value` lines, got {type(loaded).__name__}")
    return loaded


def _one_line(error: Exception) -> str:
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is not None and problem:
        return f"line {mark.line + 1}: {problem}"
    return " ".join(str(error).split()) or type(error).__name__
