"""Every setting of every section, method and head, with odd values: a recipe, or one line that names file and key."""

import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from mdp.core.bounds import bounds_of
from mdp.core.class_votes import VoteSettings
from mdp.core.networks.decode_heads import HEADS
from mdp.core.taxonomy import RelationSettings
from mdp.io.errors import RecipeError
from mdp.io.recipe.criteria import criterion_names, find_criterion
from mdp.io.recipe.layers import FileLayer, Recipe, as_layer, config_layer, nest, resolve
from mdp.io.recipe.methods import find_method, method_names

SECTIONS = {name: kind for name, kind in get_type_hints(Recipe).items() if name not in ("method", "criterion")}
KINDS = [
    *SECTIONS.values(),
    *(find_method(name).Settings for name in method_names()),
    *(find_criterion(name).Settings for name in criterion_names()),
    RelationSettings,
    VoteSettings,
]
ODD = {
    "nan": math.nan,
    "inf": math.inf,
    "-inf": -math.inf,
    "1e30": 1e30,
    "1e35": 1e35,
    "1e-300": 1e-300,
    "10**30": 10**30,
    "10**400": 10**400,
    "-1": -1,
    "true": True,
    "empty text": "",
    "empty list": [],
    "null": None,
    "long text": "x" * 10_000,
    "long path": "y" * 4000,
    "two lines": "a\nb",
    "section": {"a": 1},
    "long list": [1] * 10_000,
    "list of nan": [math.nan, math.nan],
    "list of giants": [10**30, 1e30],
}


def numbers_in(hint: Any) -> int:
    """How many of the types in a hint are of numbers."""
    return int(hint in (int, float)) + sum(map(numbers_in, get_args(hint)))


def keys_of(kind: type, prefix: str) -> Iterator[str]:
    for field in fields(kind):
        inner = get_type_hints(kind)[field.name]
        yield from keys_of(inner, f"{prefix}.{field.name}") if is_dataclass(inner) else [f"{prefix}.{field.name}"]


def inside(kind: type) -> Iterator[type]:
    yield kind
    for hint in get_type_hints(kind).values():
        if is_dataclass(hint):
            yield from inside(hint)  # type: ignore[arg-type]


def settings() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every key, with the layer that makes it a key: a method, a head."""
    for name, kind in SECTIONS.items():
        yield from ((key, {}) for key in keys_of(kind, name))
    for name in method_names():
        yield from ((key, {"method": {"name": name}}) for key in keys_of(find_method(name).Settings, "method"))
    for name in criterion_names():
        kind = find_criterion(name).Settings
        yield from ((key, {"criterion": {"name": name}}) for key in keys_of(kind, "criterion"))
        first = "focal" if name == "dice" else "dice"
        yield from ((key, {"criterion": {"name": first}}) for key in keys_of(kind, f"criterion.plus.{name}"))
    for head in HEADS:
        yield from ((key, {"model": {"head": head}}) for key in keys_of(SECTIONS["model"], "model"))
    sections = ("method", "method.name", "method.mix", "pretrain.photometry", "criterion", "criterion.plus")
    yield from ((key, {}) for key in (*SECTIONS, *sections, "criterion.plus.dice", "criterion.name"))


@pytest.mark.parametrize("kind", sorted({part for kind in KINDS for part in inside(kind)}, key=str))
def test_every_number_of_a_setting_has_finite_bounds_and_its_default_is_within(kind: type) -> None:
    hints = get_type_hints(kind)
    assert {name: numbers_in(hint) for name, hint in hints.items() if numbers_in(hint)} == {
        name: len(bounds) for name, bounds in bounds_of(kind).items()
    }
    assert all(-math.inf < bound.low < bound.high < math.inf for found in bounds_of(kind).values() for bound in found)
    kind()


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_value_of_any_setting_gives_a_recipe_or_one_line_with_file_and_key(odd: str) -> None:
    refused, tried = 0, 0
    for key, layer in settings():
        tried += 1
        try:
            recipe = resolve(layer, FileLayer(nest(key, ODD[odd]), Path("odd.yaml")))
        except RecipeError as error:
            refused += 1
            text = str(error)
            assert text.startswith("odd.yaml: "), text
            assert key.rpartition(".")[2] in text or odd == "section", text
            assert "\n" not in text
            assert len(text) < 600, text
        else:  # what is accepted can be written down, and is the same when it is read again
            assert all(map(math.isfinite, numbers_of(as_layer(recipe)))), key
            assert resolve(as_layer(recipe)) == recipe
    assert tried > 100
    assert refused > tried * (0.9 if odd in ("nan", "inf", "-inf", "1e35", "10**400") else 0.1), refused


def numbers_of(value: Any) -> Iterator[float]:
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from numbers_of(item)
    elif isinstance(value, int | float):
        yield value


def test_the_file_is_named_that_the_value_comes_from(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("pretrain: {lr: 2, epochs: 3}\nmethod: {name: moco, temperature: .nan}\n")
    with pytest.raises(RecipeError, match=rf"^{path}: method\.temperature: expected .*, got nan$"):
        resolve(config_layer(path), {"pretrain": {"lr": 1.0}})
    with pytest.raises(RecipeError, match=r"^recipe: pretrain\.lr: expected 0 or more, got -1\.0$"):
        resolve({"pretrain": {"epochs": 3}}, config_layer(path), {"pretrain": {"lr": -1}, "method": {"temperature": 1}})
