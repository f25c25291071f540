"""The seam of evaluation: counts are data, and a protocol that mdp does not have scores a split like the one it has."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from mdp.core.classifier_init import plain_name
from mdp.core.metrics import confusion_matrix
from mdp.core.protocols import Counted, Counts, EvaluationProtocol, Features, Pair, Prediction, collect, joined
from mdp.core.protocols import segmentation as pixels
from mdp.core.prototype_bank import Prototypes, class_similarity, class_sums, empty_bank, prototypes, push
from mdp.io.data.selection import pool_of
from mdp.io.datasets import load
from mdp.io.datasets._dataset import open_split, open_training
from mdp.io.evaluation.counts import Reading, fit, over_processes, tally
from mdp.io.processes.world import World
from mdp.label_space import IGNORE, LabelSpace
from tests.laws import pure_call
from tests.tensors import rng_of, seeds

SPACE = LabelSpace(name="a", classes=("background", "road", "car"))
SETTINGS = pixels.Settings()


def counted_images(seed: int, images: int) -> list[tuple[int, Counts]]:
    rng, found = rng_of(seed), []
    for index in range(images):
        guess, labels = torch.randint(0, 3, (5, 6), generator=rng), torch.randint(-1, 3, (5, 6), generator=rng)
        found.append((index, pixels.count(Prediction(guess), labels, SPACE, SETTINGS)))
    return found


@given(seeds, st.sampled_from([1, 2, 7, 23]))
def test_counts_are_the_same_in_any_order_and_over_any_processes(seed: int, images: int) -> None:
    counted, empty = counted_images(seed, images), pixels.empty(SPACE, images, SETTINGS)
    whole = pure_call(collect, counted, empty, images)
    assert int(whole.sums["images"]) == images
    assert len(whole.sums["confusion"]) == min(20, images)
    assert torch.equal(whole.sums["confusion"].sum(0), sum(counts.sums["confusion"] for _, counts in counted))
    halves = [collect(counted[rank::2][::-1], empty, images) for rank in range(2)]
    for name, parts in whole.sums.items():
        assert torch.equal(parts, halves[0].sums[name] + halves[1].sums[name])
    assert not any(parts.any() for parts in empty.sums.values())  # nothing was written to what is empty


# A protocol that mdp does not have: categories are means of features, matched with classes from the counts


@dataclass(frozen=True, kw_only=True)
class NearestSettings:
    channels: int


class NearestMean:
    """Fits a mean for each class, predicts the nearest, counts marks, and matches what it predicts with classes."""

    Settings = NearestSettings
    FIT_SPLIT = "train"

    def fit(self, features: Features, pairs: Iterable[Pair], settings: NearestSettings) -> Prototypes:
        bank = empty_bank(len(CLASSES), settings.channels, 1000)
        for image, labels in pairs:
            found = features(image)[None]  # (1, D, h, w)
            bank = push(bank, class_sums(found, labels[None], len(CLASSES)))
        return prototypes(bank)

    def predict(self, features: Features, fitted: Prototypes, image: Tensor, settings: NearestSettings) -> Prediction:
        known = fitted._replace(
            vectors=fitted.vectors.flip(0), present=fitted.present.flip(0)
        )  # categories, no classes
        cosine, best = class_similarity(F.normalize(features(image), dim=0)[None], known)[0].max(0)
        return Prediction(best, (100 * cosine.clamp(0, 1)).round().long())

    def empty(self, space: LabelSpace, images: int, settings: NearestSettings) -> Counts:
        return Counts({"pixels": torch.zeros(1, 1, dtype=torch.int64)}, {"areas": torch.zeros(0, 5, dtype=torch.int64)})

    def count(self, prediction: Prediction, labels: Tensor, space: LabelSpace, settings: NearestSettings) -> Counts:
        """(true, category, level) -> pixels, a row for each that occurs."""
        assert prediction.levels is not None
        valid = labels != IGNORE
        three = torch.stack([labels.long(), prediction.labels, prediction.levels], -1)[valid]
        rows, times = torch.unique(three, dim=0, return_counts=True)
        return Counts({"pixels": valid.sum()[None]}, {"areas": torch.cat([rows, times[:, None]], 1)})

    def scores(self, counts: Counts, fitted: Any, space: LabelSpace, settings: NearestSettings) -> dict[str, Any]:
        _, true, category, _, times = counts.marks["areas"].unbind(1)
        size = len(space.classes)
        table = torch.zeros(size * size, dtype=torch.int64).index_add_(0, category * size + true, times).view(size, -1)
        match = table.argmax(1)
        right = table[torch.arange(size), match].sum()
        return {"match": match.tolist(), "accuracy": int(right) / int(counts.sums["pixels"].sum())}


PLANTED: EvaluationProtocol = NearestMean()
TARGET = load("shapes-target")
CLASSES = TARGET.labels.classes


def colors(image: Tensor) -> Tensor:
    """Features (7, H, W) of an image: its colours, and their products."""
    rgb = image.float() / 127.5 - 1
    return torch.cat([rgb, rgb * rgb.roll(1, 0), torch.ones(1, *rgb.shape[1:])])


class Noted:
    def __init__(self) -> None:
        self.seen: list[Counted] = []

    def observe_(self, counted: Counted) -> None:
        self.seen.append(counted)


def test_a_protocol_with_a_fit_scores_a_split_through_the_same_functions() -> None:
    settings, reading = NearestSettings(channels=7), Reading(workers=0)
    train, _ = open_training(TARGET, Path())
    pool = pool_of([(TARGET, train[:12])])
    fitted = fit(PLANTED, colors, pool, settings, reading)
    assert plain_name(CLASSES[0]) == "background"
    assert bool(fitted.present.any())
    scored = pool_of([(TARGET, open_split(TARGET, Path(), "val")[0][:6])])
    noted = Noted()
    counts = tally(PLANTED, colors, scored, settings, reading, [noted], fitted=fitted)
    found = PLANTED.scores(counts, fitted, TARGET.labels, settings)
    classes = len(CLASSES)
    assert found["match"][-1] == 0  # categories were numbered backwards: the counts find the background again
    matrix = sum(confusion_matrix(each.prediction.labels, each.labels, classes) for each in noted.seen)
    right = sum(int(matrix[match, category]) for category, match in enumerate(found["match"]))
    assert found["accuracy"] == right / int(matrix.sum())
    assert [each.name for each in noted.seen] == [sample.image for sample in scored.samples]

    # of several processes, marks come together in the order of the images
    parts = [
        collect(
            [(each.index, each.counts) for each in noted.seen[rank::2]], PLANTED.empty(TARGET.labels, 6, settings), 6
        )
        for rank in range(2)
    ]
    assert torch.equal(joined([part.marks for part in parts])["areas"], counts.marks["areas"])


def test_what_is_read_from_a_folder_is_counted_without_a_network() -> None:
    labels = torch.randint(-1, 3, (4, 5), generator=rng_of(0))
    maps = [torch.randint(0, 3, (4, 5), generator=rng_of(seed)) for seed in (1, 2)]
    counted = ((index, pixels.count(Prediction(guess), labels, SPACE, SETTINGS)) for index, guess in enumerate(maps))
    counts = over_processes(collect(counted, pixels.empty(SPACE, 2, SETTINGS), 2), World())
    scores = pixels.scores(counts, None, SPACE, SETTINGS)
    assert scores["confusion"] == sum(confusion_matrix(guess, labels, 3) for guess in maps).tolist()  # type: ignore[attr-defined]
    assert scores["miou_interval"]["images"] == 2
