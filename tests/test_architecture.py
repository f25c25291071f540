"""The shape of the software: what may import what, and that what needs no torch answers without it."""

import ast
import graphlib
import importlib
import inspect
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch

import mdp
import mdp.core
import mdp.core.methods
from mdp.core.methods import Method
from mdp.io.datasets import names as dataset_names
from mdp.io.recipe.criteria import criterion_names
from mdp.io.recipe.methods import method_names
from mdp.io.run.checkpoint import save
from tests.conftest import ROOT

PACKAGE = Path(mdp.__file__).parent
CORE_MAY_IMPORT = {
    "collections",
    "contextlib",
    "copy",
    "dataclasses",
    "difflib",
    "fnmatch",
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
    "errors", "files", "annotations", "datasets", "journal", "recipe", "data", "processes", "run", "pictures", "check",
    "inference",
    "weights", "export", "report", "evaluation", "training", "unsupervised", "suspects",
    "studies",
    "program",
)  # fmt: skip
OPTIONAL = {"timm_backbone.py": "timm"}  # the extras that core knows, each in one file, and imported in a function


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def nodes_of(path: Path) -> list[ast.AST]:
    return list(ast.walk(parsed(path)))


def imports_of(path: Path) -> list[str]:
    names = []
    for node in nodes_of(path):
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
        assert not name.startswith(("mdp.io", "mdp.cli", "torch.distributed", "torch.utils.data")), (
            f"{path.name}: {name}"
        )


@pytest.mark.parametrize("path", sorted((PACKAGE / "core").rglob("*.py")), ids=lambda path: path.stem)
def test_extras_are_imported_when_they_are_needed_only(path: Path) -> None:
    for node in parsed(path).body:
        assert not (isinstance(node, ast.Import) and {alias.name for alias in node.names} & set(OPTIONAL.values()))


@pytest.mark.parametrize("path", sorted((PACKAGE / "core").rglob("*.py")), ids=lambda path: path.stem)
def test_core_does_not_print_open_or_look_at_a_clock(path: Path) -> None:
    for node in nodes_of(path):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"print", "open", "input", "eval", "exec"}, f"{path.name}: {node.func.id}"


@pytest.mark.parametrize("path", sorted((PACKAGE / "io").rglob("*.py")), ids=lambda path: path.stem)
def test_io_knows_nothing_of_the_command_line(path: Path) -> None:
    assert not [name for name in imports_of(path) if name.split(".")[0] == "click" or name == "mdp.cli"]


def modules_of(path: Path) -> set[str]:
    """The modules of mdp that a file imports, inside its functions too, but for a folder's table of its own files."""
    found, package = set(), ".".join(path.parent.parts)
    typed = [
        part for part in parsed(path).body if isinstance(part, ast.If) and ast.unparse(part.test) == "TYPE_CHECKING"
    ]
    table = {node for part in typed for node in ast.walk(part)} if path.name == "__init__.py" else set()
    for node in nodes_of(path):
        if node in table and isinstance(node, ast.ImportFrom) and package.endswith(node.module or ""):
            continue  # mypy reads it, no program
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
    says = ast.get_docstring(parsed(folder / "__init__.py"))
    assert says
    assert folder.name == "datasets" or len(list(folder.glob("*.py"))) <= 14


