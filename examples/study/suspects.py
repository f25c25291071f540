"""How well `mdp suspects` finds mistakes that were put into labels, beside cleanlab's score of the same predictions.

    python examples/study/suspects.py --root DATA --weights efficientnet_lite0.safetensors --out suspects.json

In 5 % of the images of each of four datasets two classes are swapped, in 5 % the map is shifted, in 5 % a region is
painted over (planted_mistakes.py).  Average precision of finding those of a kind among them and the images without a
mistake: by the doubt of regions, shifted maps by the gain of moving them, and by cleanlab's soft minimum
(`cleanlab.segmentation.rank`, its own code: pip install cleanlab).  Probabilities are out of fold.
"""

import argparse
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from planted_mistakes import KINDS, Planted
from torch import Tensor

from mdp.core.linear_probe import average_precision
from mdp.io.data.selection import named
from mdp.io.datasets._dataset import open_training
from mdp.io.datasets._offered import offered
from mdp.io.suspects.asked import SuspectsQuestion
from mdp.io.suspects.job import run_suspects
from mdp.io.unsupervised.features import Features, open_features

SETS = ("camvid", "msrc", "labelmefacade", "clothing")
FOLDS = 5
_HERE = Path(__file__).parent.parent / "datasets"


def cleanlab_score(labels: Tensor, probabilities: Tensor) -> float:
    """cleanlab's score of an image with labels (H, W) and probabilities (C, H, W), on its labelled pixels."""
    from cleanlab.segmentation.rank import get_label_quality_scores  # noqa: PLC0415 - only this study needs it

    valid = labels >= 0
    if not valid.any():
        return 1.0
    own = labels[valid].numpy().astype(np.int64)[None, None]  # (1, 1, N)
    scores = probabilities[:, valid].numpy()[None, :, None]  # (1, C, 1, N)
    return float(get_label_quality_scores(own, scores, verbose=False)[0][0])


def remembered(features: Features) -> Features:
    """The features, each image of which is computed once: other labels do not change them."""
    known: dict[bytes, Tensor] = {}

    def maps(images: Tensor) -> Tensor:
        key = hashlib.blake2b(images.numpy().tobytes()).digest()
        if key not in known:
            known[key] = features.map_of(images).half()
        return known[key].float()

    return replace(features, map_of=maps)


def score(name: str, root: Path, features: Features, seed: int) -> dict[str, Any]:
    """The average precisions of a dataset and seed, by kind."""
    from mdp.io.suspects.evidence import at_size  # noqa: PLC0415

    dataset, _ = named(str(_HERE / f"{name}.yaml"))
    samples, _ = open_training(dataset, root)
    planted = Planted(dataset, samples, seed)
    theirs: dict[str, float] = {}

    def also(index: int, labels: Tensor, probabilities: Tensor) -> None:
        small = at_size(labels, (probabilities.shape[1], probabilities.shape[2]))
        theirs[samples[index].image] = -cleanlab_score(small, probabilities)

    asked = SuspectsQuestion(source="", target=dataset.name, folds=FOLDS)
    layer = {"run": {"seed": seed, "workers": 0, "threads": 1}, "data": {"root": str(root)}}
    with offered(planted.dataset):
        facts, _ = run_suspects(asked, layer, True, also, features)
    rows = {known["image"]: known for known in facts["images"]}
    doubt = {image: known["doubt"] for image, known in rows.items()}
    gain = {image: known["shift"]["gain"] if known["shift"] else -9.0 for image, known in rows.items()}
    row: dict[str, Any] = {"dataset": name, "seed": seed, "images": len(samples)}
    for kind in KINDS:
        chosen = [image for image in rows if planted.kinds.get(image, kind) == kind]
        right = torch.tensor([[image in planted.kinds] for image in chosen])
        row[kind] = {"planted": int(right.sum())} | {
            who: round(float(average_precision(torch.tensor([[by[image]] for image in chosen]), right)), 4)
            for who, by in (("mdp", gain if kind == "shifted" else doubt), ("cleanlab", theirs))
        }
    return row


def table(rows: list[dict[str, Any]]) -> str:
    """Means over seeds, with the lowest and the highest, as Markdown."""
    heads = ["dataset", "images", "mistake", "planted", "`mdp suspects`", "cleanlab"]
    lines = [f"| {' | '.join(heads)} |", "| --- | --- | --- | --- | --- | --- |"]
    for name in SETS:
        own = [row for row in rows if row["dataset"] == name]
        for kind in KINDS if own else ():
            cells = [_cell([row[kind][who] for row in own]) for who in ("mdp", "cleanlab")]
            lines.append(f"| {name} | {own[0]['images']} | {kind} | {own[0][kind]['planted']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(values: list[float]) -> str:
    return f"{mean(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main(root: Path, weights: Path, out: Path, seeds: int, sets: list[str], say: Callable[[str], None] = print) -> None:
    layer = {"model": {"backbone": "timm:tf_efficientnet_lite0"}}
    rows: list[dict[str, Any]] = json.loads(out.read_text())["rows"] if out.exists() else []
    done = {(row["dataset"], row["seed"]) for row in rows}
    for name in sets:
        features = remembered(open_features(str(weights), layer, stride=16))
        for seed in range(seeds):
            if (name, seed) not in done:
                rows.append(score(name, root, features, seed))
                out.write_text(json.dumps({"folds": FOLDS, "rows": rows}, indent=1) + "\n")
                say(json.dumps(rows[-1]))
    say(table(rows))


if __name__ == "__main__":
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("suspects.json"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sets", default=",".join(SETS))
    given = parser.parse_args()
    main(given.root, given.weights, given.out, given.seeds, given.sets.split(","))
