"""Reading a photo and its label map as a dataset of one's own has them."""

from collections.abc import Mapping

import numpy as np

from mdp.io.annotations.drawing import Drawing, format_of, read_drawn
from mdp.io.datasets._dataset import Pair, Sample, same_size
from mdp.io.files.label_maps import read_labels
from mdp.io.files.photos import read_rgb
from mdp.label_space import RGB


def read(sample: Sample, *, colors: Mapping[RGB, int] | None, drawing: Drawing | None) -> Pair:
    rgb = read_rgb(sample.image)
    if drawing and format_of(sample.labels):
        return rgb, read_drawn(sample.labels, rgb.shape[:2], drawing)
    return same_size(sample, rgb, read_labels(sample.labels, colors))


def read_unlabelled(sample: Sample) -> Pair:
    rgb = read_rgb(sample.image)
    return rgb, np.full(rgb.shape[:2], 255, dtype=np.uint8)
