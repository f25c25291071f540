"""What the stages of segmentation without labels are asked.  Plain data: nothing here needs NumPy or torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from mdp.given import RUNS, DatasetName, Given


@dataclass(frozen=True, kw_only=True)
class Clustering:
    """Cluster the photos of a dataset by what a frozen network sees in them.

    Two stages, OUT/features and OUT/clusters, each of which is gone on with where it was stopped and kept where it is
    done: centroids.safetensors, assignment.csv and clusters.json.  Photos in folders of categories are compared with
    these, which uses labels and changes nothing.

      mdp luss cluster runs/pretrain/x --target my_site.yaml --clusters 2 --out luss
      mdp luss cluster resnet50.pth --target photos --clusters 2 --restarts 5 --out other
    """

    source: Annotated[str, Given(argument=True, shown="RUN|FILE|timm:NAME", offers=RUNS, files=True)]  # of features
    target: DatasetName  # dataset whose training photos are clustered; NAME:SPLIT picks a split


@dataclass(frozen=True, kw_only=True)
class Labelling:
    """Give each pixel of a split the nearest cluster of LUSS, the folder of `mdp luss cluster`.

    A stage, LUSS/labels-SPLIT: label maps, levels of attention, marks.npz, index.json; LUSS/labels.yaml is a dataset
    of them.

      mdp luss label luss --split val
      mdp luss label luss --split train
    """

    folder: Annotated[Path, Given(argument=True, shown="LUSS")]  # of `mdp luss cluster`
    split: str = "train"  # split of the target to label
    foreground: Path | None = None  # a folder of masks (white: foreground), which take the place of attention


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """Go the whole way from photos to segmentation without labels, each stage skipped where it is done.

    Representation, pixel attention, clusters, labels, fine-tuning on them, predictions, scores; OUT/pipeline.html has
    pictures of each.  Without --config it takes the recipe luss/TARGET, where there is one.

      mdp luss run --target shapes-objects --out luss_demo
      mdp luss run --target imagenet_s50 --method pass_s --out s50
    """

    target: DatasetName  # dataset to segment: `train` is learnt from, its validation split scored
