"""`mdp compare`: one target, one budget, several starting points; every cell of the table is a fine-tuning run.

Cells (`cells.py`) that are done are kept, and one that was interrupted goes on from its checkpoint.
"""

import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from mdp.io.data.identity import DataDigest, changes_by_digest
from mdp.io.data.manifest import FILE as MANIFEST
from mdp.io.data.manifest import packed, read_manifest
from mdp.io.data.selection import Plan, named
from mdp.io.errors import DatasetError, Preempted, RecipeError
from mdp.io.evaluation.job import run_evaluation
from mdp.io.files.writing import make, write_atomically, write_text
from mdp.io.journal.counter import Counter, number_of
from mdp.io.recipe.layers import merge, set_layer
from mdp.io.recipe.request import Request
from mdp.io.report.compared import share_label, write_report
from mdp.io.run import folder as run_folder
from mdp.io.run.lock import locked
from mdp.io.studies.asked import CompareQuestion
from mdp.io.studies.cells import (
    Cell,
    CellData,
    Comparison,
    Start,
    cells_of,
    identity,
    outdated,
    put_aside,
    read_record,
    target_data,
)
from mdp.io.studies.hours import hours_behind, training_hours
from mdp.io.studies.starts import check_start
from mdp.io.training.finetuning import finetune_recipe
from mdp.io.training.job import run_finetuning

KINDS = ("scratch", "run", "weights", "imagenet")
_FORMS = "scratch, run:FOLDER, weights:FILE or imagenet:FILE"


def parse_comparison(asked: CompareQuestion) -> Comparison:
    """What is to be compared.  Raises RecipeError without a start, and for a start or a share that is none."""
    if not asked.starts:
        raise RecipeError("give --start at least once, such as --start scratch --start run:FOLDER")
    return Comparison(
        starts=tuple(parse_start(text) for text in asked.starts),
        shares=parse_shares(asked.shares),
        seeds=asked.seeds,
        split=asked.split,
        against=asked.against,
        keep=asked.keep,
        redo=asked.redo,
    )


def parse_start(text: str) -> Start:
    """`NAME=KIND:PATH?key=value&key=value`; without a name, the path's last part.

    Raises RecipeError for anything else.

    >>> parse_start("unseen=run:runs/unseen-{seed}?finetune.head_init=prototypes")[:3]
    ('unseen', 'run', 'runs/unseen-{seed}')
    """
    head, _, query = text.partition("?")
    name, equals, rest = head.partition("=")
    if not equals:
        name, rest = "", head
    kind, colon, path = rest.partition(":")
    if kind not in KINDS or bool(path) != (kind != "scratch") or bool(colon) != bool(path):
        raise RecipeError(f"--start {text}: expected {_FORMS}, with NAME= in front if you like")
    name = name or (Path(path).stem if path else kind)
    if not re.fullmatch(r"\w[\w.+-]*", name):
        raise RecipeError(
            f"--start {text}: expected a name of letters, digits and . + - _, got {name!r}; give NAME=..."
        )
    settings = set_layer(tuple(query.split("&"))) if query else {}
    if kind == "imagenet":
        settings = merge({"finetune": {"load": ["backbone"]}}, settings)
    return Start(name, kind, path, settings, text)


def parse_shares(text: str) -> tuple[Fraction, ...]:
    """`1/8,1/4,1` as fractions.  Raises RecipeError unless each is above 0 and at most 1."""
    try:
        shares = tuple(Fraction(part.strip()) for part in text.split(","))
    except (ValueError, ZeroDivisionError) as error:
        raise RecipeError(f"--fractions {text}: expected fractions such as 1/8,1/4,1") from error
    if not all(0 < share <= 1 for share in shares) or len(set(shares)) != len(shares):
        raise RecipeError(f"--fractions {text}: expected different fractions above 0 and at most 1")
    return shares


def run_comparison(request: Request, asked: Comparison) -> Path:
    """Runs what is missing and returns the folder with compare.json, compare.txt, curves.svg and hours.svg.

    Raises RecipeError when the starts do not fit each other, or what is there was made with other settings; and what
    fine-tuning and scoring raise.
    """
    names = [start.name for start in asked.starts]
    if len(set(names)) != len(names):
        raise RecipeError(f"two starts have the same name ({', '.join(names)}); give one NAME=...")
    for name in asked.against:
        if name not in names:
            raise RecipeError(f"--against {name}: no such start; there are {', '.join(names)}")
    recipe = finetune_recipe(replace(request, init="scratch"))[0]  # the plan of the data needs no weights
    target = named(recipe.finetune.target).dataset.name if recipe.finetune.target else ""
    folder = request.out or run_folder.BASE / "compare" / target
    plan = target_data(recipe, asked.split, read_manifest(folder))
    cells = list(cells_of(request, asked, len(plan.pool.samples), folder))
    data = CellData(asked.split, plan.data)
    wanted = {cell.record: identity(cell, data.of(cell)) for cell in cells}
    _same_networks(cells, wanted)
    old, lines = outdated(cells, wanted, plan, folder, asked.redo)
    counter = Counter(request.quiet)
    for line in (*lines, *_look_at_starts(cells, old)):
        counter.say(line)
    with locked(make(folder)):
        if old:
            counter.say(f"{number_of(len(old), 'cell')} moved to {put_aside(old, folder)}, to be run again")
        write_atomically(folder / MANIFEST, [packed(plan.data)])
        _run_missing(cells, wanted, plan, folder, asked, counter)
    return folder


