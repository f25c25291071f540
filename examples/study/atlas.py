"""How many relations `mdp taxonomy` finds where they are known, by votes on photos or by a run's prototypes.

    python examples/study/atlas.py shapes --weights FILE --backbone timm:tf_efficientnet_lite0 --seeds 1 2 3
    python examples/study/atlas.py camvid --root DATA --weights FILE --backbone timm:tf_efficientnet_lite0
    python examples/study/atlas.py real --root DATA --weights FILE --backbone timm:tf_efficientnet_lite0
    python examples/study/atlas.py real --root DATA --weights "RUNS/camvid-ours-{seed}" --seeds 0 1 2
    python examples/study/atlas.py real --prototypes --weights "RUNS/camvid-ours-{seed}" --seeds 0 1 2

`shapes`: the three generated datasets, whose classes say what they mean.  `camvid`: CamVid's training photos in two
halves, the first with its eleven classes, the second with some of them merged by `MERGED`; `--halves drives` makes them
of different drives, `--halves frames` of every other frame.  `real`: CamVid, MSRC and LabelMeFacade, whose classes are
written as sets of things in atoms.csv: CamVid's by a group of experts (UNIZG-FER-D307, MIT licence; pedestrians divided
into face and body), the others by us, in their words.  Seeds draw photos, and stand in the names of runs; nothing is
trained.  With several weights of --names, and with --words, the same votes are read with each of these priors.
"""

import argparse
import csv
import tempfile
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mdp.core.class_relations import Relation
from mdp.core.class_votes import name_prior
from mdp.core.labels import LabelUnion
from mdp.core.relation_scores import same_names
from mdp.io.datasets import shapes_coarse, shapes_fine, shapes_target
from mdp.io.datasets._scenes import true_relation
from mdp.io.recipe.layers import Layer
from mdp.io.studies.taxonomy import against, run_taxonomy, truth_of
from mdp.io.studies.taxonomy_votes import as_plain, relations_by_votes
from mdp.io.studies.votes import Asked, look, photos_of
from mdp.io.weights.word_vectors import class_vectors

SHAPES = (shapes_coarse, shapes_fine, shapes_target)
CAMVID = ("sky", "building", "pole", "road", "pavement", "tree", "sign_symbol", "fence", "car", "pedestrian",
          "bicyclist")  # fmt: skip
MERGED = {"construction": ("building", "fence", "pole"), "ground": ("road", "pavement"),
          "person": ("pedestrian", "bicyclist")}  # fmt: skip
WORDS = {"same": "equal", "part": "part", "whole": "whole", "overlap": "overlap"}
HERE = Path(__file__).parent
REAL = [str(HERE.parent / "datasets" / f"{name}.yaml") for name in ("camvid", "msrc", "labelmefacade")]
KINDS = ("equal", "part", "any")
SIDES = {"names alone": "names", "prototypes": "suggested"}
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


def equal_pairs(suggested: Sequence[Relation], truth: Sequence[Relation]) -> tuple[int, int]:
    """How many equal classes are suggested, whatever as, and how many there are."""
    pairs = {frozenset(relation[1:]) for relation in suggested}
    equal = [frozenset(relation[1:]) for relation in truth if relation.kind == "equal"]
    return sum(pair in pairs for pair in equal), len(equal)


def by_votes(given: Namespace, seed: int, datasets: list[str], size: int, truth: Path) -> dict[str, Any]:
    """Scores of the relations by votes on photos that a seed draws, by what is added to the votes."""
    layer: Layer = {"run": {"seed": seed, "threads": 1, "workers": 0}, "data": {"root": str(given.root)}}
    if given.backbone:
        layer["model"] = {"backbone": given.backbone}
    asked = Asked(source=given.weights.format(seed=seed), photos=given.photos, datasets=tuple(datasets), size=size)
    pool = photos_of(asked, layer, quiet=True)
    union = pool.union
    known = truth_of(truth, union)
    seen = look(asked, pool, layer, quiet=True)
    priors = {"names": name_prior(union, None)}
    if given.words:
        priors["words"] = name_prior(union, class_vectors(given.words, union, "--words"))
    found = {"names alone": scores(same_names(union), known, union)}
    for weight in given.names:
        for kind, prior in priors.items() if weight else (("votes", None),):
            settings = replace(seen.settings, names=weight)
            _, voted = relations_by_votes(seen._replace(prior=prior, settings=settings))
            found[f"{kind} {weight:g}" if weight else kind] = scores(as_plain(voted), known, union)
    return found


def by_prototypes(given: Namespace, seed: int, truth: Path, out: Path) -> dict[str, Any]:
    """Scores of what the prototypes of a seed's run suggest."""
    facts, _ = run_taxonomy(Path(given.weights.format(seed=seed)), out, True, truth)
    return {name: counts_of(facts["truth"][side]) for name, side in SIDES.items()}


def scores(suggested: Sequence[Relation], truth: Sequence[Relation], union: LabelUnion) -> dict[str, list[int]]:
    """Right, suggested and true relations, by kind."""
    right, true = equal_pairs(suggested, truth)
    agreement = against(truth, suggested, union)["suggested"]
    return {**counts_of(agreement), "equal, suggested as anything": [right, true, true]}


def counts_of(agreement: Mapping[str, Any]) -> dict[str, list[int]]:
    """Right, suggested and true by kind."""
    return {kind: [agreement[kind][key] for key in ("right", "suggested", "true")] for kind in KINDS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=("shapes", "camvid", "real"))
    parser.add_argument("--weights", required=True, help="a file or a run; {seed} stands for the seed")
    parser.add_argument("--backbone", default=None)
    parser.add_argument("--root", type=Path, default=Path("data"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--photos", type=int, default=100)
    parser.add_argument("--size", type=int, default=None)
    parser.add_argument("--names", type=float, nargs="+", default=[0.0])
    parser.add_argument("--words", type=Path, default=None, help="vectors of class names, besides equal names")
    parser.add_argument("--halves", choices=("drives", "frames"), default="drives")
    parser.add_argument("--prototypes", action="store_true", help="of runs, in place of votes on photos")
    given = parser.parse_args()
    total: dict[str, dict[str, list[int]]] = {}
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
            if given.prototypes:
                rows = by_prototypes(given, seed, folder / "truth.csv", folder / "pages")
            else:
                rows = by_votes(given, seed, datasets, given.size or size, folder / "truth.csv")
            for name, row in rows.items():
                sums = total.setdefault(name, {kind: [0, 0, 0] for kind in row})
                for kind, counts in row.items():
                    sums[kind] = [a + b for a, b in zip(sums[kind], counts, strict=True)]
                print(
                    f"seed {seed}, {name}: " + "; ".join(f"{kind} {line(own)}" for kind, own in row.items()), flush=True
                )
    for name, sums in total.items():
        for kind, counts in sums.items():
            print(f"{name:12} {kind:30} {line(counts)}")


def line(counts: list[int]) -> str:
    """Right, suggested, true, and F1."""
    right, suggested, true = counts
    return f"{right} of {suggested} suggested, {true} true, F1 {2 * right / max(1, suggested + true):.2f}"


if __name__ == "__main__":
    main()
