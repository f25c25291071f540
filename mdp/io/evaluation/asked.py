"""What `mdp eval` is asked.  Plain data: nothing here needs NumPy or torch."""

from dataclasses import dataclass
from typing import Annotated

from mdp.bounds import Bounds, Words, check_bounds
from mdp.given import RUNS, Given
from mdp.io.run.asked import Weights, Which

Server = Annotated[str, Words("cityscapes", "imagenet-s")]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Score a fine-tuned segmentor at the labels' own resolution.

    Without RUN the newest fine-tuning run is scored.  Of a --config, the sections run, data and eval are read: the
    network is the run's.

      mdp eval
      mdp eval runs/finetune/2026-11-20_1432_cityscapes --mode slide --save
      mdp eval --scales 0.5,0.75,1,1.25,1.5,1.75 --flip
      mdp eval --split val --json > scores.json
      mdp eval runs/finetune/2026-11-20_1432_cityscapes --gallery 36
    """

    run: Annotated[str, Given(argument=True, offers=RUNS, files=True)] | None = None  # None: the newest
    which: Which = "last"  # checkpoint to take; best was chosen by the validation split
    weights: Weights | None = None  # of a run with an EMA: that [default], or the weights of its last step
    save: bool = False  # keep label PNGs and overlays of the predictions
    gallery: Annotated[int, Bounds(1, 1000), Given(shown="[N]", alone="24")] | None = (
        None  # draw the N [24] images with the lowest
    )
    # mIoU, beside their labels and errors
    save_as: Annotated[tuple[Server, ...], Given(repeat=True)] = ()  # keep predictions as that benchmark's server takes
    # them
    verbose: Annotated[bool, Given("-v --verbose")] = False  # print the mean IoU by other rules too

    def __post_init__(self) -> None:
        check_bounds(self)
