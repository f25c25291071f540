"""The cells of a comparison: what each is, in settings, weights and data, and what becomes of those that were others.

A cell is (start, share of the labels, seed).  Beside its run stands what it was made with, so that results of different
settings or data never mix; a score that took hours is put aside, never thrown away.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from mdp.io.data.changes import changes, with_labels
from mdp.io.data.identity import DataDigest, changes_by_digest
from mdp.io.data.manifest import DataPart, look_at, read_manifest
from mdp.io.data.selection import Plan, no_validation, plan_finetuning
from mdp.io.datasets._dataset import open_split
from mdp.io.errors import CheckpointError, DatasetError, MdpError, RecipeError
from mdp.io.files.writing import make
from mdp.io.recipe.layers import Layer, Recipe, as_layer, changed_keys, merge, nest, resolve
from mdp.io.recipe.request import Request
from mdp.io.run.record import labels_of
from mdp.io.run.same_data import looked_at
from mdp.io.training.finetuning import finetune_recipe

ASIDE = "outdated"  # the folder, in that of the comparison, of cells that were run again


class Start(NamedTuple):
    """A starting point by name."""

    name: str
    kind: str
    path: str  # may hold {seed}; empty for scratch
    settings: Layer  # what this start sets besides
    text: str  # as it was asked for

    def init(self, seed: int) -> str:
        """The value of `finetune --init`."""
        return "scratch" if self.kind == "scratch" else self.path.replace("{seed}", str(seed))


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The request of `mdp compare`."""

    starts: tuple[Start, ...]
    shares: tuple[Fraction, ...]  # of the target's training images
    seeds: int
    split: str | None  # that is scored; None: the target's validation split
    against: tuple[str, ...]  # starts that the others are compared with; empty: the first
    keep: bool  # checkpoints of scored cells
    redo: bool = False  # run those again that were made with other settings or data


class Cell(NamedTuple):
    """One fine-tuning run of the table."""

    start: Start
    share: Fraction
    images: int
    seed: int
    folder: Path
    request: Request

    @property
    def record(self) -> Path:
        """The file beside the run that says what it is and, once done, what came out."""
        return self.folder.with_suffix(".json")


def cells_of(request: Request, asked: Comparison, images: int, folder: Path) -> Iterator[Cell]:
    """All cells, so ordered that every prefix of them compares all starts."""
    for share in asked.shares:
        count = max(1, round(images * share))
        for seed in range(asked.seeds):
            for start in asked.starts:
                own = merge(start.settings, nest("run.seed", seed), nest("eval.split", asked.split))
                if count < images:
                    own = merge(own, nest("finetune.images", count))
                cell_folder = folder / "cells" / start.name / f"{share.numerator}-{share.denominator}_seed{seed}"
                layers = (*request.layers, own)
                yield Cell(
                    start,
                    share,
                    count,
                    seed,
                    cell_folder,
                    replace(request, layers=layers, out=cell_folder, init=start.init(seed), quiet=True),
                )


def identity(cell: Cell, data: Sequence[DataDigest]) -> dict[str, Any]:
    """All that decides the outcome of a cell: its settings, the weights it starts from, and its data."""
    recipe, weights = finetune_recipe(cell.request)
    digest = None
    if weights is not None:
        digest = _digest(weights, weights.stat().st_mtime_ns)
    layer = as_layer(recipe)
    decisive = ("seed", "threads", "precision", "accumulate", "clip_norm", "deterministic")
    run = {key: layer["run"][key] for key in decisive}
    run |= {key: layer["run"][key] for key in ("init_from", "init_partial") if layer["run"][key]}
    sections = ["model", "finetune", "eval"]
    if layer["criterion"] != as_layer(resolve())["criterion"]:  # older versions of mdp said nothing of the usual one
        sections.append("criterion")
    return {
        "start": cell.start.name,
        "init": cell.start.init(cell.seed),
        "sha256": digest,
        "share": str(cell.share),
        "train_images": cell.images,
        "seed": cell.seed,
        "recipe": {"run": run, **{key: layer[key] for key in sections}},
        "data": [digest._asdict() for digest in data],
    }


