"""The job behind `mdp propagate`: the mask of a first frame is carried through a video by frozen features alone.

Shape legend: H x W mask, h x w feature grid, P cells, D channels, C objects and the background.
"""

import json
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from mdp.core.geometry import Box, View, cut_image, fitted_size
from mdp.core.propagation import contour_accuracy, near_cells, propagated, region_similarity, shares_at
from mdp.core.regions import unit_cells
from mdp.io.datasets.own.endings import PHOTOS
from mdp.io.errors import DatasetError, Preempted, RecipeError
from mdp.io.evaluation.scores import percent
from mdp.io.files.colormap import voc_colormap
from mdp.io.files.images import label_image, png_bytes
from mdp.io.files.label_maps import read_labels
from mdp.io.files.photos import read_rgb
from mdp.io.files.reading import is_dir, is_file, printable
from mdp.io.files.writing import make, write_atomically, write_text
from mdp.io.journal.counter import Counter
from mdp.io.processes.device import memory_in_one_line, set_up
from mdp.io.processes.signals import stop_on_signals
from mdp.io.processes.world import ALONE
from mdp.io.recipe.layers import Layer, resolve
from mdp.io.unsupervised.asked import Propagation
from mdp.io.unsupervised.features import Features, open_features, results_folder

Row = tuple[int, float, float]  # of an object in a frame: its place, J and F

_STRIDE = 8  # of the dilated backbone, as arXiv 2006.14613 has it
_VOID = 255  # in a mask: belongs to nothing, and is not scored


def run_propagation(asked: Propagation, layer: Layer, quiet: bool = False) -> dict[str, Any]:
    """J and F of the frames that have a mask, the first one left out, as JSON, and a mask for each frame.

    Of `layer` the sections run and model count.  Raises an MdpError, in one line, for what the user has to mend.
    """
    recipe, progress = resolve(layer), Counter(quiet)
    device = set_up(recipe, ALONE)
    frames, first = _frames(asked)
    objects = [int(value) for value in np.unique(first) if value not in (0, _VOID)]
    if not objects:
        raise DatasetError(f"{printable(asked.masks)}: the mask of the first frame has no object, only 0 and {_VOID}")
    features = open_features(asked.source, layer, stride=_STRIDE, start=asked.start, device=device)
    if features.image_channels != 3:
        raise RecipeError(f"{asked.source}: frames are RGB, and the network takes {features.image_channels} channels")
    for line in (*features.lines, f"{asked.source}: {features.words}",
                 f"{len(frames):,} frames, {len(objects)} object{'s' * (len(objects) != 1)}"):  # fmt: skip
        progress.say(line)
    out = results_folder(asked.out, asked.source, "propagate", asked.frames.resolve().name)
    if out:
        make(out)
    rows: list[Row] = []
    still: list[Row] = []  # of the first mask kept as it is, which is what a score has to be above
    scored = 0
    advice = "try a smaller --size or --context, or --device cpu"
    with stop_on_signals() as stop, memory_in_one_line(advice=advice), torch.no_grad():
        begun = torch.empty(0)
        for number, labels in enumerate(_propagated(asked, features, frames, first, objects)):
            begun = begun if number else labels
            if stop:
                raise Preempted("stopped between frames; run the same command again")
            frame = frames[number]
            if out:
                picture = label_image(np.array([0, *objects])[labels.numpy()], tuple(voc_colormap(_VOID)))
                write_atomically(out / f"{frame.stem}.png", [png_bytes(picture)])
            truth = asked.masks / f"{frame.stem}.png"
            if number and is_file(truth):
                scored += 1
                mask = _mask(truth, labels)
                rows += _scored(labels, mask, objects)
                still += _scored(begun, mask, objects)
            progress.tell(number + 1, len(frames))
    scores = {"source": asked.source, "features": features.words, "frames": len(frames), "scored_frames": scored,
              **_means(rows, objects), "still": _means(still, objects)}  # fmt: skip
    if out:
        write_text(out / "scores.json", json.dumps(scores) + "\n")
        progress.say(f"written to {out}")
    return scores


def _frames(asked: Propagation) -> tuple[list[Path], NDArray[np.integer]]:
    """The frames in order of their names, and the mask (H, W) of the first.  Raises DatasetError without any."""
    for name, folder in (("--frames", asked.frames), ("--masks", asked.masks)):
        if not is_dir(folder):
            raise DatasetError(f"{name} {printable(folder)}: expected a folder, found none")
    frames = sorted(path for path in asked.frames.iterdir() if path.suffix.lower() in PHOTOS)
    if len(frames) < 2:
        raise DatasetError(f"--frames {printable(asked.frames)}: expected two photos or more, found {len(frames)}")
    first = asked.masks / f"{frames[0].stem}.png"
    if not is_file(first):
        raise DatasetError(f"{printable(first)}: expected the mask of the first frame, found none")
    for name, folder in (("--frames", asked.frames), ("--masks", asked.masks)):
        if asked.out and asked.out.resolve() == folder.resolve():
            raise RecipeError(f"--out {printable(asked.out)}: it is the folder of {name}; choose another")
    return frames, read_labels(str(first))


