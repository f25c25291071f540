"""The order of images and what a loader gives: functions of seed, epoch and index, not of workers."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mdp.core.chance import generator
from mdp.core.geometry import Box, View, cut_labels, draw_view
from mdp.core.labels import IGNORE, LabelUnion
from mdp.core.photometry import DistortionSettings, PhotometrySettings, denormalise, draw_distortion, draw_photometry
from mdp.core.views import ViewGroup, missed, views_of
from mdp.io.data.crops import FinetuneItems, WholeItems, crop_batch, stack_crops
from mdp.io.data.loader import load
from mdp.io.data.order import epoch_batches, epoch_order, stream_batches
from mdp.io.data.pool import Pool
from mdp.io.data.views import PretrainItems, stack_views, usual_views, view_batches
from mdp.io.datasets import load as load_dataset
from mdp.io.datasets._dataset import Sample, open_split
from mdp.io.errors import DatasetError
from mdp.io.files.images import write_rgb
from mdp.io.recipe.settings import FinetuneSettings, PretrainSettings

CPU = torch.device("cpu")
TINY_CROPS = FinetuneSettings(crop=(40, 48), ratio=(0.3, 0.9))  # some are padded


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
    items = PretrainItems(pool, usual_views(PretrainSettings(crop=32)), seed=3)

    def images(count: int) -> torch.Tensor:
        batches = load(items, epoch_batches(3, [12, 12], 6, False, 0, 4), count, stack=stack_views)
        return torch.stack([view.images for batch in batches for view in view_batches(batch, CPU)])

    assert torch.equal(images(0), images(workers))


def test_the_draws_for_a_key_are_the_same_in_every_version() -> None:
    rng = generator(0, "views", 1, 7)
    views = [draw_view(rng, 375, 500) for _ in range(2)]
    assert views == [View(Box(0, 25, 346, 322), False), View(Box(51, 60, 302, 372), True)]
    first, second, *others = (draw_photometry(rng, PhotometrySettings()) for _ in range(8))
    assert torch.equal(second.factors, torch.tensor([1.0818955898, 0.9291410446, 0.8247786760, -0.0358267426]))
    assert [first.order.tolist(), second.order.tolist()] == [[1, 3, 0, 2], [2, 0, 1, 3]]
    assert [bool(draw.jitter) for draw in (first, second)] == [False, True]
    assert [bool(draw.grey) for draw in others] == [False, False, True, False, True, True]
    assert [round(float(draw.sigma), 6) for draw in others] == [0, 0, 0, 0, 0.611649, 0.86276]
    distortion = draw_distortion(generator(0, "crops", 1, 7), DistortionSettings())
    assert torch.equal(distortion.strengths, torch.tensor([0.0448250547, 0.7661209106, 0.9354029894, 16 / 180]))
    assert distortion.applied.tolist() == [True, True, False, True]


def test_photometry_in_the_workers_gives_what_it_gives_on_the_whole_batch() -> None:
    pool = shapes_pool("shapes-coarse", "shapes-fine")
    keys = [(0, index) for index in range(12)]
    views = [
        view_batches(stack_views([items[key] for key in keys]), CPU)
        for items in (
            PretrainItems(pool, usual_views(PretrainSettings(crop=48)), 3, finish=finish) for finish in (True, False)
        )
    ]
    crops = [
        crop_batch(stack_crops([items[key] for key in keys]), CPU)
        for items in (FinetuneItems(pool, TINY_CROPS, 3, finish=finish) for finish in (True, False))
    ]
    for early, late in (*zip(*views, strict=True), crops):
        torch.testing.assert_close(early.images, late.images, rtol=0, atol=1e-5)  # normalised: 4.4 times the colour's
        assert torch.equal(early.labels, late.labels)
    assert not torch.equal(views[0][0].images, views[0][1].images)


def test_what_a_worker_hands_over_is_a_few_large_tensors_without_draws_once_they_are_applied() -> None:
    pool = shapes_pool("shapes-fine")
    early, late = (
        stack_views([items[0, index] for index in range(5)])
        for items in (
            PretrainItems(pool, usual_views(PretrainSettings(crop=32)), 0, finish=finish) for finish in (True, False)
        )
    )
    (images,), (bytes_,) = early.images, late.images  # of one group
    assert (images.shape, images.dtype, early.draws) == ((2, 5, 3, 32, 32), torch.float32, ())
    assert (bytes_.shape, bytes_.dtype) == ((2, 5, 3, 32, 32), torch.uint8)
    assert early.frames.shape == (2, 5, 5)
    assert [draw.order.shape for draw in late.draws] == [(5, 4), (5, 4)]
    assert early.labels[0].dtype == late.labels[0].dtype == torch.int16


def test_views_of_an_image_differ_and_labels_follow() -> None:
    pool = shapes_pool("shapes-fine")
    item = PretrainItems(pool, usual_views(PretrainSettings(crop=40)), seed=0)[0, 1]
    assert not isinstance(item, Exception)
    first, second = view_batches(stack_views([item]), CPU)
    assert first.images.shape == (1, 3, 40, 40)
    assert first.labels.shape == (1, 40, 40)
    assert not torch.equal(first.images, second.images)
    assert set(first.labels.unique().tolist()) <= set(range(9))


SMALL_TOO = replace(  # two views of 40 pixels and three of 24, the last two of which take AutoAugment
    usual_views(PretrainSettings(crop=40)),
    groups=(
        ViewGroup(count=2, size=40, area=(0.2, 1.0)),
        ViewGroup(count=3, size=24, area=(0.05, 0.14), auto_augment=(0.0, 1.0, 1.0)),
    ),
    anchor=1,
    min_overlap=0.9,
)


@pytest.mark.parametrize("finish", [True, False])
def test_views_of_several_sizes_are_cut_where_their_frames_say(finish: bool) -> None:
    pool = shapes_pool("shapes-fine")
    items = PretrainItems(pool, SMALL_TOO, seed=1, finish=finish)
    views = view_batches(stack_views([items[0, index] for index in range(4)]), CPU)
    assert [view.images.shape[2:] for view in views] == [(40, 40)] * 2 + [(24, 24)] * 3
    for index in range(4):
        _, labels = pool.read(index)
        for view, size in zip(views, SMALL_TOO.sizes, strict=True):
            assert view.frames is not None
            (drawn,) = views_of(view.frames[index : index + 1])
            assert torch.equal(view.labels[index], cut_labels(labels, drawn, (size, size)).long())
        for view in views[3:]:  # AutoAugment keeps bytes: nothing else has changed them
            colours = denormalise(view.images[index : index + 1]) * 255
            torch.testing.assert_close(colours, colours.round(), rtol=0, atol=1e-3)


def test_autoaugment_in_the_workers_gives_the_bits_of_autoaugment_on_the_whole_batch() -> None:
    pool = shapes_pool("shapes-fine")
    early, late = (
        stack_views([items[0, index] for index in range(6)])
        for items in (PretrainItems(pool, SMALL_TOO, 1, finish=finish) for finish in (True, False))
    )
    assert early.autos == ()
    assert [auto.policy.shape for auto in late.autos] == [(6,)] * 5
    assert not any(bool(auto.applied.any()) for auto in late.autos[:3])
    bytes_, sent = view_batches(late, CPU), view_batches(late._replace(autos=()), CPU)
    for number, (view, whole) in enumerate(zip(view_batches(early, CPU), bytes_, strict=True)):
        torch.testing.assert_close(view.images, whole.images, rtol=0, atol=0 if number > 2 else 1e-5)
    assert not torch.equal(bytes_[3].images, sent[3].images)  # the workers have left it to the device


def test_views_that_miss_what_the_plan_wants_are_counted() -> None:
    items = PretrainItems(shapes_pool("shapes-fine"), SMALL_TOO, seed=1)
    made = [items[0, index] for index in range(12)]
    expected = sum(missed(views_of(item.frames), SMALL_TOO) for item in made)
    assert stack_views(made).missed == expected > 0


def test_without_labels_the_same_views_are_cut_and_no_label_map_is_read(tmp_path: Path) -> None:
    camvid = load_dataset("camvid")
    write_rgb(tmp_path / "photo.png", torch.randint(0, 255, (40, 50, 3), generator=generator(0)).byte().numpy())
    sample = Sample(str(tmp_path / "photo.png"), str(tmp_path / "gone.png"), "camvid")
    pool = Pool([sample], {"camvid": camvid}, LabelUnion([camvid.labels]))
    plan = usual_views(PretrainSettings(crop=32))
    (view, _) = view_batches(stack_views([PretrainItems(pool, plan, 0, labelled=False)[0, 0]]), CPU)
    assert view.images.shape == (1, 3, 32, 32)
    assert view.labels.shape == (1, 0, 0)
    assert isinstance(PretrainItems(pool, SMALL_TOO, 0)[0, 0], DatasetError)
    shapes = shapes_pool("shapes-fine")
    with_labels, without = (
        stack_views([PretrainItems(shapes, SMALL_TOO, 3, labelled)[0, index] for index in range(3)])
        for labelled in (True, False)
    )
    assert without.labels == ()
    assert all(map(torch.equal, with_labels.images, without.images))
    assert torch.equal(with_labels.frames, without.frames)


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
    assert next(batches)[0].sample == 0
    with pytest.raises(DatasetError, match=r"gone\.png"):
        next(batches)
