"""Labels and embeddings as people give them in notebooks: what would give a wrong number is refused, or put right."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mdp import core
from mdp.core.label_checks import expect_grid, expect_labels
from tests.tensors import rng_of

CLASSES = 5
RAW = torch.randn(2, 4, 8, 8, generator=rng_of(0)) * 3  # a grid of embeddings, of no unit length
VECTORS = F.normalize(torch.randn(CLASSES, 4, generator=rng_of(1)), dim=1)
KNOWN = core.Prototypes(VECTORS, torch.ones(CLASSES, dtype=torch.bool))
LABELS = torch.randint(0, CLASSES, (2, 8, 8), generator=rng_of(2))
QUEUES = core.enqueue_classes(core.empty_queues(CLASSES, 3, 4), *core.class_means(RAW, LABELS, CLASSES))
LOGITS = torch.randn(2, CLASSES, 8, 8, generator=rng_of(3))
ONE = torch.tensor(1)

TAKES: dict[str, Callable[[Tensor, Tensor], Any]] = {  # embeddings or logits, and labels
    "prototype_nce": lambda x, y: core.prototype_nce(x, KNOWN, core.hard_targets(y), 0.1).total,
    "nce": lambda x, y: core.nce(core.class_logits(core.pixel_rows(x), KNOWN, 0.1), core.hard_targets(y)).total,
    "pixel_nce": lambda x, y: core.pixel_nce(x, x.flip(0), y, y.flip(0), 0.1).total,
    "region_nce": lambda x, y: core.region_nce(x, y, QUEUES, 0.1).total,
    "class_sums": lambda x, y: core.class_sums(x, y, CLASSES).sums,
    "class_means": lambda x, y: core.class_means(x, y, CLASSES)[0],
    "dice_sums": lambda _, y: core.dice_sums(LOGITS, y).both,
    "focal": lambda _, y: core.focal(LOGITS, y, ONE),
    "lovasz_softmax": lambda _, y: core.lovasz_softmax(LOGITS, y),
    "hard_pixels": lambda _, y: core.hard_pixels(LOGITS, y, least=3),
}
LABELS_ONLY: dict[str, Callable[[Tensor], Any]] = {
    "region_anchors": lambda y: core.region_anchors(y, QUEUES),
    "targets_by_class": lambda y: core.targets_by_class(y, core.hard_targets(torch.arange(CLASSES))),
    "prototype_similarity": lambda y: core.prototype_similarity(core.hard_targets(y), KNOWN),
}
UNIT = ("prototype_nce", "nce", "pixel_nce", "region_nce", "class_sums", "class_means")


@pytest.mark.parametrize("call", TAKES.values(), ids=TAKES)
def test_labels_of_another_grid_are_refused_by_every_function_that_takes_them(call: Callable[..., Any]) -> None:
    for wrong in (LABELS[:, ::2, ::2], LABELS.repeat_interleave(8, 1).repeat_interleave(8, 2), LABELS[:1]):
        with pytest.raises(ValueError, match=r"differ in grid|pixels for|rows of logits"):
            call(RAW, wrong)


@pytest.mark.parametrize("name", [*TAKES, *LABELS_ONLY])
def test_255_and_other_numbers_that_are_no_class_are_refused_with_what_to_do(name: str) -> None:
    call = LABELS_ONLY.get(name, lambda labels: TAKES[name](RAW, labels))
    unbounded = name == "pixel_nce"  # nothing says how many classes there are
    for value in (-100,) if unbounded else (CLASSES, 255, -100):
        labels = LABELS.clone()
        labels[0, 0, 0] = value
        with pytest.raises(ValueError, match=r"(?s)pixels that do not count are -1 here.*masked_fill"):
            call(labels)
    with pytest.raises(ValueError, match="uint8 has no -1"):
        call(LABELS.to(torch.uint8))


@pytest.mark.parametrize("name", UNIT)
def test_the_length_of_embeddings_changes_nothing(name: str) -> None:
    expected = TAKES[name](F.normalize(RAW, dim=1), LABELS)
    torch.testing.assert_close(TAKES[name](RAW, LABELS), expected, rtol=1e-5, atol=1e-5)


def test_embeddings_that_are_said_to_be_of_unit_length_are_taken_as_they_are() -> None:
    first, twice = (core.class_sums(scale * RAW, LABELS, CLASSES, unit=True).sums for scale in (1, 2))
    torch.testing.assert_close(twice, 2 * first)


def test_cosines_and_instances_of_any_length_are_those_of_unit_vectors() -> None:
    rows, keys, queue = (torch.randn(6, 4, generator=rng_of(seed)) * (seed + 2) for seed in range(3))
    unit = [F.normalize(each, dim=1) for each in (rows, keys, queue)]
    torch.testing.assert_close(core.pixel_similarity(rows, KNOWN), unit[0] @ VECTORS.T)
    found, expected = core.instance_nce(rows, keys, queue, 0.1).total, core.instance_nce(*unit, 0.1, unit=True).total
    torch.testing.assert_close(found, expected)
    with pytest.raises(ValueError, match="expected a key for each query"):
        core.instance_nce(rows, keys[:3], queue, 0.1)


def test_sums_queues_and_mixed_labels_of_other_sizes_are_refused() -> None:
    one, all_classes = (core.class_sums(RAW, LABELS * 0, classes) for classes in (1, CLASSES))
    with pytest.raises(ValueError, match="differ"):
        core.add(all_classes, one)
    with pytest.raises(ValueError, match="differ"):
        core.push(core.empty_bank(CLASSES, 4, 2), one)
    with pytest.raises(ValueError, match="for queues of"):
        core.enqueue_classes(QUEUES, *core.class_means(RAW, LABELS * 0, 1))
    with pytest.raises(ValueError, match="a share for each image"):
        core.mixed_targets(LABELS, LABELS[:1], torch.ones(2))
    with pytest.raises(ValueError, match="two views of the same"):
        core.pixel_anchors(LABELS, LABELS[:1])


def test_values_are_looked_at_on_the_cpu_only() -> None:
    """On another device the host would wait; sizes and dtype need no look."""
    expect_labels(torch.empty(2, 8, 8, dtype=torch.long, device="meta"), CLASSES)
    with pytest.raises(ValueError, match="differ in grid"):
        expect_grid(RAW.to("meta"), torch.empty(2, 4, 4, device="meta"))
    with pytest.raises(ValueError, match="uint8"):
        expect_labels(torch.empty(3, dtype=torch.uint8, device="meta"))
