"""The job behind `mdp luss cluster`: vectors of photos, and k-means of them, as two stages.

Shape legend: N rows, D channels, K clusters, R restarts.
"""

import io
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mdp.core.chance import generator
from mdp.core.cluster_agreement import joint_counts, matched_share, normalised_information
from mdp.core.kmeans import Clusters, advance, clusters_of, nearest_centres, random_starts
from mdp.io.data.pool import Pool
from mdp.io.data.selection import named, pool_of
from mdp.io.datasets._dataset import Dataset, open_split, open_training
from mdp.io.errors import RecipeError
from mdp.io.files.reading import UNREADABLE_ARRAYS, read_bytes
from mdp.io.files.writing import csv_text, make, write_atomically, write_text
from mdp.io.journal.counter import Counter, number_of
from mdp.io.journal.progress_text import duration
from mdp.io.processes.device import memory_in_one_line, set_up
from mdp.io.processes.signals import Stop, stop_on_signals
from mdp.io.processes.world import World, joined
from mdp.io.recipe.layers import Recipe, merge, resolve
from mdp.io.recipe.request import Request
from mdp.io.run.checkpoint import save
from mdp.io.unsupervised.pipeline.rows import Rows, rows_of, write_rows
from mdp.io.unsupervised.pipeline.stage import Stage, digest_of_photos, read_stage, stage
from mdp.io.unsupervised.pipeline.vectors import Source, open_source

CENTROIDS = "centroids.safetensors"
OTHER = ("other", "background")
_FLOATS = 2**22  # of a part and of its scores together: 16 MiB each way
_KEPT = "kmeans.npz"  # the centres on the way


@dataclass(frozen=True, kw_only=True)
class Photos:
    """The photos that are clustered."""

    dataset: Dataset
    split: str
    pool: Pool
    line: str


def run_clustering(request: Request, source: str, target: str) -> dict[str, Any]:
    """Clusters the training photos of `target` into `request.out` and returns what clusters.json says.

    Raises an MdpError, with the exit code, for anything the user has to mend; Preempted leaves both stages to be gone
    on with.
    """
    recipe = resolve(*request.layers)
    if request.out is None:
        raise RecipeError("give --out FOLDER: the folder that the stages of this pipeline share")
    with stop_on_signals() as stop, joined(request.timeout) as world:
        progress, device = Counter(request.quiet or not world.main), set_up(recipe, world)
        photos = photos_of(target, Path(recipe.data.root))
        progress.say(photos.line)
        opened = open_source(source, merge(*request.layers), device)
        for line in [opened.features.words, *opened.features.lines]:
            progress.say(line)
        clusters = recipe.luss.clusters or categories_of(photos.dataset, target)
        kind = opened.kind(recipe.luss.features)
        stop.patient = True
        with memory_in_one_line(advice="try a smaller luss.short_side"):
            rows = _vectors(make(request.out), opened, kind, photos, recipe, stop, progress, request.overwrite, world)
            told = world.broadcast_main(  # the sums of k-means are in the order of one process
                lambda: json.dumps(
                    _clusters(request, rows, clusters, photos, recipe, source, target, device, stop, progress)
                )
            )
            return dict(json.loads(told))


def photos_of(target: str, root: Path) -> Photos:
    """The photos of the split that is named, of `train`, or of the first training split.

    Raises what `open_split` raises.
    """
    dataset, split = named(target)
    if split or "train" in dataset.splits:
        split = split or "train"
        samples, line = open_split(dataset, root, split)
    else:
        samples, line = open_training(dataset, root)
        split = line.removeprefix(f"{dataset.name} ").partition(":")[0]
    return Photos(dataset=dataset, split=split, pool=pool_of([(dataset, samples)]), line=line)


def categories_of(dataset: Dataset, target: str) -> int:
    """The number of the target's classes besides "other".  Raises RecipeError for a dataset without labels."""
    classes = dataset.labels.classes
    count = len(classes) - (bool(classes) and classes[0].lower() in OTHER)
    if not count:
        raise RecipeError(f"{target}: has no classes that say how many clusters to make; give --clusters")
    return count


# The stages


