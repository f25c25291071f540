"""The same numbers as the field's own tools, where they are installed: torchmetrics and cityscapesScripts."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from mdp.core.labels import IGNORE
from mdp.core.metrics import (
    class_accuracy,
    class_dice,
    class_iou,
    class_precision,
    confusion_matrix,
    mean_iou,
    mean_iou_of_all,
    merge_classes,
)
from mdp.io.data.selection import pool_of
from mdp.io.datasets import cityscapes
from mdp.io.datasets import load as load_dataset
from mdp.io.datasets._dataset import open_split
from mdp.io.evaluation.other_rules import category_groups
from mdp.io.evaluation.saved import kinds_of, save, saved
from mdp.io.processes.world import ALONE
from tests.peers import library_or_skip
from tests.tensors import rng_of


@pytest.fixture(scope="module")
def peer() -> Any:
    """torchmetrics' classification scores."""
    return library_or_skip("torchmetrics.classification")


def maps(seed: int, classes: int, absent: tuple[int, ...] = ()) -> tuple[Tensor, Tensor]:
    """Predictions and labels (5, 20, 30), of which some classes never occur and some pixels are ignored."""
    rng = rng_of(seed)
    guess, labels = (torch.randint(0, classes, (5, 20, 30), generator=rng) for _ in range(2))
    labels = torch.where(torch.rand(labels.shape, generator=rng) < 0.4, guess, labels)
    for label in absent:
        guess[guess == label], labels[labels == label] = 0, 0
    labels[torch.rand(labels.shape, generator=rng) < 0.1] = IGNORE
    return guess, labels


@pytest.mark.parametrize(("classes", "absent"), [(2, ()), (19, ()), (19, (3, 7)), (171, (0, 170))])
def test_counts_and_scores_are_torchmetrics(peer: Any, classes: int, absent: tuple[int, ...]) -> None:
    guess, labels = maps(0, classes, absent)
    confusion = sum((confusion_matrix(g, t, classes) for g, t in zip(guess, labels, strict=True)), torch.tensor(0))

    def theirs(kind: str, **options: Any) -> Tensor:
        metric = getattr(peer, kind)(classes, ignore_index=IGNORE, **options)
        for g, t in zip(guess, labels, strict=True):
            metric.update(g[None], t[None])
        value: Tensor = metric.compute()
        return value

    assert torch.equal(theirs("MulticlassConfusionMatrix"), confusion)
    iou = class_iou(confusion).nan_to_num(0)
    assert torch.equal(theirs("MulticlassJaccardIndex", average="none").double(), iou.float().double())
    # its macro average leaves out what is nowhere, as MMSegmentation's
    assert float(theirs("MulticlassJaccardIndex", average="macro")) == pytest.approx(mean_iou(confusion), abs=1e-6)
    assert mean_iou_of_all(confusion) == pytest.approx(float(iou.mean()))
    for kind, ours in (
        ("MulticlassAccuracy", class_accuracy),
        ("MulticlassF1Score", class_dice),
        ("MulticlassPrecision", class_precision),
    ):
        assert torch.allclose(theirs(kind, average="none").double(), ours(confusion).nan_to_num(0), atol=1e-7), kind


def fake_cityscapes(root: Path, seed: int) -> None:
    """Cityscapes' validation layout with random label ids of patches, all 34 of them."""
    rng = np.random.default_rng(seed)
    for city, frame in (("lindau", 19), ("lindau", 20), ("ulm", 19)):
        stem = f"{city}_000000_{frame:06d}"
        for kind, suffix in (("leftImg8bit", "leftImg8bit"), ("gtFine", "gtFine_labelIds")):
            path = root / "cityscapes" / kind / "val" / city / f"{stem}_{suffix}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            ids = rng.integers(0, 34, (8, 16)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
            Image.fromarray(ids if kind == "gtFine" else np.stack([ids] * 3, -1)).save(path)


def test_saved_predictions_have_the_official_cityscapes_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    official = pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    fake_cityscapes(tmp_path, 0)
    dataset = load_dataset("cityscapes")
    samples, _ = open_split(dataset, tmp_path, "val")
    pool = pool_of([(dataset, samples)])
    confusion = torch.zeros(19, 19, dtype=torch.int64)
    with saved(tmp_path / "out", pool, kinds_of(True, ("cityscapes",), dataset.labels), ALONE) as place:
        assert place
        for index in range(len(samples)):
            image, labels = pool.read(index)
            noise = torch.randint(0, 19, labels.shape, generator=rng_of(index))
            right = torch.rand(labels.shape, generator=rng_of(index + 9)) < 0.6
            guess = torch.where(right & (labels != IGNORE), labels.long(), noise)
            save(place, index, image, guess, labels)
            confusion += confusion_matrix(guess, labels, 19)

    monkeypatch.setenv("CITYSCAPES_RESULTS", str(tmp_path / "out" / "cityscapes"))
    arguments = official.args
    for name, value in {
        "predictionPath": None, "predictionWalk": None, "evalInstLevelScore": False, "evalPixelAccuracy": False,
        "JSONOutput": False, "quiet": True,
    }.items():  # fmt: skip
        monkeypatch.setattr(arguments, name, value)
    truths = sorted(str(path) for path in tmp_path.glob("cityscapes/gtFine/val/*/*_gtFine_labelIds.png"))
    guesses = [official.getPrediction(arguments, truth) for truth in truths]
    assert [os.path.basename(path) for path in guesses] == [
        f"{stem}_pred_labelIds.png" for stem in ("lindau_000000_000019", "lindau_000000_000020", "ulm_000000_000019")
    ]
    theirs = official.evaluateImgLists(guesses, truths, arguments)
    capsys.readouterr()

    ids = list(cityscapes.LABEL_IDS)
    matrix = np.array(theirs["confMatrix"])[np.ix_(ids, ids)]
    assert matrix.tolist() == confusion.tolist()
    iou = class_iou(confusion)
    for label, name in enumerate(cityscapes.CLASSES):
        assert theirs["classScores"][name] == float(iou[label]), name
    assert theirs["averageScoreClasses"] == pytest.approx(mean_iou(confusion), abs=1e-12)
    categories = mean_iou(merge_classes(confusion, category_groups()))
    assert theirs["averageScoreCategories"] == pytest.approx(categories, abs=1e-12)