def _look_at_starts(cells: Sequence[Cell], again: Sequence[Cell]) -> Iterator[str]:
    """Lines that say what each start loads; one that does not fit stops the comparison before its first cell."""
    checked: set[tuple[str, Path]] = set()
    for cell in cells:
        recipe, weights = finetune_recipe(cell.request)
        done = read_record(cell.record).get("result") and cell not in again
        if weights is None or (cell.start.name, weights) in checked or done:
            continue
        checked.add((cell.start.name, weights))
        for line in check_start(cell.start.kind, weights, recipe):
            yield f"{cell.start.name}: {line}"


def _run_missing(
    cells: Sequence[Cell],
    wanted: Mapping[Path, dict[str, Any]],
    plan: Plan,
    folder: Path,
    asked: Comparison,
    counter: Counter,
) -> None:
    """Runs the cells that are not there yet, and writes down all that are after each."""
    (target,) = plan.pool.datasets
    for number, cell in enumerate(cells, 1):
        if not read_record(cell.record).get("result"):
            name = f"{cell.start.name}, {share_label(cell.share)} of the labels, seed {cell.seed}"
            counter.say(f"{number}/{len(cells)}: {name}")
            try:
                _same_data(cell, wanted[cell.record], asked, plan)
                result = _run(cell, wanted[cell.record], asked)
            except Preempted as error:
                raise Preempted(f"stopped in {cell.folder}; the same command goes on from there") from error
            counter.say(f"{number}/{len(cells)}: mIoU {100 * result['miou']:.2f}")
            _collect(folder, target, asked, cells)
    _collect(folder, target, asked, cells)


def _same_data(cell: Cell, wanted: Mapping[str, Any], asked: Comparison, plan: Plan) -> None:
    """Raises DatasetError when files have changed since the comparison was begun, hours ago perhaps."""
    now = CellData(asked.split, plan.data).of(cell)
    if [digest._asdict() for digest in now] != wanted["data"]:
        before = [DataDigest(**row) for row in wanted["data"]]
        told = "; ".join(map(str, changes_by_digest(before, now)))
        raise DatasetError(f"the data changed while they were compared: {told}. The same command says what to do")


def _same_networks(cells: Sequence[Cell], wanted: Mapping[Path, dict[str, Any]]) -> None:
    """Raises RecipeError when starts bring networks of different shape: that would compare architectures."""
    first = cells[0]
    for cell in cells:
        ours, theirs = (wanted[c.record]["recipe"]["model"] for c in (cell, first))
        if ours != theirs:
            keys = ", ".join(f"model.{key}" for key in ours if ours[key] != theirs[key])
            raise RecipeError(
                f"{cell.start.name} and {first.start.name} differ in {keys}; give the model in --config so that all "
                "starts share it"
            )


def _run(cell: Cell, identity: dict[str, Any], asked: Comparison) -> dict[str, Any]:
    """Fine-tunes, or goes on fine-tuning, and scores; the record has the result only when all is done."""
    make(cell.folder.parent)
    write_text(cell.record, json.dumps(identity) + "\n")
    request = replace(cell.request, report=False)  # a page a cell is more than anyone reads
    if (cell.folder / "checkpoints" / "last.safetensors").is_file():
        run_finetuning(replace(request, resume=str(cell.folder), init=None))
    else:
        shutil.rmtree(cell.folder, ignore_errors=True)  # what a kill before the first checkpoint left
        run_finetuning(request)
    scores, _ = run_evaluation(replace(request, init=str(cell.folder), out=None), "last", keep=False)
    result = {key: scores[key] for key in ("dataset", "split", "images", "miou", "macc", "aacc", "blocks", "rule")}
    result["seen"] = (scores.get("seen") or {}).get("text", "")
    result["majority_miou"] = scores["majority"]["miou"]
    result["curve"] = _curve(cell.folder)
    recipe, weights = finetune_recipe(cell.request)
    result["hours"] = {
        "pretraining": hours_behind(weights),
        "finetuning": training_hours(cell.folder, recipe.finetune.batch_size),
    }
    write_text(cell.record, json.dumps({**identity, "result": result}) + "\n")
    if not asked.keep:
        shutil.rmtree(cell.folder / "checkpoints")
    return result


def _curve(folder: Path) -> list[list[float]]:
    """(step, validation mIoU) of a run."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [[record["step"], record["miou"]] for record in records if record["kind"] == "validate"]


def _collect(folder: Path, target: str, asked: Comparison, cells: Sequence[Cell]) -> None:
    """Writes compare.json and what is made of it, of the cells that are done."""
    records = [record for cell in cells if (record := read_record(cell.record)).get("result")]
    recipe = records[0]["recipe"]
    whole = {
        "target": target,
        "split": records[0]["result"]["split"],
        "rule": records[0]["result"]["rule"],
        "against": list(asked.against) or [asked.starts[0].name],
        "starts": {start.name: start.text for start in asked.starts},
        "recipe": {
            "run": {"threads": recipe["run"]["threads"]},
            "model": recipe["model"],
            "finetune": {**recipe["finetune"], "target": target, "images": None},
            "eval": recipe["eval"],
        },
        "cells": [
            {
                **{key: record[key] for key in ("start", "sha256", "share", "train_images", "seed")},
                "data": record.get("data"),  # None: an older mdp made the cell
                **{key: value for key, value in record["result"].items() if key not in ("rule", "dataset", "split")},
            }
            for record in records
        ],
    }
    write_text(folder / "compare.json", json.dumps(whole) + "\n")
    write_report(whole, folder)
