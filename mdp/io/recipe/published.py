"""The published fine-tuning schedules of targets."""

from pathlib import Path

from mdp.io.datasets import load, names
from mdp.io.files.reading import printable, read_bytes
from mdp.io.files.strict_yaml import dump_value
from mdp.io.recipe.layers import Layer, as_layer, config_layer, merge, nest, resolve
from mdp.io.recipe.shelf import recipe_path
from mdp.io.recipe.sources import explained


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
        lines += explained(type(settings), values)
        if section == "criterion":
            lines.append(f"  plus: {dump_value(values['plus'])}  # further criteria by name: {{dice: 3}}")
    return "\n".join(lines) + "\n"


def _quoted(file: Path) -> list[str]:
    """The text of a file as comments: its own as they are, the rest behind a mark."""
    text = read_bytes(str(file), "recipe").decode("utf-8-sig").splitlines()
    quoted = [line if line.startswith("#") else f"#   {line}".rstrip() for line in map(printable, text)]
    return [f"# {printable(file)}:", *quoted, ""]