@cache
def _digest(path: Path, _: int) -> str:
    """The sha256 of a file, computed once for each time of change."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# The data of a cell


def target_data(recipe: Recipe, split: str | None, known: Sequence[DataPart]) -> Plan:
    """The plan of fine-tuning with its files: those trained on, the whole validation split, and the split to score.

    What `known` tells of them is not read again.  Raises what `plan_finetuning` and `open_split` raise.
    """
    plan = looked_at(plan_finetuning(replace(recipe, finetune=replace(recipe.finetune, validate_images=None))), known)
    (dataset,) = plan.pool.datasets.values()
    if split is None and dataset.val is None:
        raise RecipeError(f"{no_validation(dataset)}; give --split, one of {', '.join(dataset.splits)}")
    if split in (None, dataset.val):
        return plan
    root = recipe.data.root
    role, before = f"split {split}", {part.role: part for part in known}
    scored = look_at(dataset, open_split(dataset, Path(root), split)[0], role, root, before.get(role))
    return replace(plan, data=(*plan.data, scored))


class CellData:
    """The digests of the data of cells, each looked at once."""

    def __init__(self, split: str | None, known: Sequence[DataPart]) -> None:
        self.split, self.known = split, known
        self.found: dict[tuple[int, int | None], list[DataDigest]] = {}

    def of(self, cell: Cell) -> list[DataDigest]:
        recipe = finetune_recipe(cell.request)[0]
        key = recipe.run.seed, recipe.finetune.images  # what is drawn is a function of these
        if key not in self.found:
            self.found[key] = [part.digest() for part in target_data(recipe, self.split, self.known).data]
        return self.found[key]


# Cells that were made with something else

_BY_DATA = ("data", "train_images", "recipe.finetune.images")  # what is another when files come or go


def outdated(
    cells: Sequence[Cell], wanted: Mapping[Path, dict[str, Any]], plan: Plan, folder: Path, redo: bool
) -> tuple[list[Cell], list[str]]:
    """The cells that were made with other settings or data than wanted, and lines to say about them.

    Raises RecipeError or DatasetError, saying what differs and what to do, unless they are to be run again.
    """
    classes = len(plan.pool.union.spaces[0].classes)
    found, by_data, untold = [], [], 0
    for cell in cells:
        record = read_record(cell.record)
        there = {key: value for key, value in record.items() if key != "result"}
        if there and "data" not in there:  # an older mdp did not say; that there are as many classes is something
            untold += 1
            blocks = (record.get("result") or {}).get("blocks") or [[None] * classes]
            there["data"] = wanted[cell.record]["data"] if len(blocks[0]) == classes else []
        else:  # what the files hold tells more than where their description lies
            there = merge(there, nest("recipe.finetune.target", wanted[cell.record]["recipe"]["finetune"]["target"]))
        keys = list(changed_keys(there, wanted[cell.record])) if record else []
        others = [key for key in keys if key not in _BY_DATA or "data" not in keys]
        if others and not redo:
            raise RecipeError(
                f"{cell.record}: this cell was made with other settings ({', '.join(others)}); use another --out, or "
                f"--redo, which runs it again and keeps the old one under {folder / ASIDE}"
            )
        found += [cell] if keys else []
        by_data += [cell] if "data" in keys else []
    lines = []
    if by_data:
        were = "was" if len(by_data) == 1 else "were"
        what = f"{len(by_data)} of {len(cells)} cells {were} made with other data: {_changes(by_data[0], plan, folder)}"
        if not redo:
            raise DatasetError(
                f"{folder}: {what}. Their scores do not compare with new ones: use another --out, or --redo, which "
                f"runs them again and keeps the old ones under {folder / ASIDE}"
            )
        lines.append(what)
    if untold:
        lines.append(f"note: {untold} of {len(cells)} cells are of an older mdp and do not say what their data were")
    return found, lines


def _changes(cell: Cell, plan: Plan, folder: Path) -> str:
    """The differences between the data of the target when a cell was made and now, in words."""
    known = read_manifest(folder)
    found = changes(known, plan.data) if known else []
    if not found:  # nothing tells which files
        before = [DataDigest(**row) for row in read_record(cell.record).get("data", [])]
        now = [part.digest() for part in plan.data]
        found = changes_by_digest(before, now) if before else []
    try:
        path = cell.folder / "labels.json"
        spaces = labels_of(path, json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, MdpError):
        spaces = ()
    told = "; ".join(map(str, with_labels(found, spaces, plan.pool.union.spaces)))
    return told or "its classes were others"


def put_aside(cells: Sequence[Cell], folder: Path) -> Path:
    """Moves cells, and copies the results that they were part of, to a folder of their own, which is returned."""
    number = 1
    while (folder / ASIDE / str(number)).exists():
        number += 1
    aside = make(folder / ASIDE / str(number))
    for name in ("compare.json", "compare.txt", "curves.svg", "hours.svg"):
        if (folder / name).is_file():
            shutil.copy2(folder / name, aside / name)
    for cell in cells:
        for path in (cell.record, cell.folder):
            if path.exists():
                target = aside / path.relative_to(folder)
                make(target.parent)
                path.rename(target)
    return aside


def read_record(path: Path) -> dict[str, Any]:
    """The record of a cell; empty where there is none."""
    if not path.is_file():
        return {}
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path}: not JSON ({error}); delete it to run the cell again") from error
    return record
