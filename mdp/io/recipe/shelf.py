"""The recipes that come with mdp, by name: `tiny`, `paper/table3_voc`.

They are the files below examples/recipes of the repository; an installation has a copy in the package (`setup.py`).
"""

from pathlib import Path

import mdp
from mdp.io.errors import RecipeError
from mdp.io.recipe.methods import suggestion

_PACKAGE = Path(mdp.__file__).parent
_ENDINGS = (".yaml", ".yml")


def shelf() -> Path:
    """The folder of the recipes that come with mdp: of the package, or of the repository that it runs from."""
    installed = _PACKAGE / "recipes"
    return installed if installed.is_dir() else _PACKAGE.parent / "examples" / "recipes"


def recipe_files(folder: Path) -> list[Path]:
    """The YAML files at any depth below the folder, sorted."""
    return sorted(path for path in folder.rglob("*") if path.suffix in _ENDINGS and path.is_file())


def recipe_names() -> dict[str, Path]:
    """The files of the recipes that come with mdp, by their paths below `shelf` without the ending."""
    return {path.relative_to(shelf()).with_suffix("").as_posix(): path for path in recipe_files(shelf())}


def recipe_path(given: Path) -> Path:
    """The file that is meant: one that is there, else the recipe of that name, of which the last part will do.

    What ends like a YAML file is always a path.  Raises RecipeError when nothing is meant.
    """
    if given.is_file():
        return given
    known, word = recipe_names(), given.as_posix()
    if given.suffix in _ENDINGS:
        same = [name for name, path in known.items() if path.stem == given.stem]
        if not same or given.exists():
            return given  # its reader says what is wrong
        raise RecipeError(
            f"{given}: the YAML file is missing; the recipe of that name is {same[0]}, without the ending"
        )
    found = [path for name, path in known.items() if word in (name, path.stem)]
    if len(found) != 1:
        close = suggestion(word, [*known, *(path.stem for path in known.values())]) if not found else ""
        hint = close if close.startswith("; did") else "; `mdp recipe list` lists them"
        raise RecipeError(f"{given}: expected a YAML file or the name of a recipe{hint}")
    return found[0]
