"""The study of docs/unsupervised.md on generated photos: what each step from photos to label maps adds.

    python examples/study/unsupervised.py [labels finetuning swav-pass table]

From the repository's root; without names all parts in this order.  Everything goes to $STUDY/unsupervised (runs/study);
what is done is kept, and what was stopped goes on.  `table` sums up what there is.  Clusters and labels are those of
`mdp luss cluster | label | score --sweep`, made in memory: each photo passes the network once for all of them.
Shape legend: N photos, D channels, K clusters, h x w feature grid, H x W photo.
"""

import json
import os
import statistics
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mdp.cli import cli
from mdp.core.chance import generator
from mdp.core.cluster_agreement import joint_counts, matched_share, normalised_information
from mdp.core.kmeans import advance, clusters_of, nearest_centres, random_starts
from mdp.core.luss import image_marks, join_marks
from mdp.io.datasets import load
from mdp.io.datasets._dataset import Dataset
from mdp.io.files.writing import write_text
from mdp.io.unsupervised.pipeline.label import categories
from mdp.io.unsupervised.pipeline.sweep import curve_of
from mdp.io.unsupervised.pipeline.vectors import Source, at_size, middle, open_source, short_side

OUT = Path(os.environ.get("STUDY", "runs/study")) / "unsupervised"
RECIPE = ["--config", "luss/shapes-objects"]
MODEL = {"model": {"backbone": "resnet18", "width": 8, "head": "linear"}}  # the recipe's, for random weights
DATA, TRAIN, VAL = "shapes-objects", "train", "validation"
SIDE, CLUSTERS, RESTARTS, ITERATIONS = 128, 6, 10, 20  # the recipe's
SEEDS = range(3)  # of representations and of random weights
STARTS = range(10)  # of k-means
CONTROLS = range(3)  # starts of random weights and colours
LEARNT = range(3)  # starts whose labels a network learns
KINDS = ("attention", "pooled", "pixels")


def mdp(*words: object) -> None:
    """One command; all share this interpreter, whose start takes longer than some of them."""
    print("mdp", *words, file=sys.stderr, flush=True)
    cli.main([*map(str, words), "--quiet"], prog_name="mdp", standalone_mode=False)


def trained(command: str, out: Path, *words: object) -> Path:
    """A run that is kept where it is done, and else begun or gone on with."""
    status = out / "status.json"
    if not (status.exists() and json.loads(status.read_text())["state"] == "done"):
        mdp(command, *RECIPE, *words, "--out", out, "--resume")
    return out


def representation(method: str, seed: int) -> Path:
    words = ["--datasets", f"{DATA}:{TRAIN}", "--method", method, "--seed", seed]
    return trained("pretrain", OUT / f"{method}-{seed}", *words)


def attention() -> Path:
    """Pixel attention on the first representation of PASS, by its views and first steps."""
    words = ["--datasets", f"{DATA}:{TRAIN}", "--method", "pixel_attention", "--set", "pretrain.epochs=5"]
    return trained("pretrain", OUT / "pass_s-0-attention", *words, "--init", representation("pass_s", 0))


# Labels


class Seen(NamedTuple):
    """What a frozen network makes of all photos."""

    rows: dict[str, Tensor]  # of the training photos, a kind each: (N r, D) of unit length
    maps: list[Tensor]  # of the validation photos, (1, D, h, w) each
    levels: list[Tensor] | None  # and their attention in hundredths, (H, W)


