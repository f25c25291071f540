"""The documentation says what is there: links lead somewhere, names and settings exist, pictures are what is drawn."""

import ast
import dataclasses
import importlib
import importlib.util
import itertools
import os
import re
import runpy
import subprocess
import sys
from collections import Counter
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import get_args, get_type_hints

import click
import numpy as np
import pytest
from PIL import Image

import mdp.core
from mdp.cli import cli
from mdp.io.datasets import load, names
from mdp.io.errors import MdpError
from mdp.io.recipe.criteria import criterion_names, find_criterion
from mdp.io.recipe.layers import Recipe, merge
from mdp.io.recipe.methods import find_method, method_names
from mdp.io.recipe.settings import FinetuneSettings, PretrainSettings
from tests.conftest import ROOT

PAGES = sorted(
    path for pattern in ("*.md", "docs/*.md", "benchmarks/*.md", "examples/**/*.md") for path in ROOT.glob(pattern)
)
KINDS = {"pretrain": PretrainSettings, "method": find_method("multi_dataset").Settings, "finetune": FinetuneSettings}
SECTIONS = {field.name for field in dataclasses.fields(Recipe)}
FIGURES = ROOT / "docs" / "figures"
# options that pages name by themselves and that are other programs': torchrun's, and those of benchmarks
ELSEWHERE = {"--max-restarts", "--threads", "--quick", "--gpu"}


def words_of(path: Path) -> str:
    """A page without what it fences off."""
    return re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def codes_of(path: Path) -> list[str]:
    """What stands in code letters in the text of a page."""
    return [code for line in words_of(path).split("\n\n") for code in re.findall(r"`([^`]+)`", line)]


