"""The job behind `mdp predict`: from photos to label maps, overlays and probabilities, one photo at a time.

Photos come through the loader and what is made of one is written before the next is looked at, so that memory does not
depend on their number.

Shape legend: C classes, H x W image.
"""

import hashlib
import itertools
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import mdp
from mdp.core.labels import LabelSpace
from mdp.core.networks import Segmentor
from mdp.io.data.loader import load
from mdp.io.data.pool import Key
from mdp.io.errors import DatasetError, MdpError, Preempted, ResourceError
from mdp.io.files.images import as_picture
from mdp.io.files.photos import read_claims, read_photo
from mdp.io.files.reading import printable
from mdp.io.files.writing import make
from mdp.io.inference.asked import Wanted
from mdp.io.inference.folder import (
    KINDS,
    Job,
    geotiff,
    labels_png,
    overlay_png,
    plan,
    probability_bytes,
    probability_chunks,
    raw_values,
    targets,
    write_classes,
    write_index,
    write_new,
)
from mdp.io.inference.photos import Matches, Photo, find_photos, refuse_control_names
from mdp.io.inference.predict import inference_settings, predict, probabilities
from mdp.io.journal.counter import Counter, number_of
from mdp.io.processes.device import memory_in_one_line, set_up
from mdp.io.processes.signals import Stop, stop_on_signals
from mdp.io.processes.world import ALONE
from mdp.io.recipe.layers import Recipe
from mdp.io.recipe.request import Request
from mdp.io.recipe.settings import EvalSettings
from mdp.io.run.folder import home_of
from mdp.io.run.lock import locked
from mdp.io.run.opened import at_step, evaluation_recipe, open_segmentor, trained_segmentor
from mdp.photo_rule import PLAIN, PhotoRule

TURNED = "which is not applied: the label maps fit the pixels as they are stored"
ADVICE = "try --mode slide with a smaller eval.window, a smaller eval.scale, or smaller photos"


def run_predictions(request: Request, wanted: Wanted) -> dict[str, Any]:
    """Predicts photos with a fine-tuning run (`request.init`, or the newest) and returns what was done.

    Raises an MdpError, with the exit code, for anything the user has to mend; what is written by then stays.
    """
    with stop_on_signals() as stop:
        opened = open_segmentor(request.init, wanted.which, otherwise=", or give --run")
        path, step, weights = opened.path, opened.record.position.step, opened.weights(wanted.weights)
        recipe = evaluation_recipe(request, opened.record)
        (space,) = opened.record.labels
        # as those that it was trained on, but never turned: the label maps fit the pixels as they are stored
        rule = opened.record.photos.get(space.name, PLAIN)._replace(exif="")
        device = set_up(recipe, ALONE)
        raws = raw_values(space) if wanted.raw else None
        out = request.out or _fresh_folder(path)
        matches = find_photos(wanted.photos, [out / kind for kind in KINDS])
        settings = inference_settings(recipe)
        about = _about(path, weights, settings, space, raws)
        job = plan(out, wanted.kinds, matches.photos, wanted.existing, about)
        progress = Counter(request.quiet)
        progress.say(f"predicting with {path} {at_step(opened, weights)}")
        progress.say(_summary(matches, job))
        network = trained_segmentor(opened, recipe, device, weights)
        _make_room(job, space, progress)
        work = Work(
            job=job,
            network=network,
            space=space,
            rule=rule,
            raws=raws,
            settings=settings,
            device=device,
            recipe=recipe,
            about={**about, "checkpoint": str(path.resolve()), "step": step},
            overwrite=wanted.existing != "stop",
        )
        with locked(make(out)):
            return {**_predict_all(work, stop, progress), "ignored": len(matches.others)}


@dataclass(frozen=True, kw_only=True)
class Work:
    """All that it takes to predict the photos of a job."""

    job: Job
    network: Segmentor
    space: LabelSpace
    rule: PhotoRule  # how photos are read
    raws: tuple[int, ...] | None
    settings: EvalSettings
    device: torch.device
    recipe: Recipe
    about: Mapping[str, Any]
    overwrite: bool


def _fresh_folder(checkpoint: Path) -> Path:
    """A folder of the run that is not there yet."""
    home = home_of(checkpoint)
    stamp = time.strftime("%Y-%m-%d_%H%M")
    names = (stamp if number == 1 else f"{stamp}-{number}" for number in itertools.count(1))
    return next(home / "predict" / name for name in names if not (home / "predict" / name).exists())


