"""What classes are to each other by what they are called: by hand, by brute force, and against SciPy's optimum."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mdp.core.class_relations import Relation
from mdp.core.class_votes import (
    VotedRelation,
    VoteSettings,
    class_sizes,
    compositions,
    containment,
    largest_share,
    made_of,
    name_prior,
    vote_shares,
    voted_relations,
)
from mdp.core.labels import LabelSpace, LabelUnion
from mdp.core.relation_scores import agreements
from mdp.io.datasets import shapes_coarse, shapes_fine, shapes_target
from mdp.io.datasets._scenes import WORLD, true_relation
from tests.laws import pure_call
from tests.tensors import rng_of, seeds

SETTINGS = VoteSettings()
SHAPES = (shapes_coarse, shapes_fine, shapes_target)


def mistakes_of(seed: int, classes: int, right: float = 0.6) -> Tensor:
    """A classifier that is right more often than not."""
    wrong = torch.rand(classes, classes, generator=rng_of(seed), dtype=torch.float64)
    return right * torch.eye(classes, dtype=torch.float64) + (1 - right) * wrong / wrong.sum(1, keepdim=True)


def relations_of(votes: Tensor, dataset: Tensor, rounds: int = SETTINGS.rounds) -> tuple[VotedRelation, ...]:
    parts = pure_call(compositions, votes, dataset, rounds)
    sizes = pure_call(class_sizes, votes, dataset)
    found: tuple[VotedRelation, ...] = pure_call(voted_relations, parts, sizes, dataset, SETTINGS)
    return found


def of(kinds: dict[tuple[int, int], float], classes: int) -> Tensor:
    """A table (C, C) with these entries."""
    table = torch.zeros(classes, classes, dtype=torch.float64)
    for (row, column), value in kinds.items():
        table[row, column] = value
    return table


# shares and what classes are made of


@given(seeds)
def test_shares_add_up_to_one_for_each_dataset_and_do_not_depend_on_how_many_photos_vote(seed: int) -> None:
    dataset = torch.tensor([0, 0, 1, 1, 1, 2])
    votes = torch.randint(0, 9, (6, 6), generator=rng_of(seed)).double()
    found = pure_call(vote_shares, votes, dataset)
    for row in range(6):
        for number in range(3):
            own = dataset == number
            total = float(votes[row, own].sum())
            assert float(found[row, own].sum()) == pytest.approx(float(total > 0))
            assert torch.allclose(found[row, own] * total, votes[row, own])
    assert torch.allclose(vote_shares(7 * votes, dataset), found)


@settings(max_examples=10)  # of nine mixtures each, which take as long as one
@given(seeds, st.integers(2, 5))
def test_mistakes_that_are_known_are_undone(seed: int, classes: int) -> None:
    mistakes = mistakes_of(seed, classes)
    true = torch.rand(9, classes, generator=rng_of(seed + 1), dtype=torch.float64)
    true /= true.sum(1, keepdim=True)
    found = pure_call(made_of, true @ mistakes, mistakes, 1000)
    assert torch.allclose(found, true, atol=0.02)
    assert torch.allclose(made_of(true, torch.eye(classes, dtype=torch.float64), 1), true)  # without mistakes at once


@given(seeds)
def test_what_is_found_is_as_likely_as_the_best_that_scipy_finds(seed: int) -> None:
    optimize = pytest.importorskip("scipy.optimize")
    mistakes = mistakes_of(seed, 3, right=0.4)
    votes = torch.rand(1, 3, generator=rng_of(seed + 1), dtype=torch.float64)
    votes /= votes.sum()  # any, so that the best may lie on the border

    def cost(free: np.ndarray) -> float:
        return float(-(votes[0].numpy() * np.log(free @ mistakes.numpy() + 1e-12)).sum())

    sums = {"type": "eq", "fun": lambda free: free.sum() - 1}
    theirs = optimize.minimize(cost, np.full(3, 1 / 3), bounds=[(0, 1)] * 3, constraints=sums, method="SLSQP")
    costs = [cost(made_of(votes, mistakes, rounds)[0].numpy()) for rounds in (1, 10, 1000)]
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] <= theirs.fun + 1e-4


def test_a_class_that_is_never_seen_is_no_part_and_what_has_no_votes_is_made_of_nothing() -> None:
    mistakes = torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0], [0, 0, 0]], dtype=torch.float64)
    shares = torch.tensor([[0.75, 0.25, 0], [0, 0, 0]], dtype=torch.float64)
    found = made_of(shares, mistakes, 500)
    assert torch.allclose(found, torch.tensor([[0.5, 0.5, 0], [0, 0, 0]], dtype=torch.float64), atol=1e-3)


def test_votes_beforehand_move_the_shares_by_their_weight_and_none_change_no_bit() -> None:
    mistakes, shares = mistakes_of(0, 2), torch.tensor([[0.5, 0.5]], dtype=torch.float64)
    exact = torch.eye(2, dtype=torch.float64)
    assert made_of(shares, exact, 9, torch.tensor([[0.0, 1.0]])).tolist() == [[0.25, 0.75]]
    assert torch.equal(made_of(shares, mistakes, 9, torch.zeros(1, 2)), made_of(shares, mistakes, 9))


def test_votes_that_are_no_counts_are_refused() -> None:
    dataset = torch.tensor([0, 1])
    with pytest.raises(ValueError, match=r"votes of 2 classes: expected \(2, 2\), got \(2, 3\)"):
        vote_shares(torch.zeros(2, 3), dataset)
    with pytest.raises(ValueError, match="counts of zero or more"):
        compositions(torch.tensor([[1.0, -1], [0, 1]]), dataset, 5)
    with pytest.raises(ValueError, match="within: expected"):
        VoteSettings(within=1.5)


# relations


def shapes_votes(seed: int | None) -> tuple[Tensor, Tensor, list[Relation]]:
    """Votes of the generated datasets by what their classes mean, with each classifier's mistakes, and the truth."""
    sizes = [len(module.CLASSES) for module in SHAPES]
    starts = [sum(sizes[:place]) for place in range(3)]
    mistakes = torch.zeros(sum(sizes), sum(sizes), dtype=torch.float64)
    for start, size in zip(starts, sizes, strict=True):
        mistakes[start : start + size, start : start + size] = mistakes_of(seed or 0, size, 0.5 if seed else 1.0)
    ideal = torch.zeros(sum(sizes), sum(sizes), dtype=torch.float64)
    for thing in WORLD:
        labels = [start + m.CLASSES.index(m.MEANING[thing]) for start, m in zip(starts, SHAPES, strict=True)]
        ideal[torch.tensor(labels)[:, None], torch.tensor(labels)] += 100
    dataset = torch.arange(3).repeat_interleave(torch.tensor(sizes))
    names = [(module, label) for module in SHAPES for label in module.CLASSES]
    truth = []
    for first, (one, name) in enumerate(names):
        for second, (other, label) in enumerate(names):
            kind = true_relation(one.MEANING, name, other.MEANING, label) if first != second else "apart"
            if one is not other and (kind == "part" or (kind == "same" and first < second)):
                truth.append(Relation({"same": "equal"}.get(kind, kind), first, second))
    return ideal @ mistakes, dataset, truth


