"""The job behind `mdp luss score`: folders of predicted label maps against a dataset, or against another folder."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mdp.core.labels import IGNORE, LabelSpace, LabelUnion
from mdp.core.protocols import Counts, Prediction, collect, luss
from mdp.io.data.selection import named, no_validation
from mdp.io.datasets._dataset import Dataset, Sample, labels_of, open_split
from mdp.io.errors import DatasetError, Preempted, RecipeError
from mdp.io.evaluation.scores import percent
from mdp.io.evaluation.server_formats import relative_paths
from mdp.io.files.label_maps import read_labels, read_packed_labels
from mdp.io.files.reading import is_dir, is_file, printable, read_bytes
from mdp.io.files.writing import make, write_text
from mdp.io.journal.counter import Counter
from mdp.io.processes.signals import stop_on_signals
from mdp.io.unsupervised.asked import Score

IGNORED = 1000  # in a folder of label maps: ImageNet-S's
OTHER = ("other", "background")
_PNG_COLOR = slice(25, 26)  # of a file: its kind of colours
_RGB = (b"\x02", b"\x06")  # the second with opacity, which is refused as such


class _Pair(NamedTuple):
    """A predicted map and what it is held against."""

    prediction: Path
    truth: Sample | Path


def run_score(asked: Score, quiet: bool = False) -> dict[str, Any]:
    """All scores of ImageNet-S as JSON; with `asked.out` also scores.json and match.json, for further predictions.

    Raises RecipeError, DatasetError and Preempted, each with one line of what is wrong.
    """
    settings, fitted = _settings(asked)
    progress = Counter(quiet)
    dataset, pairs = pairs_of(asked, progress)
    space = dataset.labels if dataset else LabelSpace(name=printable(asked.labels), classes=("other",))
    union = LabelUnion([space])

    def counted() -> Iterator[tuple[int, Counts]]:
        for index, pair in enumerate(pairs):
            if stop:
                raise Preempted(
                    "stopped while predictions were scored; nothing was written, run the same command again"
                )
            prediction, labels = _read(pair, dataset, union)
            yield index, luss.count(Prediction(prediction), labels, space, settings)
            progress.tell(index + 1, len(pairs))

    with stop_on_signals() as stop:
        counts = collect(counted(), luss.empty(space, len(pairs), settings), len(pairs))
    if not dataset:
        space = _numbered(space.name, counts, settings, fitted)
    try:
        scores = luss.scores(counts, fitted, space, settings)
    except ValueError as error:
        hint = "--matching images finds out which is which" if fitted is None else f"{asked.matching} names no such one"
        raise DatasetError(f"{printable(asked.predictions)}: {error}; {hint}") from error
    found = {"predictions": str(asked.predictions), "against": f"{asked.target or asked.labels}", **scores}
    if asked.out:
        names = {str(made): name for made, name in enumerate(scores["names"]) if name <= scores["categories"]}
        write_text(make(asked.out) / "match.json", json.dumps(names) + "\n")
        write_text(asked.out / "scores.json", json.dumps(found, indent=1) + "\n")
        progress.say(f"written to {asked.out}")
    return found


def _settings(asked: Score) -> tuple[luss.Settings, Tensor | None]:
    """How predictions are scored, and the matching of a file."""
    if bool(asked.target) == bool(asked.labels):
        raise RecipeError("give --target NAME or --labels FOLDER, one of both: what the predictions are held against")
    from_file = asked.matching not in luss.MATCHINGS
    try:
        ratios = luss.Settings.ratios if asked.ratios is None else asked.ratios
        settings = luss.Settings(ratios=ratios, matching="images" if from_file else asked.matching)
    except ValueError as error:
        raise RecipeError(f"--boundary: {error}") from error
    return settings, read_matching(Path(asked.matching)) if from_file else None


def read_matching(path: Path) -> Tensor:
    """The category of each generated one, (K + 1,), from a file as `run_score` writes it; -1 for those it leaves out.

    Raises DatasetError for a file that holds no such numbers, RecipeError where there is none.
    """
    if not is_file(path):
        raise RecipeError(
            f"--matching {path}: expected {', '.join(luss.MATCHINGS)} or a match.json, found no such file"
        )
    try:
        entries = {int(made): name for made, name in json.loads(read_bytes(str(path), "matching")).items()}
        if not entries or not all(isinstance(name, int) and name >= 0 for name in entries.values()):
            raise ValueError
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise DatasetError(f'{path}: expected numbers by numbers, such as {{"0": 0, "1": 7}}') from error
    if entries.get(0, 0) != 0:
        raise DatasetError(f'{path}: expected 0 for "0", which is what belongs to no category, got {entries[0]}')
    names = torch.full((max(entries) + 1,), max(entries.values()) + 1, dtype=torch.int64)
    names[list(entries)] = torch.tensor(list(entries.values()))
    return names


def pairs_of(asked: Score, progress: Counter) -> tuple[Dataset | None, list[_Pair]]:
    """The dataset, if it is one, and what is held against what.  Raises DatasetError where predictions are missing."""
    if not is_dir(asked.predictions):
        raise DatasetError(f"{printable(asked.predictions)}: expected a folder of predicted label maps, found none")
    if asked.labels:
        if not is_dir(asked.labels):
            raise DatasetError(f"{printable(asked.labels)}: expected a folder of label maps, found none")
        truths = sorted(path for path in asked.labels.rglob("*.png"))
        names = [path.relative_to(asked.labels) for path in truths]
        dataset, wanted = (
            None,
            [_Pair(asked.predictions / name, truth) for name, truth in zip(names, truths, strict=True)],
        )
        progress.say(f"{printable(asked.labels)}: {len(wanted):,} label maps")
    else:
        dataset, split = named(asked.target)
        split = split or dataset.val
        if split is None:
            raise RecipeError(f"{no_validation(dataset)}; name one: {asked.target}:SPLIT")
        samples, line = open_split(dataset, asked.root, split)
        progress.say(line)
        if dataset.labels.classes[0].lower() not in OTHER:
            progress.say(f"class 0, {dataset.labels.classes[0]}, is taken for what belongs to no category")
        places = relative_paths([sample.image for sample in samples])
        wanted = [
            _Pair(asked.predictions / place.with_suffix(".png"), sample)
            for place, sample in zip(places, samples, strict=True)
        ]
    missing = [pair.prediction for pair in wanted if not is_file(pair.prediction)]
    if missing or not wanted:
        there = f"{len(wanted) - len(missing):,} of {len(wanted):,} predictions are there"
        first = f"; the first that is not there is {printable(missing[0])}" if missing else ""
        raise DatasetError(f"{printable(asked.predictions)}: {there}{first}")
    return dataset, wanted


def _read(pair: _Pair, dataset: Dataset | None, union: LabelUnion) -> tuple[Tensor, Tensor]:
    """Predicted numbers (H, W) and labels (H, W), -1 where ignored.  Raises DatasetError naming the file."""
    prediction = ids_of(pair.prediction)
    if isinstance(pair.truth, Path):
        labels = ids_of(pair.truth)
        ignored = (
            (labels == IGNORED) | (prediction == IGNORED) if labels.shape == prediction.shape else labels == IGNORED
        )
        labels = np.where(ignored, IGNORE, labels)
        truth = torch.from_numpy(labels)
    else:
        assert dataset
        _, raw = dataset.read(pair.truth)
        truth = labels_of(union, pair.truth, raw, dataset.source).long()
    if prediction.shape != tuple(truth.shape):
        sizes = [f"{width} x {height}" for height, width in (prediction.shape, truth.shape)]
        raise DatasetError(f"{printable(pair.prediction)}: it is {sizes[0]} and the label map {sizes[1]}")
    return torch.from_numpy(prediction), truth


def ids_of(path: Path) -> NDArray[np.int64]:
    """The numbers of a label map: red + 256 green of an RGB image, or those of a grey or palette one."""
    packed = read_bytes(str(path), "label map")[_PNG_COLOR] in _RGB
    return (read_packed_labels if packed else read_labels)(str(path)).astype(np.int64)


def _numbered(name: str, counts: Counts, settings: luss.Settings, fitted: Tensor | None) -> LabelSpace:
    """As many categories as the label maps of a folder have, or, where they have names already, both of them."""
    areas = counts.marks["areas"]
    most = int(areas[:, 1].max()) if len(areas) else 0
    if settings.matching == "none" and fitted is None and len(areas):
        most = max(most, int(areas[:, 2].max()))
    return LabelSpace(name=name, classes=("other", *(str(number) for number in range(1, most + 1))))


def score_table(scores: dict[str, Any]) -> str:
    """The scores in percent, for people."""
    sizes = list(scores["miou_by_size"])
    heads = "".join(f"{size.replace('_', ' '):>15}" for size in sizes)
    rows = [("mIoU", scores["miou"], scores["miou_of_categories"], scores["miou_by_size"])]
    rows += [
        (f"boundary mIoU, {own['ratio']:.0%}", own["miou"], own["miou_of_categories"], own["miou_by_size"])
        for own in scores["boundary"]
    ]
    lines = [f"{'':<20}{'all':>8}{'no other':>10}{heads}"]
    lines += [
        f"{name:<20}{percent(plain):>8}{percent(without):>10}"
        + "".join(f"{percent(by_size[size]):>15}" for size in sizes)
        for name, plain, without, by_size in rows
    ]
    bounds = scores["miou_interval"]
    spread = f" [{percent(bounds['low'])}, {percent(bounds['high'])}]" if bounds else ""
    how = {"images": "matched by the images in which they occur", "given": "named by the file", "none": "as they are"}
    lines.append(
        f"{scores['images']:,} images; {scores['generated']} predicted categories, {how[scores['matching']]}, "
        f"for {scores['categories']}\n"
        f"mIoU {percent(scores['miou'])}{spread}   image accuracy {percent(scores['image_accuracy'])}   "
        f"F-beta {percent(scores['f_beta'])}"
    )
    return "\n".join(lines)
