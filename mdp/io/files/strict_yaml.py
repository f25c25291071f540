"""YAML that refuses what people do not mean: duplicate keys, odd numbers, tags, documents that explode.

A document is at most 1 MiB, 32 levels deep and 20,000 keys and values long; it has no aliases, so that nothing in it
can multiply, and no control characters, so that its words can be printed.

YAML 1.2's idea of a plain word, where PyYAML has 1.1's: `1e-4` is a number; `no`, `010`, `12:30:45` and `2026-11-20`
are text, so a field that wants a number or true/false refuses them instead of taking False, 8, 45045 or a date.
"""

import math
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.constructor import SafeConstructor
from yaml.resolver import Resolver

from mdp.io.errors import RecipeError
from mdp.io.files.reading import has_controls, printable, read_bytes, shown

_LIMIT = 2**20  # bytes; a recipe or dataset description is a few kilobytes
_DEPTH = 32
_NODES = 20_000  # keys and values; the parser takes a second for so many
_MESSAGE = 300  # characters of the parser's own words
_KEY = 200  # characters; a key that is not known is repeated in a message


class _Strict(Composer, SafeConstructor, Resolver):
    """YAML 1.2's plain words, without aliases, tags and duplicate keys, of the events of a parser."""

    depth = 0
    nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: yaml.Event = self.peek_event()  # type: ignore[attr-defined]
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError(f"line {line}: aliases (*name) are not supported")
        if isinstance(event, yaml.NodeEvent) and getattr(event, "tag", None) is not None:
            raise yaml.YAMLError(f"line {line}: tags (!name) are not supported")
        self.depth += 1
        self.nodes += 1
        if self.depth > _DEPTH:
            raise yaml.YAMLError(f"line {line}: nested more than {_DEPTH} deep")
        if self.nodes > _NODES:
            raise yaml.YAMLError(f"line {line}: more than {_NODES} keys and values")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if not isinstance(key, str | int | float | bool | None):
                raise yaml.YAMLError(f"line {line}: a key must be a word or a number")
            if isinstance(key, str) and (len(key) > _KEY or has_controls(key)):
                raise yaml.YAMLError(f"line {line}: a key must be a word of up to {_KEY} characters, got {shown(key)}")
            if key in keys:
                raise yaml.YAMLError(f"line {line}: key {key!r} is given twice")
            keys.add(key)
        return super().construct_mapping(node, deep)

    def construct_text(self, node: yaml.ScalarNode) -> str:
        text: str = self.construct_scalar(node)
        if has_controls(text.replace("\n", "").replace("\t", "")):
            line = node.start_mark.line + 1
            raise yaml.YAMLError(f"line {line}: control characters in {shown(text)}")
        return text

    def construct_number(self, node: yaml.ScalarNode) -> float:
        value: float = self.construct_yaml_float(node)
        if math.isinf(value) and "inf" not in node.value.lower():
            raise yaml.YAMLError(f"line {node.start_mark.line + 1}: {shown(node.value)} is too large a number")
        return value


_Strict.add_constructor("tag:yaml.org,2002:str", _Strict.construct_text)  # type: ignore[type-var]
_Strict.add_constructor("tag:yaml.org,2002:float", _Strict.construct_number)  # type: ignore[type-var]
_Strict.yaml_implicit_resolvers = {}  # not PyYAML's


class _Dumper(yaml.SafeDumper):
    """Quotes words that `_Strict` would read as numbers, such as 0E0, besides those that PyYAML quotes."""


for _kind, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(0|[1-9][0-9]*)", list("-+0123456789")),
    (
        "float",
        r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+0123456789."),
    ),
):
    for _side in (_Strict, _Dumper):
        _side.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(rf"^(?:{_pattern})$"), _first)


class _Loader(_Strict, yaml.SafeLoader):
    """With PyYAML's own parser."""


# libyaml's parser takes a sixth of the time.  It is asked about texts of these characters only, for which the two are
# known to agree; what it refuses PyYAML's sees again, so that a refusal has the same words on every machine.
_AGREED = re.compile(r"[\w \n.,:;+*/(){}\[\]'\"`#=~@$-]*", re.ASCII)
_FastLoader: Any = None
with suppress(ImportError):  # PyYAML can be built without it
    from yaml.cyaml import CParser  # type: ignore[attr-defined]

    class _LibyamlLoader(_Strict, CParser):
        def __init__(self, text: str) -> None:
            CParser.__init__(self, text)
            Composer.__init__(self)
            SafeConstructor.__init__(self)
            Resolver.__init__(self)

    _FastLoader = _LibyamlLoader


def _loaded(text: str) -> Any:
    if _FastLoader and _AGREED.fullmatch(text):
        with suppress(yaml.YAMLError, RecursionError, ValueError):
            return yaml.load(text, _FastLoader)
    return yaml.load(text, _Loader)


def load_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.  Raises RecipeError naming file and line, ResourceError when it may not be read."""
    data = read_bytes(str(path), "YAML file", _LIMIT, RecipeError)
    try:
        text = data.decode("utf-8-sig")
    except ValueError as error:
        raise RecipeError(f"{printable(path)}: not UTF-8 text") from error
    return parse_yaml(text, str(path))


def parse_yaml(text: str, where: str) -> dict[str, Any]:
    """The mapping that the text holds; an empty text is an empty mapping.  Raises RecipeError naming `where`.

    >>> parse_yaml("lr: 1e-4", "example")
    {'lr': 0.0001}
    """
    where = printable(where)
    try:
        loaded = _loaded(text)
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
        return f"line {mark.line + 1}: {printable(problem)[:_MESSAGE]}"
    return printable(" ".join(str(error).split()))[:_MESSAGE] or type(error).__name__


def dump_value(value: Any) -> str:
    """A value on one line, as it stands behind a key.

    >>> dump_value((1, 2.5, None)), dump_value("off"), dump_value(True)
    ('[1, 2.5, null]', "'off'", 'true')
    """
    plain = list(value) if isinstance(value, tuple) else value
    text: str = yaml.dump(plain, Dumper=_Dumper, default_flow_style=True, allow_unicode=True, width=10**6)
    return text.removesuffix("...\n").strip()


def dump_yaml(values: Mapping[str, Any]) -> str:
    """YAML that `parse_yaml` reads back as it was."""
    text: str = yaml.dump(values, Dumper=_Dumper, sort_keys=False, default_flow_style=None, allow_unicode=True)
    return text
