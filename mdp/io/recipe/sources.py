"""Settings as YAML, each with the comment beside it in the source: what it means, and where a default comes from."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

from mdp.io.files.strict_yaml import dump_value
from mdp.io.recipe.fields import comments_of


def explained(kind: Any, values: Mapping[str, Any], indent: str = "  ") -> list[str]:
    """Lines of YAML for the values of a settings class, each with its comment, and its default where it has another."""
    comments, hints, usual, lines = comments_of(kind), get_type_hints(kind), kind(), []
    for field in fields(kind):
        key, value = field.name, values[field.name]
        if is_dataclass(hints[key]):
            lines += [f"{indent}{key}:", *explained(hints[key], value, f"{indent}  ")]
            continue
        text, default = dump_value(value), dump_value(getattr(usual, key))
        notes = [f"default {default}" if text != default else "", comments[key]]
        lines.append(f"{indent}{key}: {text}" + (f"  # {note}" if (note := "; ".join(filter(None, notes))) else ""))
    return lines