def _vectors(
    out: Path,
    source: Source,
    kind: str,
    photos: Photos,
    recipe: Recipe,
    stop: Stop,
    progress: Counter,
    overwrite: bool,
    world: World,
) -> Rows:
    luss = recipe.luss
    inputs = {"weights": source.digest, "photos": digest_of_photos(photos.pool)}
    settings = {"features": kind, "short_side": luss.short_side, "store": luss.store}
    with stage(out / "features", "features", inputs, settings, stop, progress, overwrite, world) as work:
        if not work.done:
            write_rows(work, source, kind, photos.pool, luss.short_side, luss.store, recipe.run.loaders, progress)
            work.finish(["rows.npy", "images.txt"])
    return rows_of(out / "features")


def _clusters(
    request: Request,
    rows: Rows,
    clusters: int,
    photos: Photos,
    recipe: Recipe,
    source: str,
    target: str,
    device: torch.device,
    stop: Stop,
    progress: Counter,
) -> dict[str, Any]:
    luss = recipe.luss
    assert request.out
    folder = request.out / "clusters"
    settings = {"clusters": clusters, "restarts": luss.restarts, "iterations": luss.iterations, "seed": recipe.run.seed}
    inputs = {"rows": read_stage(request.out / "features", "mdp luss cluster")["outputs"]["rows.npy"]}
    with stage(folder, "clusters", inputs, settings, stop, progress, request.overwrite) as work:
        if not work.done:
            if clusters > rows.total:
                raise RecipeError(f"--clusters {clusters}: there are {rows.total} vectors only")
            device = torch.device("cpu") if device.type == "mps" else device
            found = _kmeans(work, rows, clusters, luss.restarts, luss.iterations, recipe.run.seed, device, progress)
            _write(folder, found, rows, photos, settings, device)
            work.finish(
                [CENTROIDS, "assignment.csv", "clusters.json"], _origin(request, source, target, photos, recipe)
            )
    return dict(json.loads(read_bytes(str(folder / "clusters.json"), "clusters")))


def _origin(request: Request, source: str, target: str, photos: Photos, recipe: Recipe) -> dict[str, Any]:
    """What labelling asks for again: where the network and the data are."""
    return {
        "source": _absolute(source),
        "settings": {"model": request.asked.get("model") or {}, "run": {"seed": recipe.run.seed}},
        "target": _absolute(target.removesuffix(f":{photos.split}")),
        "split": photos.split,
        "root": str(Path(recipe.data.root).absolute()),
    }


def _absolute(name: str) -> str:
    """A path that holds from anywhere; what is no path as it is."""
    return str(Path(name).absolute()) if Path(name).exists() else name


# k-means


