"""Datasets that a Python program has made itself, known by their names for as long as it asks for runs with them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from mdp.io.datasets._dataset import Dataset
from mdp.io.errors import RecipeError

_NOBODYS: Mapping[str, Dataset] = {}
_OFFERED: ContextVar[Mapping[str, Dataset]] = ContextVar("datasets of a program", default=_NOBODYS)


def known() -> Mapping[str, Dataset]:
    """The datasets that are offered here, by their names."""
    return _OFFERED.get()


@contextmanager
def offered(*datasets: Dataset) -> Iterator[None]:
    """Inside, these datasets are found by their names, before all others.

    Raises RecipeError where a name could be a path or a split, or two have one name.
    """
    found: dict[str, Dataset] = {}
    for dataset in datasets:
        name = dataset.name
        if not name or any(mark in name for mark in ":/,\\") or name.endswith((".yaml", ".yml")):
            raise RecipeError(f"a dataset of a program: expected a name without : / , and .yaml, got {name!r}")
        if found.get(name, dataset) is not dataset:
            raise RecipeError(f"two datasets have the same name: {name}; give one of them another")
        if name != dataset.labels.name:
            raise RecipeError(f"the dataset {name!r} has a label space of another name, {dataset.labels.name!r}")
        found[name] = dataset
    before = _OFFERED.set({**known(), **found})
    try:
        yield
    finally:
        _OFFERED.reset(before)
