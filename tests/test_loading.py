"""The order of images and what a loader gives: functions of seed, epoch and index, not of workers."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mdp.core.labels import IGNORE, LabelUnion
from mdp.io.datasets import Sample, open_split
from mdp.io.datasets import load as load_dataset
from mdp.io.errors import DatasetError
from mdp.io.loader import load
from mdp.io.loading import (
    FinetuneItems,
    Pool,
    PretrainItems,
    WholeItems,
    crop_batch,
    epoch_batches,
    epoch_order,
    stack_crops,
    stack_views,
    stream_batches,
    view_batches,
)
from mdp.io.recipe import FinetuneSettings, PretrainSettings

CPU = torch.device("cpu")


def shapes_pool(*names: str) -> Pool:
    datasets = [load_dataset(name) for name in names]
    samples = [sample for d in datasets for sample in open_split(d, Path("."), "train")[0][:12]]
    return Pool(samples, {d.name: d for d in datasets}, LabelUnion([d.labels for d in datasets]))


@given(st.integers(0, 99), st.integers(0, 20), st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_an_epoch_of_the_union_sees_every_image_once(seed: int, epoch: int, sizes: list[int]) -> None:
    order = epoch_order(seed, epoch, sizes)
    assert sorted(order.tolist()) == list(range(sum(sizes)))


@given(st.integers(0, 99), st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_balanced_epochs_give_every_dataset_an_equal_share(seed: int, sizes: list[int]) -> None:
    starts = np.cumsum([0, *sizes])
    seen: Counter[int] = Counter()
    for epoch in range(6):
        order = epoch_order(seed, epoch, sizes, balance=True)
        assert len(order) == sum(sizes)
        shares = [int(((order >= a) & (order < b)).sum()) for a, b in pairwise(starts)]
        assert max(shares) - min(shares) <= 1
        seen.update(order.tolist())
    for a, b in pairwise(starts):  # within a dataset no image is favoured
        counts = [seen[i] for i in range(a, b)]
        assert max(counts) - min(counts) <= 1


@given(
    st.integers(0, 9), st.lists(st.integers(1, 9), min_size=1, max_size=3), st.integers(1, 4), st.booleans(), st.data()
)
def test_batches_from_the_middle_are_those_of_the_whole_run(
    seed: int, sizes: list[int], batch: int, balance: bool, data: st.DataObject
) -> None:
    batch = min(batch, sum(sizes))
    steps = 11
    start = data.draw(st.integers(0, steps))
    whole = list(epoch_batches(seed, sizes, batch, balance, 0, steps))
    assert whole[start:] == list(epoch_batches(seed, sizes, batch, balance, start, steps))
    assert all(len(keys) == batch for keys in whole)
    stream = list(stream_batches(seed, sum(sizes), batch, 0, steps))
    assert stream[start:] == list(stream_batches(seed, sum(sizes), batch, start, steps))


def test_an_image_that_repeats_in_a_balanced_epoch_has_draws_of_its_own_each_time() -> None:
    keys = [key for batch in epoch_batches(0, [2, 10], 4, True, 0, 9) for key in batch]
    assert max(Counter(index for _, index in keys).values()) >= 9
    assert len(set(keys)) == len(keys)


def test_a_stream_wastes_no_image_and_may_be_shorter_than_a_batch() -> None:
    keys = [key for batch in stream_batches(0, 3, 8, 0, 6) for key in batch]
    assert len(keys) == 48
    assert Counter(index for _, index in keys) == {0: 16, 1: 16, 2: 16}
    assert len(set(keys)) == 48  # repeats within a batch have an epoch, and so draws, of their own


@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_changes_nothing(workers: int) -> None:
    pool = shapes_pool("shapes-coarse", "shapes-fine")
    items = PretrainItems(pool, PretrainSettings(crop=32), seed=3)

    def images(count: int) -> torch.Tensor:
        batches = load(items, epoch_batches(3, [12, 12], 6, False, 0, 4), count, stack=stack_views)
        return torch.stack([view.images for batch in batches for view in view_batches(batch, CPU)])

    assert torch.equal(images(0), images(workers))


def test_views_of_an_image_differ_and_labels_follow() -> None:
    pool = shapes_pool("shapes-fine")
    item = PretrainItems(pool, PretrainSettings(crop=40), seed=0)[0, 1]
    assert not isinstance(item, Exception)
    first, second = view_batches(stack_views([item]), CPU)
    assert first.images.shape == (1, 3, 40, 40)
    assert first.labels.shape == (1, 40, 40)
    assert not torch.equal(first.images, second.images)
    assert set(first.labels.unique().tolist()) <= set(range(9))


def test_crops_are_padded_with_zeros_and_ignore() -> None:
    pool = shapes_pool("shapes-target")
    settings = FinetuneSettings(crop=(128, 160), ratio=(0.5, 0.5))
    item = FinetuneItems(pool, settings, seed=0)[0, 0]
    assert not isinstance(item, Exception)
    batch = crop_batch(stack_crops([item]), CPU)
    assert batch.images.shape == (1, 3, 128, 160)
    assert item.inside == (48, 48)
    assert batch.labels[0, 48:].eq(IGNORE).all()
    assert batch.labels[0, :, 48:].eq(IGNORE).all()
    assert batch.labels[0, :48, :48].ne(IGNORE).all()
    assert batch.images[0, :, 48:].eq(0).all()
    assert batch.images[0, :, :48, :48].ne(0).any()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_file_stops_the_loader_with_its_own_error(workers: int, tmp_path: Path) -> None:
    pool = shapes_pool("shapes-target")
    broken = load_dataset("camvid")
    sample = Sample(str(tmp_path / "gone.png"), str(tmp_path / "gone_labels.png"), "camvid")
    union = LabelUnion([*pool.union.spaces, broken.labels])
    pool = Pool([*pool.samples, sample], {**pool.datasets, "camvid": broken}, union)
    batches = load(WholeItems(pool), iter([[(0, 0)], [(0, len(pool.samples) - 1)]]), workers)
    assert next(batches)[0].place == 0
    with pytest.raises(DatasetError, match=r"gone\.png"):
        next(batches)
