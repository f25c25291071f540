"""Two augmented, normalised views of a photo and its label map, from their files on disk.

The photo is made: waves, discs and grain, 500 x 375, as a JPEG of quality 90, its label map as a palette PNG.  All
entries make MoCo-v2's augmentation of two crops of 224 x 224 and end with float32 tensors; one call does several
photos, each with draws of its own.  Where training runs on a GPU our workers leave photometry to it and end with bytes;
that is a case of its own, beside what the other libraries do for a GPU: everything.  So is photometry on bytes, which
rounds after each operation as the other libraries do.  Photos that are kept decoded (`run.cache`) are read from memory.
"""

import tempfile
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import count
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image

from benchmarks.measure import Case, Entry, Gate, Run
from benchmarks.peers import load, peer
from mdp.core.labels import LabelSpace, LabelUnion
from mdp.core.photometry import MEAN, STD, PhotometrySettings
from mdp.io.data.cache.kept import Kept, Places
from mdp.io.data.loader import keep_freed_memory
from mdp.io.data.pool import Pool
from mdp.io.data.views import PretrainItems, usual_views
from mdp.io.datasets._dataset import Dataset, Sample, read_pair, read_photo
from mdp.io.files import jpeg
from mdp.io.recipe.settings import PretrainSettings

HEIGHT, WIDTH, SIDE, CLASSES = 375, 500, 224, 21
PHOTOS = 16  # a call
BLUR = 23  # taps, as torchvision's MoCo-v2 recipes have them
PILLOW, TENSORS = "torchvision v2, Pillow images", "torchvision v2, tensors"
KEPT = "photos kept decoded"
QUICK = "Compose, no antialiasing"


def cases() -> dict[str, Callable[[], Case]]:
    """With Pillow's decoder; with that of the extra `fast` where it is installed, for training on a CPU and a GPU."""
    found: dict[str, Callable[[], Case]] = {
        "500x375": partial(_case, False, True),
        "500x375 bytes": partial(_case, False, True, by_bytes=True),
    }
    if not jpeg.simplejpeg():
        return found
    return {
        **found,
        "500x375 fast": partial(_case, True, True),
        "500x375 fast, bytes": partial(_case, True, True, by_bytes=True),
        "500x375 fast, GPU": partial(_case, True, False),
    }


def _case(fast: bool, finish: bool, by_bytes: bool = False) -> Case:
    photo, labels = photo_and_labels()
    keep_freed_memory()  # as the loader's workers do; it helps every entry
    entries = tuple(_entries(photo, labels, fast, finish, by_bytes))
    names = {entry.name.partition(" (")[0]: entry.name for entry in entries}
    least = 5.0 if fast else 3.0
    gates = [Gate(names[name], least) for name in (PILLOW, TENSORS)]
    if fast:
        gates.append(Gate(names[QUICK], 1.0))
    return Case(
        "two views from files",
        f"{WIDTH}x{HEIGHT}, {'simplejpeg' if fast else 'Pillow'}{', photometry on bytes' if by_bytes else ''}"
        f"{'' if finish else ', photometry left to the GPU'}",
        entries,
        tuple(gates),
    )


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """It lasts as long as the process."""
    return tempfile.TemporaryDirectory()


