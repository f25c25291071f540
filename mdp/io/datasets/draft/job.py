"""mdp datasets init: look at a folder, write the YAML file."""

import os
import re
from pathlib import Path

from mdp.io.datasets.draft.readings import READINGS
from mdp.io.datasets.draft.text import yaml_text
from mdp.io.datasets.draft.tree import tree_of
from mdp.io.errors import DatasetError, RecipeError
from mdp.io.files.reading import printable
from mdp.io.files.writing import write_text

STDOUT = "-"


def run_init(folder: Path, out: str | None, overwrite: bool) -> str:
    """Writes the YAML file that the folder is believed to need; gives its path, or for `-` the text.

    Raises RecipeError where the file is there already, DatasetError where the folder holds nothing that is understood,
    ResourceError where the file cannot be written.
    """
    folder = Path(os.path.realpath(folder))
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", folder.name).strip(".-_") or "dataset"
    path = folder / f"{name}.yaml" if out in (None, STDOUT) else Path(os.path.realpath(str(out)))
    if path.suffix not in (".yaml", ".yml"):
        raise RecipeError(f"--out {printable(path)}: expected the name of a .yaml file")
    if out != STDOUT and path.exists() and not overwrite:
        raise RecipeError(
            f"{printable(path)}: is there already; --overwrite replaces it, --out FILE.yaml takes another name"
        )
    tree = tree_of(folder)
    draft = next((draft for reading in READINGS for draft in reading.drafts(tree)), None)
    if draft is None:
        raise DatasetError(f"{printable(folder)}: no photos in it; give the folder that holds photos and their labels")
    if draft.classes and "val" not in draft.splits:
        draft.notes.append(
            "No split for validation was found, which mdp eval and mdp compare need; `val: 20%` under splits draws one."
        )
    prefix = "" if path.parent == folder else os.path.relpath(folder, path.parent)
    text = yaml_text(draft, name, str(folder) if prefix.startswith("..") else prefix, path.name)
    if out == STDOUT:
        return text.rstrip("\n")
    write_text(path, text)
    return str(path)
