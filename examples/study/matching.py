"""What features know of two real sets: distance matching of trained, random and ImageNet's weights.

    MDP_DATA=FOLDER python examples/study/matching.py            all of it, and the table
    python examples/study/matching.py --list                     its pieces, one a line
    python examples/study/matching.py swav-0 camvid-swav-0       some of them
    python examples/study/matching.py table                      what there is: a table, and all scores as JSON

The study of docs/unsupervised.md, from the repository's root.  Everything goes to $STUDY/matching (runs/study); what is
done is kept, what was stopped goes on.  Rows of ImageNet's weights need timm's tf_efficientnet_lite0 as
$MDP_DATA/weights/efficientnet_lite0.safetensors, those trained on from them the runs of examples/study/imagenet.sh in
$STUDY/imagenet; rows whose run is not there are left out.
"""

import json
import os
import shlex
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mdp.cli import cli
from mdp.io.files.writing import make, write_text

STUDY = Path(os.environ.get("STUDY", "runs/study"))
OUT = STUDY / "matching"
DATA = Path(os.environ.get("MDP_DATA", "data"))
SEEDS = range(int(os.environ.get("SEEDS", "3")))
TARGETS = ("camvid", "msrc")
SETS = {name: f"examples/datasets/{name}.yaml" for name in ("camvid", "msrc", "clothing", "labelmefacade")}
CONFIG = ["--config", "examples/study/matching.yaml", "--root", DATA]
SIDE = 128  # of photos that are matched; crops of 64 are trained on
WEIGHTS = DATA / "weights/efficientnet_lite0.safetensors"

# Adam and epsilon as in the recipe luss/shapes-objects, where short runs learnt; prototypes that a batch can use
CLUSTERS = shlex.split("""--steps 300 --lr 0.002 --set pretrain.optimizer=adam --set method.prototypes=30
 --set method.embedding=64 --set method.hidden=128 --set method.frozen_steps=20 --set method.queue=null
 --set method.epsilon=0.03 --set method.size=64""")
# the queue and the key encoder of examples/study/unlabelled.sh
MOCO = shlex.split("""--steps 450 --set method.queue=1024 --set method.key_momentum=0.99 --set method.groups=4
 --set method.embedding=64""")
# examples/study/pretrain.sh
MULTI = shlex.split("""--steps 300 --batch-size 16 --set method.hidden=256 --set method.key_momentum=0.95
 --set method.bank_batches=20""")
WITHOUT_LABELS = {"moco": MOCO, "swav": CLUSTERS, "pass_s": CLUSTERS}  # they see training photos of the targets too
ON_IMAGENET = ("supervised", "paper", "ours")  # rows of examples/study/imagenet.sh


def mdp(*words: object) -> None:
    """One command; all share this interpreter, whose start takes longer than some of them."""
    print("mdp", *words, file=sys.stderr, flush=True)
    cli.main([*map(str, words), "--quiet"], prog_name="mdp", standalone_mode=False)


def pieces() -> Iterator[str]:
    """The names of all pieces in their order: a seed's runs, and what is matched with them, before the next seed's."""
    for seed in SEEDS:
        yield from (f"{method}-{seed}" for method in WITHOUT_LABELS)
        yield from (f"multi_dataset-without-{target}-{seed}" for target in TARGETS)
        for target in TARGETS:
            own = [f"{target}-{row}-{seed}" for row in ("random", *WITHOUT_LABELS, "multi_dataset", "lite0_random")]
            once = [f"{target}-{row}" for row in ("colors", "lite0_imagenet")] if seed == 0 else []
            yield from (*own, *once, *(f"{target}-lite0_{row}-{seed}" for row in ON_IMAGENET))


def do(piece: str) -> None:
    """A piece, unless it is done: a pretraining run, or the scores of a row on a target."""
    target, _, row = piece.partition("-")
    if target in TARGETS:
        match(target, *(row.rsplit("-", 1) if row[-1].isdigit() else (row, "0")))
    elif not (OUT / piece / "cpu_seconds").exists():
        began = time.process_time()
        mdp("pretrain", *CONFIG, *run_options(piece), "--out", OUT / piece, "--resume")
        write_text(OUT / piece / "cpu_seconds", f"{time.process_time() - began:.0f}\n")


