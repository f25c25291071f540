"""Pixel contrast: closed forms, both-sided gradients, the split over processes, and how anchors are drawn."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from mdp.core.contrast_mining import Choice, chosen_rows, drawn
from mdp.core.labels import IGNORE
from mdp.core.pixel_contrast import (
    anchor_groups,
    anchor_views,
    batch_contrast,
    draw_anchors,
    draw_pixels,
    memory_contrast,
)
from mdp.core.processes import Processes, alone
from tests.laws import pure_call
from tests.tensors import rng_of, seeds
from tests.together import together


def unit_rows(seed: int, count: int, channels: int = 8) -> Tensor:
    return F.normalize(torch.randn(count, channels, generator=rng_of(seed)), dim=1)


def some_labels(seed: int, count: int, classes: int = 3) -> Tensor:
    return torch.randint(classes, (count,), generator=rng_of(seed + 1))


def by_the_formula(anchors: Tensor, labels: Tensor, rows: Tensor, others: Tensor, temperature: float) -> Tensor:
    """The mean over anchors with a positive, a pair at a time; an anchor is no pair with itself."""
    own, losses = rows is anchors, []
    for i, label in enumerate(labels.tolist()):
        similar = (rows @ anchors[i] / temperature).exp()
        negatives = similar[others != label].sum()
        pairs = [j for j in range(len(rows)) if others[j] == label and not (own and i == j)]
        if pairs:
            losses.append(sum(-(similar[j] / (similar[j] + negatives)).log() for j in pairs) / len(pairs))
    return torch.stack(losses).mean() if losses else anchors.sum() * 0


# Losses


@given(seeds, st.integers(2, 12), st.floats(0.05, 2))
@settings(max_examples=25)
def test_contrast_in_a_batch_is_its_formula_with_the_gradient_through_both_sides(
    seed: int, count: int, temperature: float
) -> None:
    rows, labels = unit_rows(seed, count), some_labels(seed, count)
    leaf, exact = rows.clone().requires_grad_(), rows.double().requires_grad_()
    value = batch_contrast(leaf, labels, (count,), temperature, alone(1)).mean()
    expected = by_the_formula(exact, labels, exact, labels, temperature)
    torch.testing.assert_close(value.double(), expected, rtol=1e-4, atol=1e-5)
    value.backward()
    expected.backward()
    assert leaf.grad is not None
    assert exact.grad is not None
    torch.testing.assert_close(leaf.grad.double(), exact.grad, rtol=1e-3, atol=1e-4)
    pure_call(lambda r: batch_contrast(r, labels, (count,), temperature, alone(1)).total, rows)


@given(seeds, st.integers(1, 8), st.integers(1, 20), st.floats(0.05, 2))
@settings(max_examples=25)
def test_contrast_with_a_memory_is_its_formula_and_the_memory_takes_no_gradient(
    seed: int, count: int, size: int, temperature: float
) -> None:
    rows, labels = unit_rows(seed, count), some_labels(seed, count)
    memory, of = unit_rows(seed + 7, size).requires_grad_(), some_labels(seed + 7, size)
    leaf, exact = rows.clone().requires_grad_(), rows.double().requires_grad_()
    value = memory_contrast(leaf, labels, memory, of, temperature).mean()
    expected = by_the_formula(exact, labels, memory.detach().double(), of, temperature)
    torch.testing.assert_close(value.double(), expected, rtol=1e-4, atol=1e-5)
    value.backward()
    expected.backward()
    assert leaf.grad is not None
    assert exact.grad is not None
    torch.testing.assert_close(leaf.grad.double(), exact.grad, rtol=1e-3, atol=1e-4)
    assert memory.grad is None


@pytest.mark.parametrize("negatives", [1, 5])
def test_closed_forms_of_equal_and_of_orthogonal_embeddings(negatives: int) -> None:
    labels = torch.tensor([0, 0, *([1] * negatives)])
    apart = torch.eye(8)[labels]
    memory = memory_contrast(apart[:1], labels[:1], apart[1:], labels[1:], 0.1).mean()
    assert memory.item() == pytest.approx(math.log1p(negatives * math.exp(-10)), rel=1e-4)
    alike = torch.eye(8)[torch.zeros(len(labels), dtype=torch.long)]
    assert memory_contrast(alike[:1], labels[:1], alike[1:], labels[1:], 0.1).mean().item() == pytest.approx(
        math.log1p(negatives)
    )
    both = torch.tensor([0, 0, 1, 1])
    value = batch_contrast(torch.eye(8)[both], both, (4,), 0.5, alone(1)).mean()
    assert value.item() == pytest.approx(math.log1p(2 * math.exp(-2)))


@given(seeds)
@settings(max_examples=15)
def test_order_rotation_and_names_of_classes_do_not_matter(seed: int) -> None:
    rows, labels = unit_rows(seed, 9), some_labels(seed, 9)
    value = batch_contrast(rows, labels, (9,), 0.2, alone(1)).mean()
    order = torch.randperm(9, generator=rng_of(seed))
    turn = torch.linalg.qr(torch.randn(8, 8, generator=rng_of(seed)))[0]
    for other, names in ((rows[order], labels[order]), (rows @ turn, labels), (rows, (labels + 1) % 3)):
        torch.testing.assert_close(batch_contrast(other, names, (9,), 0.2, alone(1)).mean(), value)


def test_a_further_negative_never_lowers_the_loss_and_one_class_alone_loses_nothing() -> None:
    rows, labels = unit_rows(0, 4), torch.tensor([0, 0, 1, 1])
    memory, of = unit_rows(1, 6), torch.tensor([0, 1, 1, 0, 1, 0])
    fewer = memory_contrast(rows[:2], labels[:2], memory[:5], of[:5], 0.1).mean()
    more = torch.cat([memory[:5], unit_rows(2, 1)]), torch.cat([of[:5], torch.tensor([2])])
    assert memory_contrast(rows[:2], labels[:2], *more, 0.1).mean() >= fewer
    same = torch.zeros(4, dtype=torch.long)
    leaf = rows.clone().requires_grad_()
    for value in (
        batch_contrast(leaf, same, (4,), 0.1, alone(1)).mean(),
        memory_contrast(leaf, same, memory, torch.zeros(6, dtype=torch.long), 0.1).mean(),
        batch_contrast(leaf, torch.arange(4), (4,), 0.1, alone(1)).mean(),
        memory_contrast(leaf, labels + 5, memory, of, 0.1).mean(),
        batch_contrast(leaf[:0], labels[:0], (0,), 0.1, alone(1)).mean(),
    ):
        assert value == 0
        (gradient,) = torch.autograd.grad(value, leaf)
        assert (gradient == 0).all()


@pytest.mark.parametrize("counts", [(6, 3), (4, 0, 5)], ids=str)
def test_shares_of_processes_add_up_to_loss_and_gradient_of_one(counts: tuple[int, ...]) -> None:
    rows, labels = unit_rows(3, 9), some_labels(3, 9)
    leaf = rows.clone().requires_grad_()
    whole = batch_contrast(leaf, labels, (9,), 0.1, alone(1))
    whole.mean().backward()

    def work(processes: Processes) -> tuple[Tensor, Tensor]:
        own = torch.split(rows, counts)[processes.rank].clone().requires_grad_()
        found = batch_contrast(own, torch.split(labels, counts)[processes.rank], counts, 0.1, processes).mean()
        found.backward()
        assert own.grad is not None
        return found.detach(), own.grad

    found = together(counts, work)
    torch.testing.assert_close(torch.stack([value for value, _ in found]).sum(), whole.mean().detach())
    torch.testing.assert_close(torch.cat([gradient for _, gradient in found]), leaf.grad)


# What anchors meet besides


@given(seeds, st.integers(1, 5))
@settings(max_examples=15)
def test_rows_that_are_positives_of_several_classes_are_so_for_each_and_negatives_of_the_others(
    seed: int, sources: int
) -> None:
    rows, labels, memory, of = (
        unit_rows(seed, 7),
        some_labels(seed, 7),
        unit_rows(seed + 7, 9),
        some_labels(seed + 7, 9),
    )
    related = torch.rand(3, sources, generator=rng_of(seed + 9)) < 0.5
    memory = torch.cat([memory, unit_rows(seed + 8, sources)])
    nothing = torch.full((sources,), IGNORE)
    found = memory_contrast(rows, labels, memory, torch.cat([of, nothing]), 0.2, related)
    both = batch_contrast(rows, labels, (7,), 0.2, alone(1), None, memory[9:], related)
    total, batch = torch.zeros(()), torch.zeros(())
    for label in range(3):  # with these rows as any that are of the class
        own, as_of = labels == label, torch.where(related[label], label, 3 + 0 * nothing)
        total = total + memory_contrast(rows[own], labels[own], memory, torch.cat([of, as_of]), 0.2).total
        whole, names = torch.cat([rows, memory[9:]]), torch.cat([labels, as_of])
        for i in own.nonzero().flatten().tolist():
            others = [j for j in range(len(whole)) if j != i]
            batch = batch + by_the_formula(whole[i : i + 1], names[i : i + 1], whole[others], names[others], 0.2)
    torch.testing.assert_close(found.total, total)
    torch.testing.assert_close(both.total, batch, rtol=1e-4, atol=1e-5)


def test_anchors_of_the_same_image_only_are_a_batch_for_each_image() -> None:
    rows, labels, images = unit_rows(4, 10), some_labels(4, 10), torch.tensor([0, 0, 0, 0, 0, 1, 1, 1, 1, 1])
    found = batch_contrast(rows, labels, (10,), 0.2, alone(2), images)
    parts = [batch_contrast(rows[own], labels[own], (5,), 0.2, alone(1)) for own in (images == 0, images == 1)]
    torch.testing.assert_close(found.total, parts[0].total + parts[1].total)
    torch.testing.assert_close(found.weight, parts[0].weight + parts[1].weight)


# Mining


def choice_of(mining: str, count: int, positives: int, negatives: int, seed: int = 0) -> Choice:
    return Choice(mining, positives, negatives, torch.randint(2**31, (count, 2), generator=rng_of(seed)))


@given(seeds, st.integers(1, 6), st.integers(1, 9))
@settings(max_examples=20)
def test_the_hardest_rows_of_a_memory_have_loss_and_gradient_of_the_formula_with_these_alone(
    seed: int, positives: int, negatives: int
) -> None:
    rows, labels, memory, of = (
        unit_rows(seed, 5),
        some_labels(seed, 5),
        unit_rows(seed + 7, 24),
        some_labels(seed + 7, 24),
    )
    leaf, exact = rows.clone().requires_grad_(), rows.double().requires_grad_()
    choice = choice_of("hardest", 5, positives, negatives)
    memory_contrast(leaf, labels, memory, of, 0.2, choice=choice).total.backward()
    terms = []
    for i, label in enumerate(labels.tolist()):
        similar = memory @ rows[i]
        near = (of == label).nonzero().flatten()
        far = (of != label).nonzero().flatten()
        near = near[similar[near].argsort()[:positives]]
        far = far[similar[far].argsort(descending=True)[:negatives]]
        some = torch.cat([near, far])
        terms.append(by_the_formula(exact[[i]], labels[[i]], memory.double()[some], of[some], 0.2))
    torch.stack(terms).sum().backward()
    assert leaf.grad is not None
    assert exact.grad is not None
    torch.testing.assert_close(leaf.grad.double(), exact.grad, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("mining", ["random", "hardest", "semi_hard"])
def test_a_choice_of_more_rows_than_there_are_is_all_of_them_and_one_of_fewer_does_not_depend_on_other_anchors(
    mining: str,
) -> None:
    rows, labels, memory, of = unit_rows(1, 6), some_labels(1, 6), unit_rows(2, 60), some_labels(2, 60)
    whole = memory_contrast(rows, labels, memory, of, 0.1).total
    torch.testing.assert_close(
        memory_contrast(rows, labels, memory, of, 0.1, choice=choice_of(mining, 6, 60, 60)).total, whole
    )
    few = choice_of(mining, 6, 3, 4)
    value = pure_call(lambda r: memory_contrast(r, labels, memory, of, 0.1, choice=few).total, rows)
    assert value != whole
    alone_each = [
        memory_contrast(rows[[i]], labels[[i]], memory, of, 0.1, choice=few._replace(draws=few.draws[[i]])).total
        for i in range(6)
    ]
    torch.testing.assert_close(torch.stack(alone_each).sum(), value)


def test_semi_hard_rows_are_drawn_from_the_highest_tenth_and_random_ones_from_all_alike() -> None:
    draws = torch.randint(2**31, (3000, 2), generator=rng_of(3))
    scores = torch.rand(1, 200, generator=rng_of(4)).expand(3000, 200)
    scores = torch.cat([scores, torch.full((3000, 5), -torch.inf)], 1)
    for mining, pool in (("semi_hard", scores[0].argsort(descending=True)[:20]), ("random", torch.arange(200))):
        rows = chosen_rows(scores, torch.arange(200), 6, mining, draws)
        assert rows.shape == (3000, 6)
        assert (rows.sort(1).values.diff(dim=1) > 0).all()  # without replacement
        counts = torch.bincount(rows.flatten(), minlength=205)
        assert set(counts.nonzero().flatten().tolist()) == set(pool.tolist())
        share = 6 / len(pool)
        assert (counts[pool] / 3000 - share).abs().max() < 5 * (share * (1 - share) / 3000) ** 0.5


@given(seeds, st.integers(1, 40))
@settings(max_examples=20)
def test_numbers_that_are_drawn_are_different_and_as_many_as_asked_for(seed: int, available: int) -> None:
    draws = torch.randint(2**31, (4, 2), generator=rng_of(seed))
    for count in {1, available // 2, available}:
        found = drawn(count, available, draws).sort(1).values
        assert found.shape == (4, count)
        assert (found.diff(dim=1) > 0).all()
        assert count == 0 or (int(found.min()) >= 0 and int(found.max()) < available)


# Anchors


@given(seeds, st.integers(0, 6), st.integers(1, 30))
@settings(max_examples=30)
def test_anchors_are_pixels_of_their_classes_as_many_as_asked_for_and_half_of_them_hard(
    seed: int, max_views: int, views: int
) -> None:
    rng = rng_of(seed)
    labels = torch.randint(IGNORE, 3, (2, 5, 6), generator=rng)
    wrong = torch.rand(2, 5, 6, generator=rng) < 0.4
    groups = pure_call(anchor_groups, labels, 3, max_views)
    for image in range(2):
        assert groups[image].tolist() == [int((labels[image] == label).sum()) > max_views for label in range(3)]
        drawn = draw_anchors(labels[image], wrong[image], groups[image], views, rng_of(seed))
        assert torch.equal(drawn, draw_anchors(labels[image], wrong[image], groups[image], views, rng_of(seed)))
        assert len(drawn.unique()) == len(drawn)
        of, hard = labels[image].flatten()[drawn], wrong[image].flatten()[drawn]
        assert IGNORE not in of.tolist()
        for label in range(3):
            there = labels[image].flatten() == label
            bad, good = int((there & wrong[image].flatten()).sum()), int((there & ~wrong[image].flatten()).sum())
            chosen = of == label
            if not groups[image, label]:
                assert not chosen.any()
                continue
            assert int(chosen.sum()) == min(views, bad + good)
            expected = views // 2 if 2 * min(bad, good) >= views else min(bad, max(views // 2, views - good))
            assert int((chosen & hard).sum()) == expected


def test_groups_share_the_samples() -> None:
    assert [anchor_views(groups, 1024, 100) for groups in (0, 1, 10, 11, 2000)] == [0, 100, 100, 93, 0]


@given(seeds, st.integers(1, 9))
@settings(max_examples=20)
def test_pixels_for_a_memory_are_of_their_class_and_as_many_as_there_are_up_to_so_many(seed: int, count: int) -> None:
    labels = torch.randint(IGNORE, 4, (5, 6), generator=rng_of(seed))
    found = draw_pixels(labels, 4, count, rng_of(seed))
    assert torch.equal(found, draw_pixels(labels, 4, count, rng_of(seed)))
    for label in range(4):
        places = found[label][found[label] >= 0]
        assert len(places.unique()) == len(places) == min(count, int((labels == label).sum()))
        assert (labels.flatten()[places] == label).all()
