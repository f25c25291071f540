"""The job behind `mdp luss label`: the photos of a split with a category for each pixel, as an ordinary dataset.

`labels/*.png` hold 0 for "other" and the number of a cluster, `levels/*.png` the attention in hundredths; `marks.npz`
has the counts that all scores follow from, where the split has label maps.
Shape legend: D channels, K clusters, h x w feature grid, H x W photo.
"""

import io
import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from mdp.core.geometry import Box, View, cut_labels
from mdp.core.labels import LabelUnion
from mdp.core.luss import Marks, image_marks, join_marks
from mdp.core.upsampling import upsampled_argmax
from mdp.io.data.loader import load
from mdp.io.data.pool import Key, Pool
from mdp.io.data.selection import named, pool_of
from mdp.io.data.workers import Watch
from mdp.io.datasets._dataset import Sample, labels_of, open_split
from mdp.io.errors import DatasetError, MdpError, RecipeError
from mdp.io.evaluation.server_formats import relative_paths
from mdp.io.files.colormap import voc_colormap
from mdp.io.files.images import as_picture, label_image, png_bytes
from mdp.io.files.label_maps import read_labels
from mdp.io.files.reading import is_file, printable
from mdp.io.files.strict_yaml import dump_yaml
from mdp.io.files.writing import csv_text, make, write_atomically, write_text
from mdp.io.journal.counter import Counter
from mdp.io.processes.device import memory_in_one_line, set_up
from mdp.io.processes.signals import Stop, stop_on_signals
from mdp.io.processes.world import ALONE
from mdp.io.recipe.layers import resolve
from mdp.io.recipe.request import Request
from mdp.io.run.checkpoint import load as load_tensors
from mdp.io.unsupervised.pipeline.cluster import CENTROIDS
from mdp.io.unsupervised.pipeline.stage import FILE, Stage, digest_of_labels, digest_of_photos, read_stage, stage
from mdp.io.unsupervised.pipeline.vectors import Source, at_size, open_source, raised, short_side

_SALIENT = 0.5  # of a mask's white, from which on a pixel is foreground


@dataclass(frozen=True, kw_only=True)
class Work:
    """All that it takes to label the photos of a split."""

    pool: Pool
    names: list[PurePath]  # of the files that are made, without ending
    source: Source
    centroids: Tensor  # (K, D) of unit length
    side: int
    threshold: int | None  # in hundredths
    foreground: Path | None
    labelled: bool  # whether the split has label maps

    @property
    def has_levels(self) -> bool:
        """Whether anything tells foreground from "other"."""
        return self.foreground is not None or self.source.attend is not None


def run_labelling(request: Request, folder: Path, split: str, foreground: Path | None = None) -> dict[str, Any]:
    """Labels a split of the target of `folder`, whose clusters are there, and returns what was done.

    Raises an MdpError, with the exit code, for anything the user has to mend; Preempted leaves a stage to go on with.
    """
    recipe, progress = resolve(*request.layers), Counter(request.quiet)
    clusters = read_stage(folder / "clusters", f"mdp luss cluster ... --out {folder}")
    origin = clusters["facts"]
    with stop_on_signals() as stop:
        device = set_up(recipe, ALONE)
        dataset, _ = named(origin["target"])
        samples, line = open_split(dataset, Path(origin["root"]), split)
        progress.say(line)
        source = open_source(origin["source"], origin["settings"], device)
        _expect_same_weights(source, origin["source"], folder)
        level = recipe.luss.threshold if recipe.luss.threshold is not None else swept(folder, split)
        level = _SALIENT if level is None and foreground else level
        work = Work(
            pool=pool_of([(dataset, samples)]),
            names=[name.with_suffix("") for name in relative_paths([sample.image for sample in samples])],
            source=source,
            centroids=F.normalize(load_tensors(folder / "clusters" / CENTROIDS).tensors["centroids"], dim=1).to(device),
            side=recipe.luss.short_side,
            threshold=None if level is None else round(100 * level),
            foreground=foreground,
            labelled=bool(dataset.labels.classes) and split not in dataset.unlabelled,
        )
        _expect_names(work)
        if work.threshold and not work.has_levels:
            raise RecipeError(
                f"--threshold {level}: {origin['source']} has no attention to cut; leave it out, or give --foreground"
            )
        stop.patient = True
        with memory_in_one_line(advice="try a smaller luss.short_side"):
            return _labelled(request, folder, split, work, recipe.run.workers, clusters, stop, progress)


def swept(folder: Path, split: str) -> float | None:
    """The threshold that a sweep over another split chose; None without one.

    The split of the sweep itself is labelled without: any threshold can be applied to it afterwards.
    """
    found = sorted(path for path in folder.glob("scores-*/threshold") if path.parent.name != f"scores-{split}")
    return float(found[0].read_text(encoding="utf-8")) if found else None


def _expect_same_weights(source: Source, where: str, folder: Path) -> None:
    """Raises RecipeError when the network is not the one that was clustered by."""
    used = read_stage(folder / "features", "mdp luss cluster")["inputs"]["weights"]
    if used != source.digest:
        raise RecipeError(
            f"{printable(where)}: its weights are not those that {folder / 'clusters'} was made by; run `mdp luss "
            "cluster` again, with another --out"
        )


