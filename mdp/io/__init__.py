"""The imperative shell: everything that touches files, processes, devices or clocks.

`mdp.io` calls `mdp.core`; core never looks up here, and nothing here imports click.  The folders are floors: each
imports from those above it in this list only, which `tests/test_architecture.py` holds.

errors       one class for each kind of fault that is the user's or the machine's to mend
files        bytes in, bytes out, nothing trusted: whole files, zip archives, images, MATLAB files, YAML
annotations  outlines and masks of annotation tools, and the label maps drawn from them
datasets     one file each, with its labels, splits, terms, schedule and known mistakes
journal      what a run tells while it goes: lines for people, records in files, event files
recipe       settings, where their values come from, and what a command line asks for
data         from datasets to batches: which images, in which order, cut how, by which workers
processes    this process among the others, its device, the signals it answers
run          a run's folder and checkpoints: written whole, locked while in use, opened in one way
pictures     charts, sheets of images, pieces of HTML and the style of all pages
check        mdp check: every image is read once, and what is wrong is told before training finds it
inference    mdp predict, and how one image is predicted within a limit of memory
weights      weights files of other projects: read without executing, recognised, loaded
export       mdp export: weights for other libraries (one file each in targets), checked by loading them back
report       mdp report: one HTML page about runs
evaluation   mdp eval: counts over a split, scores from counts, files for benchmarks' servers
training     mdp pretrain and mdp finetune: the loop, one update, and what each phase does in it
unsupervised mdp retrieve, probe, propagate: what frozen features are worth; mdp luss: segmentation without labels
suspects     mdp suspects: which labels of a dataset a model disagrees with
studies      commands that run others or compare what they left: mdp compare, demo, taxonomy
program      whole runs from Python: pretrain, finetune, evaluate and predict, which this package hands on
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mdp.io.program import Dataset, LabelSpace, MdpError, Recipe, Sample, evaluate, finetune, predict, pretrain

__all__ = [
    "Dataset", "LabelSpace", "MdpError", "Recipe", "Sample", "evaluate", "finetune", "predict", "pretrain",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Imported when they are asked for: what tells facts does without torch."""
    if name in __all__:
        return getattr(importlib.import_module("mdp.io.program"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
