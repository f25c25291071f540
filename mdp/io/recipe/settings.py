"""The sections of a recipe, and the checks that settings share."""

import re
from dataclasses import dataclass, field
from typing import Annotated

from mdp.bounds import Bounds, Count, Positive, Share, Side, Temperature, Weight, Words, check_bounds
from mdp.color_settings import DistortionSettings, PhotometrySettings
from mdp.given import DatasetName, DatasetNames, Given, Prefix, Root

Threads = Annotated[int, Bounds(1, 1024)]
Batch = Annotated[int, Bounds(1, 10**6)]  # images
Span = Annotated[float, Bounds(0, 10**9)]  # of time; a billion for never
Ratio = Annotated[float, Bounds(0.01, 100)]
Average = Annotated[float, Bounds(0, 0.999999)]  # the share of what was before in a running average
Memory = Annotated[str, Given(shown="2GB")]
Compile = Annotated[bool, Given("--compile/--no-compile compiled")]
Check = Annotated[bool, Given("--check/--no-check checked")]
Cache = Annotated[str, Words("off", "memory", "device")]
Precision = Annotated[str, Words("auto", "fp32", "bf16", "fp16")]
Gradients = Annotated[str, Words("auto", "flat", "overlapped")]
Schedule = Annotated[str, Words("cosine", "polynomial", "steps")]
BadSample = Annotated[str, Words("stop", "skip")]


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """How and where it runs.  What is learnt depends on the seed, and in its last digits on precision and threads."""

    seed: Annotated[int, Bounds(0, 2**63 - 1)] = 0  # seed of all that is drawn: weights, order, augmentation
    device: str = "auto"  # auto | cpu | cuda | cuda:N | mps (fp32 only; never chosen by auto)
    workers: Annotated[int, Bounds(0, 1024)] | None = None  # loader processes; 0: this one; None: 2, on CUDA by cores
    cache: Cache = "off"  # where decoded photos and label maps are kept for the run's length
    threads: Threads | None = None  # CPU threads of torch; part of exact reproduction on a CPU; None: torch's choice
    precision: Precision = "auto"  # of networks in training, no more; auto: bf16 on GPUs that have it
    compile: Compile = False  # compile the networks, by torch.compile
    channels_last: bool | None = None  # None: yes, 1.03 to 1.2 times as fast a step on a CPU; narrow ones never there
    accumulate: Positive = 1  # parts that a process takes its images in: less memory, BatchNorm sees one at a time
    gradient_checkpointing: bool = False  # blocks are computed again in the backward pass: less memory, more time
    clip_norm: Weight = 0.0  # the gradient is scaled down to this norm; 0: never
    gradients: Gradients = "auto"  # over processes; flat: exact resume, overlapped: faster on CUDA, auto: by device
    deterministic: bool = False  # use torch's deterministic algorithms, and flat gradients
    keep_steps: Count = 0  # a checkpoint is kept every so many steps, besides last, previous and best; 0: none
    on_bad_sample: BadSample = "stop"  # what an image that cannot be read does to training
    init_from: Prefix = ""  # where in the --init file the backbone's names begin; "": the place that fits best
    init_partial: bool = False  # take what fits of --init, also where less than nine tenths of the backbone do
    check: Check = True  # look at every file before training; done once, as long as the files do not change
    tensorboard: bool = False  # write event files for TensorBoard into the run folder (extra: tensorboard)
    wandb: bool = False  # tell Weights & Biases (extra: wandb); WANDB_PROJECT, WANDB_MODE and the like say where
    mlflow: bool = False  # tell MLflow (extra: mlflow); MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME say where
    timeout: Annotated[float, Bounds(1, 10**6)] = 600.0  # seconds until a process that does not answer is given up
    log_seconds: Span = 10.0  # a line on the progress every so often in log.txt, and on stderr where it is no terminal
    checkpoint_minutes: Span = 10.0  # time between checkpoints, besides those after each validation

    def __post_init__(self) -> None:
        check_bounds(self)
        if self.gradient_checkpointing and self.compile:
            raise ValueError(
                "gradient_checkpointing: compiled networks choose what they keep; leave out one of the two"
            )
        if self.deterministic and self.gradients == "overlapped":
            raise ValueError("gradients: overlapped ones are not deterministic; give flat or auto")

    @property
    def loaders(self) -> int:
        """Loader processes."""
        return 2 if self.workers is None else self.workers


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Where the datasets lie."""

    root: Annotated[str, Root] = "data"  # folder of the datasets
    transform: str = ""  # the name of a Python program's function that changes training images; set by mdp.io.pretrain


OPTIMIZERS = Words("sgd", "adam", "adamw", "lars")  # files of mdp.io.training.optimizers


@dataclass(frozen=True, kw_only=True)
class OptimizationSettings:
    """How gradients become weights; the same keys in both phases."""

    optimizer: Annotated[str, OPTIMIZERS] = "sgd"  # what makes updates of gradients; sgd unless a preset says
    lr: Weight = 0.01  # learning rate at the start
    momentum: Share = 0.9  # sgd, lars
    betas: tuple[Average, Average] = (0.9, 0.999)  # adam, adamw: torch's
    weight_decay: Weight = 1e-4
    decay_1d: bool | None = None  # weight decay of biases and norms too; None: yes, but not with adamw
    layer_decay: Annotated[float, Bounds(0.01, 1)] = 1.0  # a layer's rate over that of the next one towards the output;
    # 1: one rate for all
    lars_decay: Annotated[str, Words("scaled", "added")] = "scaled"  # scaled: LARC; added: BYOL, MoCo v3, where biases
    # and norms are left alone
    lars_trust: Weight = 0.001  # of both forms' released codes
    schedule: Schedule = "cosine"  # of the rate
    schedule_by: Annotated[str, Words("step", "epoch")] = "step"  # where the rate changes, and what milestones count
    min_lr: Weight = 0.0  # the rate at the end
    power: Annotated[float, Bounds(0, 100)] = 0.9  # polynomial
    milestones: tuple[Positive, ...] = ()  # steps: the rate is multiplied by `factor` at each
    factor: Share = 0.1  # steps
    warmup_steps: Count = 0  # the rate rises linearly; raise it when the loss diverges in the first epochs: docs/log.md
    ema: Average = 0.0  # decay of an exponential moving average of the weights, which is scored then: 0.999; 0: none
    ema_warmup: bool = True  # its decay rises from 0, as timm's can: the average of a short run is else near its start
    freeze: tuple[str, ...] = ()  # parts that are not trained, such as backbone.layer1: names of modules or parameters

    def __post_init__(self) -> None:
        check_bounds(self)
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones: expected rising numbers, got {list(self.milestones)}")
        if (self.schedule == "steps") != bool(self.milestones):
            raise ValueError(
                f"milestones: schedule: steps needs them and no other has any, got {self.schedule} "
                f"with {list(self.milestones)}"
            )


@dataclass(frozen=True, kw_only=True)
class PretrainSettings(OptimizationSettings):
    """The pretraining schedule; see mdp.core.methods for what the method itself sets."""

    datasets: DatasetNames = ()  # names or YAML files; NAME:SPLIT picks a split
    images: Positive | None = None  # pretrain on this many images of all only, drawn by the seed; None: all
    long_tail: Annotated[float, Bounds(0.1, 100)] | None = None  # Pareto power of the images a folder; ImageNet-LT: 6
    hide_labels: Share = 0.0  # of each dataset's images, whose labels only metrics look at: what mining is worth
    hide_seed: Count = 0  # by which, and by their names, these are drawn; whatever run.seed is
    epochs: Positive = 100  # passes over the training images; stated; 200 in the longer runs
    steps: Positive | None = None  # steps in all, instead of epochs
    batch_size: Batch = 64  # images a step; inferred: the only larger power of two that explains the paper's bank sizes
    crop: Side = 224  # inferred: MoCo-v2's
    crop_area: tuple[Share, Share] = (0.2, 1.0)  # stated: MoCo-v2's augmentation
    max_iou: Share = 1.0  # of an image's two views, redrawn ten times while it is more (arXiv 2106.05967, fig. 3)
    balance: bool = False  # give every dataset an equal share of the images; stated: no, uniform over the union
    lr: Weight = 0.03  # learning rate at the start; chosen; sweep 0.01, 0.03, 0.1; momentum and the like are MoCo-v2's
    photometry: PhotometrySettings = field(default_factory=PhotometrySettings)
    validate_epochs: Count = 5  # epochs between nearest-prototype scores; 0: only at the end
    validate_images: Count = 64  # validation images of each dataset that are scored
    validate_by: str = ""  # a labelled dataset, NAME or NAME:SPLIT, by which features are scored instead, as they are

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hide_labels == 1:
            raise ValueError("hide_labels: expected less than 1, since some images must keep theirs, got 1")
        if not 0 < self.crop_area[0] <= self.crop_area[1] <= 1:
            raise ValueError(f"crop_area: expected 0 < low <= high <= 1, got {list(self.crop_area)}")


SCORES = ("miou", "macc", "aacc", "mdice", "boundary_miou")  # of an evaluation
CLASS_SCORES = ("iou", "boundary_iou")  # of one class, which is named behind a colon


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings(OptimizationSettings):
    """Supervised fine-tuning; the defaults are MMSegmentation's general ones, `SCHEDULE` of a dataset has its own."""

    target: DatasetName = ""  # dataset to fine-tune on
    split: str | None = None  # training split; None: the dataset's own choice
    images: Positive | None = None  # train on this many images only, drawn by the seed; None: all
    steps: Positive = 20000  # steps in all
    epochs: Positive | None = None  # passes over the training images, instead of steps
    batch_size: Batch = 16  # images a step
    crop: tuple[Side, Side] = (512, 512)  # height, width
    scale: tuple[Side, Side] | None = None  # (long, short) side that images are fitted to first; None: as they are
    ratio: tuple[Ratio, Ratio] = (0.5, 2.0)  # random factor on the scale
    largest_share: Share = 0.75  # crops are redrawn while one class covers more of them
    crop_area: tuple[Share, Share] | None = None  # a random resized crop with such a share of the image; null: scale
    flip: Share = 0.5
    distortion: DistortionSettings = field(default_factory=DistortionSettings)
    photometry: PhotometrySettings | None = None  # instead of `distortion`; {}: as in pretraining
    loss_stride: Side = 1  # the loss is of one pixel in so many each way, the logits resized to these
    rare_temperature: Temperature | None = None  # images of rare classes come more often; DAFormer: 0.01; null: in turn
    rare_pixels: Positive = 3000  # that an image has of the class for which it comes; DAFormer's
    min_lr: Weight = 1e-4
    weight_decay: Weight = 5e-4
    schedule: Schedule = "polynomial"
    avg_non_ignore: bool = False  # false: the loss is averaged over ignored pixels too (MMSegmentation before 0.23)
    load: tuple[str, ...] = ("backbone", "decode_head")  # inferred: the paper transfers backbone and ASPP
    validate_steps: Count = 2000  # steps between validations; 0: only at the end
    validate_images: Positive | None = None  # validate on so many images only, evenly spaced; None: all
    best: str = "miou"  # the score that best is chosen by: miou | macc | aacc | mdice | boundary_miou | iou:CLASS | ...
    patience: Positive | None = None  # it ends after so many validations in a row without a better score; None: never
    head_init: Annotated[str, Words("random", "prototypes")] = "random"  # start the classifier at random, or from the
    # prototypes of related source classes, as far as known

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.crop_area is not None and not 0 < self.crop_area[0] <= self.crop_area[1]:
            raise ValueError(f"crop_area: expected 0 < low <= high <= 1, got {list(self.crop_area)}")
        if self.loss_stride > min(self.crop):
            raise ValueError(f"loss_stride: expected {min(self.crop)} or less, as the crop has, got {self.loss_stride}")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"ratio: expected 0 < low <= high, got {list(self.ratio)}")
        score, colon, label = self.best.partition(":")
        if score not in (CLASS_SCORES if colon else SCORES) or bool(colon) != bool(label.strip()):
            known = ", ".join([*SCORES, *(f"{name}:CLASS" for name in CLASS_SCORES)])
            raise ValueError(f"best: expected one of {known}, got {self.best!r}")
        unknown = sorted(set(self.load) - {"backbone", "decode_head"})
        if unknown or "backbone" not in self.load:
            raise ValueError(f"load: expected [backbone] or [backbone, decode_head], got {list(self.load)}")


