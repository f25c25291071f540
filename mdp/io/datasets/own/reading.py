"""Reading a photo and its label map as a dataset of one's own has them."""

import numpy as np

from mdp.io.annotations.drawing import Drawing, format_of, read_drawn
from mdp.io.datasets._dataset import Pair, Photo, Sample, same_size
from mdp.io.files.label_maps import LabelRule, read_labels
from mdp.io.files.photos import read_claims, read_photo, upright
from mdp.photo_rule import PhotoRule


def read(sample: Sample, *, photos: PhotoRule, labels: LabelRule, drawing: Drawing | None) -> Pair:
    rgb = read_photo(sample.image, photos)
    turn = read_claims(sample.image)[2] if photos.exif == "both" else 1
    if drawing and format_of(sample.labels):
        size = rgb.shape[:2] if turn < 5 else rgb.shape[1::-1]
        return rgb, upright(read_drawn(sample.labels, size, drawing), turn)
    return same_size(sample, rgb, upright(read_labels(sample.labels, rule=labels), turn))


def photo(sample: Sample, *, photos: PhotoRule) -> Photo:
    return read_photo(sample.image, photos)


def read_unlabelled(sample: Sample, *, photos: PhotoRule) -> Pair:
    rgb = read_photo(sample.image, photos)
    return rgb, np.full(rgb.shape[:2], 255, dtype=np.uint8)
