"""Pretraining methods by name; nothing of torch is imported before one is asked for."""

import difflib
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, cast

import mdp
from mdp.io.errors import RecipeError
from mdp.io.files.reading import shown

if TYPE_CHECKING:
    from mdp.core.methods import Method

_FOLDER = Path(mdp.__file__).parent / "core" / "methods"


def method_names() -> list[str]:
    """The pretraining methods, one file each in mdp/core/methods."""
    return sorted(path.stem for path in _FOLDER.glob("[a-z]*.py"))


def find_method(name: str) -> "Method":
    """The method of that name.  Raises RecipeError, with a suggestion, when there is none."""
    if name not in method_names():
        raise RecipeError(unknown_method(name))
    return cast("Method", importlib.import_module(f"mdp.core.methods.{name}"))  # checked in methods/__init__.py


def unknown_method(name: object) -> str:
    """The words that refuse a method."""
    return f"method.name: unknown method {shown(name)}{suggestion(str(name), method_names())}"


def suggestion(word: str, known: list[str]) -> str:
    """`; did you mean X?` or the list of what there is."""
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"
