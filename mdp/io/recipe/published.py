"""The published fine-tuning schedules of targets, and recipes as YAML that says where each value comes from."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from mdp.io.datasets import load, names
from mdp.io.files.reading import printable, read_bytes
from mdp.io.files.strict_yaml import dump_value
from mdp.io.recipe.fields import comments_of
from mdp.io.recipe.layers import Layer, as_layer, config_layer, merge, nest, resolve
from mdp.io.recipe.shelf import recipe_path


def schedule_layer(target: str) -> Layer:
    """The published fine-tuning schedule of a built-in target; the general one, which are the defaults, otherwise."""
    published = load(target).schedule if target in names() else {}
    return {"finetune": {}, "eval": {}, **published}


def recipe_yaml(file: Path | None, target: str, method: str) -> str:
    """Every setting with its default, or as the recipe file, the method and the target's published schedule have it.

    Beside a setting stands what it means and where its default comes from; the file's own text, which has the sources
    of its values, stands above all as comments.
    """
    chosen = merge(nest("finetune.target", target) if target else {}, nest("method.name", method) if method else {})
    recipe = resolve(schedule_layer(target), config_layer(file), chosen)
    lines = _quoted(recipe_path(file)) if file else []
    for section, values in as_layer(recipe).items():
        settings = getattr(recipe, section)
        lines.append(f"{section}:")
        if section in ("method", "criterion"):
            lines.append(f"  name: {dump_value(settings.name)}")
            settings = settings.settings
        lines += _explained(type(settings), values)
        if section == "criterion":
            lines.append(f"  plus: {dump_value(values['plus'])}  # further criteria by name: {{dice: 3}}")
    return "\n".join(lines) + "\n"


def _explained(kind: Any, values: Mapping[str, Any], indent: str = "  ") -> list[str]:
    """Lines of YAML for the values of a settings class, each with its comment, and its default where it has another."""
    comments, hints, usual, lines = comments_of(kind), get_type_hints(kind), kind(), []
    for field in fields(kind):
        key, value = field.name, values[field.name]
        if is_dataclass(hints[key]):
            lines += [f"{indent}{key}:", *_explained(hints[key], value, f"{indent}  ")]
            continue
        text, default = dump_value(value), dump_value(getattr(usual, key))
        notes = [f"default {default}" if text != default else "", comments[key]]
        lines.append(f"{indent}{key}: {text}" + (f"  # {note}" if (note := "; ".join(filter(None, notes))) else ""))
    return lines


def _quoted(file: Path) -> list[str]:
    """The text of a file as comments: its own as they are, the rest behind a mark."""
    text = read_bytes(str(file), "recipe").decode("utf-8-sig").splitlines()
    quoted = [line if line.startswith("#") else f"#   {line}".rstrip() for line in map(printable, text)]
    return [f"# {printable(file)}:", *quoted, ""]
