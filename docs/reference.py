"""What the built site has besides the pages in this folder: reference pages, made from the code each time.

`write(folder)` makes them: every public function of `mdp.core` by topic, what of `mdp.io` a program may call, every
setting with its default and comment, every command's `--help` as it is printed, and the files of the repository's root.
"""

import ast
import dataclasses
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import click

import mdp.core
from mdp.cli import cli
from mdp.core.networks import NetworkSettings
from mdp.io.recipe.criteria import criterion_names, find_criterion
from mdp.io.recipe.fields import comments_of, fields_of
from mdp.io.recipe.methods import find_method, method_names
from mdp.io.recipe.settings import SECTIONS

ROOT = Path(__file__).resolve().parent.parent
# files outside docs that are pages of the site
PAGES = {
    "README.md": "readme",
    "CONTRIBUTING.md": "contributing",
    "SECURITY.md": "security",
    "CHANGELOG.md": "changelog",
    "benchmarks/README.md": "benchmarks",
    "benchmarks/scale.md": "growth",
}
HELP_WIDTH = 88  # characters
# what a program may call of the shell, in the order of use
SHELL = {
    "mdp.io.program": ["pretrain", "finetune", "evaluate", "predict"],
    "mdp.io.recipe.request": ["Request"],
    "mdp.io.recipe.layers": ["config_layer", "set_layer", "merge", "resolve", "as_yaml", "Recipe"],
    "mdp.io.datasets": ["names", "load", "open_split", "labels_of", "Dataset", "Sample"],
    "mdp.io.files.photos": ["read_rgb", "PhotoRule"],
    "mdp.io.files.label_maps": ["read_labels", "LabelRule"],
    "mdp.io.files.images": ["write_labels", "write_rgb"],
    "mdp.io.files.colormap": ["voc_colormap"],
    "mdp.io.check.job": ["run_check"],
    "mdp.io.check.report": ["Report", "report_text", "report_json"],
    "mdp.io.training.job": ["run_pretraining", "run_finetuning"],
    "mdp.io.training.pretraining": ["describe_pretraining"],
    "mdp.io.evaluation.job": ["run_evaluation"],
    "mdp.io.inference.job": ["run_predictions"],
    "mdp.io.inference.asked": ["Wanted"],
    "mdp.io.export.job": ["run_export", "Export"],
    "mdp.io.export.asked": ["ExportQuestion"],
    "mdp.io.studies.compare": ["run_comparison", "Comparison", "Start", "parse_start", "parse_shares"],
    "mdp.io.studies.taxonomy": ["run_taxonomy"],
    "mdp.io.report.job": ["run_report"],
    "mdp.io.weights.inspect": ["inspect"],
    "mdp.io.run.checkpoint": ["load", "Checkpoint"],
    "mdp.io.run.checkpoint_summary": ["describe"],
    "mdp.io.run.checkpoint_report": ["verify", "difference"],
    "mdp.io.recipe.catalogue": ["dataset_rows", "recipe_rows"],
    "mdp.io.errors": [
        "MdpError", "RecipeError", "DatasetError", "Diverged", "CheckpointError", "ResourceError", "Preempted",
        "ProcessError",
    ],
}  # fmt: skip


def write(folder: Path) -> None:
    """Makes the folder what `pages` says; files that say it already are left alone, so that Sphinx sees no change."""
    wanted = pages()
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        if path.relative_to(folder).as_posix() not in wanted:
            path.unlink()
    for name, text in wanted.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.exists() or place.read_text(encoding="utf-8") != text:
            place.write_text(text, encoding="utf-8")


def pages() -> dict[str, str]:
    """Every page by its path in `docs/generated`."""
    return {
        **{f"{_place(name)}.rst": module_page(name, public) for name, public in topics()},
        "core.rst": core_page(),
        "shell.rst": shell_page(),
        "settings.md": settings_page(),
        "commands.md": commands_page(),
        **{f"{page}.md": root_page(name) for name, page in PAGES.items()},
    }


# mdp.core, by topic


def topics() -> list[tuple[str, list[str]]]:
    """The modules of mdp.core in the order of its table of contents, with the public names of each."""
    tree = ast.parse(Path(mdp.core.__file__).read_text(encoding="utf-8"))
    imported = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module]
    found = [(str(node.module), [alias.name for alias in node.names]) for node in imported]
    methods = ("methods", *sorted(f"methods.{name}" for name in method_names()))
    return found + [(f"mdp.core.{name}", []) for name in (*methods, "protocols", "protocols.segmentation")]


def _place(name: str) -> str:
    """The page of a topic; a method may have the name of a module of core."""
    *_, folder, last = name.split(".")
    return f"core/method_{last}" if folder == "methods" else f"core/{last}"


