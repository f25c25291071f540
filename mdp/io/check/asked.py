"""What `mdp check` is asked.  Plain data: nothing here needs NumPy or torch."""

from dataclasses import dataclass
from typing import Annotated

from mdp.bounds import Bounds, Positive, check_bounds
from mdp.given import DatasetNames, Given, Root


@dataclass(frozen=True, kw_only=True)
class Check:
    """Read every image of datasets and say what is in them and what is wrong.

    Without SPLIT these are the splits that are trained and scored on.  Exit code 3 when there are errors.

      mdp check voc ade20k
      mdp check my_site.yaml --strict
      mdp check camvid:train camvid:test --images 50 --json
    """

    names: Annotated[
        tuple[str, ...],
        Given(argument=True, shown="[NAME|FILE.yaml[:SPLIT]]...", offers="datasets.names", commas=True),
    ] = ()  # datasets to look at
    datasets: DatasetNames = ()  # the same, comma-separated or repeated
    root: Annotated[str, Root] = "data"  # folder of the datasets
    workers: Annotated[int, Bounds(0, 1024)] | None = None  # processes that read; None: one a core, 16 at most
    images: Positive | None = None  # look at so many images of a split only, evenly spaced
    strict: bool = False  # take warnings for errors

    def __post_init__(self) -> None:
        check_bounds(self)