def photo_and_labels() -> tuple[Path, Path]:
    """The files of the photo and of its label map, which last as long as the process."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    pixels = np.stack([128 + 90 * np.sin(x / 40 + c) + 60 * np.cos(y / (25 + 5 * c)) for c in range(3)], -1)
    classes = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    for label in range(1, CLASSES):
        inside = (y - rng.integers(HEIGHT)) ** 2 + (x - rng.integers(WIDTH)) ** 2 < rng.integers(20, 90) ** 2
        pixels[inside] = 0.4 * pixels[inside] + 0.6 * rng.integers(0, 256, 3)
        classes[inside] = label
    pixels += rng.normal(0, 8, pixels.shape)
    photo, labels = (Path(_folder().name) / name for name in ("photo.jpg", "labels.png"))
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(photo, quality=90)
    image = Image.fromarray(classes)
    image.putpalette(rng.integers(0, 256, 768).tolist())
    image.save(labels)
    return photo, labels


def _entries(photo: Path, labels: Path, fast: bool, finish: bool, by_bytes: bool) -> Iterator[Entry]:
    ours = partial(_ours, photo, labels, fast, finish, by_bytes)
    yield Entry(f"PretrainItems, {jpeg.decoder() if fast else 'Pillow'}", "ours", ours())
    torchvision = "torchvision.transforms.v2"
    yield Entry(KEPT, "ours", ours(kept=True))
    yield peer(PILLOW, torchvision, partial(_torchvision, photo, labels, False), exact=False)
    yield peer(TENSORS, torchvision, partial(_torchvision, photo, labels, True), exact=False)
    yield peer(QUICK, "albumentations", partial(_albumentations, photo, labels), exact=False)
    yield peer("MoCoV2Transform, no labels", "lightly.transforms", partial(_lightly, photo), exact=False)


def pool_of_one(photo: Path, labels: Path | str = "") -> Pool:
    """A pool of that photo, with its label map or without one."""
    space = LabelSpace(name="made", classes=tuple(str(label) for label in range(CLASSES)))
    sample = Sample(str(photo), str(labels), space.name)
    dataset = Dataset(
        name=space.name, labels=space, splits={"train": 1}, train=("train",), val=None, home="", source="",
        samples=lambda root, split: [sample], read=read_pair, photo=read_photo,
    )  # fmt: skip
    return Pool([sample], {space.name: dataset}, LabelUnion([space]))


def _ours(photo: Path, labels: Path, fast: bool, finish: bool, by_bytes: bool, kept: bool = False) -> Run:
    pool = pool_of_one(photo, labels)
    if kept:
        pixels = np.array([HEIGHT * WIDTH])
        pool = pool._replace(kept=Kept(Places(3 * pixels, pixels, np.zeros(1, np.int16), torch.uint8)))
    settings = PretrainSettings(crop=SIDE, photometry=PhotometrySettings(bytes=by_bytes))
    items, numbers = PretrainItems(pool, usual_views(settings), seed=0, finish=finish), count()

    def run() -> object:
        return [items[next(numbers), 0] for _ in range(PHOTOS)]

    return run if fast else by_pillow(run)


def by_pillow(run: Run) -> Run:
    """The same without the decoder of the extra `fast`."""

    def changed() -> object:
        with patch.object(jpeg, "simplejpeg", return_value=None):
            return run()

    return changed


def _torchvision(photo: Path, labels: Path, tensors: bool, v2: ModuleType) -> Run:
    kinds, torch = load("torchvision.tv_tensors"), load("torch")
    assert kinds is not None
    assert torch is not None
    augment = v2.Compose(
        [
            v2.RandomResizedCrop(SIDE, scale=(0.2, 1.0), antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], 0.8),
            v2.RandomGrayscale(0.2),
            v2.RandomApply([v2.GaussianBlur(BLUR, (0.1, 2.0))], 0.5),
            v2.ToImage(),
            v2.ToDtype({kinds.Image: torch.float32, "others": None}, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )

    def one() -> object:
        image = Image.open(photo).convert("RGB")
        mask = kinds.Mask(np.array(Image.open(labels)))
        start = v2.functional.to_image(image) if tensors else image
        return [augment(start, mask) for _ in range(2)]

    return lambda: [one() for _ in range(PHOTOS)]


def _albumentations(photo: Path, labels: Path, library: ModuleType) -> Run:
    cv2, tensors = load("cv2"), load("albumentations.pytorch")
    assert cv2 is not None
    assert tensors is not None
    augment = library.Compose(
        [
            library.RandomResizedCrop((SIDE, SIDE), scale=(0.2, 1.0)),
            library.HorizontalFlip(),
            library.ColorJitter((0.6, 1.4), (0.6, 1.4), (0.6, 1.4), (-0.1, 0.1), p=0.8),
            library.ToGray(p=0.2),
            library.GaussianBlur(blur_limit=0, sigma_limit=(0.1, 2.0), p=0.5),
            library.Normalize(MEAN, STD),
            tensors.ToTensorV2(),
        ]
    )

    def one() -> object:
        image = cv2.cvtColor(cv2.imread(str(photo)), cv2.COLOR_BGR2RGB)
        mask = np.array(Image.open(labels))
        return [augment(image=image, mask=mask) for _ in range(2)]

    return lambda: [one() for _ in range(PHOTOS)]


def _lightly(photo: Path, transforms: ModuleType) -> Run:
    augment = transforms.MoCoV2Transform(input_size=SIDE)
    return lambda: [augment(Image.open(photo).convert("RGB")) for _ in range(PHOTOS)]