def core_page() -> str:
    """What mdp.core is, and its topics with a sentence each."""
    short = {name: name.removeprefix("mdp.core.").replace("methods.", "method ") for name, _ in topics()}
    about = [
        f"- :doc:`{words} <{_place(name)}>`: {_module_words(name).splitlines()[0]}" for name, words in short.items()
    ]
    listed = [f"   {words} <{_place(name)}>" for name, words in short.items()]
    parts = [_title("mdp.core"), _module_words("mdp.core"), "", *about, "", ".. toctree::", "   :hidden:", "", *listed]
    return "\n".join(parts) + "\n"


def module_page(name: str, public: list[str]) -> str:
    """A module's own words, then its public names as they are imported; of a method, what its module offers."""
    parts = [_title(name), _module_words(name), ""]
    where = "mdp.core" if public else name
    for member in _in_source_order(name, public) if public else _offered(name):
        thing = getattr(importlib.import_module(where), member)
        kind = "autoclass" if inspect.isclass(thing) else "autofunction" if callable(thing) else "autodata"
        members = "   :members:\n" if kind == "autoclass" else ""
        parts.append(f".. {kind}:: {where}.{member}\n{members}")
    return "\n".join(parts)


def _in_source_order(name: str, public: list[str]) -> list[str]:
    """The names in the order in which their files define them."""
    things = {member: getattr(mdp.core, member) for member in public}

    def place(member: str) -> tuple[str, int]:
        thing = things[member]
        defined = inspect.isclass(thing) or inspect.isfunction(thing)
        return (thing.__module__, inspect.getsourcelines(thing)[1]) if defined else (name, 0)

    return sorted(public, key=place)


def _offered(name: str) -> list[str]:
    """What a module itself defines that is public and documented."""
    module = importlib.import_module(name)
    own = [(key, thing) for key, thing in vars(module).items() if getattr(thing, "__module__", "") == name]
    named = [(key, thing) for key, thing in own if not key.startswith("_") and getattr(thing, "__doc__", None)]
    return [key for key, thing in sorted(named, key=lambda pair: inspect.getsourcelines(pair[1])[1])]


def shell_page() -> str:
    """What of mdp.io a program may call."""
    words = (
        "A command is one call into `mdp.io`, and a program may make the same calls: these.  Everything else in\n"
        "`mdp.io` may change without a word in the changelog."
    )
    parts = [_title("mdp.io"), "\n".join(as_rst(words.split("\n"))), ""]
    for module, names in SHELL.items():
        parts += [f"{module}\n{'-' * len(module)}", "", _module_words(module), ""]
        for name in names:
            kind = "autoclass" if inspect.isclass(getattr(importlib.import_module(module), name)) else "autofunction"
            parts.append(f".. {kind}:: {module}.{name}\n")
    return "\n".join(parts)


def _title(text: str) -> str:
    return f"{text}\n{'=' * len(text)}\n\n"


def _module_words(name: str) -> str:
    return "\n".join(as_rst((importlib.import_module(name).__doc__ or "").strip().split("\n")))


# Docstrings


def as_rst(lines: list[str]) -> list[str]:
    r"""A plain-text docstring as reStructuredText that shows the same: nothing in it is markup but `code` and doctests.

    >>> as_rst(["- sum_k w_k of `x`s, for `follow_`.", "Shape legend: B x C*D", "", ">>> f(_)", "1"])
    ['\\- sum\\_k w\\_k of ``x``\\ s, for ``follow_``.', '', 'Shape legend: B x C\\*D', '', '>>> f(_)', '1']
    """
    blocks: list[list[str]] = [[]]
    for line in lines:
        if not line.strip() or (line.startswith("Shape legend") and blocks[-1]):
            blocks.append([])
        if line.strip():
            in_doctest = line.startswith(">>>") or (blocks[-1] and blocks[-1][0].startswith(">>>"))
            if in_doctest and blocks[-1] and not blocks[-1][0].startswith(">>>"):
                blocks.append([])
            blocks[-1].append(line if in_doctest else _escaped(line.strip()))
    return "\n\n".join("\n".join(block) for block in blocks if block).split("\n")


def _escaped(line: str) -> str:
    parts = line.split("`")
    if len(parts) % 2 == 0:  # a backtick without its other half
        parts = [line]
    made = ""
    for index, part in enumerate(parts):
        if index % 2 == 0:
            glue = "\\ " if made and part[:1].isalnum() else ""
            made += glue + re.sub(r"([\\*_|`])", r"\\\1", part)
        else:
            glue = "\\ " if made and made[-1] not in " ([{\"'-/:<" else ""
            made += f"{glue}``{part}``"
    return re.sub(r"^([-+•]|\d+[.)]|>>>|\.\.)(\s|$)", r"\\\1\2", made)


# Fields of named tuples and settings, with the comments beside them