def slug(heading: str) -> str:
    """The anchor that code hosts and MyST give a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@cache
def anchors(path: Path) -> set[str]:
    return {slug(heading) for heading in re.findall(r"^#+ (.+)$", words_of(path), flags=re.MULTILINE)}


@cache
def reference() -> ModuleType:
    """docs/reference.py, which makes the reference."""
    spec = importlib.util.spec_from_file_location("docs_reference", ROOT / "docs" / "reference.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_of_a_page_leads_to_a_file_and_a_heading_that_are_there(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", words_of(path)):
        if target.startswith(("https://", "http://", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        place = (path.parent / name).resolve() if name else path
        assert place.exists(), f"{path.name}: {target}"
        assert place.is_relative_to(ROOT), f"{path.name}: {target}"
        assert not anchor or anchor in anchors(place), f"{path.name}: {target}: it has {sorted(anchors(place))}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_of_the_repository_that_a_page_names_is_there(path: Path) -> None:
    for code in codes_of(path):
        if re.fullmatch(r"(docs|examples|tests|benchmarks|mdp|core|io)/[\w./]+(:\w+)?", code):
            name, _, thing = code.partition(":")
            place = ROOT / ("mdp" if name.startswith(("core/", "io/")) else "") / name
            assert place.exists(), f"{path.name}: {code}"
            assert not thing or re.search(rf"\b{thing}\b", place.read_text(encoding="utf-8")), f"{path.name}: {code}"


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_function_that_a_page_names_exists(path: Path) -> None:
    for name in re.findall(r"\bmdp\.(?:core|io)[\w.]*\w", path.read_text(encoding="utf-8")):
        thing: object = importlib.import_module("mdp")
        for place, part in enumerate(name.split(".")[1:], 2):
            if not hasattr(thing, part):
                importlib.import_module(".".join(name.split(".")[:place]))  # fails where there is no such module
            thing = getattr(thing, part)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_piece_of_python_on_a_page_is_python_and_imports_what_is_there(path: Path) -> None:
    for code in re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("mdp"):
                module = importlib.import_module(str(node.module))
                assert all(hasattr(module, alias.name) for alias in node.names), code


@cache
def settings() -> set[str]:
    """The full names of all settings and sections."""

    def below(kind: object, prefix: str) -> set[str]:
        found = {prefix}
        hints = get_type_hints(type(kind))
        for field in dataclasses.fields(kind):  # type: ignore[arg-type]
            value = getattr(kind, field.name)
            sections = [hint for hint in get_args(hints[field.name]) if dataclasses.is_dataclass(hint)]
            value = sections[0]() if value is None and sections else value  # one that is off unless it is asked for
            key = f"{prefix}.{field.name}"
            found |= below(value, key) if dataclasses.is_dataclass(value) else {key}
        return found

    recipe = Recipe()
    found = {"method.name", "criterion", "criterion.name", "criterion.plus"}
    for section in SECTIONS - {"method", "criterion"}:
        found |= below(getattr(recipe, section), section)
    for name in method_names():
        found |= below(find_method(name).Settings(), "method")
    for name in criterion_names():
        chosen = find_criterion(name).Settings()
        found |= below(chosen, "criterion") | below(chosen, f"criterion.plus.{name}")
    return found


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_setting_that_a_page_names_exists(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    named = re.findall(r"--set ([\w.]+)=", text)
    for code in codes_of(path):
        found = re.fullmatch(r"(\w+\.[\w.]+)(?:[=:].*)?", code)
        file = found and found[1].endswith((".py", ".json", ".safetensors", ".txt", ".yaml"))
        if found and found[1].partition(".")[0] in SECTIONS and not file:
            named.append(found[1])
    unknown = [name for name in named if name not in settings() | {"any.key"}]
    assert not unknown, f"{path.name}: {unknown}"


def test_every_option_that_a_page_names_in_its_text_is_an_option_of_a_command() -> None:
    known = ELSEWHERE | {"--help", "--version"}

    def collect(command: click.Command) -> None:
        for option in command.params:
            known.update((*option.opts, *option.secondary_opts))
        for child in command.commands.values() if isinstance(command, click.Group) else ():
            collect(child)

    collect(cli)
    for path in PAGES:
        for code in codes_of(path):
            other = code.startswith(("python ", "pip ", "torchrun "))
            unknown = set() if other else set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", code)) - known
            assert not unknown, f"{path.name}: `{code}`: {unknown}"


def test_each_equation_of_the_paper_stands_once_in_the_explanation() -> None:
    page = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^\$\$\n(.*?)^\$\$", page, flags=re.MULTILINE | re.DOTALL)
    numbers = Counter(
        int(number) for block in blocks for number in re.findall(r"\\qquad \((\d)\)$", block, re.MULTILINE)
    )
    assert numbers == dict.fromkeys(range(1, 9), 1)


# Tables that repeat what the code says


def rows_of(name: str, heading: str) -> list[list[str]]:
    """The cells of the table on a page whose first heading is this one."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {heading} |"))
    table = itertools.takewhile(lambda line: line.startswith("|"), lines[start + 2 :])
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table]


def test_the_table_of_datasets_has_every_dataset_with_as_many_classes_as_it_has() -> None:
    told = {}
    for row in rows_of("README.md", "name"):
        told |= dict(zip(re.findall(r"`([\w-]+)`", row[0]), map(int, row[1].split(", ")), strict=True))
    assert told == {name: len(load(name).labels.classes) for name in names()}


def test_the_table_of_methods_has_every_method_and_whether_it_needs_labels() -> None:
    told = {row[0].strip("`"): row[2] == "yes" for row in rows_of("docs/methods.md", "method")}
    assert told == {name: find_method(name).NEEDS_LABELS for name in method_names()}


def test_the_table_of_exit_codes_has_every_code_of_an_error() -> None:
    told = {int(row[0]) for row in rows_of("docs/resuming.md", "exit code")}
    assert told == {error.exit_code for error in MdpError.__subclasses__()} | {0, 1, 130}


