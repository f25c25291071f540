"""PASCAL-Context, the 59 frequent classes: `pascal_context` with background ignored."""

from functools import partial

from mdp.io.datasets import pascal_context
from mdp.io.datasets.pascal_context import HOME, SPLITS, TERMS, TRAIN, VAL, detail, read, samples_of
from mdp.label_space import LabelSpace

__all__ = ["HOME", "LABELS", "SPLITS", "TERMS", "TRAIN", "VAL", "detail", "read", "samples"]

CLASSES = pascal_context.CLASSES[1:]
LABELS = LabelSpace(
    name="pascal_context59",
    classes=CLASSES,
    ignore_index=0,
    lookup={label + 1: label for label in range(len(CLASSES))},
    colors=pascal_context.LABELS.colors[1:],
)
samples = partial(samples_of, "pascal_context59")
