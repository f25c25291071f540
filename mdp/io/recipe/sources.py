"""The comments beside settings in their source: what a value means, and where a default comes from."""

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple, get_type_hints

from mdp.io.files.strict_yaml import dump_value


class Field(NamedTuple):
    """A field of a class as its source states it."""

    name: str
    lines: list[str]
    comment: str  # at the end of the last line


def fields_of(kind: type) -> Iterator[Field]:
    """The fields of a class, its bases' first."""
    for base in reversed(kind.__mro__):
        lines = textwrap.dedent(inspect.getsource(base)).split("\n") if base.__module__.startswith("mdp.") else []
        body = ast.parse("\n".join(lines)).body
        for node in body[0].body if body and isinstance(body[0], ast.ClassDef) else []:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.end_lineno:
                comment = lines[node.end_lineno - 1][node.end_col_offset or 0 :].partition("#")[2].strip()
                own = [line.strip() for line in lines[node.lineno - 1 : node.end_lineno]]
                yield Field(node.target.id, own, comment)


def explained(kind: Any, values: Mapping[str, Any], indent: str = "  ") -> list[str]:
    """Lines of YAML for the values of a settings class, each with its comment, and its default where it has another."""
    comments = {field.name: field.comment for field in fields_of(kind)}
    hints, usual, lines = get_type_hints(kind), kind(), []
    for field in fields(kind):
        key, value = field.name, values[field.name]
        if is_dataclass(hints[key]):
            lines += [f"{indent}{key}:", *explained(hints[key], value, f"{indent}  ")]
            continue
        text, default = dump_value(value), dump_value(getattr(usual, key))
        notes = [f"default {default}" if text != default else "", comments[key]]
        lines.append(f"{indent}{key}: {text}" + (f"  # {note}" if (note := "; ".join(filter(None, notes))) else ""))
    return lines
