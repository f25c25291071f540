"""What `mdp compare` is asked.  Plain data: nothing here needs NumPy or torch."""

from dataclasses import dataclass
from typing import Annotated

from mdp.bounds import Bounds, check_bounds


@dataclass(frozen=True, kw_only=True)
class CompareQuestion:
    """Fine-tune one target from several starting points, with the same budget, and say what can be claimed.

    What was done before is kept and what was interrupted goes on.  {seed} in a path is the cell's seed;
    NAME=KIND:PATH?key=value sets something for one start.
    """

    starts: tuple[
        str, ...
    ] = ()  # a start: scratch, run:FOLDER, weights:FILE or imagenet:FILE (its backbone only); repeat
    # it for each
    shares: str = "1/8,1/4,1"  # shares of the training images
    seeds: Annotated[int, Bounds(1, 1000)] = 3  # seeds 0, 1, ... of each cell
    split: str | None = None  # split to score; None: the dataset's validation split
    against: tuple[str, ...] = ()  # compare with this start; None: the first
    keep: bool = False  # keep the checkpoints of cells that are scored
    redo: bool = False  # run cells again that were made with other settings or data; the old ones are kept aside

    def __post_init__(self) -> None:
        check_bounds(self)
