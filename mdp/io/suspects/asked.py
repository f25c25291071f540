"""What `mdp suspects` is asked.  Plain data: nothing here needs NumPy or torch."""

from dataclasses import dataclass
from typing import Annotated

from mdp.bounds import Bounds
from mdp.given import DatasetName, Given
from mdp.io.unsupervised.asked import OfFeatures, Side


@dataclass(frozen=True, kw_only=True)
class SuspectsQuestion(OfFeatures):
    """Rank the labels of a dataset by how strongly a model disagrees with them: probable mistakes.

    Regions with another name than the model's, regions without a label that the model knows, label maps that fit their
    photos better when moved by a few pixels, and classes that are called each other; with a page of crops.

      mdp suspects runs/finetune/2026-11-20_1432_cityscapes --target cityscapes
      mdp suspects runs/pretrain/2026-11-20_1432_voc+ade20k --target camvid --folds 2 --out suspects
      mdp suspects runs/pretrain/2026-11-20_1432_voc+ade20k --target voc:train --json
    """

    target: DatasetName  # dataset whose labels are doubted: its training images, or those of NAME:SPLIT
    folds: Annotated[int, Bounds(2, 1000)] | None = None  # fit classes to frozen features, in so many folds, each
    # without the images that it judges; None: RUN's own classifier or prototypes
    size: Side = 320  # longer side at which frozen features see photos; chosen
    shown: Annotated[int, Bounds(1, 1000), Given("--show shown")] = 24  # suspects of each kind on the page