def _propagated(
    asked: Propagation, features: Features, frames: list[Path], first: NDArray[np.integer], objects: list[int]
) -> Iterator[Tensor]:
    """The objects' places (H, W) int64 in each frame: 0 the background, i + 1 object i."""
    ids = torch.from_numpy(np.searchsorted([0, *objects], np.where(first == _VOID, 0, first)))
    onto = F.one_hot(ids, len(objects) + 1).permute(2, 0, 1).float()  # (C, H, W)
    kept: deque[tuple[Tensor, Tensor]] = deque(maxlen=asked.context)
    near, shape = torch.empty(0), tuple(ids.shape)
    begun: tuple[Tensor, Tensor] | None = None
    for path in frames:
        image = torch.from_numpy(read_rgb(str(path))).permute(2, 0, 1)
        height, width = int(image.shape[1]), int(image.shape[2])
        if (height, width) != shape:
            there = f"{shape[1]} x {shape[0]}"
            raise DatasetError(f"{printable(path)}: it is {width} x {height}, and the mask of the first frame {there}")
        seen = fitted_size(height, width, (10**6, asked.size))
        features_map = features.maps(cut_image(image, View(Box(0, 0, height, width), False), seen)[None])[0]
        grid = (int(features_map.shape[1]), int(features_map.shape[2]))
        cells = unit_cells(features_map).cpu()  # (P, D)
        if begun is None:
            near = near_cells(*grid, asked.radius)
            down, across = (
                ((2 * features.grid.pixels(length) + 1) * side).div(2 * length, rounding_mode="floor")
                for length, side in zip(seen, shape, strict=True)
            )
            shares = onto[:, down[:, None], across].flatten(1).T  # (P, C)
            begun = (cells, shares)
            yield ids
            continue
        earlier = [begun, *kept]
        try:
            shares = propagated(
                cells, [own for own, _ in earlier], [own for _, own in earlier], near,
                asked.neighbours, asked.temperature,
            )  # fmt: skip
        except ValueError as error:
            raise RecipeError(f"--neighbours: {error}") from error
        kept.append((cells, shares))
        yield shares_at(shares.T.reshape(-1, *grid), (height, width), seen, features.grid).argmax(0)


def _mask(path: Path, labels: Tensor) -> NDArray[np.integer]:
    truth = read_labels(str(path))
    if truth.shape != tuple(labels.shape):
        sizes = [f"{width} x {height}" for height, width in (truth.shape, labels.shape)]
        raise DatasetError(f"{printable(path)}: it is {sizes[0]} and its frame {sizes[1]}")
    return truth


def _scored(labels: Tensor, truth: NDArray[np.integer], objects: list[int]) -> list[Row]:
    """J and F of each object in a frame; void pixels are in no mask."""
    valid = torch.from_numpy(truth != _VOID)
    pairs = [((labels == place + 1) & valid, torch.from_numpy(truth == value)) for place, value in enumerate(objects)]
    return [(place, region_similarity(*pair), contour_accuracy(*pair)) for place, pair in enumerate(pairs)]


def _means(rows: list[Row], objects: list[int]) -> dict[str, Any]:
    """The means over frames for each object, and over objects; null without a frame to score."""
    if not rows:
        nothing: dict[str, Any] = {"j": None, "f": None}
        return {**nothing, "j_and_f": None, "objects": [{"object": value, **nothing} for value in objects]}
    found = torch.tensor([row[1:] for row in rows], dtype=torch.float64).view(-1, len(objects), 2).mean(0)  # (C - 1, 2)
    j, f = found.mean(0).tolist()
    each = [{"object": value, "j": own[0], "f": own[1]} for value, own in zip(objects, found.tolist(), strict=True)]
    return {"j": j, "f": f, "j_and_f": (j + f) / 2, "objects": each}


def propagation_table(scores: dict[str, Any]) -> str:
    """The scores in percent, for people."""
    lines = [f"{'object':>8}{'J':>8}{'F':>8}"]
    lines += [f"{row['object']:>8}{percent(row['j']):>8}{percent(row['f']):>8}" for row in scores["objects"]]
    about = f"{scores['frames']:,} frames, of which {scores['scored_frames']:,} after the first have a mask"
    end = f"J&F {percent(scores['j_and_f'])}   J {percent(scores['j'])}   F {percent(scores['f'])}"
    still = f"the first mask kept as it is: J&F {percent(scores['still']['j_and_f'])}"
    return "\n".join([*lines, "", about, end, still])
