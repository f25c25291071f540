"""`mdp taxonomy --photos`: relations of classes by what the classifiers of other datasets call them, of any weights."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mdp.core.class_relations import Relation
from mdp.core.class_votes import VotedRelation, class_sizes, compositions, voted_relations
from mdp.core.taxonomy import ClassGroup, ClassPair, Relations, RelationSettings, find_relations
from mdp.io.errors import RecipeError
from mdp.io.files.reading import printable
from mdp.io.recipe.layers import Layer
from mdp.io.studies.taxonomy import Source, against, as_facts, dataset_numbers, truth_lines, truth_of, write
from mdp.io.studies.taxonomy_files import texts
from mdp.io.studies.vote_pictures import class_pictures
from mdp.io.studies.votes import Asked, Seen, as_votes, look, photos_of
from mdp.io.unsupervised.features import results_folder

_SHOWN = 40  # relations that are printed; the files have all of them


def run_voted_taxonomy(
    asked: Asked, layer: Layer, out: Path | None, overwrite: bool, truth: Path | None = None, quiet: bool = False
) -> tuple[dict[str, Any], Path]:
    """Relates classes by what they are called on photos; writes RUN/taxonomy-photos or `out`; the facts and the folder.

    Raises what `look` raises, what `run_taxonomy` raises, and RecipeError for weights of no run without `out`.
    """
    folder = results_folder(out, asked.source, "taxonomy-photos", "")
    if folder is None:
        raise RecipeError(f"{printable(asked.source)}: not a run, so that it has no folder for results; give --out DIR")
    pool = photos_of(asked, layer, quiet)
    union = pool.union
    known = truth_of(truth, union)
    seen = look(asked, pool, layer, quiet)
    source = Source(Path(asked.source), None, seen.features.words, union, seen.known, seen.photos)
    relations, voted = relations_by_votes(seen)
    facts = as_facts(source, relations, RelationSettings(crops=seen.settings.photos))
    facts["votes"] = _votes_facts(asked, seen, voted)
    if truth:
        facts["truth"] = {"file": str(truth), **against(known, as_plain(voted), union)}
    shown = sorted({label for relation in voted for label in (relation.first, relation.second)})
    pictures = {union.names[label]: picture for label, picture in class_pictures(seen, shown).items()}
    write(folder, texts(facts, relations.similarity, pictures), overwrite)
    return facts, folder


def relations_by_votes(seen: Seen) -> tuple[Relations, tuple[VotedRelation, ...]]:
    """All relations by votes, also as pairs and groups; the map of similarities is that of the mean features."""
    dataset, settings = dataset_numbers(seen.pool.union), seen.settings
    votes = as_votes(seen, settings.photos)
    prior = None if seen.prior is None else settings.names * seen.prior
    parts = compositions(votes, dataset, settings.rounds, prior)
    voted = voted_relations(parts, class_sizes(votes, dataset), dataset, settings)
    found = find_relations(seen.known, dataset, seen.photos, RelationSettings(crops=settings.photos))
    pairs = tuple(
        ClassPair(first, second, float(found.similarity[first, second]), (forward + backward) / 2, math.nan,
                  int(min(seen.photos[first], seen.photos[second])))
        for kind, first, second, forward, backward in voted
        if kind == "equal"
    )  # fmt: skip
    whole: dict[tuple[int, int], list[int]] = {}
    for kind, first, second, *_ in voted:
        if kind == "part":
            whole.setdefault((second, int(dataset[first])), []).append(first)
    groups = tuple(
        ClassGroup(over, tuple(sorted(own)), tuple(found.similarity[sorted(own), over].tolist()))
        for (over, _), own in sorted(whole.items())
    )
    related = {label for relation in voted for label in (relation.first, relation.second)}
    sure = seen.known.present & (seen.photos >= settings.photos)
    alone = tuple(label for label in sure.nonzero()[:, 0].tolist() if label not in related)
    return found._replace(pairs=pairs, groups=groups, alone=alone), voted


def _votes_facts(asked: Asked, seen: Seen, voted: Sequence[VotedRelation]) -> dict[str, Any]:
    names, settings = seen.pool.union.names, seen.settings
    return {
        "classifier": f"linear discriminants on {seen.features.words}, photos at {asked.size} pixels",
        "photos": seen.pool.sizes(),
        "settings": vars(settings) | {"words": None if asked.words is None else str(asked.words)},
        "relations": [
            {"relation": kind, "first": names[first], "second": names[second],
             "first_is_second": round(forward, 4), "second_is_first": round(backward, 4)}
            for kind, first, second, forward, backward in voted
        ],
        "called": seen.votes.long().tolist(),
    }  # fmt: skip


def as_plain(voted: Sequence[VotedRelation]) -> list[Relation]:
    """The relations without their shares."""
    return [Relation(relation.kind, relation.first, relation.second) for relation in voted]


def voted_table(facts: dict[str, Any]) -> str:
    """Relations by votes, the strongest first, and what else there is in counts."""
    rows = facts["votes"]["relations"]
    names = [(printable(row["first"]), printable(row["second"])) for row in rows[:_SHOWN]]
    wide = [max([len("class"), *(len(pair[column]) for pair in names)]) for column in (0, 1)]
    lines = [f"relation  {'class':{wide[0]}}  {'of':{wide[1]}}  share  in return"]
    for row, (first, second) in zip(rows, names, strict=False):
        shares = f"{row['first_is_second']:5.2f}  {row['second_is_first']:9.2f}"
        lines.append(f"{row['relation']:8}  {first:{wide[0]}}  {second:{wide[1]}}  {shares}")
    lines += [f"... and {len(rows) - len(names)} more in taxonomy.csv"] if len(rows) > len(names) else []
    kinds = ", ".join(f"{sum(row['relation'] == kind for row in rows)} {kind}" for kind in ("equal", "part", "overlap"))
    few, none = len(facts["too_few_crops"]), len(facts["no_prototype"])
    lines.append(
        f"{kinds}; {len(facts['alone'])} without a relative; {few} seen in fewer than {facts['settings']['crops']} "
        f"photos, {none} never: nothing is said of these"
    )
    return "\n".join(lines + (truth_lines(facts["truth"]) if "truth" in facts else []))
