"""What stands beside the label maps of a split: index.json, list.csv, marks.npz, and labels.yaml for all splits."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mdp.core.labels import LabelUnion
from mdp.core.luss import Marks, image_marks, join_marks
from mdp.io.data.pool import Pool
from mdp.io.datasets._dataset import Sample, labels_of
from mdp.io.errors import DatasetError
from mdp.io.files.label_maps import read_labels
from mdp.io.files.reading import UNREADABLE_ARRAYS, is_file
from mdp.io.files.strict_yaml import dump_yaml
from mdp.io.files.writing import csv_text, write_atomically, write_text
from mdp.io.unsupervised.pipeline.stage import is_file_of

File = dict[str, str]  # a photo, its labels, its levels: paths from the split's folder, a photo's own as it is
INDEX, LIST, MARKS = "index.json", "list.csv", "marks.npz"


def write_lists(folder: Path, files: Sequence[File], about: Mapping[str, Any]) -> list[str]:
    """index.json with what is to know of the labels, and list.csv, from which a dataset reads; returns their names."""
    write_text(folder / INDEX, json.dumps({**about, "files": files}, indent=1) + "\n")
    rows = [(_from_above(folder, file["photo"]), f"{folder.name}/{file['labels']}") for file in files]
    write_text(folder / LIST, csv_text(rows))
    return [INDEX, LIST]


def _from_above(folder: Path, photo: str) -> str:
    return photo if Path(photo).is_absolute() else f"{folder.name}/{photo}"


def file_of(name: PurePath, sample: Sample, levels: bool) -> File:
    """A photo's line of the index: its own path, or where it was written if it is no file, and those beside it."""
    photo = str(Path(sample.image).absolute()) if is_file(sample.image) else f"photos/{name}.png"
    return {"photo": photo, "labels": f"labels/{name}.png", **({"levels": f"levels/{name}.png"} if levels else {})}


def write_marks(folder: Path, files: Sequence[File], pool: Pool, levels: bool) -> str:
    """The counts of all photos, from the files that were made and the label maps; returns the file's name."""
    union = LabelUnion([dataset.labels for dataset in pool.datasets.values()])
    found = []
    for sample, file in zip(pool.samples, files, strict=True):
        numbers = torch.from_numpy(read_labels(str(folder / file["labels"])).astype(np.int64))
        found.append(image_marks(numbers, true_labels(sample, pool, union), level_of(folder, file) if levels else None))
    marks = join_marks(found)
    content = io.BytesIO()
    np.savez_compressed(content, images=np.array(marks.images), areas=marks.areas.numpy(), edges=marks.edges.numpy())
    write_atomically(folder / MARKS, [content.getvalue()])
    return MARKS


def read_marks(path: Path) -> Marks:
    """The counts that labelling wrote.  Raises DatasetError for another file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return Marks(int(file["images"]), torch.from_numpy(file["areas"]), torch.from_numpy(file["edges"]))
    except UNREADABLE_ARRAYS as error:
        raise DatasetError(f"{path}: not the counts of label maps: {error}") from error


def true_labels(sample: Sample, pool: Pool, union: LabelUnion) -> Tensor:
    """The label map of a sample, (H, W) int64."""
    dataset = pool.datasets[sample.dataset]
    return labels_of(union, sample, dataset.read(sample)[1], dataset.source).long()


def level_of(folder: Path, file: File) -> Tensor | None:
    """The levels of a photo (H, W) in 0 .. 1, in the middle of their hundredths; None without any."""
    if "levels" not in file:
        return None
    hundredths = torch.from_numpy(read_labels(str(folder / file["levels"])).astype(np.int64))
    return ((hundredths + 0.5) / 100).clamp(max=1)


def cut_at(folder: Path, file: File, threshold: int) -> Tensor:
    """The categories of a photo (H, W), 0 where its level is below so many hundredths."""
    numbers = torch.from_numpy(read_labels(str(folder / file["labels"])).astype(np.int64))
    level = level_of(folder, file)
    return numbers if level is None else torch.where(100 * level >= threshold, numbers, 0)


def write_dataset(out: Path, clusters: int, target: str, scored: str | None) -> Path | None:
    """labels.yaml: what is labelled as a dataset for `mdp finetune --target`; None where there is nothing.

    The split that is `scored` is not in it: nothing may be scored against labels that were made.
    """
    folders = [folder for folder in sorted(out.glob("labels-*")) if is_file_of(folder) and (folder / LIST).is_file()]
    splits = {folder.name.removeprefix("labels-"): {"list": f"{folder.name}/{LIST}"} for folder in folders}
    splits.pop(scored or "", None)
    if not splits:
        return None
    description = {
        "name": "pseudo_labels",
        "outside": True,
        "ignore_index": None,
        "splits": splits,
        "classes": {0: "other", **{number: f"cluster {number}" for number in range(1, clusters + 1)}},
        "home": f"made by `mdp luss label` from {Path(target).name}",
    }
    write_text(out / "labels.yaml", dump_yaml(description))
    return out / "labels.yaml"
