"""The scores of labels that `mdp luss label` made, and the threshold of attention that suits them best.

Matching and the areas' scores of any threshold follow from the counts in `marks.npz`; the maps are looked at once more
for the boundaries of the threshold that is chosen.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mdp.core.boundaries import RATIO
from mdp.core.labels import LabelUnion
from mdp.core.luss import Marks, image_marks
from mdp.core.protocols import Counts, collect, luss
from mdp.core.threshold_sweep import threshold_scores
from mdp.io.data.pool import Pool
from mdp.io.data.selection import named, pool_of
from mdp.io.datasets._dataset import open_split
from mdp.io.errors import DatasetError, RecipeError
from mdp.io.files.reading import read_bytes
from mdp.io.files.writing import csv_text, write_text
from mdp.io.journal.counter import Counter
from mdp.io.processes.signals import stop_on_signals
from mdp.io.unsupervised.pipeline.label_files import File, cut_at, read_marks, true_labels
from mdp.io.unsupervised.pipeline.stage import Stage, digest_of_file, read_stage, stage
from mdp.io.unsupervised.score import read_matching

THRESHOLDS = range(81)  # in hundredths: the released code's
_CURVE = ("miou", "image_accuracy", "f_beta")
_EDGES = f"edges {RATIO}"


def run_label_scores(
    folder: Path, split: str, sweep: bool, matching: str = "images", overwrite: bool = False, quiet: bool = False
) -> dict[str, Any]:
    """The scores of a split that was labelled, as JSON; with `sweep` at the threshold with the best mIoU.

    The stage FOLDER/scores-SPLIT has them, match.json, and of a sweep curve.csv and threshold.
    Raises an MdpError, with the exit code, for anything the user has to mend.
    """
    progress, labels = Counter(quiet), folder / f"labels-{split}"
    labelled = read_stage(labels, f"mdp luss label {folder} --split {split}")
    if "marks.npz" not in labelled["outputs"]:
        raise RecipeError(f"{labels}: the split {split} has no label maps to be scored against")
    fitted = None if matching in luss.MATCHINGS else read_matching(Path(matching))
    if matching == "none":
        raise RecipeError("--matching none: clusters have no names; take images, or the match.json of another split")
    inputs = {"marks": labelled["outputs"]["marks.npz"]}
    if fitted is not None:
        inputs["matching"] = digest_of_file(Path(matching))
    with (
        stop_on_signals() as stop,
        stage(folder / f"scores-{split}", "scores", inputs, {"sweep": sweep}, stop, progress, overwrite) as work,
    ):
        stop.patient = True
        if not work.done:
            root = Path(read_stage(folder / "clusters", "mdp luss cluster")["facts"]["root"])
            dataset, _ = named(labelled["facts"]["target"])
            samples, _ = open_split(dataset, root, split)
            _score(work, labels, pool_of([(dataset, samples)]), labelled, sweep, fitted, progress)
        return dict(json.loads(read_bytes(str(work.folder / "scores.json"), "scores")))


def _score(
    work: Stage,
    labels: Path,
    pool: Pool,
    labelled: Mapping[str, Any],
    sweep: bool,
    fitted: Tensor | None,
    progress: Counter,
) -> None:
    (space,) = (dataset.labels for dataset in pool.datasets.values())
    categories = len(space.classes) - 1
    index = json.loads(read_bytes(str(labels / "index.json"), "index"))
    marks, counts, outputs = read_marks(labels / "marks.npz"), None, ["scores.json", "match.json"]
    threshold = labelled["settings"]["threshold"]
    if sweep:
        if threshold or not any("levels" in file for file in index["files"]):
            why = f"they were cut at {threshold} already" if threshold else "nothing tells their foreground"
            raise RecipeError(f"{labels}: no threshold can be chosen for these labels: {why}")
        curve = curve_of(marks, categories, index["clusters"], fitted)
        best = max(curve, key=lambda row: row["miou"])  # the first of equals
        threshold = best["threshold"]
        write_text(work.folder / "curve.csv", csv_text([list(best), *(row.values() for row in curve)]))
        write_text(work.folder / "threshold", f"{threshold}\n")
        outputs += ["curve.csv", "threshold"]
        counts = _counts_at(work, labels, index["files"], pool, round(100 * threshold), progress)
    settings = luss.Settings()
    counts = counts or Counts({"images": torch.tensor(marks.images)}, {"areas": marks.areas, _EDGES: marks.edges})
    try:
        scores = luss.scores(counts, fitted, space, settings)
    except ValueError as error:
        raise DatasetError(f"{labels}: {error}") from error
    chosen = "by the mIoU of this split, which uses its label maps" if sweep else "before"
    told = {"labels": str(labels), "against": f"{labelled['facts']['target']}:{labelled['facts']['split']}", **scores,
            "threshold": threshold, "threshold_chosen": chosen if threshold is not None else None}  # fmt: skip
    names = {str(made): name for made, name in enumerate(scores["names"]) if name <= scores["categories"]}
    write_text(work.folder / "match.json", json.dumps(names) + "\n")
    write_text(work.folder / "scores.json", json.dumps(told, indent=1) + "\n")
    work.finish(outputs)


def curve_of(marks: Marks, categories: int, clusters: int, fitted: Tensor | None) -> list[dict[str, float]]:
    """The scores of areas at each threshold, categories matched anew at each unless a matching is given."""
    found = threshold_scores(marks, categories, clusters, THRESHOLDS, fitted)
    return [
        {"threshold": hundredths / 100, **{key: round(getattr(scores, key), 6) for key in _CURVE}}
        for hundredths, scores in zip(THRESHOLDS, found, strict=True)
    ]


def _counts_at(work: Stage, labels: Path, files: list[File], pool: Pool, threshold: int, progress: Counter) -> Counts:
    """The counts of the label maps cut at a threshold in hundredths, boundaries included."""
    union, settings = LabelUnion([dataset.labels for dataset in pool.datasets.values()]), luss.Settings()

    def counted() -> Iterator[tuple[int, Counts]]:
        for number, (sample, file) in enumerate(zip(pool.samples, files, strict=True)):
            work.expect_no_stop()
            found = image_marks(cut_at(labels, file, threshold), true_labels(sample, pool, union))
            yield number, Counts({"images": torch.tensor(1)}, {"areas": found.areas, _EDGES: found.edges})
            progress.tell(number + 1, len(files))

    return collect(counted(), luss.empty(union.spaces[0], len(files), settings), len(files))
