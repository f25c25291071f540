"""ImageNet-S50: 50 categories of ImageNet and `other`; see `mdp.io.datasets._imagenet_s`."""

from mdp.io.datasets._imagenet_s import TERMS, UNLABELLED, home, label_space, read, samples_by

__all__ = ["HOME", "LABELS", "SPLITS", "TERMS", "TRAIN", "UNLABELLED", "VAL", "read", "samples"]

LABELS = label_space(50)
SPLITS = {"train-semi": 500, "validation": 752, "train": 64431, "test": 1682}
TRAIN = ("train-semi",)
VAL = "validation"
HOME = home(50)
samples = samples_by(50)