def labels() -> None:
    """Labels by vectors of each kind and of the controls, ten starts of k-means each."""
    path = OUT / "labels.json"
    done = json.loads(path.read_text()) if path.exists() else []
    dataset = load(DATA)
    folders = [sample.image.split("/")[2] for sample in dataset.samples(Path(), TRAIN)]
    truth = torch.tensor([dataset.labels.classes.index(name) - 1 for name in folders])  # (N,)
    true_maps = [torch.from_numpy(dataset.read(each)[1].astype(np.int64)) for each in dataset.samples(Path(), VAL)]
    own = seen(open_source(str(attention()), {}, torch.device("cpu")), dataset, KINDS)
    assert own.levels
    # the controls have no attention of their own: they get that of the representation
    sources = {kind: (own, kind) for kind in KINDS}
    sources["random"] = (seen(open_source("scratch", MODEL, torch.device("cpu")), dataset, ["pooled"]), "pooled")
    sources["colors"] = (seen(open_source("colors", MODEL, torch.device("cpu")), dataset, ["pooled"]), "pooled")
    for start in STARTS:
        for name, (found, kind) in sources.items():
            if any((row["row"], row["seed"]) == (name, start) for row in done) or (
                name not in KINDS and start not in CONTROLS
            ):
                continue
            centres, agreement = clustered(found.rows[kind], truth, start)
            best = scored(centres, found.maps, own.levels, true_maps)
            done.append({"part": "labels", "row": name, "seed": start, **best, **agreement})
            write_text(path, json.dumps(done, indent=1) + "\n")
            print(done[-1], file=sys.stderr, flush=True)
    if not any(row["row"] == "folders" for row in done):  # what clusters that are right would give: this uses labels
        rows = own.rows["attention"]
        centres = torch.stack([rows[truth == number].mean(0) for number in range(CLUSTERS)])  # (K, D)
        best = scored(centres, own.maps, own.levels, true_maps)
        write_text(path, json.dumps([*done, {"part": "labels", "row": "folders", "seed": 0, **best}], indent=1) + "\n")


def seen(source: Source, dataset: Dataset, kinds: Iterator[str] | tuple[str, ...] | list[str]) -> Seen:
    photos = [torch.from_numpy(dataset.photo(each)).permute(2, 0, 1) for each in dataset.samples(Path(), TRAIN)]
    maps = torch.cat([source.maps(torch.stack([middle(each, SIDE) for each in photos[first : first + 100]]))
                      for first in range(0, len(photos), 100)])  # fmt: skip
    given = replace(source, maps=lambda whole: whole)  # vectors of all kinds are of these maps
    rows = {kind: torch.cat([given.rows(part, kind) for part in maps.split(100)]).flatten(0, 1) for kind in kinds}
    tests = [torch.from_numpy(dataset.photo(each)).permute(2, 0, 1) for each in dataset.samples(Path(), VAL)]
    own = [source.maps(short_side(each, SIDE)[None]) for each in tests]
    if source.attend is None:
        return Seen(rows, own, None)
    sizes = [(each.shape[1], each.shape[2]) for each in tests]
    levels = [at_size(source.attend(each).level[0], size) for each, size in zip(own, sizes, strict=True)]
    return Seen(rows, own, [((100 * level.clamp(0, 1)).floor() + 0.5).clamp(max=100) / 100 for level in levels])


def clustered(rows: Tensor, truth: Tensor, start: int) -> tuple[Tensor, dict[str, float]]:
    """Centres (K, D) of unit length as `mdp luss cluster --seed START` finds them, and what folders say of them."""
    centres = rows[random_starts(generator(start, "kmeans"), len(rows), CLUSTERS, RESTARTS)]  # (R, K, D)
    for _ in range(ITERATIONS):
        centres = advance(lambda: [rows], centres)
    found = clusters_of(lambda: [rows], centres)
    best = found.centres[int(found.inertia.argmin())]  # (K, D)
    numbers = nearest_centres(rows, best[None])[0][0].view(len(truth), -1)  # (N, r)
    counts = torch.zeros(len(truth), CLUSTERS, dtype=torch.int64).scatter_add_(1, numbers, torch.ones_like(numbers))
    joint = joint_counts(counts.argmax(1), truth, (CLUSTERS, CLUSTERS))
    agreement = {"normalised_mutual_information": normalised_information(joint), "accuracy": matched_share(joint)}
    return best, {key: round(float(value), 6) for key, value in agreement.items()}


def scored(centres: Tensor, maps: list[Tensor], levels: list[Tensor], truth: list[Tensor]) -> dict[str, float]:
    """The scores of labels at the threshold of the best mIoU, as `mdp luss score --sweep` has them."""
    unit = torch.nn.functional.normalize(centres, dim=1)
    marks = [
        image_marks(1 + categories(own, unit, (labels.shape[0], labels.shape[1])), labels, level)
        for own, level, labels in zip(maps, levels, truth, strict=True)
    ]
    return max(curve_of(join_marks(marks), CLUSTERS, CLUSTERS, None), key=lambda row: row["miou"])


