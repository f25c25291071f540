"""The stage of labels by whole photos: a linear classifier of their vectors that learns their clusters.

The paper trains it together with the backbone (section 5.3.2); here the backbone stays, and its layer is the minimum of
a convex objective.
"""

import csv
from pathlib import Path

import torch

from mdp.core.linear_probe import Linear, logistic_regression
from mdp.io.errors import RecipeError
from mdp.io.journal.counter import Counter
from mdp.io.processes.signals import Stop
from mdp.io.processes.world import World
from mdp.io.run.checkpoint import load, save
from mdp.io.unsupervised.pipeline.rows import rows_of
from mdp.io.unsupervised.pipeline.stage import read_stage, stage

_PENALTY = 1.0  # scikit-learn's C = 1
_FILE = "classifier.safetensors"


def classifier_of(out: Path, stop: Stop, progress: Counter, world: World) -> Linear:
    """The classifier of OUT/classifier, which is made where it is not there yet.

    Raises RecipeError where cells of photos were clustered, which have no category of the whole.
    """
    vectors, clusters = (read_stage(out / name, "mdp luss cluster") for name in ("features", "clusters"))
    if vectors["settings"]["features"] == "pixels":
        raise RecipeError("luss.labels: activation needs clusters of whole photos; run `mdp luss cluster` with "
                          "--features pooled or attention, and another --out")  # fmt: skip
    inputs = {"rows": vectors["outputs"]["rows.npy"], "assignment": clusters["outputs"]["assignment.csv"]}
    with stage(out / "classifier", "classifier", inputs, {"penalty": _PENALTY}, stop, progress, world=world) as work:
        if not work.done:
            if world.main:
                _learn(out, int(clusters["settings"]["clusters"]), work.folder / _FILE, progress)
            work.finish([_FILE])
        tensors = load(work.folder / _FILE).tensors
    return Linear(tensors["weight"], tensors["bias"])


def _learn(out: Path, clusters: int, path: Path, progress: Counter) -> None:
    """Learns the clusters of photos from their vectors."""
    rows = rows_of(out / "features")
    with (out / "clusters" / "assignment.csv").open(encoding="utf-8", errors="surrogateescape") as file:
        numbers = torch.tensor([int(line["cluster"]) - 1 for line in csv.DictReader(file)])
    progress.say(f"a linear classifier of {rows.total:,} vectors and {clusters} clusters")
    vectors = torch.from_numpy(rows.between(0, rows.total))
    learnt = logistic_regression(vectors, numbers, clusters, _PENALTY)
    save(path, learnt._asdict(), {"kind": "classifier", "clusters": clusters})
