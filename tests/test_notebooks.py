"""The notebooks of examples/ run from their first cell to the last, and give what is stored in them."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.notebooks import NOTEBOOKS, executed, outputs, picture, tags

# Its digits vary with the machine, so that only their kinds are compared: fewer steps give them too.  Its kernel is a
# fork; the other's begins as those of users do.
BRIEF = {"atlas": {'"steps": 100': '"steps": 20'}}
MOST = 1_000_000  # bytes of all notebooks together: they are part of the repository


def in_repository() -> set[str]:
    """What lies in the repository, but for what ruff, mypy and pytest keep there: they may run beside this."""
    return {path.name for path in ROOT.iterdir()} - {".ruff_cache", ".mypy_cache", ".pytest_cache", ".hypothesis"}


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def differences(stored: Any, ran: Any) -> list[str]:
    """What a cell gave that is not what is stored: everything of it, or its kinds only where digits vary."""
    before, now = outputs(stored), outputs(ran)
    kinds = [[(output["output_type"], *output.get("data", {})) for output in given] for given in (before, now)]
    if kinds[0] != kinds[1]:
        return [f"stored is {kinds[0]}, it gave {kinds[1]}"]
    if "varies" in tags(stored):
        return []
    found = []
    for old, new in zip(before, now, strict=True):
        if old.get("text") != new.get("text"):
            found.append(f"stored is {old.get('text')!r}, it gave {new.get('text')!r}")
        pictures = picture(old), picture(new)
        if pictures[0] is not None and not alike(*pictures):
            found.append("another picture than the stored one")
    return found


def alike(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether pictures are the same but for the fonts and last digits of another machine."""
    return one.shape == other.shape and float(np.abs(one.astype(float) - other).mean()) < 3


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_gives_what_is_stored_in_it(path: Path, tmp_path: Path) -> None:
    before = in_repository()
    ran = executed(path, tmp_path, forked=path.stem in BRIEF, brief=BRIEF.get(path.stem, {}))
    stored = pytest.importorskip("nbformat").read(path, as_version=4)
    cells = code_cells(stored)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), "run: python -m tests.notebooks"
    for old, new in zip(cells, code_cells(ran), strict=True):
        assert not [output for output in outputs(new) if output.get("name") == "stderr"], new.source
        assert differences(old, new) == [], f"{new.source}\nif this is meant: python -m tests.notebooks"
    assert any(picture(output) is not None for cell in cells for output in outputs(cell))
    assert in_repository() == before


def test_notebooks_stay_small_and_name_no_place_of_whoever_ran_them() -> None:
    assert {path.stem for path in NOTEBOOKS} >= {"core", "atlas"}
    assert sum(path.stat().st_size for path in NOTEBOOKS) < MOST
    for path in NOTEBOOKS:
        text = path.read_text(encoding="utf-8")
        assert tempfile.gettempdir() not in text
        assert str(Path.home()) not in text
        assert '"iopub' not in text  # when each cell ran


def test_another_text_another_picture_and_a_missing_output_are_told_apart() -> None:
    nbformat = pytest.importorskip("nbformat", reason="nbclient is missing: pip install -e '.[test]'")
    stored = nbformat.read(next(path for path in NOTEBOOKS if path.stem == "core"), as_version=4)
    written = next(cell for cell in code_cells(stored) if outputs(cell) and not tags(cell) and len(cell.outputs) == 1)
    drawn = next(cell for cell in code_cells(stored) for output in outputs(cell) if picture(output) is not None)
    for cell in (written, drawn):
        assert differences(cell, cell) == []
    changed = nbformat.from_dict({**written})
    changed.outputs = [nbformat.from_dict({**written.outputs[0], "text": "another"})]
    assert len(differences(written, changed)) == 1
    changed.outputs = []
    assert len(differences(written, changed)) == 1
    one = np.zeros((4, 4, 3), dtype=np.uint8)
    assert alike(one, one + 1)
    assert not alike(one, one + 9)
    assert not alike(one, one[:2])