def _expect_names(work: Work) -> None:
    """Raises DatasetError for two photos that would share a label map."""
    seen: dict[PurePath, int] = {}
    for index, name in enumerate(work.names):
        other = seen.setdefault(name, index)
        if other != index:
            first, second = (printable(work.pool.samples[i].image) for i in (other, index))
            raise DatasetError(f"{first} and {second} would share the label map {name}.png; rename one")


def _labelled(
    request: Request,
    out: Path,
    split: str,
    work: Work,
    workers: int,
    clusters: dict[str, Any],
    stop: Stop,
    progress: Counter,
) -> dict[str, Any]:
    folder = out / f"labels-{split}"
    inputs = {
        "weights": work.source.digest,
        "centroids": clusters["outputs"][CENTROIDS],
        "photos": digest_of_photos(work.pool),
        **({"labels": digest_of_labels(work.pool.samples)} if work.labelled else {}),
    }
    threshold = None if work.threshold is None else work.threshold / 100
    settings = {"short_side": work.side, "threshold": threshold, "foreground": str(work.foreground or "")}
    with stage(folder, "labels", inputs, settings, stop, progress, request.overwrite) as begun:
        if not begun.done:
            _label_all(begun, work, workers, progress)
            outputs = _write_lists(folder, work, clusters["facts"]["target"], split, threshold)
            begun.finish(outputs, {"target": clusters["facts"]["target"], "split": split})
        _write_dataset(out, len(work.centroids), clusters["facts"]["target"])
    return {
        "out": str(folder),
        "photos": len(work.names),
        "clusters": len(work.centroids),
        "threshold": threshold,
        "levels": work.has_levels,
        "marks": work.labelled,
        "dataset": str(out / "labels.yaml"),
    }


# Photo by photo


class Resized(NamedTuple):
    """A photo as the network gets it."""

    number: int  # of the photo in the split
    image: Tensor  # (K, H', W')
    photo: Tensor  # (K, H, W)


class ResizedItems:
    """Index -> photo; what the loader's workers run."""

    def __init__(self, pool: Pool, side: int) -> None:
        self.pool, self.side = pool, side

    def __getitem__(self, key: Key) -> Resized | MdpError:
        try:
            photo = self.pool.photo(key[1])
        except MdpError as error:
            return error
        return Resized(key[1], short_side(photo, self.side), photo)


def _label_all(stage: Stage, work: Work, workers: int, progress: Counter) -> None:
    """Writes the label maps of all photos; those behind the position that was noted are made again, alike."""
    count = len(work.names)
    keys: Iterator[list[Key]] = iter([[(0, index)] for index in range(stage.position, count)])
    watch = Watch(name=lambda key: work.pool.name(key[1]), stop=lambda: stage.stop)
    items = ResizedItems(work.pool, work.side)
    with closing(load(items, keys, min(workers, count), None, watch=watch)) as loaded:
        for (item,) in loaded:
            _label_one(stage.folder, work, item)
            progress.tell(item.number + 1, count)
            if stage.due:
                stage.note(item.number + 1)


def _label_one(folder: Path, work: Work, item: Resized) -> None:
    size = (int(item.photo.shape[1]), int(item.photo.shape[2]))
    maps = work.source.maps(item.image[None])  # (1, D, h, w)
    numbers = 1 + categories(maps, work.centroids, size).numpy()  # (H, W)
    levels = _levels(work, item, maps, size)
    if work.threshold and levels is not None:
        numbers[levels < work.threshold] = 0
    colors = voc_colormap(len(work.centroids) + 1)
    name = work.names[item.number]
    _write(folder / "labels" / f"{name}.png", png_bytes(label_image(numbers, colors)))
    if levels is not None:
        _write(folder / "levels" / f"{name}.png", png_bytes(Image.fromarray(levels)))
    if not is_file(work.pool.samples[item.number].image):
        picture = as_picture(item.photo.permute(1, 2, 0).numpy())
        _write(folder / "photos" / f"{name}.png", png_bytes(Image.fromarray(np.ascontiguousarray(picture))))


def categories(maps: Tensor, centroids: Tensor, size: tuple[int, int]) -> Tensor:
    """The centroid (K, D) of the largest cosine with the features (1, D, h, w), at each pixel (H, W) (eq. 7).

    Decided on a grid four times as fine, on which cosines with one vector are in the order of products, and these
    commute with interpolation; then by the nearest cell.
    """
    scores = F.conv2d(maps, centroids[:, :, None, None])  # (1, K, h, w)
    fine = upsampled_argmax(scores.cpu(), raised(scores))  # (4h, 4w)
    return cut_labels(fine, View(Box(0, 0, *fine.shape), False), size)


def _levels(work: Work, item: Resized, maps: Tensor, size: tuple[int, int]) -> NDArray[np.uint8] | None:
    """How much each pixel is foreground, in hundredths (H, W); None where nothing says."""
    if work.foreground:
        return _mask(work.foreground, work.names[item.number], size)
    if work.source.attend is None:
        return None
    level = at_size(work.source.attend(maps).level[0].cpu(), size)
    return (100 * level.clamp(0, 1)).floor().to(torch.uint8).numpy()


