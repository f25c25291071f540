"""The shape of the software: what may import what, and that `--help` is quick."""

import ast
import graphlib
import inspect
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import mdp
import mdp.core
import mdp.core.methods
from mdp.core.methods import Method
from mdp.io.recipe.methods import method_names

PACKAGE = Path(mdp.__file__).parent
CORE_MAY_IMPORT = {
    "collections",
    "contextlib",
    "copy",
    "dataclasses",
    "difflib",
    "functools",
    "itertools",
    "math",
    "types",
    "typing",
    "numpy",
    "torch",
    "mdp",
}
FLOORS = (  # the folders of mdp/io from the ground: each knows those below it only
    "errors", "files", "datasets", "journal", "recipe", "data", "processes", "run", "pictures", "check", "inference",
    "weights", "export", "report", "evaluation", "training", "studies",
)  # fmt: skip
OPTIONAL = {"timm_backbone.py": "timm"}  # the extras that core knows, each in one file, and imported in a function


def imports_of(path: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.append(node.module or "")
    return names


@pytest.mark.parametrize("path", sorted((PACKAGE / "core").rglob("*.py")), ids=lambda path: path.stem)
def test_core_imports_pure_numerics_only(path: Path) -> None:
    for name in imports_of(path):
        known = name.split(".")[0] in CORE_MAY_IMPORT or name == OPTIONAL.get(path.name)
        assert known, f"{path.name} imports {name}"
        assert not name.startswith(("mdp.io", "mdp.cli", "torch.distributed", "torch.utils")), f"{path.name}: {name}"


@pytest.mark.parametrize("path", sorted((PACKAGE / "core").rglob("*.py")), ids=lambda path: path.stem)
def test_extras_are_imported_when_they_are_needed_only(path: Path) -> None:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        assert not (isinstance(node, ast.Import) and {alias.name for alias in node.names} & set(OPTIONAL.values()))


@pytest.mark.parametrize("path", sorted((PACKAGE / "core").rglob("*.py")), ids=lambda path: path.stem)
def test_core_does_not_print_open_or_look_at_a_clock(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"print", "open", "input", "eval", "exec"}, f"{path.name}: {node.func.id}"


@pytest.mark.parametrize("path", sorted((PACKAGE / "io").rglob("*.py")), ids=lambda path: path.stem)
def test_io_knows_nothing_of_the_command_line(path: Path) -> None:
    assert not [name for name in imports_of(path) if name.split(".")[0] == "click" or name == "mdp.cli"]


def modules_of(path: Path) -> set[str]:
    """The modules of mdp that a file imports, inside its functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}  # a module, or something in one
            found |= {name if name in MODULES else node.module or "" for name in names}
    return {name for name in found if name in MODULES}


MODULES = {
    ".".join(("mdp", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}


def test_a_folder_of_io_imports_from_the_floors_below_only_and_no_import_goes_in_a_circle() -> None:
    imported = {name: modules_of(path) for name, path in MODULES.items()}
    tuple(graphlib.TopologicalSorter(imported).static_order())  # raises CycleError, which names the circle
    floor = {name: FLOORS.index(name.split(".")[2]) for name in MODULES if name.startswith("mdp.io.")}
    pairs = [(name, other) for name in floor for other in imported[name] if other in floor]
    assert [f"{name} imports {other}" for name, other in pairs if floor[name] < floor[other]] == []
    assert len(pairs) > 300  # so that a test that sees no import does not pass


@pytest.mark.parametrize(
    "folder", sorted({path.parent for path in (PACKAGE / "io").rglob("*.py")}), ids=lambda p: p.name
)
def test_a_folder_of_io_says_what_lives_there_and_can_be_taken_in_at_a_glance(folder: Path) -> None:
    says = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))
    assert says
    assert folder.name == "datasets" or len(list(folder.glob("*.py"))) <= 14


def test_the_table_of_contents_lists_every_public_name() -> None:
    public = {
        name for name, value in vars(mdp.core).items() if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert set(mdp.core.__all__) == public


def test_help_imports_no_torch() -> None:
    code = (
        "import sys\nfrom mdp.cli import cli\n"
        "for args in (['--help'], ['pretrain', '--help'], ['eval', '--help'], ['recipe', '--help']):\n"
        "    cli.main(args, standalone_mode=False)\n"
        "assert not {'torch', 'numpy', 'PIL', 'yaml'} & set(sys.modules), sys.modules.keys()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_completion_of_dataset_names_imports_no_torch() -> None:
    code = "import sys\nfrom mdp.cli import main\nmain()\n"
    environment = {"_MDP_COMPLETE": "bash_complete", "COMP_WORDS": "mdp pretrain --datasets voc,sha", "COMP_CWORD": "3"}
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "mdp"], capture_output=True, text=True, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert "voc,shapes-coarse" in done.stdout, done.stdout + code
    assert "torch" not in done.stderr
    assert time.monotonic() - begun < 30


@pytest.mark.parametrize("module", method_names())
def test_every_method_offers_what_the_loop_asks_for(module: str) -> None:
    found = __import__(f"mdp.core.methods.{module}", fromlist=["Settings"])
    for name in (name for name in vars(Method) if not name.startswith("_")):
        assert hasattr(found, name), f"{module} lacks {name}"
    assert found.__doc__
    found.Settings()
