"""How many relations `mdp taxonomy --photos` finds where they are known, on the frozen features of any weights.

    python examples/study/atlas.py shapes --weights FILE --backbone timm:tf_efficientnet_lite0 --seeds 1 2 3
    python examples/study/atlas.py camvid --root DATA --weights FILE --backbone timm:tf_efficientnet_lite0
    python examples/study/atlas.py real --root DATA --weights FILE --backbone timm:tf_efficientnet_lite0

`shapes`: the three generated datasets, whose classes say what they mean.  `camvid`: CamVid's training photos in two
halves, the first with its eleven classes, the second with some of them merged by `MERGED`; `--halves drives` makes them
of different drives, `--halves frames` of every other frame.  `real`: CamVid, MSRC and LabelMeFacade, whose classes are
written as sets of things in atoms.csv: CamVid's by a group of experts (UNIZG-FER-D307, MIT licence; pedestrians divided
into face and body), the others by us, in their words.  Seeds draw photos; nothing is trained.
"""

import argparse
import csv
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mdp.io.datasets import shapes_coarse, shapes_fine, shapes_target
from mdp.io.datasets._scenes import true_relation
from mdp.io.recipe.layers import Layer
from mdp.io.studies.taxonomy_votes import run_voted_taxonomy
from mdp.io.studies.votes import Asked

SHAPES = (shapes_coarse, shapes_fine, shapes_target)
CAMVID = ("sky", "building", "pole", "road", "pavement", "tree", "sign_symbol", "fence", "car", "pedestrian",
          "bicyclist")  # fmt: skip
MERGED = {"construction": ("building", "fence", "pole"), "ground": ("road", "pavement"),
          "person": ("pedestrian", "bicyclist")}  # fmt: skip
WORDS = {"same": "equal", "part": "part", "whole": "whole", "overlap": "overlap"}
HERE = Path(__file__).parent
REAL = [str(HERE.parent / "datasets" / f"{name}.yaml") for name in ("camvid", "msrc", "labelmefacade")]
KINDS = ("equal", "part", "any")
Row = tuple[str, str, str, str, str]


def shapes_truth() -> Iterator[Row]:
    """What the classes of the generated datasets are to each other."""
    for place, one in enumerate(SHAPES):
        for other in SHAPES[place + 1 :]:
            for first in one.CLASSES:
                for second in other.CLASSES:
                    kind = true_relation(one.MEANING, first, other.MEANING, second)
                    if kind in WORDS:
                        yield one.LABELS.name, first, WORDS[kind], other.LABELS.name, second


def camvid_truth() -> Iterator[Row]:
    """What CamVid's classes are to those of the second half."""
    for name in CAMVID:
        whole = next((merged for merged, parts in MERGED.items() if name in parts), None)
        yield "first", name, "part" if whole else "equal", "second", whole or name


def real_truth() -> Iterator[Row]:
    """What classes are to each other by the things that they are sets of."""
    with (HERE / "atoms.csv").open(newline="") as file:
        rows = [(row["dataset"], row["class"], set(row["atoms"].split())) for row in csv.DictReader(file)]
    for place, (one, first, here) in enumerate(rows):
        for other, second, there in rows[place + 1 :]:
            if one != other and here & there:
                kind = "equal" if here == there else "part" if here < there else "whole" if here > there else "overlap"
                yield one, first, kind, other, second