@dataclass(frozen=True, kw_only=True)
class EvalSettings:
    """Inference at evaluation; predictions are scored at the label map's own resolution."""

    split: str | None = None  # split to score; None: the dataset's validation split
    mode: Annotated[str, Words("whole", "slide")] = "whole"  # whole images or sliding windows
    window: tuple[Side, Side] | None = None  # slide: window height and width; None: the fine-tuning crop
    stride: tuple[Side, Side] | None = None  # slide: step between windows; None: two thirds of the window
    scale: tuple[Side, Side] | None = None  # (long, short) side images are fitted to; None: as they are
    images: Positive | None = None  # score the first so many images only
    scales: Annotated[tuple[Annotated[float, Bounds(0.05, 20)], ...], Given(shown="0.5,1,1.5")] = (
        1.0,
    )  # ratios on the scale at which images are seen; the softmax scores of several are averaged
    flip: bool = False  # average with the mirrored image's scores
    boundary: bool = True  # boundary IoU besides; a sixth of a second for an image of 2048 x 1024
    max_memory: Memory | None = None  # memory to take beyond network and image, such as 2GB; None: as much as it takes

    def __post_init__(self) -> None:
        check_bounds(self)
        if not self.scales:
            raise ValueError("scales: expected one ratio or more, such as [0.5, 1.0], got none")
        if len(set(self.scales)) < len(self.scales):
            raise ValueError(f"scales: expected different ratios, got {list(self.scales)}")
        if self.max_memory is not None:
            bytes_of(self.max_memory)