@pytest.mark.parametrize("seed", [None, 1, 2])
def test_votes_of_the_generated_taxonomies_give_every_relation_back_through_mistakes(seed: int | None) -> None:
    votes, dataset, truth = shapes_votes(seed)
    found = agreements([Relation(*r[:3]) for r in relations_of(votes, dataset)], truth)
    assert (found["equal"].right, found["equal"].suggested, found["equal"].true) == (7, 7, 7)
    assert (found["part"].right, found["part"].suggested, found["part"].true) == (20, 20, 20)
    assert found["overlap"].suggested == 0


def test_relations_by_hand() -> None:
    # a0 = b0; a1 and a2 are b1; half of a3 is b2, half of which is a3; nothing returns what a4 is called
    dataset = torch.tensor([0] * 5 + [1] * 3)
    parts = of(
        {(0, 5): 0.9, (5, 0): 0.8, (1, 6): 0.9, (2, 6): 0.8, (6, 1): 0.7, (6, 2): 0.2,
         (3, 7): 0.45, (7, 3): 0.4, (4, 5): 0.9, (5, 4): 0.01}, 8)  # fmt: skip
    sizes = torch.tensor([0.2, 0.3, 0.1, 0.2, 0.2, 0.4, 0.4, 0.2], dtype=torch.float64)
    found = pure_call(voted_relations, parts, sizes, dataset, SETTINGS)
    assert found == (
        VotedRelation("equal", 0, 5, 0.9, 0.8),
        VotedRelation("part", 1, 6, 0.9, 0.7),  # most of b1 is a1, but a2 is there too
        VotedRelation("part", 2, 6, 0.8, 0.2),
        VotedRelation("overlap", 3, 7, 0.45, 0.4),
    )
    assert found[0].related == pytest.approx(0.85)
    assert largest_share(parts, dataset)[6].tolist() == [False, True, False, False, False, False, False, False]


