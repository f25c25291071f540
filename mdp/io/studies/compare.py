"""`mdp compare`: one target, one budget, several starting points; every cell of the table is a fine-tuning run.

A cell is (start, share of the labels, seed).  Cells that are done are kept, a cell that was interrupted goes on from
its checkpoint, and what was asked for is written beside each cell, so that results of different settings never mix.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from mdp.io.data.selection import plan_finetuning
from mdp.io.errors import CheckpointError, Preempted, RecipeError
from mdp.io.evaluation.job import run_evaluation
from mdp.io.files.writing import make, write_text
from mdp.io.journal.counter import Counter
from mdp.io.recipe.layers import Layer, as_layer, changed_keys, merge, nest, set_layer
from mdp.io.recipe.request import Request
from mdp.io.report.compared import share_label, write_report
from mdp.io.run import folder as run_folder
from mdp.io.run.lock import locked
from mdp.io.studies.starts import check_start
from mdp.io.training.finetuning import finetune_recipe
from mdp.io.training.job import run_finetuning

KINDS = ("scratch", "run", "weights", "imagenet")
_FORMS = "scratch, run:FOLDER, weights:FILE or imagenet:FILE"


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


def parse_comparison(
    starts: Sequence[str], shares: str, seeds: int, split: str | None, against: tuple[str, ...], keep: bool
) -> Comparison:
    """The request in the words of a command line.  Raises RecipeError for a start or a share that is none."""
    return Comparison(
        starts=tuple(parse_start(text) for text in starts),
        shares=parse_shares(shares),
        seeds=seeds,
        split=split,
        against=against,
        keep=keep,
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


def run_comparison(request: Request, asked: Comparison) -> Path:
    """Runs what is missing and returns the folder with compare.json, compare.txt and curves.svg.

    Raises RecipeError when the starts do not fit each other, or what is there was made with other settings; and what
    fine-tuning and scoring raise.
    """
    names = [start.name for start in asked.starts]
    if len(set(names)) != len(names):
        raise RecipeError(f"two starts have the same name ({', '.join(names)}); give one NAME=...")
    for name in asked.against:
        if name not in names:
            raise RecipeError(f"--against {name}: no such start; there are {', '.join(names)}")
    probe = replace(request, init="scratch")  # the plan of the data needs no weights
    plan = plan_finetuning(finetune_recipe(probe)[0])
    target = next(iter(plan.pool.datasets))
    folder = request.out or run_folder.BASE / "compare" / target
    cells = list(_cells(request, asked, len(plan.pool.samples), folder))
    wanted = {cell.record: _identity(cell) for cell in cells}
    _same_networks(cells, wanted)
    for cell in cells:
        _refuse_other_settings(cell, wanted[cell.record])
    counter = Counter(request.quiet)
    for line in _look_at_starts(cells):
        counter.say(line)
    with locked(make(folder)):
        _run_missing(cells, wanted, folder, target, asked, counter)
    return folder


def _look_at_starts(cells: Sequence[Cell]) -> Iterator[str]:
    """Lines that say what each start loads; one that does not fit stops the comparison before its first cell."""
    checked: set[tuple[str, Path]] = set()
    for cell in cells:
        recipe, weights = finetune_recipe(cell.request)
        if weights is None or (cell.start.name, weights) in checked or _read(cell.record).get("result"):
            continue
        checked.add((cell.start.name, weights))
        for line in check_start(cell.start.kind, weights, recipe):
            yield f"{cell.start.name}: {line}"


def _run_missing(
    cells: Sequence[Cell],
    wanted: Mapping[Path, dict[str, Any]],
    folder: Path,
    target: str,
    asked: Comparison,
    counter: Counter,
) -> None:
    """Runs the cells that are not there yet, and writes down all that are after each."""
    for number, cell in enumerate(cells, 1):
        if not _read(cell.record).get("result"):
            name = f"{cell.start.name}, {share_label(cell.share)} of the labels, seed {cell.seed}"
            counter.say(f"{number}/{len(cells)}: {name}")
            try:
                result = _run(cell, wanted[cell.record], asked)
            except Preempted as error:
                raise Preempted(f"stopped in {cell.folder}; the same command goes on from there") from error
            counter.say(f"{number}/{len(cells)}: mIoU {100 * result['miou']:.2f}")
            _collect(folder, target, asked, cells)
    _collect(folder, target, asked, cells)


def _cells(request: Request, asked: Comparison, images: int, folder: Path) -> Iterator[Cell]:
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


def _identity(cell: Cell) -> dict[str, Any]:
    """All that decides the outcome of a cell: its settings and the weights it starts from."""
    recipe, weights = finetune_recipe(cell.request)
    digest = None
    if weights is not None:
        digest = _digest(weights, weights.stat().st_mtime_ns)
    layer = as_layer(recipe)
    decisive = ("seed", "threads", "precision", "accumulate", "clip_norm", "deterministic")
    run = {key: layer["run"][key] for key in decisive}
    run |= {key: layer["run"][key] for key in ("init_from", "init_partial") if layer["run"][key]}
    return {
        "start": cell.start.name,
        "init": cell.start.init(cell.seed),
        "sha256": digest,
        "share": str(cell.share),
        "train_images": cell.images,
        "seed": cell.seed,
        "recipe": {"run": run, **{key: layer[key] for key in ("model", "finetune", "eval")}},
    }


@cache
def _digest(path: Path, _: int) -> str:
    """The sha256 of a file, computed once for each time of change."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


def _refuse_other_settings(cell: Cell, wanted: dict[str, Any]) -> None:
    there = {key: value for key, value in _read(cell.record).items() if key != "result"}
    if there and there != wanted:
        keys = ", ".join(changed_keys(there, wanted))
        raise RecipeError(
            f"{cell.record}: this cell was made with other settings ({keys}); use another --out, or delete "
            f"{cell.record} and {cell.folder}"
        )


def _read(path: Path) -> dict[str, Any]:
    """The record of a cell; empty where there is none."""
    if not path.is_file():
        return {}
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path}: not JSON ({error}); delete it to run the cell again") from error
    return record


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
    result["majority_miou"] = scores["majority"]["miou"]
    result["curve"] = _curve(cell.folder)
    write_text(cell.record, json.dumps({**identity, "result": result}) + "\n")
    if not asked.keep:
        shutil.rmtree(cell.folder / "checkpoints")
    return result


def _curve(folder: Path) -> list[list[float]]:
    """(step, validation mIoU) of a run."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [[record["step"], record["miou"]] for record in records if record["kind"] == "validate"]


def _collect(folder: Path, target: str, asked: Comparison, cells: Sequence[Cell]) -> None:
    """Writes compare.json, compare.txt and curves.svg of the cells that are done."""
    records = [record for cell in cells if (record := _read(cell.record)).get("result")]
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
                **{key: value for key, value in record["result"].items() if key not in ("rule", "dataset", "split")},
            }
            for record in records
        ],
    }
    write_text(folder / "compare.json", json.dumps(whole) + "\n")
    write_report(whole, folder)
