"""What the commands that look at frozen features are asked.  Plain data: nothing here needs NumPy or torch.

The docstring of a question is what its command says of itself, and the comment beside a field what it says of that
argument or option.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from mdp.bounds import Bounds, Words, check_bounds
from mdp.given import RUNS, DatasetName, Given, Ratios, Root

Side = Annotated[int, Bounds(16, 8192)]  # pixels that a backbone sees
Number = Annotated[int, Bounds(1, 10_000)]
Start = Annotated[str, Given("--init-from start", shown="PREFIX")]
Matching = Annotated[str, Given(shown="images|none|FILE.json")]
Source = Annotated[str, Given(argument=True, shown="RUN|FILE|timm:NAME|scratch|colors", offers=RUNS, files=True)]


@dataclass(frozen=True, kw_only=True)
class OfFeatures:
    """Frozen features: whose, and where what is found out about them goes."""

    source: Source  # RUN, FILE, timm:NAME, scratch or colors
    start: Start = ""  # where in the file the backbone's names begin
    out: Path | None = None  # folder for scores and pictures, instead of one in the folder of RUN

    def __post_init__(self) -> None:
        check_bounds(self)


@dataclass(frozen=True, kw_only=True)
class Retrieval(OfFeatures):
    """Score features without training anything: each region of an image takes the label of the nearest one known.

    The features of a run, a file of weights, of timm's published weights (those on this machine; nothing is fetched),
    and as controls of random weights (scratch) or of colours alone (colors).  Stride 16, by dilating the last stage.

      mdp retrieve runs/pretrain/2026-11-20_1432_voc+ade20k --target voc --out retrieved
      mdp retrieve moco_v2_800ep_pretrain.pth.tar --target camvid:test --size 256
      mdp retrieve scratch --backbone resnet50 --target voc
      mdp retrieve colors --target voc --json
    """

    target: DatasetName  # dataset with labels; NAME:SPLIT asks about another split than the validation images
    regions: Number = 15  # regions of an image; the paper's
    size: Side = 512  # both sides that images are resized to; the paper's


@dataclass(frozen=True, kw_only=True)
class Probe(OfFeatures):
    """Fit a linear classifier to frozen features and score it: what is in a photo, by the network's own features.

    Features come from what `mdp retrieve` takes.  Prints mAP where images have several classes, else top-1.

      mdp probe runs/pretrain/2026-11-20_1432_voc+ade20k --target voc --out probed
      mdp probe moco_v2_800ep_pretrain.pth.tar --target camvid:test --classifier svm
      mdp probe colors --folders by_class --classifier logistic --json
    """

    target: DatasetName = ""  # dataset whose label maps say what is in an image; NAME:SPLIT scores another split
    folders: Path | None = None  # a folder with a folder of photos for each class, or with train and val of such
    classifier: Annotated[str, Words("logistic", "svm", "sgd")] | None = None  # what is fitted; None: svm where images
    # have several classes (--target), else logistic (--folders)
    size: Side = 224  # sides of what the backbone sees; the paper's
    epochs: Annotated[int, Bounds(1, 100_000)] = 100  # passes over the training images with sgd; the paper's
    rate: Annotated[float, Bounds(1e-6, 1e6), Given("--lr")] = 30.0  # learning rate at the start with sgd;
    # MoCo's, whose protocol the paper takes over

    @property
    def short(self) -> int:
        """The short side of which a centre crop is `size`: 256 of 224."""
        return round(self.size * 256 / 224)


@dataclass(frozen=True, kw_only=True)
class Propagation(OfFeatures):
    """Carry the mask of a video's first frame through the others by frozen features alone, and score it by J and F.

    Features come from what `mdp retrieve` takes, at stride 8 where the backbone can be dilated.

      mdp propagate runs/pretrain/2026-11-20_1432_voc+ade20k --frames bear/frames --masks bear/masks --out carried
      mdp propagate colors --frames bear/frames --masks bear/masks --json
    """

    frames: Path  # folder of photos, in the order of their names
    masks: Path  # folder with NAME.png of the first frame; those of others are scored
    size: Side = 480  # short side that frames are resized to: DAVIS's own
    context: Number = 20  # earlier frames that are asked, besides the first; as all numbers here arXiv 2006.14613's
    neighbours: Number = 10  # most similar cells that speak for a cell
    radius: Annotated[float, Bounds(0, 10_000)] = 12.0  # how many cells away they may lie
    temperature: Annotated[float, Bounds(1e-4, 100)] = 0.05  # of their weights: exp(cosine / temperature)


@dataclass(frozen=True, kw_only=True)
class Nearest:
    """Score features as they are: each pixel gets the class of the labelled regions nearest to it.

    Nothing is trained.  `scratch` are random weights and `colors` histograms of colours, as controls.  Scores are those
    of ImageNet-S.

      mdp luss nearest runs/pretrain/2026-11-20_1432_voc+ade20k --target imagenet_s50
      mdp luss nearest moco_v2_800ep_pretrain.pth.tar --target imagenet_s50:validation --out nearest
      mdp luss nearest scratch --backbone resnet18 --target camvid:test
    """

    source: Source  # RUN, FILE, timm:NAME, scratch or colors
    target: DatasetName  # dataset whose photos are scored; NAME:SPLIT picks a split
    labelled: str = ""  # split whose labels are matched with; None: the dataset's training split
    ratios: Ratios | None = None  # how far boundaries reach, in shares of the diagonal; None: 0.03


@dataclass(frozen=True, kw_only=True)
class Score:
    """Score a folder of predicted label maps by all rules of ImageNet-S.

    A photo's prediction lies at the photo's own path with the ending .png: numbers in grey, or red + 256 green; 0 is
    "other".  Means are over "other" and all categories, absent ones counting 0.

      mdp luss score predictions --target imagenet_s50
      mdp luss score predictions --target imagenet_s50:validation --matching none
      mdp luss score first_annotator --labels second_annotator --matching none --boundary 0.02,0.03,0.04
      mdp luss score luss --split val
    """

    predictions: Annotated[Path, Given(argument=True)]  # folder of label maps
    target: DatasetName = ""  # dataset that they are predictions for; NAME:SPLIT picks a split
    labels: Path | None = None  # a folder of label maps in its place; 1000 is ignored
    root: Annotated[Path, Root] = Path("data")  # folder of the datasets
    matching: Matching = "images"  # how categories get their names: images (in which both occur), none (their
    # numbers are right), or a match.json
    ratios: Ratios | None = None  # how far boundaries reach, in shares of the diagonal; None: 0.03
    out: Path | None = None  # folder to write scores.json and match.json to
    submission: Path | None = None  # archive to write for the benchmark's servers, such as for imagenet_s50:test
    method: Path | None = None  # text of the submission's method.txt
    split: str = ""  # PREDICTIONS is a folder of `mdp luss label`, of which this split is scored
    sweep: bool = False  # of a --split: choose the threshold of attention with the best mIoU
    overwrite: bool = False  # of a --split: score again