def test_a_small_part_needs_little_in_return_and_a_large_one_much() -> None:
    dataset = torch.tensor([0, 0, 1, 1])
    parts = of({(0, 2): 0.9, (2, 0): 0.02, (1, 3): 0.9, (3, 1): 0.02}, 4)
    sizes = torch.tensor([0.01, 0.99, 0.2, 0.8], dtype=torch.float64)
    assert containment(parts, sizes, dataset, SETTINGS).nonzero().tolist() == [[0, 2]]


def test_what_the_other_datasets_classes_are_all_called_as_often_is_no_return() -> None:
    dataset = torch.tensor([0, 0, 1, 1])
    parts = of({(0, 2): 0.9, (2, 0): 0.4, (3, 0): 0.4, (1, 3): 0.9, (3, 1): 0.5}, 4)
    sizes = torch.tensor([0.5, 0.5, 0.5, 0.5], dtype=torch.float64)
    assert containment(parts, sizes, dataset, SETTINGS).nonzero().tolist() == [[1, 3]]


@given(seeds)
def test_the_order_of_classes_does_not_matter(seed: int) -> None:
    votes, dataset, _ = shapes_votes(1)
    votes = votes + 40 * torch.rand(votes.shape, generator=rng_of(seed), dtype=torch.float64)
    turn = torch.randperm(len(dataset), generator=rng_of(seed))
    plain = relations_of(votes, dataset, rounds=40)  # any number; the law is the same
    moved = relations_of(votes[turn][:, turn], dataset[turn], rounds=40)

    def told(found: tuple[VotedRelation, ...], names: list[int]) -> set[tuple[str, tuple[int, ...]]]:
        pairs = [(r.kind, (names[r.first], names[r.second])) for r in found]
        return {(kind, ends if kind == "part" else tuple(sorted(ends))) for kind, ends in pairs}

    assert told(plain, list(range(len(dataset)))) == told(moved, turn.tolist())
    assert all(dataset[r.first] != dataset[r.second] for r in plain)


def test_names_that_are_equal_or_alike_speak_across_datasets_only() -> None:
    union = LabelUnion(
        [LabelSpace(name="a", classes=("wall", "tree")), LabelSpace(name="b", classes=("Wall", "plant"))]
    )
    vectors = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0.8, 0.6]])
    found = pure_call(name_prior, union, vectors)
    assert found.nonzero().tolist() == [[0, 2], [1, 3], [2, 0], [3, 1]]
    assert found[1, 3] == pytest.approx(0.8)
    assert name_prior(union, None).nonzero().tolist() == [[0, 2], [2, 0]]
