"""What `mdp datasets init` is asked.  Plain data: nothing here needs NumPy or torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from mdp.given import Given


@dataclass(frozen=True, kw_only=True)
class Draft:
    """Look at a folder of photos and labels of any layout, and write the YAML file that describes it.

    What is not certain stands in it as a comment.  The path of the file is printed.

      mdp datasets init photos --out -
      mdp datasets init photos --out walks.yaml --overwrite
    """

    folder: Annotated[Path, Given(argument=True)]  # of photos and labels
    out: Annotated[str, Given(shown="FILE.yaml|-")] | None = None  # the YAML file to write, instead of
    # FOLDER/NAME.yaml; - prints it
    overwrite: bool = False  # replace the file
