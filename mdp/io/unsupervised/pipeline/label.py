"""The job behind `mdp luss label`: the photos of a split with a category for each pixel, as an ordinary dataset.

`labels/*.png` hold 0 for "other" and the number of a cluster, `levels/*.png` what tells them apart, in hundredths:
attention, activation or a mask; `marks.npz` has the counts that all scores follow from, where there are label maps.
Shape legend: D channels, K clusters, h x w feature grid, H x W photo.
"""

from collections.abc import Iterator
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

from mdp.core.activation_maps import class_activation_maps, unit_range
from mdp.core.geometry import Box, View, cut_labels
from mdp.core.linear_probe import Linear
from mdp.core.upsampling import upsampled_argmax
from mdp.io.data.loader import load
from mdp.io.data.pool import Key, Pool
from mdp.io.data.selection import named, pool_of
from mdp.io.data.workers import Watch
from mdp.io.datasets._dataset import open_split
from mdp.io.errors import DatasetError, MdpError, RecipeError
from mdp.io.evaluation.server_formats import relative_paths
from mdp.io.files.colormap import voc_colormap
from mdp.io.files.images import as_picture, label_image, png_bytes
from mdp.io.files.label_maps import read_labels
from mdp.io.files.reading import is_file, printable
from mdp.io.files.writing import make, write_atomically
from mdp.io.journal.counter import Counter
from mdp.io.processes.device import memory_in_one_line, set_up
from mdp.io.processes.signals import Stop, stop_on_signals
from mdp.io.processes.world import World, joined
from mdp.io.recipe.layers import Recipe, resolve
from mdp.io.recipe.request import Request
from mdp.io.run.checkpoint import load as load_tensors
from mdp.io.unsupervised.pipeline.classifier import classifier_of
from mdp.io.unsupervised.pipeline.cluster import CENTROIDS
from mdp.io.unsupervised.pipeline.label_files import file_of, write_dataset, write_lists, write_marks
from mdp.io.unsupervised.pipeline.stage import Stage, digest_of_labels, digest_of_photos, read_stage, stage
from mdp.io.unsupervised.pipeline.vectors import Source, at_size, open_source, raised, short_side

_SALIENT = 0.5  # of a mask's white, from which on a pixel is foreground


@dataclass(frozen=True, kw_only=True)
class Work:
    """All that it takes to label the photos of a split."""

    pool: Pool
    names: list[PurePath]  # of the files that are made, without ending
    source: Source
    kind: str  # of the vectors that were clustered
    centroids: Tensor  # (K, D) of unit length
    classifier: Linear | None  # of whole photos, in place of a category for each pixel
    side: int
    threshold: int | None  # in hundredths
    foreground: Path | None
    labelled: bool  # whether the split has label maps

    @property
    def has_levels(self) -> bool:
        """Whether anything tells foreground from "other"."""
        return any(what is not None for what in (self.foreground, self.classifier, self.source.attend))


def run_labelling(request: Request, folder: Path, split: str, foreground: Path | None = None) -> dict[str, Any]:
    """Labels a split of the target of `folder`, whose clusters are there, and returns what was done.

    Raises an MdpError, with the exit code, for anything the user has to mend; Preempted leaves a stage to go on with.
    """
    recipe = resolve(*request.layers)
    foreground = foreground or _masks_of(recipe.luss.foreground, split)
    clusters = read_stage(folder / "clusters", f"mdp luss cluster ... --out {folder}")
    memory = memory_in_one_line(advice="try a smaller luss.short_side")
    with stop_on_signals() as stop, joined(request.timeout) as world, memory:
        progress = Counter(request.quiet or not world.main)
        work = _work(recipe, folder, split, foreground, clusters["facts"], stop, progress, world)
        stop.patient = True
        return _labelled(request, folder, split, work, recipe, clusters, stop, progress, world)


