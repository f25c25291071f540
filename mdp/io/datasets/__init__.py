"""Datasets: one file each, found by its file name; or a YAML file of your own (`mdp.io.datasets.own`).

A module has `LABELS`, `SPLITS` (official counts), `TRAIN` and `VAL` (splits used by default), `HOME` (where to get
it), `TERMS` (its licence in a sentence), `samples(root, split)` and `read(sample)`; where there is one, `SCHEDULE` (the
published one for fine-tuning), where some splits are photos alone, `UNLABELLED` (their names), and where something is
known to go wrong, `MISTAKES`.  The rest of mdp sees a `Dataset`, whichever it came from.
"""

import difflib
import importlib
import pkgutil
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from mdp.io.datasets._dataset import Dataset, DatasetModule, DetailedModule, Sample, labels_of, open_split, read_photo
from mdp.io.datasets._mistakes import Mistakes
from mdp.io.datasets._offered import known, offered
from mdp.io.errors import RecipeError
from mdp.io.files.reading import is_dir

__all__ = ["Dataset", "Sample", "labels_of", "load", "names", "offered", "open_split"]


def names() -> list[str]:
    """The built-in datasets, by file name; nothing is imported."""
    return list(_names(tuple(__path__)))


@cache
def _names(folders: tuple[str, ...]) -> list[str]:
    found = (module.name for module in pkgutil.iter_modules(folders) if not module.ispkg)
    modules = (name for name in found if not name.startswith("_"))
    return sorted(name.replace("_", "-") if name.startswith("shapes") else name for name in modules)


def load(name: str) -> Dataset:
    """The dataset of that name, or described by the YAML file at that path, or the unlabelled photos below a folder.

    One that a Python program offers under the name comes first.
    Raises RecipeError, with a suggestion, for an unknown name; DatasetError or RecipeError for a bad YAML file.
    """
    if name in known():
        return known()[name]
    if name.endswith((".yaml", ".yml")):
        from mdp.io.datasets.own import load_own  # noqa: PLC0415 - it builds on this module

        return load_own(Path(name))
    if name not in names() and is_dir(name):
        from mdp.io.datasets.own import load_folder  # noqa: PLC0415

        return load_folder(Path(name))
    if name not in names():
        close = difflib.get_close_matches(name, names(), n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names())}"
        raise RecipeError(
            f"unknown dataset {name!r}; {hint} (your own: give the path of its .yaml file, or of a "
            "folder of unlabelled photos)"
        )
    module = importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
    return Dataset(
        name=name,
        labels=module.LABELS,
        splits=module.SPLITS,
        train=module.TRAIN,
        val=module.VAL,
        home=module.HOME,
        source=module.__file__ or name,
        samples=module.samples,
        read=module.read,
        photo=getattr(module, "photo", read_photo),
        terms=module.TERMS,
        detail=getattr(module, "detail", None),
        schedule=getattr(module, "SCHEDULE", {}),
        unlabelled=getattr(module, "UNLABELLED", frozenset()),
        mistakes=getattr(module, "MISTAKES", Mistakes()),
    )


if TYPE_CHECKING:  # here mypy holds every dataset to the Protocol; a program imports the one it is asked for
    from mdp.io.datasets import (
        ade20k,
        bdd100k,
        camvid,
        cityscapes,
        coco_stuff,
        coco_stuff10k,
        imagenet_s50,
        imagenet_s300,
        imagenet_s919,
        mapillary,
        mapillary_v2,
        nyudv2,
        pascal_context,
        pascal_context59,
        sbd,
        shapes_coarse,
        shapes_fine,
        shapes_objects,
        shapes_target,
        sunrgbd,
        voc,
    )

    # fmt: off
    CHECKED: tuple[DatasetModule, ...] = (
        ade20k, bdd100k, camvid, coco_stuff, imagenet_s50, imagenet_s300, imagenet_s919, mapillary, mapillary_v2,
        nyudv2, sbd, shapes_coarse, shapes_fine, shapes_objects, shapes_target, sunrgbd,
    )
    DETAILED: tuple[DetailedModule, ...] = (cityscapes, coco_stuff10k, pascal_context, pascal_context59, voc)
    # fmt: on
