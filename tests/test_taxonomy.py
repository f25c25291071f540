"""Relations of classes by their prototypes: by hand, by brute force, and against SciPy's clustering."""

import math
from itertools import chain, pairwise, product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from torch import Tensor
from torch.nn import functional as F

from mdp.core.prototype_bank import Prototypes
from mdp.core.taxonomy import (
    Relations,
    RelationSettings,
    average_linkage,
    centred_cosines,
    class_cosines,
    cluster_order,
    corrected,
    find_relations,
    mutual_pairs,
    nearest_classes,
    shared_nearest,
)
from tests.laws import pure_call
from tests.tensors import rng_of, seeds

ANY = RelationSettings(crops=1)


def known_of(rows: Tensor) -> Prototypes:
    return Prototypes(F.normalize(rows.float(), dim=1), rows.any(1))


def random_world(seed: int, sizes: tuple[int, ...] = (4, 6, 5)) -> tuple[Prototypes, Tensor, Tensor]:
    """Prototypes, datasets and crops; some classes absent, some seen rarely."""
    rng = rng_of(seed)
    classes = sum(sizes)
    rows = torch.randn(classes, 4, generator=rng) * (torch.rand(classes, 1, generator=rng) > 0.1)
    dataset = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    return known_of(rows), dataset, torch.randint(1, 60, (classes,), generator=rng) * rows.any(1)


WORLD = ("wall", "sky", "tree", "car")
A = {"wall": (1, 0, 0, 0), "sky": (0, 1, 0, 0), "tree": (0, 0, 1, 0), "car": (0, 0, 0, 1)}
B = {"brick": (0.9, 0, 0, 0.1), "concrete": (0.9, 0, 0.1, 0), "sky": (0, 1, 0, 0), "tree": (0, 0, 1, 0),
     "car": (0, 0, 0, 1), "cow": (-1, -1, -1, -1)}  # fmt: skip


def test_in_a_world_by_hand_twins_pair_up_and_bricks_fall_under_walls() -> None:
    names = [f"a/{name}" for name in A] + [f"b/{name}" for name in B]
    known = known_of(torch.tensor([*A.values(), *B.values()], dtype=torch.float64))
    dataset = torch.tensor([0] * len(A) + [1] * len(B))
    found = find_relations(known, dataset, torch.full((len(names),), 50), RelationSettings(neighbours=3))
    pairs = {(names[pair.first], names[pair.second]) for pair in found.pairs}
    assert {("a/sky", "b/sky"), ("a/tree", "b/tree"), ("a/car", "b/car")} <= pairs
    assert len(pairs) == 4  # and wall with one of its parts
    groups = {(names[g.whole], tuple(names[part] for part in g.parts)) for g in found.groups}
    assert groups == {("a/wall", ("b/brick", "b/concrete"))}
    assert [names[label] for label in found.alone] == ["b/cow"]


@given(seeds)
def test_centred_cosines_are_those_of_the_prototypes_less_their_mean(seed: int) -> None:
    known, _, _ = random_world(seed)
    plain, centred = pure_call(class_cosines, known), pure_call(centred_cosines, known)
    there = known.present.nonzero()[:, 0].tolist()
    vectors = known.vectors.double().numpy()
    mean = np.mean(vectors[there], 0)
    for i, j in product(range(len(vectors)), repeat=2):
        if not (i in there and j in there):
            assert math.isnan(plain[i, j])
            assert math.isnan(centred[i, j])
            continue
        for found, a, b in ((plain, vectors[i], vectors[j]), (centred, vectors[i] - mean, vectors[j] - mean)):
            assert found[i, j] == pytest.approx(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)), abs=1e-6)