def _work(
    recipe: Recipe,
    folder: Path,
    split: str,
    foreground: Path | None,
    origin: dict[str, Any],
    stop: Stop,
    progress: Counter,
    world: World,
) -> Work:
    """What there is to do.  Raises RecipeError or DatasetError for what cannot be done."""
    device = set_up(recipe, world)
    dataset, _ = named(origin["target"])
    samples, line = open_split(dataset, Path(origin["root"]), split)
    progress.say(line)
    source = open_source(origin["source"], origin["settings"], device)
    vectors = read_stage(folder / "features", "mdp luss cluster")
    if vectors["inputs"]["weights"] != source.digest:
        raise RecipeError(
            f"{printable(origin['source'])}: its weights are not those that {folder / 'clusters'} was made by; run "
            "`mdp luss cluster` again, with another --out"
        )
    by_image = recipe.luss.labels == "activation"
    level = recipe.luss.threshold if recipe.luss.threshold is not None else swept(folder, split)
    level = _SALIENT if level is None and foreground else level
    work = Work(
        pool=pool_of([(dataset, samples)]),
        names=[name.with_suffix("") for name in relative_paths([sample.image for sample in samples])],
        source=source,
        kind=vectors["settings"]["features"],
        centroids=F.normalize(load_tensors(folder / "clusters" / CENTROIDS).tensors["centroids"], dim=1).to(device),
        classifier=classifier_of(folder, stop, progress, world) if by_image else None,
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
    return work


def _masks_of(folder: str, split: str) -> Path | None:
    """The masks of a split: in a folder of its name, where there is one; None without any."""
    own = Path(folder) / split
    return (own if own.is_dir() else Path(folder)) if folder else None


def swept(folder: Path, split: str) -> float | None:
    """The threshold that a sweep over another split chose; None without one.

    The split of the sweep itself is labelled without: any threshold can be applied to it afterwards.
    """
    found = sorted(path for path in folder.glob("scores-*/threshold") if path.parent.name != f"scores-{split}")
    return float(found[0].read_text(encoding="utf-8")) if found else None


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
    recipe: Recipe,
    clusters: dict[str, Any],
    stop: Stop,
    progress: Counter,
    world: World,
) -> dict[str, Any]:
    folder, target = out / f"labels-{split}", clusters["facts"]["target"]
    (dataset,) = work.pool.datasets.values()
    inputs = {
        "weights": work.source.digest,
        "centroids": clusters["outputs"][CENTROIDS],
        "photos": digest_of_photos(work.pool),
        **({"labels": digest_of_labels(work.pool.samples)} if work.labelled else {}),
    }
    threshold = None if work.threshold is None else work.threshold / 100
    settings = {
        "labels": recipe.luss.labels,
        "short_side": work.side,
        "threshold": threshold,
        "foreground": str(work.foreground or ""),
    }
    with stage(folder, "labels", inputs, settings, stop, progress, request.overwrite, world) as begun:
        if not begun.done:
            _label_all(begun, work, recipe.run.loaders, progress)
            about = {"target": target, "split": split, "clusters": len(work.centroids), "threshold": threshold}
            outputs = _write_lists(folder, work, about) if world.main else []
            begun.finish(outputs, {"target": target, "split": split})
        learnt = write_dataset(out, len(work.centroids), target, dataset.val) if world.main else None
    return {
        "out": str(folder),
        "photos": len(work.names),
        "clusters": len(work.centroids),
        "threshold": threshold,
        "levels": work.has_levels,
        "marks": work.labelled,
        "dataset": str(learnt) if learnt else None,
    }


