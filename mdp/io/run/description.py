"""The description of a run in its folder before the first step: settings, command, environment and label spaces."""

import json
import platform
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL
import torch

import mdp
from mdp.io.files import jpeg
from mdp.io.files.writing import write_text
from mdp.io.recipe.layers import Recipe, as_yaml
from mdp.io.run.record import space_json
from mdp.label_space import LabelSpace


def describe(
    folder: Path,
    recipe: Recipe,
    spaces: Sequence[LabelSpace],
    counts: dict[str, int],
    launch: str | None = None,
    program: str = "",
) -> None:
    """Writes config.yaml, command.txt, env.json and labels.json.

    `launch` names what started the run, `program` the Python program that asked for it, where no command line did.
    """
    command = (program or shlex.join(["mdp", *sys.argv[1:]])) + "\n"
    environment = {
        "mdp": mdp.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "jpeg": jpeg.decoder(),
        "platform": platform.platform(),
        "launch": launch,
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
    write_text(folder / "config.yaml", as_yaml(recipe))
    write_text(folder / "command.txt", command)
    write_text(folder / "env.json", json.dumps(environment, indent=2) + "\n")
    labels = [{**space_json(space), "images": counts.get(space.name)} for space in spaces]
    write_text(folder / "labels.json", json.dumps(labels, indent=1) + "\n")
