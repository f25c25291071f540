"""ImageNet-S919: 919 categories of ImageNet and `other`; see `mdp.io.datasets._imagenet_s`."""

from mdp.io.datasets._imagenet_s import TERMS, home, label_space, read, samples_by

__all__ = ["HOME", "LABELS", "SPLITS", "TERMS", "TRAIN", "VAL", "read", "samples"]

LABELS = label_space(919)
SPLITS = {"train-semi": 9190, "validation": 12419}
TRAIN = ("train-semi",)
VAL = "validation"
HOME = home(919)
samples = samples_by(919)
