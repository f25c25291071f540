"""results.csv of a training run: a row for each validation, made of the same records as metrics.jsonl.

Scores are in 0..1 and numbers are written as Python does, so that they read back as they were; a cell is empty where
nothing is known.  Its columns depend on the kind of run and its datasets alone.
"""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

Record = Mapping[str, Any]
Row = tuple[Any, ...]

_TRAINING = ("loss", "lr", "images_per_second", "data_wait", "communication")
_PROTOTYPES = ("prototype_cosine", "prototype_rank", "classes_unseen")


def columns(kind: str, datasets: Sequence[str]) -> tuple[str, ...]:
    """The columns of a `pretrain` or `finetune` run that is scored on these datasets.

    >>> columns("finetune", ["voc"])
    ('step', 'loss', 'lr', 'images_per_second', 'data_wait', 'communication', 'miou', 'aacc')
    """
    if kind == "finetune":
        return ("step", *_TRAINING, "miou", "aacc")
    scores = [f"{score}/{dataset}" for score in ("miou", "majority_miou") for dataset in datasets]
    return ("step", "epoch", *_TRAINING, "miou", *scores, *_PROTOTYPES)


class Since(NamedTuple):
    """Sums over the training records since the last row."""

    records: int = 0
    losses: int = 0  # records that have a loss
    loss: float = 0.0
    seconds: float = 0.0  # an image
    data: float = 0.0  # of these seconds
    communication: float | None = None
    last: Record = MappingProxyType({})


def noted(since: Since, record: Record) -> Since:
    """The sums with one more training record."""
    loss, speed, communication = record.get("loss"), record.get("images_per_second"), record.get("communication")
    seconds = 1 / speed if speed else 0.0
    return Since(
        since.records + 1,
        since.losses + (loss is not None),
        since.loss + (loss or 0.0),
        since.seconds + seconds,
        since.data + seconds * (record.get("data_wait") or 0.0),
        since.communication if communication is None else (since.communication or 0.0) + seconds * communication,
        record,
    )


def row(since: Since, record: Record, names: Sequence[str]) -> Row:
    """The row of a validation record under columns of those names.

    The loss is the mean over the steps since the last row, the learning rate the last step's; speed and shares are
    those of the time that these steps took together.
    """
    took = since.seconds or math.nan
    known = {
        "epoch": since.last.get("epoch"),
        "loss": since.loss / since.losses if since.losses else None,
        "lr": since.last.get("lr"),
        "images_per_second": since.records / took,
        "data_wait": since.data / took,
        "communication": None if since.communication is None else since.communication / took,
        **dict(_scores(record)),
    }
    values = [known.get(name) for name in names]
    return tuple(None if isinstance(value, float) and not math.isfinite(value) else value for value in values)


def _scores(record: Record) -> list[tuple[str, Any]]:
    """The numbers of a validation record: of a list how long it is, the mIoU of several datasets also as their mean."""
    scores: list[tuple[str, Any]] = []
    for name, value in record.items():
        if isinstance(value, Mapping):
            given = [score for score in value.values() if score is not None]
            scores.append((name, sum(given) / len(given) if given else None))
            scores += [(f"{name}/{dataset}", score) for dataset, score in value.items()]
        else:
            scores.append((name, len(value) if isinstance(value, list) else value))
    return scores


class Results:
    """The rows of a run so far."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names, self.rows, self.since = tuple(names), list[Row](), Since()

    def note(self, record: Record) -> bool:
        """Takes a record in; whether it has made a row."""
        if record["kind"] == "validate":
            self.rows.append(row(self.since, record, self.names))
            self.since = Since()
            return True
        if record["kind"] == "train":
            self.since = noted(self.since, record)
        return False