@given(seeds)
def test_relations_do_not_change_when_all_prototypes_are_turned_together(seed: int) -> None:
    known, dataset, crops = random_world(seed)
    turn = torch.linalg.qr(torch.randn(4, 4, generator=rng_of(seed), dtype=torch.float64)).Q.float()
    first = find_relations(known, dataset, crops, RelationSettings())
    second = find_relations(Prototypes(known.vectors @ turn, known.present), dataset, crops, RelationSettings())
    assert [pair[:2] for pair in first.pairs] == [pair[:2] for pair in second.pairs]
    assert torch.allclose(first.similarity.nan_to_num(), second.similarity.nan_to_num(), atol=1e-4)


@given(seeds)
def test_scores_are_of_plain_cosines_and_similarities_of_centred_ones(seed: int) -> None:
    known, dataset, crops = random_world(seed)
    sure = known.present & (crops >= 1)
    nearest = nearest_classes(corrected(class_cosines(known), dataset, sure, ANY.neighbours), dataset)
    found = find_relations(known, dataset, crops, ANY)
    assert repr(found.pairs) == repr(mutual_pairs(centred_cosines(known), nearest, dataset, crops))
    assert found.groups == shared_nearest(centred_cosines(known), nearest, dataset)


def test_datasets_of_one_class_have_no_usual_to_be_nearer_than() -> None:
    found = find_relations(known_of(torch.ones(2, 3)), torch.tensor([0, 1]), torch.full((2,), 50), ANY)
    assert not found.pairs
    assert found.alone == (0, 1)


@given(seeds, st.integers(1, 4))
def test_a_score_is_the_similarity_less_the_mean_of_both_sides_best(seed: int, neighbours: int) -> None:
    known, dataset, crops = random_world(seed)
    similarity, sure = class_cosines(known), known.present & (crops > 9)
    scores = pure_call(corrected, similarity, dataset, sure, neighbours)

    def usual(label: int, there: int) -> float:
        values = [float(similarity[label, i]) for i in range(len(dataset)) if sure[i] and dataset[i] == there]
        return sum(sorted(values)[-neighbours:]) / min(neighbours, len(values))

    for i, j in product(range(len(dataset)), repeat=2):
        if dataset[i] == dataset[j] or not (sure[i] and sure[j]):
            assert scores[i, j] == -math.inf
        else:
            both = usual(i, int(dataset[j])) + usual(j, int(dataset[i]))
            assert scores[i, j] == pytest.approx(float(similarity[i, j]) - both / 2, abs=1e-9)


def test_a_class_near_to_everything_loses_to_one_that_is_near_to_one() -> None:
    # rows a0, a1, a2; columns b0 (near to all three) and b1 (near to a0 alone)
    near = torch.tensor([[0.80, 0.78], [0.80, 0.10], [0.80, 0.10]], dtype=torch.float64)
    similarity = torch.eye(5, dtype=torch.float64)
    similarity[:3, 3:], similarity[3:, :3] = near, near.T
    dataset, sure = torch.tensor([0, 0, 0, 1, 1]), torch.ones(5, dtype=torch.bool)
    scores = corrected(similarity, dataset, sure, 2)
    assert similarity[0, 3] > similarity[0, 4]
    # a0's usual is 0.79; b0's is 0.80 and b1's (0.78 + 0.10) / 2 = 0.44
    assert scores[0, 3] == pytest.approx(0.80 - (0.79 + 0.80) / 2)
    assert scores[0, 4] == pytest.approx(0.78 - (0.79 + 0.44) / 2)
    assert nearest_classes(scores, dataset).label[0, 1] == 4


