"""The job behind `mdp taxonomy`: which classes of a run's datasets are the same thing, by its prototypes.

Nothing is trained and no photo is read; what the run's checkpoint holds is enough.  With photos: `taxonomy_votes.py`.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, tensor

from mdp.core.class_relations import Relation
from mdp.core.labels import LabelUnion
from mdp.core.prototype_bank import Prototypes
from mdp.core.relation_scores import Agreement, agreements, between, same_names
from mdp.core.taxonomy import ClassGroup, ClassPair, Relations, RelationSettings, find_relations
from mdp.io.errors import CheckpointError, RecipeError
from mdp.io.files.reading import printable
from mdp.io.files.writing import make, write_atomically
from mdp.io.recipe.methods import find_method
from mdp.io.recipe.relations import read_relations
from mdp.io.run import folder as run_folder
from mdp.io.run.folder import home_of
from mdp.io.run.opened import method_state, open_run
from mdp.io.run.record import PRETRAIN
from mdp.io.studies.taxonomy_files import texts

_SHOWN = 20  # pairs that are printed; the files have all of them


class Source(NamedTuple):
    """The prototypes of a pretraining run and what they stand for."""

    path: Path  # of the checkpoint
    step: int | None  # None: of weights that are not asked for their step
    method: str
    union: LabelUnion
    known: Prototypes
    crops: Tensor  # (C,) int64: how many are behind each prototype; both views of a photo count


def run_taxonomy(
    run: Path, out: Path | None, overwrite: bool, truth: Path | None = None
) -> tuple[dict[str, Any], Path]:
    """Relates the classes of a run and writes RUN/taxonomy/ (or `out`); returns the relations and the folder.

    With `truth`, a file of relations, it is scored against that.  Raises RecipeError when the run has no prototypes or
    one dataset only, when other files have these names or the truth is no such file, CheckpointError when it has no
    whole checkpoint.
    """
    source = read_source(run)
    known = truth_of(truth, source.union)
    settings = RelationSettings()
    relations = find_relations(source.known, dataset_numbers(source.union), source.crops, settings)
    facts = as_facts(source, relations, settings)
    if truth:
        facts["truth"] = {"file": str(truth), **against(known, suggested(relations), source.union)}
    folder = out or home_of(source.path) / "taxonomy"
    write(folder, texts(facts, relations.similarity), overwrite)
    return facts, folder


def truth_of(path: Path | None, union: LabelUnion) -> tuple[Relation, ...]:
    """The relations of a file that say something of the union's classes; none without a file."""
    known = read_relations(path, union, "--truth").relations if path else ()
    if path and not known:
        raise RecipeError(f"--truth {printable(path)}: it says nothing of classes of this run's datasets")
    return known


def read_source(run: Path) -> Source:
    """The prototypes of a run's last checkpoint, or of a checkpoint file.

    Raises RecipeError when it has none, or of one dataset only, CheckpointError when it is not whole.
    """
    opened = open_run(run_folder.checkpoint_of(run))
    path, kind, union = opened.path, opened.record.kind, opened.union
    needs = "a taxonomy needs a pretraining run whose method keeps prototypes (multi_dataset or region_bank)"
    if kind != PRETRAIN:
        raise RecipeError(f"{printable(path)}: {needs}; this is a {printable(kind)} run")
    labelled = [space.name for space in union.spaces if space.classes]
    if len(labelled) < 2:
        names = printable(", ".join(labelled)) or "none"
        raise RecipeError(f"{printable(path)}: expected several labelled datasets to relate, found {names}")
    method = opened.recipe.method
    try:
        state = method_state(opened)
    except KeyError as error:
        raise CheckpointError(f"{printable(path)}: the state of {method.name} lacks {error}") from error
    offered = find_method(method.name)
    known = offered.known_prototypes(state, method.settings)
    crops = offered.prototype_images(state, method.settings)
    if known is None or crops is None:
        raise RecipeError(f"{printable(path)}: {needs}; {method.name} has none")
    if len(crops) != union.size:
        raise CheckpointError(f"{printable(path)}: {len(crops)} prototypes for {union.size} classes")
    return Source(path, opened.record.position.step, method.name, union, known, crops)


def dataset_numbers(union: LabelUnion) -> Tensor:
    """Which dataset each class of the union is of, (C,)."""
    return tensor([number for number, space in enumerate(union.spaces) for _ in space.classes])


# The relations as data


def suggested(relations: Relations) -> list[Relation]:
    """What pairs and groups say: a pair is equal, a class under another one is a part of it."""
    found = [Relation("equal", pair.first, pair.second) for pair in relations.pairs]
    pairs = {frozenset(relation[1:]) for relation in found}
    parts = [Relation("part", part, group.whole) for group in relations.groups for part in group.parts]
    return found + [relation for relation in parts if frozenset(relation[1:]) not in pairs]


def against(truth: Sequence[Relation], found: Sequence[Relation], union: LabelUnion) -> dict[str, Any]:
    """Agreement with the truth, of the suggestions and of names alone, by kind of relation."""
    sides = {"suggested": found, "names": same_names(union)}
    return {side: _scores(agreements(between(said, union, truth), truth)) for side, said in sides.items()}


