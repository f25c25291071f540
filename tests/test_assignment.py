"""The assignment problem: scipy's totals, every permutation of small ones, and what bad costs get."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdp.core.assignment import assign
from tests.laws import pure_call

sizes = st.integers(0, 12)


def costs_of(seed: int, rows: int, columns: int, kind: str) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if kind == "counts":  # as of clusters and categories: most are 0, and what is large is so in one place
        return -(rng.pareto(1, (rows, columns)) * 10).astype(np.int64)
    return rng.integers(-3, 4, (rows, columns)) if kind == "ties" else rng.normal(size=(rows, columns))


@given(st.integers(0, 10**6), sizes, sizes, st.sampled_from(["counts", "ties", "normal"]))
def test_the_total_is_scipys_and_no_column_is_taken_twice(seed: int, rows: int, more: int, kind: str) -> None:
    optimize = pytest.importorskip("scipy.optimize")
    cost = costs_of(seed, rows, rows + more, kind)
    found = pure_call(assign, cost)
    assert len({*found.tolist()}) == rows
    place = optimize.linear_sum_assignment(cost)
    assert float(cost[np.arange(rows), found].sum()) == pytest.approx(float(cost[place].sum()), abs=1e-9)


@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(0, 2))
def test_no_other_choice_of_columns_costs_less(seed: int, rows: int, more: int) -> None:
    cost = costs_of(seed, rows, rows + more, "ties")
    least = min(
        cost[np.arange(rows), list(chosen)].sum() for chosen in itertools.permutations(range(rows + more), rows)
    )
    assert cost[np.arange(rows), assign(cost)].sum() == least


def test_a_matching_is_found_again_when_categories_are_shuffled() -> None:
    rng = np.random.default_rng(0)
    order = rng.permutation(919)
    counts = rng.integers(0, 20, (919, 919))
    counts[np.arange(919), order] += 1000
    assert assign(-counts).tolist() == order.tolist()


def test_hand_values() -> None:
    assert assign(np.array([[1, 2], [1, 5]])).tolist() == [1, 0]
    assert assign(np.zeros((2, 4))).tolist() == [0, 1]
    assert assign(np.zeros((0, 3))).tolist() == []
    assert assign(np.array([[5.0, 5.0, 1.0]])).tolist() == [2]


@pytest.mark.parametrize(
    ("cost", "words"),
    [
        (np.zeros((3, 2)), r"cost \(3, 2\): expected a matrix with no more rows than columns"),
        (np.zeros(3), r"cost \(3,\): expected a matrix"),
        (np.array([[np.nan]]), "cost: expected finite numbers"),
        (np.array([[np.inf, 0.0]]), "cost: expected finite numbers"),
    ],
)
def test_what_is_no_problem_to_solve_is_refused(cost: np.ndarray, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        assign(cost)
