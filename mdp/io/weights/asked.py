"""What `mdp inspect` is asked.  Plain data: nothing here needs NumPy or torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from mdp.given import RUNS, Given, Prefix


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """Say what a weights file holds, and what of it --init would take.  Exit code 5 when it would refuse it.

    Reads .pth files of torchvision, timm, MMSegmentation, MoCo, DINO, SwAV, Lightning and the like, safetensors, and
    checkpoints of mdp; nothing in them is executed.  mdp feeds RGB images normalised by ImageNet's mean and deviation,
    a fresh run on timm:NAME by those that timm gives for it.

      mdp inspect resnet50.pth
      mdp inspect moco_v2_800ep_pretrain.pth.tar --json
      mdp inspect deeplabv3.pth --backbone resnet101 --set model.channels=256
    """

    file: Annotated[Path, Given(argument=True, shown="FILE|RUN", offers=RUNS, files=True)]  # of weights, or a run
    init_from: Prefix = ""  # where in the file the backbone's names begin
