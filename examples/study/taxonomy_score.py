"""How many relations that `mdp taxonomy` suggests are true, on runs of the generated datasets, whose truth is known.

    python examples/study/taxonomy_score.py RUN...

A pair counts as related when both classes mean something in common, as the same when they mean exactly the same; a
part is right when it is a part of its whole, or the same as it.  Chance is what pairs drawn blindly would reach.  A
related pair is suggested when it is among the pairs or one is under the other.
"""

import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from mdp.core.taxonomy import RelationSettings, find_relations
from mdp.io.datasets._scenes import true_relation
from mdp.io.studies.taxonomy import as_facts, dataset_numbers, read_source


def truth(first: str, second: str) -> str:
    """What the class `dataset/label` is to another one."""
    (one, label), (two, other) = (name.split("/") for name in (first, second))
    meanings = [import_module(f"mdp.io.datasets.{name.replace('-', '_')}").MEANING for name in (one, two)]
    return true_relation(meanings[0], label, meanings[1], other)


def scores(facts: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Right and all, of each kind."""
    names = list(facts["crops"])
    apart = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :] if a.split("/")[0] != b.split("/")[0]]
    every = [truth(a, b) for a, b in apart]
    pairs = [truth(pair["first"], pair["second"]) for pair in facts["pairs"]]
    best = pairs[: len(pairs) // 2]
    under = [(part["name"], group["whole"]) for group in facts["groups"] for part in group["parts"]]
    parts = [truth(part, whole) for part, whole in under]
    suggested = {frozenset(pair) for pair in under} | {frozenset((p["first"], p["second"])) for p in facts["pairs"]}
    related = [pair for pair, kind in zip(apart, every, strict=True) if kind != "apart"]
    return {
        "pairs that are related": (len(pairs) - pairs.count("apart"), len(pairs)),
        "of the better half of them": (len(best) - best.count("apart"), len(best)),
        "of pairs drawn blindly": (len(every) - every.count("apart"), len(every)),
        "same pairs that are found": (pairs.count("same"), every.count("same")),
        "related pairs suggested": (sum(frozenset(pair) in suggested for pair in related), len(related)),
        "parts under their whole": (parts.count("part") + parts.count("same"), len(parts)),
    }


def main(folders: list[str]) -> None:
    total: dict[str, tuple[int, int]] = {}
    for folder in folders:
        source, settings = read_source(Path(folder)), RelationSettings()
        found = find_relations(source.known, dataset_numbers(source.union), source.crops, settings)
        for kind, (right, count) in scores(as_facts(source, found, settings)).items():
            before = total.get(kind, (0, 0))
            total[kind] = (before[0] + right, before[1] + count)
    for kind, (right, count) in total.items():
        print(f"{kind:27} {right:4} of {count:4}  {right / max(1, count):5.0%}")


if __name__ == "__main__":
    if not sys.argv[1:]:
        sys.exit(__doc__)
    main(sys.argv[1:])
