"""A picture of class activation maps: photos, and where the probe's classifier finds their classes."""

from pathlib import Path

from mdp.core.linear_probe import Linear
from mdp.io.files.images import as_picture, png_bytes
from mdp.io.files.writing import write_atomically
from mdp.io.pictures.activation_maps import Classified, activation_sheet, class_panels
from mdp.io.unsupervised.features import Features
from mdp.io.unsupervised.probe_images import Cut, Probed, ProbeItem, ProbeItems

_ROWS = 8  # images


def write_activations(path: Path, features: Features, classifier: Linear, images: Probed, cut_: Cut, unit: bool) -> int:
    """Draws a few evenly spaced images of the test split, and returns how many.

    `unit`: the classifier was fitted to pooled features of length 1.
    """
    count = len(images.test.samples)
    items = ProbeItems(images, images.test, cut_)
    rows = []
    for number in range(min(_ROWS, count)):
        item = items[0, number * count // min(_ROWS, count)]
        if not isinstance(item, ProbeItem):
            raise item
        seen = _seen(item, features, classifier, unit)
        rows.append((images.test.samples[item.sample].image, class_panels(seen, item.positives, images.classes)))
    write_atomically(path, [png_bytes(activation_sheet(rows, "Where the classifier finds the classes of an image"))])
    return len(rows)


def _seen(item: ProbeItem, features: Features, classifier: Linear, unit: bool) -> Classified:
    maps = features.maps(item.image[None])  # (1, D, h, w)
    if unit:
        maps = maps / maps.mean((2, 3)).norm().clamp(min=1e-12)
    photo = as_picture(item.image.permute(1, 2, 0).numpy())
    return Classified(photo, maps[0], features.grid, classifier.weight, classifier.bias)
