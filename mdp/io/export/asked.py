"""What `mdp export` is asked.  Plain data: nothing here needs NumPy or torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from mdp.bounds import Bounds, check_bounds
from mdp.given import Given
from mdp.io.run.asked import RunOrFile, Weights, Which

Side = Annotated[int, Bounds(1, 16384)]  # pixels


@dataclass(frozen=True, kw_only=True)
class ExportQuestion:
    """Write the weights of a run as another library loads them, and check that they give the same features there.

    mdp export runs/pretrain/2026-11-20_1432_voc+ade20k --to torchvision
    mdp export runs/pretrain/2026-11-20_1432_voc+ade20k --to hub --out models
    mdp export runs/finetune/2026-11-20_1832_cityscapes --to onnx --segmentor
    """

    run: RunOrFile  # a run's folder, or a checkpoint
    library: Annotated[str, Given("--to target", offers="export.targets.names", only=True)]  # library that loads it
    out: Path | None = None  # folder to write to; None: RUN/export
    which: Which = "last"  # checkpoint to take; best was chosen by the validation split
    weights: Weights | None = None  # of a run with an EMA: the average, or those of its last step; None: the average
    segmentor: bool = False  # the whole fine-tuned network, not only its backbone
    size: tuple[Side, Side] | None = None  # for images of this size only; onnx, torch_export; None: any
    overwrite: bool = False  # replace what has the same name and says something else

    def __post_init__(self) -> None:
        check_bounds(self)