@given(seeds)
def test_pairs_and_groups_are_those_of_brute_force(seed: int) -> None:
    known, dataset, crops = random_world(seed)
    similarity, sure = centred_cosines(known), known.present & (crops > 9)
    scores = corrected(class_cosines(known), dataset, sure, 2)
    nearest = pure_call(nearest_classes, scores, dataset)
    classes = range(len(dataset))

    def best(label: int, there: int) -> int | None:
        among = [j for j in classes if dataset[j] == there and scores[label, j] > 0 and similarity[label, j] > 0]
        top = max((j for j in classes if dataset[j] == there), key=lambda j: float(scores[label, j]))
        return top if top in among else None

    expected = {
        (i, j) for i in classes for j in classes
        if i < j and dataset[i] != dataset[j] and best(i, int(dataset[j])) == j and best(j, int(dataset[i])) == i
    }  # fmt: skip
    pairs = mutual_pairs(similarity, nearest, dataset, crops)
    assert {(pair.first, pair.second) for pair in pairs} == expected
    for pair in pairs:
        i, j = pair.first, pair.second
        rivals = [float(scores[i, k]) for k in classes if k != j and dataset[k] == dataset[j]]
        rivals += [float(scores[k, j]) for k in classes if k != i and dataset[k] == dataset[i]]
        assert (pair.similarity, pair.score) == (float(similarity[i, j]), float(scores[i, j]))
        assert pair.crops == min(int(crops[i]), int(crops[j]))
        assert math.isnan(pair.margin) if max(rivals) == -math.inf else pair.margin == pair.score - max(rivals) >= 0
    assert [pair.score for pair in pairs] == sorted((pair.score for pair in pairs), reverse=True)
    groups = {(g.whole, g.parts) for g in shared_nearest(similarity, nearest, dataset)}
    falls = {
        (whole, tuple(i for i in classes if dataset[i] == own and best(i, int(dataset[whole])) == whole))
        for whole in classes
        for own in range(3)
        if dataset[whole] != own
    }
    assert groups == {(whole, parts) for whole, parts in falls if len(parts) > 1}


def test_the_nearest_of_a_class_is_no_relative_when_it_points_the_other_way() -> None:
    near = torch.tensor([[-0.1, -0.9], [-0.8, 0.3]], dtype=torch.float64)  # rows a0, a1; columns b0, b1
    similarity = torch.eye(4, dtype=torch.float64)
    similarity[:2, 2:], similarity[2:, :2] = near, near.T
    dataset = torch.tensor([0, 0, 1, 1])
    scores = corrected(similarity, dataset, torch.ones(4, dtype=torch.bool), 2)
    assert scores[0, 2] == pytest.approx(-0.1 + (0.5 + 0.45) / 2)  # far above the usual, and still apart
    pairs = mutual_pairs(similarity, nearest_classes(scores, dataset), dataset, torch.full((4,), 9))
    assert [(pair.first, pair.second) for pair in pairs] == [(1, 3)]


@given(seeds)
def test_permuting_the_classes_permutes_the_answer(seed: int) -> None:
    known, dataset, crops = random_world(seed)
    turn = torch.randperm(len(dataset), generator=rng_of(seed))
    plain = pure_call(find_relations, known, dataset, crops, ANY)
    moved = find_relations(Prototypes(known.vectors[turn], known.present[turn]), dataset[turn], crops[turn], ANY)
    back = turn.tolist()

    def pairs(found: Relations, names: list[int]) -> set[frozenset[int]]:
        return {frozenset((names[pair.first], names[pair.second])) for pair in found.pairs}

    def groups(found: Relations, names: list[int]) -> set[tuple[int, frozenset[int]]]:
        return {(names[group.whole], frozenset(names[part] for part in group.parts)) for group in found.groups}

    same = list(range(len(dataset)))
    assert pairs(plain, same) == pairs(moved, back)
    assert groups(plain, same) == groups(moved, back)
    for kind in ("alone", "unsure", "absent", "order"):
        assert set(getattr(plain, kind)) == {back[label] for label in getattr(moved, kind)}


@given(seeds)
def test_classes_copied_into_another_dataset_are_mutual_nearest_with_their_copies(seed: int) -> None:
    rows = torch.randn(5, 6, generator=rng_of(seed))
    dataset = torch.arange(2).repeat_interleave(5)
    found = class_cosines(known_of(torch.cat([rows, rows])))
    nearest = nearest_classes(found.masked_fill(dataset[:, None] == dataset, -torch.inf), dataset)
    assert nearest.label[:5, 1].tolist() == [5, 6, 7, 8, 9]
    assert nearest.label[5:, 0].tolist() == [0, 1, 2, 3, 4]
    assert torch.allclose(found[:5, 5:].diagonal(), torch.ones(5, dtype=torch.float64))


