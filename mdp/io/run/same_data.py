"""The data of a run that goes on, or is scored: whether they are those that it began with, and a line where not."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from mdp.io.data.changes import changes, counted, with_labels
from mdp.io.data.identity import Change, changes_by_digest
from mdp.io.data.manifest import DataPart, look_at_pool, names_of, read_manifest
from mdp.io.data.pool import Pool
from mdp.io.data.selection import Plan, plan_finetuning
from mdp.io.errors import DatasetError, MdpError
from mdp.io.recipe.layers import Recipe
from mdp.io.run.record import RunRecord


def looked_at(plan: Plan, known: Sequence[DataPart] = ()) -> Plan:
    """The plan with what its files are; what `known` tells is not read again."""
    root = plan.recipe.data.root
    validation = look_at_pool(plan.validation, "val", root, known) if plan.validation else []
    return replace(plan, data=(*look_at_pool(plan.pool, "train", root, known), *validation))


def data_of_run(plan_of: Callable[[Recipe], Plan], recipe: Recipe, folder: Path | None) -> Plan:
    """The plan of a recipe with its files; for a run that goes on, the one in `folder`, with those it began with.

    What was added since is left out, so that schedule and order stay as they were; what is missing stays so.
    """
    known = read_manifest(folder) if folder else []
    plan, left_out = _with_known(plan_of, recipe, known)
    lines = [
        f"note: {change}, since the run began; it goes on with the images that it began with" for change in left_out
    ]
    return replace(plan, lines=[*plan.lines, *lines])


def _with_known(
    plan_of: Callable[[Recipe], Plan], recipe: Recipe, known: Sequence[DataPart]
) -> tuple[Plan, list[Change]]:
    """The plan with the images that are known, and what came to those since."""
    plan = looked_at(plan_of(recipe), known)
    found = changes(known, plan.data) if known else []
    if not any(change.added or change.reordered for change in found):
        return plan, []
    # what was drawn before is among all there are
    pretrain = replace(recipe.pretrain, images=None, long_tail=None)
    finetune = replace(recipe.finetune, images=None, validate_images=None)
    whole = plan_of(replace(recipe, pretrain=pretrain, finetune=finetune))
    scored = _kept(whole.validation, known, "val", recipe.data.root) if whole.validation else None
    kept = replace(plan, pool=_kept(whole.pool, known, "train", recipe.data.root), validation=scored)
    came = [change for change in found if change.added or change.reordered]
    if len(plan.pool.samples) != len(whole.pool.samples):  # names that were drawn say nothing of those that came
        came = [
            Change(change.name, change.before, change.now, unlisted="images came or went: others would be drawn now")
            if change.name.endswith(" train") and change.removed
            else change
            for change in came
        ]
    return looked_at(kept, known), [change._replace(removed=(), photos=(), labels=(), reading="") for change in came]


def _kept(pool: Pool, known: Sequence[DataPart], role: str, root: str) -> Pool:
    """The pool with those samples only that a run began with, in the order that they had."""
    parts = {part.dataset: part for part in known if part.role == role}
    samples = []
    for name, dataset in pool.datasets.items():
        own = [sample for sample in pool.samples if sample.dataset == name]
        there = dict(zip(counted(names_of(dataset, own, root)), own, strict=True))
        order = counted(parts[name].photos.names) if name in parts else there
        samples += [there[key] for key in order if key in there]
    return pool._replace(samples=samples)


def since_it_began(plan: Plan, record: RunRecord, folder: Path, steps: int) -> list[str]:
    """A line for each dataset that is not as it was when the run in the folder began, of so many steps now.

    Raises DatasetError where steps would no longer take the same images, or label values mean something else.
    """
    found = _found(plan, record, read_manifest(folder))
    refused = [change for change in found if _trained(change) and (change.other_images or change.reading)]
    again = f"Put them back, or start a new run from its weights with --init {folder}"
    if refused:
        told = "; ".join(map(str, refused))
        raise DatasetError(f"--resume {folder}: the data are not those that the run began with: {told}. {again}")
    before = _steps(folder)
    if not record.data and before not in (None, steps):  # a run of an older mdp
        raise DatasetError(
            f"--resume {folder}: the run had {before:,} steps, with the images that are there now it would have "
            f"{steps:,}: images came or went. {again}"
        )
    return [f"warning: {change}, since the run began; {_consequence(change)}" for change in found]


def since_training(recipe: Recipe, record: RunRecord, folder: Path) -> list[str]:
    """A line for each part of a fine-tuning run's target that is not as it was when the run in the folder began.

    What is not there any more, or was never written down, is no matter.
    """
    known = read_manifest(folder)
    if not known:
        return []
    try:
        plan, came = _with_known(plan_finetuning, recipe, known)
    except MdpError:
        return []  # photos to train on need not be there to score
    found = _found(plan, record, known)
    return [f"{change}, since the run began" for change in (*came, *found)]


def _found(plan: Plan, record: RunRecord, known: Sequence[DataPart]) -> list[Change]:
    if known:
        found = changes(known, plan.data)
    else:
        found = changes_by_digest(record.data, [part.digest() for part in plan.data]) if record.data else []
    return with_labels(found, record.labels, plan.pool.union.spaces)


def _trained(change: Change) -> bool:
    return change.name.endswith(" train")


def _consequence(change: Change) -> str:
    if _trained(change):
        return "it goes on with what is there now"
    return "its scores from here on do not compare with those before"


def _steps(folder: Path) -> int | None:
    """The number of steps that a run had; None where its folder does not say."""
    try:
        steps = json.loads((folder / "status.json").read_text(encoding="utf-8")).get("steps")
    except (OSError, ValueError, AttributeError):
        return None
    return steps if type(steps) is int and steps > 0 else None
