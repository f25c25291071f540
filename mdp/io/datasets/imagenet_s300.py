"""ImageNet-S300: 300 categories of ImageNet and `other`; see `mdp.io.datasets._imagenet_s`."""

from mdp.io.datasets._imagenet_s import TERMS, UNLABELLED, home, label_space, read, samples_by

__all__ = ["HOME", "LABELS", "SPLITS", "TERMS", "TRAIN", "UNLABELLED", "VAL", "read", "samples"]

LABELS = label_space(300)
SPLITS = {"train-semi": 3000, "validation": 4097, "train": 384862, "test": 9088}
TRAIN = ("train-semi",)
VAL = "validation"
HOME = home(300)
samples = samples_by(300)
