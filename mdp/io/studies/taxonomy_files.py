"""The files of `mdp taxonomy`: tables for programs, a graph for Graphviz, a mapping for other tools, a page to look at.

All of them are made of the same facts; what a file holds is a function of these.
"""

import csv
import io
import json
import math
from collections.abc import Mapping
from typing import Any

import yaml
from torch import Tensor

from mdp.io.studies.taxonomy_page import page

_HEAD = """\
# Which classes may be the same thing, by the prototypes of a pretraining run: suggestions, to be looked at by a person.
# similarity: cosine of the prototypes less their mean; score: their plain cosine above that of the classes' usual
# neighbours; margin: score above the best rival's; crops: how many are behind each of the two.
"""
_VOTED = """\
# Which classes may be the same thing, by what the classifier of one dataset calls the pixels of the other:
# suggestions, to be looked at by a person.  score: the mean share of each that is the other; similarity: cosine of the
# classes' mean features less the mean of all; crops: photos that each was seen in.
"""


def texts(facts: Mapping[str, Any], similarity: Tensor, pictures: Mapping[str, str] | None = None) -> dict[str, str]:
    """The text of each file, by its name; `pictures` of classes, as data, are for the page."""
    rows = [[None if math.isnan(value) else round(value, 4) for value in row] for row in similarity.tolist()]
    return {
        "taxonomy.csv": table_csv(facts),
        "taxonomy.json": json.dumps({**facts, "similarity": rows}) + "\n",
        "taxonomy.dot": graph(facts),
        "mapping.yaml": mapping(facts),
        "taxonomy.html": page(facts, similarity, pictures or {}),
    }


def table_csv(facts: Mapping[str, Any]) -> str:
    """A line for each pair, and one for each part of a whole."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["relation", "first", "second", "similarity", "score", "margin", "first_crops", "second_crops"])
    for pair in facts["pairs"]:
        values = (pair["similarity"], pair["score"], pair["margin"])
        writer.writerow(["same", pair["first"], pair["second"], *values, *pair["crops"]])
    for group in facts["groups"]:
        for part in group["parts"]:
            row = [part["name"], group["whole"], part["similarity"], None, None, part["crops"], group["crops"]]
            writer.writerow(["part", *row])
    for first, second, shares in overlaps(facts):
        writer.writerow(["overlap", first, second, None, round(sum(shares) / 2, 4), None, *(
            facts["crops"][name] for name in (first, second))])  # fmt: skip
    return text.getvalue()


def overlaps(facts: Mapping[str, Any]) -> list[tuple[str, str, tuple[float, float]]]:
    """Classes that are partly each other, and to which shares; only votes on photos say so."""
    rows = facts.get("votes", {}).get("relations", ())
    return [
        (row["first"], row["second"], (row["first_is_second"], row["second_is_first"]))
        for row in rows
        if row["relation"] == "overlap"
    ]


def mapping(facts: Mapping[str, Any]) -> str:
    """The suggestions in YAML."""
    parts = [
        {"part": part["name"], "whole": group["whole"], "similarity": part["similarity"],
         "crops": [part["crops"], group["crops"]]}
        for group in facts["groups"]
        for part in group["parts"]
    ]  # fmt: skip
    content = {
        "format": "mdp-mapping",
        "version": 1,
        "same": facts["pairs"],
        "part_of": parts,
        **({"overlap": [[first, second] for first, second, _ in overlaps(facts)]} if "votes" in facts else {}),
        "without_relative": facts["alone"],
        "too_few_crops": [*facts["too_few_crops"], *facts["no_prototype"]],
    }
    head = _VOTED if "votes" in facts else _HEAD
    return head + yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=160, allow_unicode=True)


def graph(facts: Mapping[str, Any]) -> str:
    """The related classes for Graphviz: a box for each dataset, lines for pairs, dashed arrows from part to whole."""
    pairs = {(pair["first"], pair["second"]): pair["similarity"] for pair in facts["pairs"]}
    parts = {(p["name"], g["whole"]): p["similarity"] for g in facts["groups"] for p in g["parts"]}
    parts = {(a, b): value for (a, b), value in parts.items() if (a, b) not in pairs and (b, a) not in pairs}
    related = {name for ends in (*pairs, *parts) for name in ends}
    lines = ["graph taxonomy {", "  rankdir=LR; node [shape=box, fontname=sans]; edge [fontname=sans, fontsize=9];"]
    for number, dataset in enumerate(facts["datasets"]):
        own = [name for name in facts["crops"] if name in related and name.startswith(f"{dataset}/")]
        nodes = [f"    {_quoted(name)} [label={_quoted(name.removeprefix(f'{dataset}/'))}];" for name in own]
        lines += [f"  subgraph cluster_{number} {{", f"    label={_quoted(dataset)};", *nodes, "  }"] if own else []
    lines += [f'  {_quoted(a)} -- {_quoted(b)} [label="{value:.2f}"];' for (a, b), value in pairs.items()]
    dashed = "style=dashed, dir=forward"
    lines += [f'  {_quoted(a)} -- {_quoted(b)} [label="{value:.2f}", {dashed}];' for (a, b), value in parts.items()]
    return "\n".join([*lines, "}", ""])


def _quoted(name: str) -> str:
    """A name as a string of Graphviz's."""
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
