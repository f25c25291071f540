"""Reading a photo and its label map as a dataset of one's own has them."""

import numpy as np

from mdp.io.annotations.drawing import Drawing, format_of, read_drawn
from mdp.io.datasets._dataset import Pair, Sample, same_size
from mdp.io.files.label_maps import LabelRule, read_labels
from mdp.io.files.photos import PhotoRule, read_rgb


def read(sample: Sample, *, photos: PhotoRule, labels: LabelRule, drawing: Drawing | None) -> Pair:
    rgb = read_rgb(sample.image, photos)
    if drawing and format_of(sample.labels):
        return rgb, read_drawn(sample.labels, rgb.shape[:2], drawing)
    return same_size(sample, rgb, read_labels(sample.labels, rule=labels))


def read_unlabelled(sample: Sample, *, photos: PhotoRule) -> Pair:
    rgb = read_rgb(sample.image, photos)
    return rgb, np.full(rgb.shape[:2], 255, dtype=np.uint8)
