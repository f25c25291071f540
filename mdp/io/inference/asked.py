"""What `mdp predict` is asked.  Plain data: nothing here needs NumPy or torch."""

from dataclasses import dataclass
from typing import Annotated

from mdp.bounds import Words, check_bounds
from mdp.given import Given
from mdp.io.run.asked import Weights, Which

Photos = Annotated[tuple[str, ...], Given(argument=True, shown="PHOTO|FOLDER|'PATTERN'...", files=True)]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Predict label maps for photos of any size.

    Folders are searched at any depth, and what is made of FOLDER/a/x.jpg is OUT/labels/a/x.png: a palette PNG whose
    values are the class numbers of OUT/classes.csv.  Of a GeoTIFF there is x.tif besides, with the photo's
    georeference.  Photos are taken as they are stored: an EXIF rotation is not applied.

      mdp predict photos/ --out predictions --overlay
      mdp predict 'photos/**/*.jpg' --run runs/finetune/2026-11-20_1432_cityscapes --mode slide
      mdp predict photos/ --out predictions --skip-existing
    """

    photos: Photos  # files, folders, patterns
    which: Which = "last"  # checkpoint of the run; best was chosen by the validation split
    weights: Weights | None = None  # of a run with an EMA: the average, or those of its last step; None: the average
    overlays: Annotated[bool, Given("--overlay")] = False  # also write the photos, tinted by class
    probabilities: bool = False  # also write .npy files, float16 (classes, height, width): large
    raw: bool = False  # write the values of the dataset's own label maps, not class numbers
    existing: Annotated[str, Words("stop", "skip", "overwrite")] = "stop"  # what becomes of files that are there

    def __post_init__(self) -> None:
        check_bounds(self)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The folders that are filled, labels last: where a photo's labels are, all else of it is."""
        asked = {"overlays": self.overlays, "probabilities": self.probabilities, "labels": True}
        return tuple(kind for kind in ("overlays", "probabilities", "labels") if asked[kind])
