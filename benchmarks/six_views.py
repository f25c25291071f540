"""The six augmented, normalised views of kNN-MoCo of a photo, from its file on disk.

Two crops of 160 x 160 and four of 96 x 96, five of which take AutoAugment in place of the usual colours in half of the
photos.  All entries end with float32 tensors; one call does several photos, each with draws of its own.  The photo is
that of `views.py`.  torchvision's small crops overlap nothing: the constraint is ours to pay for.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from types import ModuleType

from PIL import Image

from benchmarks.measure import Case, Entry, Gate, Run
from benchmarks.peers import load, peer
from benchmarks.views import BLUR, HEIGHT, PHOTOS, PILLOW, TENSORS, WIDTH, by_pillow, photo_and_labels, pool_of_one
from mdp.core.methods import knn_moco
from mdp.core.photometry import MEAN, STD, PhotometrySettings
from mdp.io.data.loader import keep_freed_memory
from mdp.io.data.views import PretrainItems, usual_views
from mdp.io.files import jpeg
from mdp.io.recipe.settings import PretrainSettings

LARGE, SMALL = (160, (0.2, 1.0)), (96, (0.05, 0.14))  # side, area


def cases() -> dict[str, Callable[[], Case]]:
    """Finished in the workers or with the colours left to a GPU; and with the decoder of the extra `fast`."""
    size = f"{WIDTH}x{HEIGHT}"
    found: dict[str, Callable[[], Case]] = {
        size: partial(_case, False, True),
        f"{size} bytes": partial(_case, False, True, by_bytes=True),
        f"{size}, GPU": partial(_case, False, False),
    }
    if jpeg.simplejpeg():
        found[f"{size} fast"] = partial(_case, True, True)
        found[f"{size} fast, bytes"] = partial(_case, True, True, by_bytes=True)
    return found


def _case(fast: bool, finish: bool, by_bytes: bool = False) -> Case:
    photo, _ = photo_and_labels()
    keep_freed_memory()  # as the loader's workers do; it helps every entry
    entries = tuple(_entries(photo, fast, finish, by_bytes))
    gates = tuple(Gate(entry.name, 3.0) for entry in entries[1:])
    size = (
        f"{WIDTH}x{HEIGHT}, {'simplejpeg' if fast else 'Pillow'}{', photometry on bytes' if by_bytes else ''}"
        f"{'' if finish else ', colours left to the GPU'}"
    )
    return Case("six views from a file", size, entries, gates)


def _entries(photo: Path, fast: bool, finish: bool, by_bytes: bool) -> Iterator[Entry]:
    ours = _ours(photo, fast, finish, by_bytes)
    yield Entry(f"PretrainItems, {jpeg.decoder() if fast else 'Pillow'}", "ours", ours)
    torchvision = "torchvision.transforms.v2"
    yield peer(PILLOW, torchvision, partial(_torchvision, photo, False), exact=False)
    yield peer(TENSORS, torchvision, partial(_torchvision, photo, True), exact=False)


def _ours(photo: Path, fast: bool, finish: bool, by_bytes: bool) -> Run:
    settings = PretrainSettings(photometry=PhotometrySettings(bytes=by_bytes))
    plan = knn_moco.view_plan(knn_moco.Settings(), usual_views(settings))
    items = PretrainItems(pool_of_one(photo), plan, seed=0, labelled=False, finish=finish)
    numbers = count()

    def run() -> object:
        return [items[next(numbers), 0] for _ in range(PHOTOS)]

    return run if fast else by_pillow(run)


def _torchvision(photo: Path, tensors: bool, v2: ModuleType) -> Run:
    policies, torch = load("torchvision.transforms.autoaugment"), load("torch")
    assert policies is not None
    assert torch is not None
    usual = v2.Compose(
        [
            v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], 0.8),
            v2.RandomGrayscale(0.2),
            v2.RandomApply([v2.GaussianBlur(BLUR, (0.1, 2.0))], 0.5),
        ]
    )
    either = v2.RandomChoice([usual, v2.AutoAugment(policies.AutoAugmentPolicy.IMAGENET)])
    end = (v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD))

    def view(side: int, area: tuple[float, float], colours: object) -> Callable[[object], object]:
        crop = v2.RandomResizedCrop(side, scale=area, antialias=True)
        made: Callable[[object], object] = v2.Compose([crop, v2.RandomHorizontalFlip(), colours, *end])
        return made

    views = [view(*LARGE, either), view(*LARGE, usual), *(view(*SMALL, either) for _ in range(4))]

    def one() -> object:
        image = Image.open(photo).convert("RGB")
        start = v2.functional.to_image(image) if tensors else image
        return [each(start) for each in views]

    return lambda: [one() for _ in range(PHOTOS)]
