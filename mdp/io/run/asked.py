"""Which runs, checkpoints and weights are asked for.  Plain data: nothing here needs NumPy or torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from mdp.bounds import Words
from mdp.given import RUNS, Given

Which = Annotated[str, Words("last", "best")]
Weights = Annotated[str, Words("ema", "raw")]
RunOrFile = Annotated[Path, Given(argument=True, shown="RUN|FILE", offers=RUNS, files=True)]


@dataclass(frozen=True, kw_only=True)
class OneRun:
    """Look at one run, or one checkpoint."""

    run: RunOrFile  # a run's folder, or a checkpoint


@dataclass(frozen=True, kw_only=True)
class TwoRuns:
    """Compare the checkpoints of two runs."""

    first: RunOrFile  # a run's folder, or a checkpoint
    second: RunOrFile  # what it is compared with
