"""What there is: datasets and methods, for people and for scripts."""

from pathlib import Path
from typing import Any

from mdp.io.datasets import load, names, open_split
from mdp.io.errors import DatasetError
from mdp.io.recipe import find_method, method_names


def dataset_rows(root: Path) -> list[dict[str, Any]]:
    """A row for each built-in dataset: its classes, and for each split the images found and the official count."""
    rows = []
    for name in names():
        dataset = load(name)
        found: dict[str, Any] = {}
        for split, official in dataset.splits.items():
            try:
                count: int | None = len(open_split(dataset, root, split)[0])
            except DatasetError:
                count = None
            found[split] = {"found": count, "official": official}
        rows.append({"name": name, "classes": len(dataset.labels.classes), "splits": found, "home": dataset.home})
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
    lines.append("Your own: a YAML file; see examples/datasets/ and the README's section on your own data.")
    return "\n".join(lines)


def method_lines() -> list[str]:
    """A line for each method: its name and the first line of its module."""
    return [f"{name:<16}{(find_method(name).__doc__ or '').splitlines()[0]}" for name in method_names()]
