"""Criteria of fine-tuning by name; nothing of torch is imported before one is asked for."""

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, cast

import mdp
from mdp.io.files.reading import shown
from mdp.io.recipe.methods import suggestion

if TYPE_CHECKING:
    from mdp.core.criteria import Criterion

_FOLDER = Path(mdp.__file__).parent / "core" / "criteria"


def criterion_names() -> list[str]:
    """The criteria, one file each in mdp/core/criteria."""
    return sorted(path.stem for path in _FOLDER.glob("[a-z]*.py"))


def find_criterion(name: str) -> "Criterion":
    """The criterion of a name that there is."""
    return cast("Criterion", importlib.import_module(f"mdp.core.criteria.{name}"))  # checked in criteria/__init__.py


def unknown_criterion(key: str, name: object) -> str:
    """The words that refuse a criterion."""
    return f"{key}: unknown criterion {shown(name)}{suggestion(str(name), criterion_names())}"