def _mask(folder: Path, name: PurePath, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The mask of a photo in hundredths of white.  Raises DatasetError where there is none, or of another size."""
    path = folder / f"{name}.png"
    if not is_file(path):
        raise DatasetError(f"{printable(path)}: there is no such mask; --foreground has one at each photo's own path")
    mask = read_labels(str(path))
    if mask.shape != size:
        sizes = [f"{width} x {height}" for height, width in (mask.shape, size)]
        raise DatasetError(f"{printable(path)}: the mask is {sizes[0]}, its photo {sizes[1]}")
    white = 255 if mask.max() > 1 else 1
    hundredths: NDArray[np.uint8] = (mask.astype(np.int64).clip(0, white) * 100 // white).astype(np.uint8)
    return hundredths


def _write(path: Path, content: bytes) -> None:
    make(path.parent)
    write_atomically(path, [content])


# What stands beside the label maps


def _write_lists(folder: Path, work: Work, target: str, split: str, threshold: float | None) -> list[str]:
    """index.json, list.csv, and marks.npz where there are label maps; returns their names."""
    files = [
        _entry(folder, name, sample, work.has_levels)
        for name, sample in zip(work.names, work.pool.samples, strict=True)
    ]
    index = {"target": target, "split": split, "clusters": len(work.centroids), "threshold": threshold, "files": files}
    write_text(folder / "index.json", json.dumps(index, indent=1) + "\n")
    rows = [(f"labels-{split}/{file['photo']}" if file["photo"].startswith("photos/") else file["photo"],
             f"labels-{split}/{file['labels']}") for file in files]  # fmt: skip
    write_text(folder / "list.csv", csv_text(rows))
    if not work.labelled:
        return ["index.json", "list.csv"]
    marks = _marks(folder, files, work)
    file = io.BytesIO()
    np.savez_compressed(file, images=np.array(marks.images), areas=marks.areas.numpy(), edges=marks.edges.numpy())
    write_atomically(folder / "marks.npz", [file.getvalue()])
    return ["index.json", "list.csv", "marks.npz"]


def _entry(folder: Path, name: PurePath, sample: Sample, levels: bool) -> dict[str, str]:
    """A photo's line of the index: its own path, or where it was written if it is no file, and those beside it."""
    photo = str(Path(sample.image).absolute()) if is_file(sample.image) else f"photos/{name}.png"
    return {"photo": photo, "labels": f"labels/{name}.png", **({"levels": f"levels/{name}.png"} if levels else {})}


def _marks(folder: Path, files: Sequence[dict[str, str]], work: Work) -> Marks:
    """The counts of all photos, from the files that were made and the label maps."""
    union = LabelUnion([dataset.labels for dataset in work.pool.datasets.values()])
    found = []
    for sample, file in zip(work.pool.samples, files, strict=True):
        truth = true_labels(sample, work.pool, union)
        numbers = torch.from_numpy(read_labels(str(folder / file["labels"])).astype(np.int64))
        found.append(image_marks(numbers, truth, None if work.threshold else level_of(folder, file)))
    return join_marks(found)


def true_labels(sample: Sample, pool: Pool, union: LabelUnion) -> Tensor:
    """The label map of a sample, (H, W) int64."""
    dataset = pool.datasets[sample.dataset]
    return labels_of(union, sample, dataset.read(sample)[1], dataset.source).long()


def level_of(folder: Path, file: dict[str, str]) -> Tensor | None:
    """The levels of a photo (H, W) in 0 .. 1, in the middle of their hundredths; None without any."""
    if "levels" not in file:
        return None
    hundredths = torch.from_numpy(read_labels(str(folder / file["levels"])).astype(np.int64))
    return ((hundredths + 0.5) / 100).clamp(max=1)


def _write_dataset(out: Path, clusters: int, target: str) -> None:
    """labels.yaml: the splits that are labelled as a dataset for `mdp finetune --target`."""
    splits = {}
    for folder in sorted(out.glob("labels-*")):
        if (folder / FILE).is_file() and (folder / "list.csv").is_file():
            splits[folder.name.removeprefix("labels-")] = {"list": f"{folder.name}/list.csv"}
    description = {
        "name": "pseudo_labels",
        "outside": True,
        "ignore_index": None,
        "splits": splits,
        "classes": {0: "other", **{number: f"cluster {number}" for number in range(1, clusters + 1)}},
        "home": f"made by `mdp luss label` from {Path(target).name}",
    }
    write_text(out / "labels.yaml", dump_yaml(description))


def labels_text(found: dict[str, Any]) -> str:
    """What was done, for people."""
    cut = f", cut at {found['threshold']:.2f}" if found["threshold"] is not None else ""
    other = cut if found["levels"] else '; nothing tells "other" from them'
    return (
        f"{found['photos']:,} photos with {found['clusters']} categories{other}\n{found['out']}\n"
        f"mdp finetune --target {found['dataset']}"
    )
