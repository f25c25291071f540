"""What the commands that list datasets and recipes are asked.  Plain data: nothing here needs NumPy or torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from mdp.given import Given, Recipe, Root


@dataclass(frozen=True, kw_only=True)
class Listing:
    """List the built-in datasets and what of them is under --root; `init` describes a folder of your own.

    mdp datasets
    mdp datasets --root data --json
    mdp datasets init photos
    """

    root: Annotated[str, Root] = "data"  # folder of the datasets


@dataclass(frozen=True, kw_only=True)
class OneRecipe:
    """Print every setting with its default, or with the values of a recipe: a NAME of `mdp recipe list` or a FILE.

    mdp recipe show
    mdp recipe show --target cityscapes
    mdp recipe show --method moco
    mdp recipe show tiny
    mdp recipe show examples/recipes/tiny.yaml
    """

    file: Annotated[Path, Recipe._replace(argument=True)] | None = None  # the recipe
    target: str = ""  # with the published fine-tuning schedule of this dataset
    method: str = ""  # with the settings and the schedule of this pretraining method


@dataclass(frozen=True, kw_only=True)
class Recipes:
    """List the recipes that come with mdp, or those below FOLDER, with the figure that each should reach.

    `--config NAME` takes one, and `mdp recipe show NAME` prints it.

      mdp recipe list
      mdp recipe list examples/recipes/paper --json
    """

    folder: Annotated[Path, Given(argument=True)] | None = None  # with recipes at any depth