def test_the_table_of_sources_has_the_defaults_of_the_code() -> None:
    defaults = {
        key: words for prefix, kind in KINDS.items() for key, words, _ in reference().setting_rows(kind, prefix)
    }
    compared = 0
    for names_, values, _ in rows_of("docs/method.md", "setting"):
        for key, value in zip(re.findall(r"`([\w.]+)`", names_), values.split(", "), strict=False):
            if re.fullmatch(r"[\d.]+", value):
                assert float(value) == float(defaults[key].strip("`")), key
                compared += 1
    assert compared >= 12


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_dataset_that_a_page_describes_in_yaml_is_one(path: Path, tmp_path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for number, block in enumerate(re.findall(r"^```yaml\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)):
        if "splits:" in block:
            place = tmp_path / f"{number}.yaml"
            place.write_text(block, encoding="utf-8")
            assert len(load(str(place)).labels.classes) >= 2


# Pictures


@pytest.mark.usefixtures("bare_runs")
def test_the_pictures_are_those_that_the_script_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = ["conflict", "views", "mixing", "temperature"]
    monkeypatch.syspath_prepend(ROOT / "docs")
    monkeypatch.setattr(sys, "argv", ["figures.py", str(tmp_path), *quick])
    script = runpy.run_path(str(ROOT / "docs" / "figures.py"), run_name="__main__")
    assert sorted(f"{name}.png" for name in script["FIGURES"]) == sorted(path.name for path in FIGURES.iterdir())
    assert sum(path.stat().st_size for path in FIGURES.iterdir()) < 1_000_000
    monkeypatch.chdir(tmp_path)
    brief = {"model": {"width": 8}, "pretrain": {"validate_images": 2}, "eval": {"images": 2}}
    for names_of_script in (script["prototypes"].__globals__, vars(sys.modules["contrast_pictures"])):
        monkeypatch.setitem(names_of_script, "RECIPE", merge(names_of_script["RECIPE"], brief))
    assert script["prototypes"](before=2, after=2).image.size == (640, 480), "the picture that takes a minute"
    sizes = [script["FIGURES"][f"contrast_{name}"](steps=2).image.size for name in ("anchors", "memory", "cosines")]
    assert sizes == [(640, 372), (640, 420), (640, 370)], "pictures that train"
    for name in quick:
        drawn, kept = (np.asarray(Image.open(place / f"{name}.png")).astype(int) for place in (tmp_path, FIGURES))
        assert drawn.shape == kept.shape, name
        assert abs(drawn - kept).mean() < 1, f"docs/figures/{name}.png: draw it again by python docs/figures.py"


@pytest.mark.parametrize("path", sorted(FIGURES.iterdir()), ids=lambda path: path.stem)
def test_a_picture_is_on_a_page_and_described_in_words(path: Path) -> None:
    pages = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    found = re.search(rf"!\[([^]]+)\]\([\w/.]*figures/{path.name}\)", pages)
    assert found, path.name
    assert len(found[1].split()) >= 8, found[1]


# The reference, and the site


def test_docstrings_are_shown_as_they_are() -> None:
    as_rst = reference().as_rst
    shown = as_rst(["- sum_k w_k of `x`s, `follow_`; a|b, C*D.", "Shape legend: B images.", "", ">>> f(_)", "*1*"])
    assert shown == [
        r"\- sum\_k w\_k of ``x``\ s, ``follow_``; a\|b, C\*D.",
        "",
        "Shape legend: B images.",
        "",
        ">>> f(_)",
        "*1*",
    ]
    assert as_rst(["one ` backtick", "1. first"]) == [r"one \` backtick", r"\1. first"]


def test_every_setting_and_every_public_name_and_command_is_in_the_reference() -> None:
    pages = reference().pages()
    listed = set(re.findall(r"^\| `([\w.]+)` \|", pages["settings.md"], flags=re.MULTILINE))
    leaves = {name for name in settings() if not any(other.startswith(f"{name}.") for other in settings())}
    of_sums = {name for name in leaves if name.startswith("criterion.plus")}  # listed as settings of the criterion
    off = {"method.mining", "finetune.photometry"}  # sections that are off unless they are asked for
    assert listed - off == leaves - of_sums - {"method.name", "criterion.name"}
    assert off < listed
    assert "| `method.temperature` | `0.07` | stated: 0.07 beats 0.3 and 0.5 (Table 2) |" in pages["settings.md"]
    core = "\n".join(text for name, text in pages.items() if name.startswith("core/"))
    named = re.findall(r"^\.\. auto(?:class|function|data):: mdp\.core\.(\w+)$", core, flags=re.MULTILINE)
    assert sorted(named) == sorted(mdp.core.__all__)
    for command in ("mdp", "mdp pretrain", "mdp recipe show", "mdp checkpoint diff", "mdp demo"):
        assert f"\n## {command}\n\n```text\nUsage: {command} [OPTIONS]" in pages["commands.md"]


def test_fields_are_shown_with_the_comments_beside_them_those_of_a_base_first() -> None:
    block = reference().fields_block(find_method("region_bank").Settings)
    assert block[1] == ".. code-block:: python"
    assert block[3].strip() == "temperature: Temperature = 0.07  # stated: 0.07 beats 0.3 and 0.5 (Table 2)"
    assert any(line.strip().startswith("queue: Positive = 4096  # stated") for line in block)
    assert reference().fields_block(mdp.core.Segmentor) == []


def test_links_of_a_page_outside_docs_lead_to_pages_of_the_site_or_to_files() -> None:
    page = reference().root_page("README.md")
    assert "](../method.md)" in page
    assert "](contributing.md)" in page or "](../generated/contributing.md)" in page
    assert "](../figures/conflict.png)" in page


class Requests(HTMLParser):
    """What a page loads by itself from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            loads = name in ("src", "srcset", "data") or (name == "href" and tag == "link")
            if loads and (value or "").startswith(("http:", "https:", "//")):
                self.found.append(f"<{tag} {name}={value}>")


def test_the_site_is_built_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    for module in ("sphinx", "myst_parser", "furo"):
        pytest.importorskip(module, reason="the extra docs is not installed")
    command = [
        sys.executable,
        "-m",
        "tests.plain_site",
        "-W",
        "--keep-going",
        "--nitpicky",
        "-q",
        "-d",
        tmp_path / "trees",
    ]
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONWARNINGS": "default", "PYTHONPATH": paths}
    done = subprocess.run(
        [*command, ROOT / "docs", tmp_path / "site"], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    site = tmp_path / "site"
    for page in sorted(site.rglob("*.html")):
        found = Requests()
        found.feed(page.read_text(encoding="utf-8"))
        assert not found.found, f"{page.name}: {found.found}"
    styles = "\n".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert not re.findall(r"(?:url\(|@import)\s*[\"']?https?:", styles)
    contrast = (site / "generated" / "core" / "contrast.html").read_text(encoding="utf-8")
    assert 'id="mdp.core.prototype_nce"' in contrast
    assert 'href="prototype_bank.html#mdp.core.Prototypes"' in contrast, "types are not linked"
    method = (site / "method.html").read_text(encoding="utf-8")
    assert method.count("<mfrac") >= 5, "equations are not drawn"
    assert 'href="generated/core/contrast.html#mdp.core.prototype_nce"' in method, "functions are not linked"
    assert 'src="_images/conflict.png"' in method
    assert re.search(r'src="_static/copy.js(\?v=\w+)?"', method), "commands have no button that copies them"
    index = (site / "index.html").read_text(encoding="utf-8")
    assert 'class="sidebar-tree"' in index, "there is no tree of pages"
    assert "prototype_nc" in (site / "searchindex.js").read_text(encoding="utf-8"), "words are not searched"
    assert 'href="generated/contributing.html"' in index
    assert 'href="study-report.html"' in index, "the report is opened, not downloaded"
    assert (site / "study-report.html").read_bytes() == (ROOT / "docs" / "study.html").read_bytes()
    assert "<h1>When does pretraining" in (site / "study.html").read_text(encoding="utf-8")
