"""The hours that a run trained, by what its journal says of each step; a step that was done twice counts once."""

from pathlib import Path

from mdp.io.errors import MdpError
from mdp.io.journal.history import read_history
from mdp.io.weights.reading import read_record


def training_hours(folder: Path, batch: int) -> float | None:
    """The hours of a run's steps of `batch` images, without validations and checkpoints; None without a journal."""
    rates = read_history(folder / "metrics.jsonl").curves.get(("train", "images_per_second"))
    if rates is None or not (rates.values > 0).all():
        return None
    return float((batch / rates.values).sum()) / 3600


def hours_behind(weights: Path | None) -> float | None:
    """The hours of the pretraining run whose checkpoint this is; 0 for no weights, None where nothing tells."""
    if weights is None:
        return 0.0
    try:
        record = read_record(weights)
        return training_hours(weights.parent.parent, record.recipe["pretrain"]["batch_size"]) if record else None
    except (MdpError, KeyError, TypeError):
        return None  # a file of somebody else's, which says nothing of hours
