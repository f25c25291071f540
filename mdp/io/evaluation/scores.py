"""The scores of an evaluation for programs and for people: JSON, CSV files, a table.

JSON holds means in 0..1 and null where a score is undefined; what people read is in percent.
"""

import io
from pathlib import Path
from textwrap import fill
from typing import Any

import torch
from PIL import Image

from mdp.core.labels import LabelSpace
from mdp.core.protocols import Counts, segmentation
from mdp.io.evaluation.other_rules import conventions
from mdp.io.files.writing import csv_text, write_atomically, write_text
from mdp.io.pictures.confusion import confusion_picture


def summary(counts: Counts, space: LabelSpace) -> dict[str, Any]:
    """All scores of a segmentation as JSON, with the means that the benchmark of a dataset reports besides."""
    found = segmentation.scores(counts, None, space, segmentation.Settings())
    return {**found, "conventions": conventions(segmentation.confusion_of(counts), space)}


# Files


def write_report(folder: Path, scores: dict[str, Any], json_text: str) -> None:
    """Writes results.csv, confusion.csv, confusion.png and, last, scores.json, each whole or not at all."""
    names = [row["name"] for row in scores["classes"]]
    write_text(
        folder / "results.csv", csv_text([list(scores["classes"][0]), *(row.values() for row in scores["classes"])])
    )
    rows = ([name, *counts] for name, counts in zip(names, scores["confusion"], strict=True))
    write_text(folder / "confusion.csv", csv_text([["label \\ prediction", *names], *rows]))
    picture = io.BytesIO()
    Image.fromarray(confusion_picture(torch.tensor(scores["confusion"]), names)).save(picture, "PNG")
    write_atomically(folder / "confusion.png", [picture.getvalue()])
    write_text(folder / "scores.json", json_text)  # reports look for it: the others are there then


# For people


def table(scores: dict[str, Any], verbose: bool = False) -> str:
    """The scores in percent: a row for each class, with `verbose` the mean by other rules, the means last."""
    width = max(5, *(len(row["name"]) for row in scores["classes"])) + 2
    keys = {"IoU": "iou", "Acc": "acc", "Dice": "dice"}
    if scores["boundary_miou"] is not None:
        keys["boundary"] = "boundary_iou"
    heads = "".join(f"{head:>{_width(head)}}" for head in keys)
    lines = [f"{'class':<{width}}{heads}{'pixels':>16}"]
    for row in scores["classes"]:
        cells = "".join(f"{percent(row[key]):>{_width(head)}}" for head, key in keys.items())
        lines.append(f"{row['name']:<{width}}{cells}{row['labelled_pixels']:>16,}")
    lines.append("")
    if verbose:
        lines += _other_rules(scores)
    return "\n".join([*lines, _means(scores)])


def _width(head: str) -> int:
    return max(8, len(head) + 2)


def _means(scores: dict[str, Any]) -> str:
    counted, always, bounds = scores["classes_counted"], scores["majority"], scores["miou_interval"]
    spread = f" [{percent(bounds['low'])}, {percent(bounds['high'])}]" if bounds else ""
    boundary = "" if scores["boundary_miou"] is None else f"   boundary mIoU {percent(scores['boundary_miou'])}"
    drawn = f"95 % interval over {_drawn(bounds)}; " if bounds else ""
    return (
        f"{drawn}{counted} of {len(scores['classes'])} classes counted; "
        f"always saying {always['class']!r}: mIoU {percent(always['miou'])}\n"
        f"mIoU {percent(scores['miou'])}{spread}   mAcc {percent(scores['macc'])}   aAcc {percent(scores['aacc'])}   "
        f"mDice {percent(scores['mdice'])}{boundary}"
    )


def _drawn(bounds: dict[str, Any]) -> str:
    if bounds["groups"] == bounds["images"]:
        return f"{bounds['images']} images"
    return f"{bounds['images']} images in {bounds['groups']} groups"


def _other_rules(scores: dict[str, Any]) -> list[str]:
    """A line for each rule, the reported one first."""
    rows = [{"name": "mIoU", "rule": scores["rule"].removeprefix("mIoU: "), "value": scores["miou"]}]
    if scores["boundary_miou"] is not None:
        rule = scores["boundary_rule"].removeprefix("boundary IoU: ")
        rows.append({"name": "boundary mIoU", "rule": rule, "value": scores["boundary_miou"]})
    rows += scores["conventions"]
    width = max(len(row["name"]) for row in rows) + 2
    lines = [(f"{row['name']:<{width}}{percent(row['value']):>6}  ", row["rule"]) for row in rows]
    if scores["miou_interval"]:
        lines.append((f"{'[low, high]':<{width + 8}}", scores["miou_interval"]["rule"]))
    return [*(fill(rule, 100, initial_indent=head, subsequent_indent=" " * len(head)) for head, rule in lines), ""]


def percent(value: float | None) -> str:
    """A score in 0..1 for people.

    >>> percent(0.43214), percent(None)
    ('43.21', '-')
    """
    return "-" if value is None else f"{100 * value:.2f}"
