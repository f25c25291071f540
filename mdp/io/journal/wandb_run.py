"""A run as Weights & Biases has it (the extra `wandb`, which is imported when it is asked for).

Project, entity, mode and server are what its own environment variables say (WANDB_PROJECT, WANDB_MODE=offline, ...).
"""

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_PROJECT = "mdp"  # where WANDB_PROJECT names none
_PATIENCE = 60  # seconds for its server to answer at the start


def refusal() -> str:
    """It wants to know who you are, unless nothing is sent."""
    library: Any = importlib.import_module("wandb")
    mode = os.environ.get("WANDB_MODE", "online")
    if mode != "online" or os.environ.get("WANDB_API_KEY") or library.login(prompt=False):
        return ""
    return "nobody is logged in; run `wandb login`, set WANDB_API_KEY, or keep it here with WANDB_MODE=offline"


def start(folder: Path, name: str | None, settings: Mapping[str, Any]) -> "WandbRun":
    """A new run, or the one of that name; its files are in the run folder."""
    return WandbRun(folder, name, settings)


class WandbRun:
    """A run with steps of its own, so that a step can be told of twice."""

    def __init__(self, folder: Path, name: str | None, settings: Mapping[str, Any]) -> None:
        self.library: Any = importlib.import_module("wandb")
        # silent, and without its hands on stdout and stderr: what is printed there is ours
        manner = self.library.Settings(console="off", silent=True, init_timeout=_PATIENCE)
        self.run = self.library.init(
            project=os.environ.get("WANDB_PROJECT") or _PROJECT,
            name=None if name else folder.resolve().name,
            id=name,
            resume="allow" if name else None,
            dir=str(folder),
            config=dict(settings),
            settings=manner,
        )
        self.run.define_metric("*", step_metric="step")
        self.name: str = self.run.id
        offline = self.run.settings.mode == "offline" or not self.run.url
        self.place: str = f"{Path(self.run.dir).parent} (offline; send it by `wandb sync`)" if offline else self.run.url

    def record(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log({"step": step, **values})

    def picture(self, step: int, tag: str, path: Path) -> None:
        self.run.log({"step": step, tag: self.library.Image(str(path))})

    def close(self, exit_code: int) -> None:
        self.run.finish(exit_code=exit_code)
