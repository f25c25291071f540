"""Values of a dataset's YAML file, each of the kind that is expected or refused with file and key."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mdp.io.errors import RecipeError
from mdp.io.files.reading import shown


def refuse_unknown(values: Mapping[Any, Any], known: Sequence[str], prefix: str, path: Path) -> None:
    for key in values:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
            raise RecipeError(f"{path}: unknown key {prefix}{key}; {hint}")


def as_mapping(values: Mapping[Any, Any], key: str, path: Path) -> Mapping[Any, Any]:
    value = values.get(key)
    if not isinstance(value, Mapping) or not value:
        raise RecipeError(f"{path}: {key}: expected `key: value` lines, got {shown(value)}")
    return value


def as_list(value: Any, where: str, path: Path) -> list[Any]:
    if not isinstance(value, list):
        raise RecipeError(f"{path}: {where}: expected a list, got {shown(value)}")
    return value
