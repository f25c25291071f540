"""taxonomy.html: the pairs, the groups and a map of all similarities on one page that needs nothing but itself.

Tables are there without scripts; the map is drawn from the data in the page.  Names are somebody else's: they are
escaped wherever they stand.
"""

import base64
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mdp.io.pictures.html import document, text_of

_HERE = Path(__file__).parent
_ZERO = " Below the red line the score is 0 or less: no more alike than the usual neighbours."
_BY_PROTOTYPES = (
    "Classes that are each other's nearest in their datasets. Similarity is the cosine of the two prototypes less the "
    "mean\nof all; score is their plain cosine above that of the usual neighbours; margin is score above the best "
    "rival's. The best\ncome first."
)
_BY_VOTES = (
    "The equal ones of them. Similarity is the cosine of the two classes' mean features less the mean of all; score is "
    "the mean of both shares. The best come first."
)
_SHARE_NEAREST = "Several classes of one dataset whose nearest in another is the same class."
_LIE_WITHIN = "Classes that lie within one of another dataset, with the similarity of their mean features."
_NONE = -128  # in the page's bytes: no similarity
_VOTES = (
    "<h2>What they are called</h2><p>Every dataset's classifier ({classifier}) looked at photos of all: {photos}. A "
    "share is what a class is made of, once the classifier's mistakes at home are undone: 1.00 means that all of it is "
    "the other. Equal: each is mostly the other, and nothing else is. Part: it is mostly the other, which has more to "
    "it. The strongest come first; the pictures show the largest region, outlined.</p>"
)


def page(facts: Mapping[str, Any], similarity: Tensor, pictures: Mapping[str, str] | None = None) -> str:
    """The page; `similarity` (C, C) is NaN where a class has no prototype, `pictures` are of classes, as data."""
    names = list(facts["crops"])
    label_of = {name: label for label, name in enumerate(names)}
    order = torch.tensor([label_of[name] for name in facts["order"]], dtype=torch.int64)
    ordered = similarity[order][:, order] * 100  # (P, P) in the order of the clusters
    cells = torch.where(ordered.isnan(), _NONE, ordered.nan_to_num().round()).to(torch.int8)
    data: dict[str, Any] = {
        "names": facts["order"],
        "crops": [facts["crops"][name] for name in facts["order"]],
        "few": [name in set(facts["too_few_crops"]) for name in facts["order"]],
        "cells": base64.b64encode(cells.numpy().tobytes()).decode(),
    }
    unit = data["unit"] = "photos" if "votes" in facts else "crops"
    beyond = next((pair for pair in facts["pairs"] if pair["score"] <= 0), None)
    parts = {
        "TITLE": _text(f"Taxonomy of {' + '.join(facts['datasets'])}"),
        "SUMMARY": _summary(facts),
        "PAIRS": "\n".join(_pair_row(pair, pair is beyond, unit) for pair in facts["pairs"]),
        "VOTES": _votes(facts["votes"], pictures or {}) if "votes" in facts else "",
        "FROM": "votes on photos" if "votes" in facts else "prototypes",
        "UNIT": unit,
        "UNDER": _LIE_WITHIN if "votes" in facts else _SHARE_NEAREST,
        "WHAT": _BY_VOTES if "votes" in facts else _BY_PROTOTYPES,
        "ZERO": _ZERO if beyond else "",
        "GROUPS": "\n".join(_group_item(group) for group in facts["groups"]) or "<li>None.</li>",
        "ALONE": _listing(facts["alone"]),
        "FEW": _listing([f"{name} ({facts['crops'][name]})" for name in facts["too_few_crops"]]),
        "ABSENT": _listing(facts["no_prototype"]),
        "LIMIT": str(facts["settings"]["crops"]),
        "DATA": json.dumps(data).replace("<", "\\u003c"),  # no name can end the script
    }
    template = text_of(_HERE / "taxonomy.html")
    pieces = template.split("@@")  # text, name, text, ...: names that hold a mark are not looked at again
    body = "".join(parts[piece] if odd % 2 else piece for odd, piece in enumerate(pieces))
    return document(parts["TITLE"], body, text_of(_HERE / "taxonomy.js"), text_of(_HERE / "taxonomy.css"))


def _text(value: object) -> str:
    return html.escape(str(value))


def _summary(facts: Mapping[str, Any]) -> str:
    counts = ", ".join(f"{_text(name)} ({count} classes)" for name, count in facts["datasets"].items())
    return f"{counts}. {_how(facts)}. {len(facts['pairs'])} pairs."


def _how(facts: Mapping[str, Any]) -> str:
    step = "" if facts["step"] is None else f", step {facts['step']}"
    return f"{'Features' if 'votes' in facts else 'Method'} {_text(facts['method'])}{step}"


def _votes(votes: Mapping[str, Any], pictures: Mapping[str, str]) -> str:
    """The relations by votes, with a picture of both classes of each."""
    photos = ", ".join(f"{_text(name)} {count}" for name, count in votes["photos"].items())
    head = _VOTES.format(classifier=_text(votes["classifier"]), photos=photos)
    rows = "\n".join(_vote_row(row, pictures) for row in votes["relations"])
    titles = ("class", "is", "of", "share of the class", "share of the other")
    tops = "".join(f'<th scope="col">{title}' for title in titles)
    return (
        f'{head}<div class="wide" tabindex="0" role="region" aria-label="Relations by what classes are called">'
        f'<table id="called"><thead><tr>{tops}</tr></thead><tbody id="votes">{rows}</tbody></table></div>'
    )


def _vote_row(row: Mapping[str, Any], pictures: Mapping[str, str]) -> str:
    first, second = (_pictured(row[side], pictures) for side in ("first", "second"))
    shares = (("share of the class", row["first_is_second"]), ("share of the other", row["second_is_first"]))
    cells = "".join(f'<td data-is="{name}">{share:.2f}</td>' for name, share in shares)
    word = {"equal": "equal", "part": "part of", "overlap": "partly"}[row["relation"]]
    return f"<tr><th scope=row>{first}</th><td>{word}</td><th scope=row>{second}</th>{cells}</tr>"


def _pictured(name: str, pictures: Mapping[str, str]) -> str:
    picture = f'<img alt="a region of {_text(name)}" src="{pictures[name]}">' if name in pictures else ""
    return f"{picture}<span>{_text(name)}</span>"


def _pair_row(pair: Mapping[str, Any], first_beyond: bool, unit: str) -> str:
    margin = "" if pair["margin"] is None else f"{pair['margin']:.2f}"
    first, second = pair["crops"]
    numbers = {
        "similarity": f"{pair['similarity']:.2f}",
        "score": f"{pair['score']:.2f}",
        "margin": margin,
        unit: first,
    }
    cells = "".join(f'<td data-is="{name}">{number}</td>' for name, number in numbers.items()) + f"<td>{second}</td>"
    mark = ' class="beyond"' if first_beyond else ""
    return f"<tr{mark}><th scope=row>{_text(pair['first'])}</th><th scope=row>{_text(pair['second'])}</th>{cells}</tr>"


def _group_item(group: Mapping[str, Any]) -> str:
    parts = ", ".join(f"{_text(part['name'])} <small>{part['similarity']:.2f}</small>" for part in group["parts"])
    return f"<li>{parts} &rarr; <b>{_text(group['whole'])}</b></li>"


def _listing(names: Sequence[str]) -> str:
    return ", ".join(_text(name) for name in names) or "none"
