"""Which of a run's checkpoints and weights are asked for.  Plain data: nothing here needs NumPy or torch."""

from typing import Annotated

from mdp.bounds import Words

Which = Annotated[str, Words("last", "best")]
Weights = Annotated[str, Words("ema", "raw")]