LUSS_FEATURES = Words("pooled", "attention", "pixels")
LUSS_LABELS = Words("centroids", "activation")


@dataclass(frozen=True, kw_only=True)
class LussSettings:
    """How label maps are made without labels; the defaults are the paper's and its code's (arXiv 2106.03149)."""

    clusters: Positive | None = None  # categories to make; None: as many as the target has besides "other"
    features: Annotated[str, LUSS_FEATURES] | None = None  # of a photo: its mean, its mean by attention, or its cells;
    # None: attention where the run has one
    restarts: Positive = 30  # of k-means, of which the one with the least inertia counts
    iterations: Positive = 20
    store: Annotated[str, Words("float32", "float16")] = "float32"  # the file of features
    short_side: Annotated[int, Bounds(16, 8192)] = 256  # pixels of photos; clusters see the middle 7/8 of it, 224
    labels: Annotated[str, LUSS_LABELS] = "centroids"  # centroids: each pixel its nearest; activation: the
    # photo's own category, where a linear classifier of photos is active
    threshold: Share | None = None  # of attention or activation, below it is "other"; None: what `--sweep` chose
    foreground: str = ""  # a folder of masks, in one of each split or for all, that take the place of attention
    activation: Share | None = None  # `luss run`: photos have one category, where its scores are above this; None: all
    neighbours: Annotated[int, Bounds(1, 10**6)] = 10  # labelled regions that vote in distance matching
    temperature: Annotated[float, Bounds(1e-6, 1e3)] = 0.07  # of the vote of neighbours
    attention_epochs: Positive = 20  # `luss run`: passes that train the pixel attention
    attention_lr: Weight | None = None  # `luss run`: its rate; None: that of the representation
    attention_area: tuple[Share, Share] = (0.08, 1.0)  # `luss run`: of an image that its views show
    attention_queue: Positive | None = 3840  # `luss run`: rows of its queue; None: no queue
    attention_shared: bool = False  # `luss run`: one map for all channels, which is worse (table XI c)

    def __post_init__(self) -> None:
        check_bounds(self)


SECTIONS = {
    "run": RunSettings, "data": DataSettings, "pretrain": PretrainSettings, "finetune": FinetuneSettings,
    "eval": EvalSettings, "luss": LussSettings,
}  # fmt: skip


def at_least(name: str, value: float, least: float) -> None:
    """Raises ValueError, naming the setting, when `value` is below `least` or not finite."""
    if not least <= value < float("inf"):
        raise ValueError(f"{name}: expected {least} or more, got {value}")


def bytes_of(text: str) -> int:
    """The bytes that `max_memory` names.  Raises ValueError, naming the setting, for anything else.

    >>> bytes_of("2GB"), bytes_of("1.5 GiB")
    (2000000000, 1610612736)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B\s*", text, re.IGNORECASE)
    if match is None or (match[3] and not match[2]):
        raise ValueError(f"max_memory: expected a number and a unit, such as 2GB, 500MB or 1.5GiB, got {text!r}")
    count = float(match[1]) * (1024 if match[3] else 1000) ** " KMGT".index(match[2].upper() or " ")
    at_least("max_memory", count, 1)
    return int(count)