# Networks that learn the labels


def finetuning() -> None:
    """Networks that learn the labels of some starts; they begin at the representation."""
    source = attention()
    for start in LEARNT:
        for kind in KINDS:
            out = OUT / "finetuning" / f"{kind}-{start}"
            if (out / "scores-finetuned/scores.json").exists():
                continue
            own = [*RECIPE, "--set", f"luss.features={kind}"]
            mdp("luss", "cluster", source, *own, "--target", f"{DATA}:{TRAIN}", "--seed", start, "--out", out)
            mdp("luss", "label", out, *RECIPE, "--split", VAL)
            mdp("luss", "score", out, "--split", VAL, "--sweep")
            mdp("luss", "label", out, *RECIPE, "--split", TRAIN)
            begun = ["--target", f"{out}/labels.yaml:{TRAIN}", "--init", representation("pass_s", 0), "--seed", start]
            trained("finetune", out / "finetune", *begun)
            predicted(out)


def predicted(out: Path) -> None:
    """The scores of a network's predictions, which are made as `mdp luss run` makes them."""
    from mdp.io.recipe.layers import config_layer  # noqa: PLC0415 - there is no command for them alone
    from mdp.io.recipe.request import Request  # noqa: PLC0415
    from mdp.io.unsupervised.pipeline.predictions import run_split_predictions  # noqa: PLC0415

    request = Request(layers=(config_layer(Path(RECIPE[1])),), out=out, quiet=True)
    maps = run_split_predictions(request, out / "finetune", DATA, VAL)
    mdp("luss", "score", maps, "--target", f"{DATA}:{VAL}", "--out", out / "scores-finetuned")


# Representations


def swav_pass() -> None:
    """Distance matching of representations, three seeds of each, and of the controls."""
    out = OUT / "nearest"
    matched(out / "colors", "colors")
    for seed in SEEDS:
        matched(out / f"random-{seed}", "scratch", "--set", f"run.seed={seed}")
        for method in ("swav", "pass_s"):
            matched(out / f"{method}-{seed}", representation(method, seed))


def matched(out: Path, source: object, *words: object) -> None:
    if not (out / "scores.json").exists():
        mdp("luss", "nearest", source, *RECIPE, *words, "--short-side", SIDE, "--target", DATA, "--out", out)


# What came out


def found_rows() -> Iterator[dict[str, Any]]:
    """The scores that there are, a row each."""
    made = OUT / "labels.json"
    yield from json.loads(made.read_text()) if made.exists() else []
    folders = [
        ("nearest", "nearest/*"),
        ("before", f"finetuning/*/scores-{VAL}"),
        ("after", "finetuning/*/scores-finetuned"),
    ]
    for part, pattern in folders:
        for path in sorted(OUT.glob(f"{pattern}/scores.json")):
            name = path.relative_to(OUT).parts[1]
            row, _, seed = name.partition("-")
            kept = ("miou", "miou_of_categories", "image_accuracy", "f_beta", "threshold")
            scores = json.loads(path.read_text())
            yield {
                "part": part,
                "row": row,
                "seed": int(seed or 0),
                **{key: scores[key] for key in kept if key in scores},
            }


def table() -> None:
    """All scores as JSON, and their means."""
    rows = list(found_rows())
    write_text(OUT / "scores.json", json.dumps(rows, indent=1) + "\n")
    for part, row in sorted({(each["part"], each["row"]) for each in rows}):
        own = [each for each in rows if (each["part"], each["row"]) == (part, row)]
        cells = []
        for key in ("miou", "image_accuracy", "f_beta", "threshold", "normalised_mutual_information", "accuracy"):
            values = [100 * each[key] for each in own if each.get(key) is not None]
            spread = f" +- {statistics.stdev(values):.1f}" if len(values) > 1 else ""
            cells += [f"{key} {statistics.mean(values):.1f}{spread}"] if values else []
        print(f"{part:<8} {row:<10} {len(own):>2}   " + "   ".join(cells))


if __name__ == "__main__":
    parts = {"labels": labels, "finetuning": finetuning, "swav-pass": swav_pass, "table": table}
    for part in sys.argv[1:] or parts:
        parts[part]()
