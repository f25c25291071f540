"""How clusters agree with categories: scikit-learn's numbers, laws, hand values."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mdp.core.cluster_agreement import joint_counts, matched_share, normalised_information
from tests.laws import pure_call
from tests.tensors import rng_of, seeds


@given(seeds, st.integers(1, 5), st.integers(1, 4))
def test_numbers_are_those_of_the_definition_and_of_scikit_learn(seed: int, clusters: int, categories: int) -> None:
    rng = rng_of(seed)
    made, true = (torch.randint(size, (30,), generator=rng) for size in (clusters, categories))
    counts = pure_call(joint_counts, made, true, (clusters, categories))
    assert counts.tolist() == [
        [int(((made == k) & (true == c)).sum()) for c in range(categories)] for k in range(clusters)
    ]
    small, large = sorted((clusters, categories))
    table = counts if clusters <= categories else counts.T
    best = max(
        sum(int(table[i, j]) for i, j in enumerate(order)) for order in itertools.permutations(range(large), small)
    )
    assert pure_call(matched_share, counts) == best / 30
    found = pure_call(normalised_information, counts)
    metrics = pytest.importorskip("sklearn.metrics")
    assert found == pytest.approx(metrics.normalized_mutual_info_score(true, made), abs=1e-9)


@given(seeds, st.integers(2, 5))
def test_other_numbers_for_the_same_clusters_change_nothing_and_the_categories_themselves_are_1(
    seed: int, categories: int
) -> None:
    rng = rng_of(seed)
    true = torch.cat([torch.arange(categories), torch.randint(categories, (20,), generator=rng)])
    made, order = torch.randint(3, true.shape, generator=rng), torch.randperm(3, generator=rng)
    plain, renamed = (joint_counts(own, true, (3, categories)) for own in (made, order[made]))
    assert normalised_information(plain) == pytest.approx(normalised_information(renamed), abs=1e-12)
    assert matched_share(plain) == matched_share(renamed)
    same = joint_counts(torch.randperm(categories, generator=rng)[true], true, (categories, categories))
    assert (normalised_information(same), matched_share(same)) == (pytest.approx(1), 1)


def test_one_cluster_tells_nothing_unless_there_is_one_category() -> None:
    assert normalised_information(torch.tensor([[4, 4]])) == 0
    assert normalised_information(torch.tensor([[5]])) == 1
    # 3 of 4 in two equal halves: entropies log 2 and H(1/4), mutual information log 2 - 1/2 ...
    counts = torch.tensor([[2, 0], [1, 1]])
    half, quarter = 0.6931471805599453, 0.5623351446188083
    assert normalised_information(counts) == pytest.approx(
        (half + quarter - 1.0397207708399179) / ((half + quarter) / 2)
    )