def halves(root: Path, folder: Path, drives: bool) -> list[str]:
    """Descriptions of both halves, written to a folder."""
    lines = [line for line in (root / "CamVid" / "train.txt").read_text().splitlines() if line.strip()]
    middle = len(lines) // 2
    own = (lines[:middle], lines[middle:]) if drives else (lines[::2], lines[1::2])
    single = [name for name in CAMVID if not any(name in parts for parts in MERGED.values())]
    classes: tuple[Mapping[str, tuple[str, ...]], ...] = (
        {name: (name,) for name in CAMVID},
        {**MERGED, **{name: (name,) for name in single}},
    )
    found = []
    for name, some, table in zip(("first", "second"), own, classes, strict=True):
        (folder / f"{name}.txt").write_text("\n".join(some) + "\n")
        rows = [f"  {number}: {{name: {label}, values: {[CAMVID.index(part) for part in parts]}}}"
                for number, (label, parts) in enumerate(table.items())]  # fmt: skip
        text = [f"name: {name}", f"root: {(root / 'CamVid').resolve()}", "outside: true", "ignore_index: 11",
                f"splits: {{train: {{list: {folder / name}.txt}}}}", "classes:", *rows]  # fmt: skip
        (folder / f"{name}.yaml").write_text("\n".join(text) + "\n")
        found.append(str(folder / f"{name}.yaml"))
    return found


def equal_pairs(facts: Mapping[str, Any], truth: list[Row]) -> tuple[int, int]:
    """How many equal classes are suggested, whatever as, and how many there are."""
    suggested = {frozenset((row["first"], row["second"])) for row in facts["votes"]["relations"]}
    equal = [frozenset((f"{a}/{one}", f"{b}/{other}")) for a, one, kind, b, other in truth if kind == "equal"]
    return sum(pair in suggested for pair in equal), len(equal)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=("shapes", "camvid", "real"))
    parser.add_argument("--weights", required=True)
    parser.add_argument("--backbone", default=None)
    parser.add_argument("--root", type=Path, default=Path("data"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--photos", type=int, default=100)
    parser.add_argument("--size", type=int, default=None)
    parser.add_argument("--names", type=float, default=0.0)
    parser.add_argument("--halves", choices=("drives", "frames"), default="drives")
    parser.add_argument("--out", type=Path, default=None, help="keep the pages here")
    given = parser.parse_args()
    total: dict[str, list[int]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if given.which == "shapes":
            truth, datasets, size = list(shapes_truth()), [module.LABELS.name for module in SHAPES], 320
        elif given.which == "real":
            truth, datasets, size = list(real_truth()), REAL, 320
        else:
            truth, datasets, size = list(camvid_truth()), halves(given.root, folder, given.halves == "drives"), 480
        with (folder / "truth.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("dataset_a", "class_a", "relation", "dataset_b", "class_b"), *truth])
        for seed in given.seeds:
            layer: Layer = {"run": {"seed": seed, "threads": 1, "workers": 0}, "data": {"root": str(given.root)}}
            if given.backbone:
                layer["model"] = {"backbone": given.backbone}
            asked = Asked(source=given.weights, photos=given.photos, datasets=tuple(datasets),
                          size=given.size or size, names=given.names)  # fmt: skip
            out = (given.out or folder) / f"{given.which}{seed}"
            facts, _ = run_voted_taxonomy(asked, layer, out, True, folder / "truth.csv", quiet=True)
            found = {kind: [facts["truth"]["suggested"][kind][key] for key in ("right", "suggested", "true")]
                     for kind in KINDS}  # fmt: skip
            right, true = equal_pairs(facts, truth)
            found["equal, suggested as anything"] = [right, true, true]
            for kind in KINDS:
                names = facts["truth"]["names"][kind]
                found[f"{kind}, by names alone"] = [names["right"], names["suggested"], names["true"]]
            for kind, counts in found.items():
                total[kind] = [a + b for a, b in zip(total.get(kind, [0, 0, 0]), counts, strict=True)]
            print(f"seed {seed}: " + "; ".join(f"{kind} {line(counts)}" for kind, counts in found.items()), flush=True)
    for kind, counts in total.items():
        print(f"{kind:30} {line(counts)}")


def line(counts: list[int]) -> str:
    """Right, suggested, true, and F1."""
    right, suggested, true = counts
    return f"{right} of {suggested} suggested, {true} true, F1 {2 * right / max(1, suggested + true):.2f}"


if __name__ == "__main__":
    main()
