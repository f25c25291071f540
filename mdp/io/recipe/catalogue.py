"""Tables of datasets, methods and recipes, for people and for scripts."""

from itertools import takewhile
from pathlib import Path
from typing import Any

from mdp.io.datasets import load, names
from mdp.io.datasets._dataset import open_split
from mdp.io.errors import DatasetError, RecipeError
from mdp.io.files.reading import read_bytes
from mdp.io.recipe.criteria import criterion_names, find_criterion
from mdp.io.recipe.methods import find_method, method_names
from mdp.io.recipe.shelf import recipe_files, recipe_names


def dataset_rows(root: Path) -> list[dict[str, Any]]:
    """A row for each built-in dataset: its classes, and for each split the images found and the official count."""
    rows = []
    for name in names():
        dataset = load(name)
        splits: dict[str, Any] = {}
        for split, official in dataset.splits.items():
            try:
                count: int | None = len(open_split(dataset, root, split)[0])
            except DatasetError:
                count = None
            splits[split] = {"found": count, "official": official}
        rows.append(
            {
                "name": name,
                "classes": len(dataset.labels.classes),
                "splits": splits,
                "home": dataset.home,
                "terms": dataset.terms,
            }
        )
    return rows


def dataset_table(rows: list[dict[str, Any]]) -> str:
    """The rows as text; `-` where a split is not there."""
    lines = [f"{'dataset':<15}{'classes':>8}  images found / official"]
    for row in rows:
        counts = ", ".join(
            f"{split} {'-' if count['found'] is None else format(count['found'], ',')}/{count['official']:,}"
            for split, count in row["splits"].items()
        )
        lines.append(f"{row['name']:<15}{row['classes']:>8}  {counts}")
        if all(count["found"] is None for count in row["splits"].values()):
            lines.append(f"{'':<25}{row['home']}")
    lines.append("Your own: a YAML file; see examples/datasets/ and docs/own-data.md.")
    return "\n".join(lines)


def method_lines() -> list[str]:
    """A line for each pretraining method and each criterion of fine-tuning: its name and its module's first line."""
    methods = [_line(name, find_method(name)) for name in method_names()]
    criteria = [_line(name, find_criterion(name)) for name in criterion_names()]
    return [*methods, "", "Criteria of `mdp finetune --criterion NAME[,NAME=WEIGHT]`:", *criteria]


def _line(name: str, module: object) -> str:
    return f"{name:<16}{(module.__doc__ or '').splitlines()[0]}"


def recipe_rows(folder: Path | None = None) -> list[dict[str, Any]]:
    """A row for each recipe at any depth below the folder, sorted: path, what it is, and what it should give.

    That is the first sentence of the file's first comment line, and its comment `expected: ...` (None without one).
    Without a folder the recipes are those that come with mdp, and have a name.  Raises RecipeError when there is no
    such folder.
    """
    if folder is not None and not folder.is_dir():
        raise RecipeError(f"{folder}: expected a folder of recipes; `mdp recipe list` lists those that come with mdp")
    named = [(None, path) for path in recipe_files(folder)] if folder else recipe_names().items()
    rows = []
    for name, path in named:
        comments = _opening_comments(path)
        expected = [
            comment.removeprefix("expected:").strip() for comment in comments if comment.startswith("expected:")
        ]
        rows.append(
            {
                "name": name,
                "path": str(path),
                "about": next(iter(comments), "").split(". ")[0].rstrip("."),
                "expected": next(iter(expected), None),
            }
        )
    return rows


def _opening_comments(path: Path) -> list[str]:
    """The comment lines that a file opens with, without their marks."""
    lines = read_bytes(str(path), "recipe").decode("utf-8-sig", errors="replace").splitlines()
    return [line.removeprefix("#").strip() for line in takewhile(lambda line: line.startswith("#"), lines)]


def recipe_table(rows: list[dict[str, Any]]) -> str:
    """The rows as text, a line each."""
    width = max((len(row["name"] or row["path"]) for row in rows), default=0)
    lines = [
        f"{row['name'] or row['path']:<{width}}  {row['about']}"
        + (f"; expected: {row['expected']}" if row["expected"] else "")
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines) or "no recipes (.yaml files) there"