def _about(
    path: Path, weights: str | None, settings: EvalSettings, space: LabelSpace, raws: tuple[int, ...] | None
) -> dict[str, Any]:
    """All that decides the predictions, as JSON."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    used = {key: value for key, value in asdict(settings).items() if key not in ("split", "images")}
    return {
        "mdp": mdp.__version__,
        "checkpoint_sha256": digest,
        **({"weights": weights} if weights else {}),
        "dataset": space.name,
        "classes": list(space.classes),
        "values": list(range(len(space.classes)) if raws is None else raws),
        "settings": used,
    }


def _summary(matches: Matches, job: Job) -> str:
    ignored = f"; left out {number_of(len(matches.others), 'other file')}" if matches.others else ""
    there = f", {len(job.done):,} of them predicted already" if job.done else ""
    return number_of(len(matches.photos), "photo") + there + ignored


def _make_room(job: Job, space: LabelSpace, progress: Counter) -> None:
    """Says what the probabilities will take.  Raises ResourceError when the disk has less."""
    if "probabilities" not in job.kinds:
        return
    sizes = []
    for photo in job.photos:
        with suppress(MdpError):  # a photo that cannot be read is reported when its turn comes
            sizes.append(read_claims(str(photo.path))[:2])
    need = probability_bytes(len(space.classes), sizes)
    nearest = next(folder for folder in (job.out, *job.out.absolute().parents) if folder.exists())
    free = shutil.disk_usage(nearest).free
    text = f"probabilities take {_size(need)} (float16, {len(space.classes)} classes a pixel)"
    if need > free:
        raise ResourceError(f"{text}, and {nearest} has {_size(free)} free; leave out --probabilities, or give --out")
    progress.say(f"{text}; {_size(free)} are free")


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


# Photo by photo


class Tally(NamedTuple):
    """The photos so far, by how they ended."""

    done: list[Photo]
    skipped: list[str]  # why
    turned: list[Photo]


class PhotoItem(NamedTuple):
    """A photo as it is."""

    photo_index: int  # in the job
    image: Tensor  # (3, H, W) uint8, or (K, H, W) float32 in [0, 1]
    turned: bool  # whether its EXIF data ask viewers to turn it, which nothing here does


class PhotoItems:
    """Photo -> pixels; what the loader's workers run."""

    def __init__(self, photos: Sequence[Photo], rule: PhotoRule) -> None:
        self.photos, self.rule = photos, rule

    def __getitem__(self, key: Key) -> PhotoItem | MdpError:
        photo = self.photos[key[1]]
        try:
            refuse_control_names(photo)
            image = read_photo(str(photo.path), self.rule)
            turned = read_claims(str(photo.path))[2] != 1  # 1: as it is stored
        except MdpError as error:
            return error
        return PhotoItem(key[1], torch.from_numpy(image).permute(2, 0, 1), turned)


def _predict_all(work: Work, stop: Stop, progress: Counter) -> dict[str, Any]:
    """Predicts all photos of a job and returns the counts.

    Raises Preempted when a signal came, after the photo under way; DatasetError when no photo could be read.
    """
    job, tally = work.job, Tally([], [], [])
    write_classes(job.out, work.space, work.raws)
    write_index(job, work.about, "unfinished", [], [])  # first: --skip-existing asks it what made the files
    stop.patient = True
    try:
        _predict_each(work, tally, stop, progress)
    except BaseException:
        with suppress(MdpError):  # the first error is the one to report
            write_index(job, work.about, "failed", tally.done, tally.skipped)
        raise
    whole = len(tally.done) + len(tally.skipped) == len(job.photos)
    write_index(job, work.about, "done" if whole else "stopped", tally.done, tally.skipped)
    if tally.turned:
        progress.say(
            f"note: {number_of(len(tally.turned), 'photo')} with an EXIF rotation, which is not applied: {TURNED}"
        )
    if not whole:
        raise Preempted(
            f"stopped by {stop.name} after {len(tally.done)} of {len(job.photos)} photos; the same command with "
            f"--out {job.out} --skip-existing goes on"
        )
    if tally.skipped and not tally.done and not job.done:
        raise DatasetError(f"{number_of(len(tally.skipped), 'photo')}, and none can be read")
    return {
        "out": str(job.out),
        "predicted": len(tally.done),
        "there_before": len(job.done),
        "skipped": len(tally.skipped),
        "exif_rotated": len(tally.turned),
        "checkpoint": work.about["checkpoint"],
    }


def _predict_each(work: Work, tally: Tally, stop: Stop, progress: Counter) -> None:
    """Predicts one photo after the other until a signal comes, and keeps the tally.

    Raises what a photo that cannot be read raises, unless such are skipped.
    """
    photos, settings = work.job.photos, work.recipe.run

    def skip(error: MdpError) -> None:
        tally.skipped.append(str(error))
        progress.warn(f"left out: {error}")

    keys = iter([[(0, index)] for index in range(len(photos))])
    skipping = skip if settings.on_bad_sample == "skip" else None
    with closing(load(PhotoItems(photos, work.rule), keys, min(settings.loaders, len(photos)), skipping)) as items:
        for batch in items:
            for item in batch:
                predict_one(work, item)
                tally.done.append(photos[item.photo_index])
                if item.turned:
                    tally.turned.append(photos[item.photo_index])
            progress.tell(len(tally.done) + len(tally.skipped), len(photos))
            if stop:
                return


def predict_one(work: Work, item: PhotoItem) -> None:
    """Predicts a photo and writes what is wanted of it."""
    photo, shares = work.job.photos[item.photo_index], None
    with memory_in_one_line(f"{printable(photo.path)}: ", ADVICE):
        if "probabilities" in work.job.kinds:
            shares = probabilities(work.network, item.image, work.settings, work.device)  # (C, H, W)
            classes = shares.argmax(0).numpy()  # (H, W)
        else:
            classes = predict(work.network, item.image, work.settings, work.device).numpy()
        for kind, path in targets(work.job.out, photo, work.job.kinds).items():
            if kind == "labels":
                labels = labels_png(classes, work.space, work.raws)
                chunks: list[bytes | memoryview] = [labels]
                located = geotiff(labels, photo.path)
                beside = path.with_suffix(".tif")
                if located and not (beside.exists() and beside.samefile(photo.path)):
                    write_new(beside, [located], work.overwrite)
            elif kind == "overlays":
                chunks = [overlay_png(as_picture(item.image.permute(1, 2, 0).numpy()), classes, work.space)]
            else:
                assert shares is not None
                chunks = probability_chunks(shares)
            write_new(path, chunks, work.overwrite)