def fields_block(kind: Any) -> list[str]:
    """The fields of a named tuple or dataclass as they stand in the source, shapes and reasons included."""
    if not inspect.isclass(kind) or not (dataclasses.is_dataclass(kind) or hasattr(kind, "_fields")):
        return []
    lines = [line for field in fields_of(kind) for line in field.lines]
    return ["", ".. code-block:: python", "", *(f"   {line}" for line in lines), ""] if lines else []


# Settings


def settings_page() -> str:
    """Every setting by section: name, default, and the comment that stands beside it in the code."""
    parts = [
        "# Every setting",
        "Every setting with its default, made from the code; `mdp recipe show` prints the same as YAML. "
        "`--set KEY=VALUE` and `--config` take the keys as they stand here. *stated*, *inferred* and *chosen* say "
        "whether the paper gives a value, other numbers of the paper imply it, or we chose it.",
    ]
    for name, kind in {**SECTIONS, "model": NetworkSettings}.items():
        parts += [f"## {name}", (inspect.getdoc(kind) or "").replace("\n", " "), _settings_table(kind, name)]
    for method in method_names():
        kind = find_method(method).Settings
        parts += [f"## method, for `{method}`", f"With `method.name: {method}`:", _settings_table(kind, "method")]
    for criterion in criterion_names():
        kind = find_criterion(criterion).Settings
        words = f"With `criterion.name: {criterion}`, or the same under `criterion.plus.{criterion}`:"
        parts += [f"## criterion, for `{criterion}`", words, _settings_table(kind, "criterion")]
    return "\n\n".join(parts) + "\n"


def _settings_table(kind: type, prefix: str) -> str:
    rows = [f"| `{key}` | {default} | {comment} |" for key, default, comment in setting_rows(kind, prefix)]
    return "\n".join(["| setting | default | |", "| --- | --- | --- |", *rows])


def setting_rows(kind: type, prefix: str) -> Iterator[tuple[str, str, str]]:
    """Key, default and comment of every setting of a class and of those inside it."""
    comments, hints, defaults = comments_of(kind), get_type_hints(kind), kind()
    for field in dataclasses.fields(kind):
        key, value = f"{prefix}.{field.name}", getattr(defaults, field.name)
        if dataclasses.is_dataclass(hints[field.name]):
            yield from setting_rows(hints[field.name], key)
        else:
            words = "none" if value is None else f"`{_plain(value)}`"
            yield key, words, comments[field.name].replace("|", "\\|")
            for section in get_args(hints[field.name]):
                if inspect.isclass(section) and dataclasses.is_dataclass(section):  # off unless it is asked for
                    yield from setting_rows(section, key)


def _plain(value: Any) -> str:
    """As YAML has it."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(_plain, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value) if value != "" else '""'


# Commands


def commands_page() -> str:
    """Every command's help as it is printed."""
    parts = ["# Commands", "As `--help` prints them. `-h` does the same; `mdp --version` prints the version."]
    for name, text in helps():
        parts += [f"## {name}", f"```text\n{text}\n```"]
    return "\n\n".join(parts) + "\n"


def helps() -> Iterator[tuple[str, str]]:
    """Every command, groups included, with its help."""

    def below(command: click.Command, parent: click.Context | None, name: str) -> Iterator[tuple[str, str]]:
        width = {"terminal_width": HELP_WIDTH, "max_content_width": HELP_WIDTH}
        context = click.Context(command, parent=parent, info_name=name, **{**command.context_settings, **width})
        yield context.command_path, command.get_help(context)
        for child in command.list_commands(context) if isinstance(command, click.Group) else ():
            found = command.get_command(context, child) if isinstance(command, click.Group) else None
            if found is not None:
                yield from below(found, context, child)

    return below(cli, None, "mdp")


# Files of the repository's root


def root_page(name: str) -> str:
    """A file outside docs as a page, its links to pages in docs and beside it made relative to here."""
    text = (ROOT / name).read_text(encoding="utf-8")
    base = Path(name).parent

    def moved(found: re.Match[str]) -> str:
        target, hash_, anchor = found[2].partition("#")
        if not target or "://" in target or target.startswith("mailto:"):
            return found[0]
        place = (ROOT / base / target).resolve().relative_to(ROOT).as_posix()
        return f"{found[1]}({'../../' + place}{hash_}{anchor})"

    return site_links(re.sub(r"(\])\(([^)\s]+)\)", moved, text), depth=1)


def site_links(text: str, depth: int) -> str:
    """Links of a page, `depth` folders below docs, to files outside docs that have a page in the site."""
    up = "../" * (depth + 1)
    for name, page in PAGES.items():
        text = text.replace(f"]({up}{name}", f"]({'../' * depth}generated/{page}.md")
    return text.replace(f"]({up}docs/", f"]({'../' * depth}")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