def _scores(found: dict[str, Agreement]) -> dict[str, dict[str, float | int | None]]:
    return {
        kind: {**each._asdict(), **{name: _known(getattr(each, name)) for name in ("precision", "recall", "f1")}}
        for kind, each in found.items()
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)


def as_facts(source: Source, relations: Relations, settings: RelationSettings) -> dict[str, Any]:
    """The relations by names; everything but the matrix of similarities."""
    names, crops = source.union.names, source.crops.tolist()
    return {
        "format": "mdp-taxonomy",
        "version": 1,
        "checkpoint": str(source.path),
        "step": source.step,
        "method": source.method,
        "datasets": {space.name: len(space.classes) for space in source.union.spaces},
        "settings": {"neighbours": settings.neighbours, "crops": settings.crops},
        "crops": dict(zip(names, crops, strict=True)),
        "pairs": [_pair(pair, names, crops) for pair in relations.pairs],
        "groups": [_group(group, names, crops) for group in relations.groups],
        "alone": [names[label] for label in relations.alone],
        "too_few_crops": [names[label] for label in relations.unsure],
        "no_prototype": [names[label] for label in relations.absent],
        "order": [names[label] for label in relations.order],
    }


def _pair(pair: ClassPair, names: tuple[str, ...], crops: list[int]) -> dict[str, Any]:
    return {
        "first": names[pair.first],
        "second": names[pair.second],
        "similarity": round(pair.similarity, 4),
        "score": round(pair.score, 4),
        "margin": None if math.isnan(pair.margin) else round(pair.margin, 4),
        "crops": [crops[pair.first], crops[pair.second]],
    }


def _group(group: ClassGroup, names: tuple[str, ...], crops: list[int]) -> dict[str, Any]:
    parts = [
        {"name": names[label], "similarity": round(value, 4), "crops": crops[label]}
        for label, value in zip(group.parts, group.similarity, strict=True)
    ]
    return {"whole": names[group.whole], "crops": crops[group.whole], "parts": parts}


# Files


def write(folder: Path, files: dict[str, str], overwrite: bool) -> None:
    """Writes all files, each whole or not at all.  Raises RecipeError when another one has a name, and writes none."""
    if folder.exists() and not folder.is_dir():
        raise RecipeError(f"--out {printable(folder)}: expected a folder, found a file")
    other = [folder / name for name, text in files.items() if not _free(folder / name, text)]
    if other and not overwrite:
        raise RecipeError(
            f"{printable(other[0])}: something else has this name; look at it, then add --overwrite, or choose --out"
        )
    make(folder)
    for name, text in files.items():
        write_atomically(folder / name, [text.encode("utf-8", "backslashreplace")])


def _free(path: Path, text: str) -> bool:
    """Whether nothing has the name, or the very same."""
    try:
        return path.read_bytes() == text.encode("utf-8", "backslashreplace")
    except FileNotFoundError:
        return not path.is_symlink()
    except OSError:
        return False


# For people


def table(facts: dict[str, Any]) -> str:
    """The best pairs as a table, and what else there is in counts."""
    pairs = facts["pairs"][:_SHOWN]
    sides = [(printable(pair["first"]), printable(pair["second"])) for pair in pairs]
    wide = [max([len("class"), *(len(side[column]) for side in sides)]) for column in (0, 1)]
    lines = [f"{'class':{wide[0]}}  {'its pair':{wide[1]}}  similarity  score  margin  crops"]
    for (first, second), pair in zip(sides, pairs, strict=True):
        margin = "     -" if pair["margin"] is None else f"{pair['margin']:6.2f}"
        crops = " ".join(map(str, pair["crops"]))
        numbers = f"{pair['similarity']:10.2f}  {pair['score']:5.2f}  {margin}  {crops}"
        lines.append(f"{first:{wide[0]}}  {second:{wide[1]}}  {numbers}")
    left = len(facts["pairs"]) - len(pairs)
    lines += [f"... and {left} more in taxonomy.csv"] if left else []
    parts = sum(len(group["parts"]) for group in facts["groups"])
    few, none = len(facts["too_few_crops"]), len(facts["no_prototype"])
    lines.append(
        f"{len(facts['pairs'])} pairs; {parts} classes under {len(facts['groups'])} of other datasets; "
        f"{len(facts['alone'])} without a relative; {few} seen in fewer than {facts['settings']['crops']} crops, "
        f"{none} never: nothing is said of these"
    )
    lines += truth_lines(facts["truth"]) if "truth" in facts else []
    return "\n".join(lines)


def truth_lines(truth: dict[str, Any]) -> list[str]:
    """Agreement as a table."""
    lines = [
        f"against {printable(truth['file'])}:",
        "           relation  right  suggested  true  precision  recall    F1",
    ]
    for side in ("suggested", "names"):
        for kind, row in truth[side].items():
            shares = "  ".join(f"{'-' if row[name] is None else format(row[name], '.2f'):>{width}}"
                               for name, width in (("precision", 9), ("recall", 6), ("f1", 4)))  # fmt: skip
            lines.append(f"{side:9}  {kind:8}  {row['right']:5}  {row['suggested']:9}  {row['true']:4}  {shares}")
    return lines
