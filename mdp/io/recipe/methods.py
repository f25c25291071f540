"""Pretraining methods by name."""

import difflib
import importlib
import pkgutil
from typing import cast

import mdp.core.methods
from mdp.core.methods import Method
from mdp.io.errors import RecipeError

# Methods, by file name


def method_names() -> list[str]:
    """The pretraining methods, one file each in mdp/core/methods."""
    found = (module.name for module in pkgutil.iter_modules(mdp.core.methods.__path__))
    return sorted(name for name in found if not name.startswith("_"))


def find_method(name: str) -> Method:
    """The method of that name.  Raises RecipeError, with a suggestion, when there is none."""
    if name not in method_names():
        raise RecipeError(f"method.name: unknown method {name!r}{suggestion(name, method_names())}")
    return cast(Method, importlib.import_module(f"mdp.core.methods.{name}"))


def suggestion(word: str, known: list[str]) -> str:
    """`; did you mean X?` or the list of what there is."""
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"
