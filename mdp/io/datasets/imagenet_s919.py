"""ImageNet-S919: 919 categories of ImageNet and `other`; see `mdp.io.datasets._imagenet_s`."""

from mdp.io.datasets._imagenet_s import EVERYTHING, TERMS, home, label_space, read, samples_by
from mdp.io.datasets._imagenet_s import UNLABELLED as _SMALLER

__all__ = ["HOME", "LABELS", "SPLITS", "TERMS", "TRAIN", "UNLABELLED", "VAL", "read", "samples"]

LABELS = label_space(919)
SPLITS = {"train-semi": 9190, "validation": 12419, "train": 1183322, EVERYTHING: 1281167, "test": 27423}
UNLABELLED = _SMALLER | {EVERYTHING}
TRAIN = ("train-semi",)
VAL = "validation"
HOME = home(919)
samples = samples_by(919)