def _write_lists(folder: Path, work: Work, about: dict[str, Any]) -> list[str]:
    """What stands beside the label maps of a split; returns the names of the files."""
    pairs = zip(work.names, work.pool.samples, strict=True)
    files = [file_of(name, sample, work.has_levels) for name, sample in pairs]
    outputs = write_lists(folder, files, about)
    if work.labelled:
        outputs.append(write_marks(folder, files, work.pool, levels=not work.threshold))
    return outputs


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
    """Writes the label maps of all photos; those behind the position that was noted are made again, alike.

    Photos are dealt out to all processes, and all are as far as each other.
    """
    count, begin, world = len(work.names), stage.position, stage.world
    keys: Iterator[list[Key]] = iter([[(0, index)] for index in range(begin + world.rank, count, world.size)])
    watch = Watch(name=lambda key: work.pool.name(key[1]), stop=lambda: stage.stop)
    items = ResizedItems(work.pool, work.side)
    with closing(load(items, keys, min(workers, count), None, watch=watch)) as loaded:
        for first in range(begin, count, world.size):
            if first + world.rank < count:
                (item,) = next(loaded)
                _label_one(stage.folder, work, item)
            done = min(first + world.size, count)
            progress.tell(done, count)
            if stage.due:
                stage.note(done)


def _label_one(folder: Path, work: Work, item: Resized) -> None:
    size = (int(item.photo.shape[1]), int(item.photo.shape[2]))
    maps = work.source.maps(item.image[None])  # (1, D, h, w)
    if work.classifier is None:
        numbers = 1 + categories(maps, work.centroids, size).numpy()  # (H, W)
        level = work.source.attend(maps).level if work.source.attend else None  # (1, 4h, 4w)
    else:
        number, level = _active(work, work.classifier, item, maps)
        numbers = np.full(size, 1 + number)
    hundredths = _mask(work.foreground, work.names[item.number], size) if work.foreground else _hundredths(level, size)
    if work.threshold and hundredths is not None:
        numbers[hundredths < work.threshold] = 0
    name = work.names[item.number]
    _write(folder / "labels" / f"{name}.png", label_image(numbers, voc_colormap(len(work.centroids) + 1)))
    if hundredths is not None:
        _write(folder / "levels" / f"{name}.png", Image.fromarray(hundredths))
    if not is_file(work.pool.samples[item.number].image):
        picture = as_picture(item.photo.permute(1, 2, 0).numpy())
        _write(folder / "photos" / f"{name}.png", Image.fromarray(np.ascontiguousarray(picture)))


def categories(maps: Tensor, centroids: Tensor, size: tuple[int, int]) -> Tensor:
    """The centroid (K, D) of the largest cosine with the features (1, D, h, w), at each pixel (H, W) (eq. 7).

    Decided on a grid four times as fine, on which cosines with one vector are in the order of products, and these
    commute with interpolation; then by the nearest cell.
    """
    scores = F.conv2d(maps, centroids[:, :, None, None])  # (1, K, h, w)
    fine = upsampled_argmax(scores.cpu(), raised(scores))  # (4h, 4w)
    return cut_labels(fine, View(Box(0, 0, *fine.shape), False), size)


def _active(work: Work, classifier: Linear, item: Resized, maps: Tensor) -> tuple[int, Tensor]:
    """The category of a whole photo, and where it is active, (1, h, w) in 0 .. 1."""
    rows = work.source.rows(item.image[None], work.kind)[0]  # (1, D)
    number = int(classifier.scores(rows.cpu())[0].argmax())
    weight = classifier.weight[number : number + 1].to(maps.device)  # (1, D)
    return number, unit_range(class_activation_maps(maps, weight)[:, 0])


def _hundredths(level: Tensor | None, size: tuple[int, int]) -> NDArray[np.uint8] | None:
    """Levels (1, ., .) at a photo's size, in hundredths (H, W); None without any."""
    if level is None:
        return None
    return (100 * at_size(level[0].cpu(), size).clamp(0, 1)).floor().to(torch.uint8).numpy()


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


def _write(path: Path, image: Image.Image) -> None:
    make(path.parent)
    write_atomically(path, [png_bytes(image)])


def labels_text(found: dict[str, Any]) -> str:
    """What was done, for people."""
    cut = f", cut at {found['threshold']:.2f}" if found["threshold"] is not None else ""
    other = cut if found["levels"] else '; nothing tells "other" from them'
    learnt = [f"mdp finetune --target {found['dataset']}"] if found["dataset"] else []
    first = f"{found['photos']:,} photos with {found['clusters']} categories{other}"
    return "\n".join([first, found["out"], *learnt])