@given(seeds)
def test_every_class_is_related_alone_unsure_or_absent(seed: int) -> None:
    known, dataset, crops = random_world(seed)
    found = find_relations(known, dataset, crops, RelationSettings())
    related = {label for pair in found.pairs for label in (pair.first, pair.second)}
    related |= {label for group in found.groups for label in (group.whole, *group.parts)}
    kinds = [sorted(related), *(list(kind) for kind in (found.alone, found.unsure, found.absent))]
    assert sorted(chain(*kinds)) == list(range(len(dataset)))
    assert all(crops[label] < 20 for label in found.unsure)
    assert all(crops[label] >= 20 for label in related)
    assert found.absent == tuple((~known.present).nonzero()[:, 0].tolist())
    assert sorted(found.order) == known.present.nonzero()[:, 0].tolist()


@given(seeds, st.integers(2, 20))
def test_merges_and_order_agree_with_scipy(seed: int, count: int) -> None:
    points = torch.randn(count, 3, generator=rng_of(seed), dtype=torch.float64)
    distance = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist").fill_diagonal_(0).numpy()
    merges = pure_call(average_linkage, distance)
    theirs = linkage(squareform(distance, checks=False), "average")
    assert np.allclose([merge.distance for merge in merges], theirs[:, 2])
    order = pure_call(cluster_order, distance)
    assert sorted(order) == list(range(count))
    for number in range(1, count + 1):
        cut = fcluster(theirs, number, "maxclust")
        runs = [cut[label] for label in order]
        changes = sum(a != b for a, b in pairwise(runs))
        assert changes == len(set(cut)) - 1  # every cluster stands together


@given(seeds, st.integers(2, 20))
def test_no_other_turn_of_two_clusters_brings_nearer_members_together(seed: int, count: int) -> None:
    points = torch.randn(count, 3, generator=rng_of(seed), dtype=torch.float64)
    distance = torch.cdist(points, points).numpy()
    for merge in average_linkage(distance):
        ends = product((merge.left[0], merge.left[-1]), (merge.right[0], merge.right[-1]))
        assert distance[merge.left[-1], merge.right[0]] == min(distance[pair] for pair in ends)


@given(seeds, st.integers(1, 12))
def test_places_on_a_line_are_put_in_their_order(seed: int, count: int) -> None:
    places = torch.rand(count, generator=rng_of(seed), dtype=torch.float64).numpy()
    order = cluster_order(np.abs(places[:, None] - places))
    found = [float(places[label]) for label in order]
    assert found in (sorted(found), sorted(found, reverse=True))


@pytest.mark.parametrize("count", [0, 1])
def test_one_class_or_none_is_an_order_too(count: int) -> None:
    assert cluster_order(np.zeros((count, count))) == tuple(range(count))


def test_what_does_not_fit_is_refused() -> None:
    known, dataset, crops = random_world(0)
    with pytest.raises(ValueError, match="15 prototypes, but"):
        find_relations(known, dataset[:3], crops, ANY)
    with pytest.raises(ValueError, match="got none"):
        find_relations(known_of(torch.zeros(0, 4)), dataset[:0], crops[:0], ANY)
    broken = Prototypes(known.vectors.clone().fill_(math.nan), torch.ones_like(known.present))
    with pytest.raises(ValueError, match="finite"):
        find_relations(broken, dataset, crops, ANY)
    with pytest.raises(ValueError, match="neighbours: expected 2"):
        RelationSettings(neighbours=1)
    with pytest.raises(ValueError, match="crops: expected 1"):
        RelationSettings(crops=0)