def _kmeans(
    work: Stage,
    rows: Rows,
    clusters: int,
    restarts: int,
    iterations: int,
    seed: int,
    device: torch.device,
    progress: Counter,
) -> Clusters:
    """The clusters, all restarts in lockstep; goes on behind the last iteration that was kept."""
    size = max(1, _FLOATS // max(restarts * clusters, rows.channels))

    def parts() -> Iterable[Tensor]:
        for part in rows.parts(size, device):
            work.expect_no_stop()
            yield part

    centres, done = _centres_of(work.folder / _KEPT)
    if centres is None:
        starts = random_starts(generator(seed, "kmeans"), rows.total, clusters, restarts)  # (R, K)
        centres = rows.at(starts)  # (R, K, D)
    centres = centres.to(device)
    _tell_time(rows, size, centres, iterations - done, device, progress)
    for iteration in range(done, iterations):
        moved = advance(parts, centres)
        if torch.equal(moved, centres):
            break
        centres = moved
        if work.due:
            _keep(work.folder / _KEPT, centres, iteration + 1)
            work.note(iteration + 1)
    found = clusters_of(parts, centres)
    (work.folder / _KEPT).unlink(missing_ok=True)
    return found


def _tell_time(
    rows: Rows, size: int, centres: Tensor, iterations: int, device: torch.device, progress: Counter
) -> None:
    """What is to be done, and about how long it will take, from how long a part takes."""
    restarts, clusters, channels = centres.shape
    part = next(iter(rows.parts(size, device)))
    began = time.perf_counter()
    nearest_centres(part, centres)[1].sum().item()
    took = (time.perf_counter() - began) * rows.total / len(part) * (iterations + 1)
    progress.say(
        f"k-means: {rows.total:,} vectors of {channels} channels, {number_of(restarts, 'restart')} of {clusters} "
        f"clusters together, up to {iterations} iterations: {duration(max(1.0, took))} or less"
        + (f"; --restarts 1 takes {duration(took / restarts)}" if took > 1800 and restarts > 1 else "")
    )


def _keep(path: Path, centres: Tensor, iteration: int) -> None:
    file = io.BytesIO()
    np.savez(file, centres=centres.cpu().numpy(), iteration=np.array(iteration))
    write_atomically(path, [file.getvalue()])


def _centres_of(path: Path) -> tuple[Tensor | None, int]:
    """The centres that were kept, and after how many iterations; None without any."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            return torch.from_numpy(kept["centres"]), int(kept["iteration"])
    except UNREADABLE_ARRAYS:
        return None, 0


# What is written


def _write(
    folder: Path, found: Clusters, rows: Rows, photos: Photos, settings: dict[str, Any], device: torch.device
) -> None:
    best = int(found.inertia.argmin())
    centres = found.centres[best].cpu()  # (K, D)
    about = {"kind": "centroids", "clusters": len(centres), "channels": rows.channels}
    save(folder / CENTROIDS, {"centroids": centres}, about)
    numbers, distances = _assigned(rows, centres.to(device), device)  # (N,) of each row
    cluster, share = _of_photos(numbers.view(-1, rows.each), len(centres))
    names = [sample.image for sample in photos.pool.samples]
    spread = distances.view(-1, rows.each).mean(1)
    table = [(name, 1 + own, f"{part:.4f}", f"{away:.6f}") for name, own, part, away in
             zip(names, cluster.tolist(), share.tolist(), spread.tolist(), strict=True)]  # fmt: skip
    write_text(folder / "assignment.csv", csv_text([("photo", "cluster", "share", "squared_distance"), *table]))
    facts = {
        **settings,
        "vectors": rows.total,
        "channels": rows.channels,
        "photos": len(names),
        "inertia": [round(value, 6) for value in found.inertia.tolist()],
        "best_restart": best,
        "counts": found.counts[best].tolist(),
        "folders": _agreement(cluster, names, len(centres)),
    }
    write_text(folder / "clusters.json", json.dumps(facts, indent=1) + "\n")


def _assigned(rows: Rows, centres: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """The nearest centre of each row and the squared distance to it, (N,) each."""
    size = max(1, _FLOATS // max(len(centres), rows.channels))
    found = [nearest_centres(part, centres[None]) for part in rows.parts(size, device)]
    return torch.cat([own[0] for own, _ in found]).cpu(), torch.cat([away[0] for _, away in found]).cpu()


def _of_photos(numbers: Tensor, clusters: int) -> tuple[Tensor, Tensor]:
    """The cluster that most of a photo's rows (P, r) have, the first of equals, and their share: (P,) each."""
    if numbers.shape[1] == 1:
        return numbers[:, 0], torch.ones(len(numbers))
    counts = torch.zeros(len(numbers), clusters, dtype=torch.int64).scatter_add_(1, numbers, torch.ones_like(numbers))
    most = counts.max(1)
    return most.indices, most.values / numbers.shape[1]


def _agreement(cluster: Tensor, names: Sequence[str], clusters: int) -> dict[str, Any] | None:
    """How the clusters agree with the photos' folders, which uses labels; None where folders are no categories."""
    folders = [PurePath(name).parent.name for name in names]
    known = sorted(set(folders))
    if not 2 <= len(known) <= len(folders) // 2:
        return None
    number = {folder: index for index, folder in enumerate(known)}
    category = torch.tensor([number[folder] for folder in folders])
    counts = joint_counts(cluster, category, (clusters, len(known)))
    return {
        "uses_labels": True,
        "rule": "folders of photos taken for categories; accuracy: each cluster stands for one folder at the most",
        "folders": len(known),
        "normalised_mutual_information": round(normalised_information(counts), 6),
        "accuracy": round(matched_share(counts), 6),
    }


def clusters_table(found: dict[str, Any]) -> str:
    """What came out, for people."""
    counts, folders = found["counts"], found["folders"]
    lines = [
        f"{found['clusters']} clusters of {found['vectors']:,} vectors ({found['photos']:,} photos), of "
        f"{min(counts):,} to {max(counts):,} each",
        f"inertia {min(found['inertia']):.4f}, the least of {number_of(len(found['inertia']), 'restart')} "
        f"(the largest: {max(found['inertia']):.4f})",
    ]
    if folders:
        lines.append(
            f"against the {folders['folders']} folders of the photos (this uses labels): normalised mutual information "
            f"{100 * folders['normalised_mutual_information']:.1f}, accuracy {100 * folders['accuracy']:.1f}"
        )
    return "\n".join(lines)
