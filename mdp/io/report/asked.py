"""What `mdp report` is asked.  Plain data: nothing here needs NumPy or torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from mdp.given import RUNS, Given


@dataclass(frozen=True, kw_only=True)
class Report:
    """Write one HTML page about runs: curves, scores, pictures, settings and how they ended.

    Runs may still be going on.  The page is one file that needs no network; of several runs it shows the curves
    together and the settings that differ.  Results of `mdp compare` may be among them.

      mdp report runs/pretrain/2026-11-20_1432_voc+ade20k
      mdp report runs/pretrain/a runs/pretrain/b --out both.html
    """

    folders: Annotated[tuple[Path, ...], Given(argument=True, shown="RUN...", offers=RUNS, files=True)]  # of runs
    out: Path | None = None  # file to write; None: report.html in the first RUN