def test_the_table_of_contents_lists_every_public_name() -> None:
    public = {
        name for name, value in vars(mdp.core).items() if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert set(mdp.core.__all__) == public


def test_no_name_hides_a_module() -> None:
    """`import mdp.core.x as y` takes the attribute x of mdp.core: it gives a function where one has that name."""
    for name in MODULES:
        importlib.import_module(name)
        package, _, last = name.rpartition(".")
        assert not package or inspect.ismodule(getattr(sys.modules[package], last)), name


HEAVY = {"torch", "numpy", "PIL"}


def test_what_tells_facts_imports_no_torch(tmp_path: Path) -> None:
    """Help, completion, and what lists datasets, recipes and the header of a checkpoint, in one process."""
    file = tmp_path / "last.safetensors"
    save(file, {"query.weight": torch.zeros(2, 3)}, {"kind": "pretrain", "step": 1, "labels": []})
    commands = [
        ["--help"], ["pretrain", "--help"], ["eval", "--help"], ["recipe", "--help"],
        ["recipe", "list"], ["recipe", "list", str(PACKAGE.parent / "examples" / "recipes")],
        ["datasets", "--root", str(tmp_path)],
        ["checkpoint", "show", str(file)],
    ]  # fmt: skip
    code = (
        "import sys\nfrom mdp.cli import cli\n"
        f"for args in {commands!r}:\n"
        "    cli.main(args, standalone_mode=False)\n"
        f"    assert not {HEAVY!r} & set(sys.modules), args\n"
        "    assert '--help' not in args or 'yaml' not in sys.modules, args\n"
        "    assert args != ['--help'] or 'mdp.io.recipe.settings' not in sys.modules, 'options of another command'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for word in ("tiny.yaml", "shapes-coarse", "mapillary_v2", "query          1 tensors"):
        assert word in done.stdout


def test_completion_imports_no_torch() -> None:
    words = {"mdp pretrain --datasets voc,sha": "voc,shapes-coarse", "mdp checkpoint sh": "show"}
    words |= {"mdp pretrain --config ti": "tiny"}
    code = (
        "import contextlib, os, sys\nfrom mdp.cli import main\n"
        f"for words in {list(words)!r}:\n"
        "    count = str(words.count(' '))\n"
        "    os.environ |= {'_MDP_COMPLETE': 'bash_complete', 'COMP_WORDS': words, 'COMP_CWORD': count}\n"
        "    with contextlib.suppress(SystemExit):\n        main()\n"
        f"assert not {{*{HEAVY!r}, 'yaml'}} & set(sys.modules), sys.modules.keys()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(completed in done.stdout for completed in words.values()), done.stdout


def test_garbage_is_searched_for_again_after_an_import_that_fails() -> None:
    code = (
        "import gc\nfrom mdp.io.processes.garbage import unsearched\n"
        "try:\n    with unsearched():\n        assert not gc.isenabled()\n        import nothing_of_this_name\n"
        "except ImportError:\n    print(gc.isenabled())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "True\n", done.stderr


def test_a_setting_that_does_not_exist_is_refused_before_anything_is_opened(tmp_path: Path) -> None:
    """By the settings alone: no data are looked for, no worker or process is started, no run folder is made."""
    (tmp_path / "bad.yaml").write_text("pretrain: {epoch: 3, datasets: [voc]}\n")
    code = (
        "import contextlib, gc, sys\nfrom mdp.cli import main\n"
        "sys.argv = ['mdp', 'pretrain', '--config', 'bad.yaml', '--processes', '2']\n"
        "with contextlib.suppress(SystemExit):\n    main()\n"
        "late = ('mdp.io.datasets.voc', 'torch._dynamo', 'torch._inductor', 'sympy', 'mdp.io.processes.launcher')\n"
        "print([name for name in late if name in sys.modules], gc.isenabled(), gc.get_freeze_count() > 10**5)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "unknown setting pretrain.epoch; did you mean 'epochs'?" in done.stderr
    assert done.stdout == "[] True True\n"
    assert [path.name for path in tmp_path.iterdir()] == ["bad.yaml"]


@pytest.mark.parametrize("module", method_names())
def test_every_method_offers_what_the_loop_asks_for(module: str) -> None:
    found = __import__(f"mdp.core.methods.{module}", fromlist=["Settings"])
    for name in (name for name in vars(Method) if not name.startswith("_")):
        assert hasattr(found, name), f"{module} lacks {name}"
    assert found.__doc__
    found.Settings()


# What is found by its file is held to its Protocol by mypy


def checked(package: str, *tables: str) -> set[str]:
    """The names in a package's tables that only mypy reads."""
    tree = ast.parse((PACKAGE / package / "__init__.py").read_text(encoding="utf-8"))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Tuple)]
    named = {ast.unparse(node.target): [ast.unparse(name) for name in node.value.elts] for node in found}
    return {name for table in tables for name in named[table]}


def test_every_method_criterion_and_dataset_stands_in_the_table_that_mypy_checks() -> None:
    assert checked("core/methods", "CHECKED") == set(method_names())
    protocols = {path.stem for path in (PACKAGE / "core" / "protocols").glob("[a-z]*.py")}
    assert checked("core/protocols", "CHECKED") == protocols
    assert checked("core/criteria", "CHECKED") == set(criterion_names())
    modules = {name.replace("-", "_") for name in dataset_names()}
    assert checked("io/datasets", "CHECKED", "DETAILED") == modules
    detailed = {name for name in modules if hasattr(importlib.import_module(f"mdp.io.datasets.{name}"), "detail")}
    assert checked("io/datasets", "DETAILED") == detailed


PLANTED = [  # a file of each kind, its Protocol, and what gets an argument too many
    ("core/methods/moco.py", "mdp.core.methods.Method", "settings: Settings, processes: Processes\n) -> Loss:"),
    ("core/protocols/segmentation.py", "mdp.core.protocols.EvaluationProtocol", "settings: Settings) -> Prediction:"),
    ("io/datasets/sbd.py", "mdp.io.datasets._dataset.DatasetModule", "split: str) -> list[Sample]:"),
]
OTHERS_AS_ANY = """
[[tool.mypy.overrides]]
module = ["torch.*", "numpy.*", "PIL.*", "yaml.*", "pytest.*"]
follow_imports = "skip"
"""


def test_mypy_refuses_a_method_or_a_dataset_whose_function_takes_an_argument_too_many(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    lines = []
    for path, protocol, signature in PLANTED:
        text, name, module = (PACKAGE / path).read_text(encoding="utf-8"), Path(path).stem, protocol.rpartition(".")[0]
        assert text.count(signature) == 1
        (tmp_path / f"right_{name}.py").write_text(text)
        (tmp_path / f"wrong_{name}.py").write_text(
            text.replace(signature, signature.replace("\n)", ")").replace(")", ", more: int)"))
        )
        lines.append(f"import {module}, right_{name}, wrong_{name}")
        lines += [f"{side}_{name}_held: {protocol} = {side}_{name}" for side in ("right", "wrong")]
    (tmp_path / "table.py").write_text("\n".join(lines))
    # what torch and numpy say of themselves, and what mypy says of the package's own files, is not asked here
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text(encoding="utf-8") + OTHERS_AS_ANY)
    asked = ["--config-file", str(tmp_path / "pyproject.toml"), "--cache-dir", os.devnull, "--follow-imports", "silent"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *asked, str(tmp_path / "table.py")],
        capture_output=True, text=True, check=False, cwd=ROOT, env={**os.environ, "MYPYPATH": str(tmp_path)},
    )  # fmt: skip
    errors = re.findall(r"table\.py:(\d+): error: .*", done.stdout)
    assert [lines[int(number) - 1].split("_held")[0] for number in errors] == [
        "wrong_moco", "wrong_segmentation", "wrong_sbd",
    ], done.stdout  # fmt: skip
    assert f"Found {len(PLANTED)} errors in 1 file" in done.stdout