def run_options(piece: str) -> list[object]:
    name, _, seed = piece.rpartition("-")
    method, _, target = name.partition("-without-")
    if method == "multi_dataset":
        sets, own = [path for each, path in SETS.items() if each != target], MULTI
    else:
        sets, own = [str(DATA / "imagenet_sample"), *SETS.values()], WITHOUT_LABELS[method]
    return ["--datasets", ",".join(sets), "--method", method, "--seed", seed, *own]


def match(target: str, row: str, seed: str) -> None:
    folder = OUT / "scores" / f"{target}-{row}-{seed}"
    source = source_of(target, row, seed)
    if (folder / "scores.json").exists() or not there(source):
        return
    words = ["--root", DATA, "--target", f"{SETS[target]}:test", "--short-side", SIDE, "--set", f"run.seed={seed}"]
    words += ["--set", "model.output_stride=16"]  # the grid that all of these networks were trained on
    if row in ("lite0_random", "lite0_imagenet"):
        words += ["--backbone", "timm:tf_efficientnet_lite0"]
    elif row == "random":
        words += ["--config", "examples/study/matching.yaml"]
    make(folder)
    mdp("luss", "nearest", source, *words, "--out", folder)


def source_of(target: str, row: str, seed: str) -> Path | str:
    if row in ("random", "lite0_random"):
        return "scratch"
    if row == "colors":
        return "colors"
    if row == "lite0_imagenet":
        return WEIGHTS
    if row.startswith("lite0_"):
        return STUDY / "imagenet" / f"{target}-{row.removeprefix('lite0_')}-{seed}"
    return OUT / (f"multi_dataset-without-{target}-{seed}" if row == "multi_dataset" else f"{row}-{seed}")


def there(source: Path | str) -> bool:
    """Whether what is to be looked at is on this machine, and whole."""
    if not isinstance(source, Path) or source == WEIGHTS:
        return isinstance(source, str) or source.exists()
    status = source / "status.json"
    return status.exists() and bool(json.loads(status.read_text())["state"] == "done")


def table() -> None:
    """All scores as $STUDY/matching/scores.json, and a table of them: one figure a seed."""
    rows: list[dict[str, Any]] = []
    for path in sorted(OUT.glob("scores/*/scores.json")):
        target, row, seed = path.parent.name.split("-")
        found = json.loads(path.read_text())
        del found["features"]  # a path of the machine that it was made on
        rows.append({"target": target, "row": row, "seed": int(seed), **found})
    write_text(OUT / "scores.json", json.dumps(rows, indent=1) + "\n")
    for target, row in sorted({(each["target"], each["row"]) for each in rows}):
        own = [each for each in rows if (each["target"], each["row"]) == (target, row)]
        values = [100 * each["miou"] for each in own]
        edges = [100 * each["boundary"][0]["miou"] for each in own]
        low, high = (100 * statistics.mean(each["miou_interval"][end] for each in own) for end in ("low", "high"))
        print(f"{target:<7} {row:<17} {statistics.mean(values):5.1f}  ({', '.join(f'{each:.1f}' for each in values)})  "
              f"[{low:.1f}, {high:.1f}]  boundaries {statistics.mean(edges):4.1f}  {own[0]['network']}")  # fmt: skip
    for path in sorted(OUT.glob("*/cpu_seconds")):
        print(f"{path.parent.name:<32} {path.read_text().strip():>5} s of CPU")


if __name__ == "__main__":
    if sys.argv[1:] == ["--list"]:
        print(*pieces(), sep="\n")
    elif sys.argv[1:] == ["table"]:
        table()
    else:
        unknown = set(sys.argv[1:]) - set(pieces())
        if unknown:
            sys.exit(f"{', '.join(sorted(unknown))}: no piece of this study; --list names them")
        for name in sys.argv[1:] or pieces():
            do(name)
        table()
