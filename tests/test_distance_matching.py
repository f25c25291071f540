"""Distance matching: the definition in float64, a search tree as the outside oracle, hand values, and a whole split."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from mdp.core.distance_matching import Memory, class_vectors, joined_memory, nearest_classes
from mdp.core.protocols import distance_matching as protocol
from mdp.io.data.selection import pool_of
from mdp.io.datasets import load
from mdp.io.datasets._dataset import open_split, open_training
from mdp.io.evaluation.counts import Reading, fit, tally
from tests.laws import pure_call
from tests.tensors import rng_of, seeds

NAN_FREE = {"rtol": 0, "atol": 1e-5}


class Case(NamedTuple):
    features: Tensor  # (D, h, w)
    labels: Tensor  # (H, W)
    memory: Memory
    k: int


@st.composite
def cases(draw: st.DrawFn) -> Case:
    rng, channels = rng_of(draw(seeds)), draw(st.integers(2, 6))
    height, width, regions = draw(st.integers(1, 5)), draw(st.integers(1, 5)), draw(st.integers(1, 40))
    vectors = F.normalize(torch.randn(regions, channels, generator=rng), dim=1)
    labels = torch.randint(-1, 4, (draw(st.integers(1, 23)), draw(st.integers(1, 23))), generator=rng)
    features = torch.randn(channels, height, width, generator=rng) + draw(st.sampled_from([0.0, 1.0]))
    memory = Memory(vectors, torch.randint(0, 5, (regions,), generator=rng))
    return Case(features, labels, memory, draw(st.integers(1, 12)))


def enlarged(features: Tensor, times: int) -> Tensor:
    """(D, P, Q) float64."""
    return F.interpolate(features.double()[None], scale_factor=times, mode="bilinear", align_corners=False)[0]


def votes(case: Case, times: int, temperature: float) -> Tensor:
    """What each class gets at each pixel, (P, Q, C), by the definition."""
    pixels = F.normalize(enlarged(case.features, times), dim=0).movedim(0, 2)  # (P, Q, D)
    top = (pixels @ case.memory.vectors.double().T).topk(min(case.k, len(case.memory.labels)), dim=2)
    weights, labels = torch.exp(top.values / temperature), case.memory.labels[top.indices]
    return torch.zeros(*labels.shape[:2], 5, dtype=torch.float64).scatter_add_(2, labels, weights)


@given(cases(), st.integers(1, 4), st.sampled_from([0.07, 0.5]), st.booleans())
def test_the_class_is_the_one_that_most_is_voted_for_however_few_scores_are_made(
    case: Case, times: int, temperature: float, pruned: bool
) -> None:
    found = pure_call(nearest_classes, case.features, case.memory, case.k, temperature, times, pruned)
    expected = votes(case, times, temperature)
    won = expected.gather(2, found[..., None])[..., 0]
    assert (won >= (1 - 1e-3) * expected.amax(2)).all()  # a tie within rounding may go to either


@given(cases(), st.integers(1, 4))
def test_a_region_is_the_mean_of_the_enlarged_features_that_have_its_label(case: Case, times: int) -> None:
    found = pure_call(class_vectors, case.features, case.labels, times)
    large = enlarged(case.features, times)
    rows, columns = (
        (torch.arange(pixels) * (whole / pixels)).floor().long()
        for pixels, whole in zip(large.shape[1:], case.labels.shape, strict=True)
    )
    at = case.labels[rows][:, columns]
    classes = sorted({*at.flatten().tolist()} - {-1})
    assert found.labels.tolist() == classes
    for vector, label in zip(found.vectors, classes, strict=True):
        mean = large[:, at == label].mean(1)
        torch.testing.assert_close(vector.double() * mean.norm(), mean, **NAN_FREE)


def test_the_nearest_are_those_of_a_search_tree() -> None:
    spatial = pytest.importorskip("scipy.spatial")
    rng = rng_of(0)
    features, vectors = torch.rand(12, 6, 7, generator=rng), F.normalize(torch.rand(900, 12, generator=rng), dim=1)
    pixels = F.normalize(enlarged(features, 4), dim=0).flatten(1).T.numpy()
    _, nearest = spatial.cKDTree(vectors.double().numpy()).query(pixels)
    found = nearest_classes(features, Memory(vectors, torch.arange(900)), 1, 0.07)
    assert np.array_equal(found.flatten().numpy(), nearest)


def test_an_image_finds_its_own_labels_where_features_tell_its_classes_apart() -> None:
    labels = torch.tensor([[0, 0, 2], [1, 1, 2]])
    features = torch.eye(3)[labels].movedim(2, 0)  # (3, 2, 3)
    memory = joined_memory([class_vectors(features, labels, 1)] * 3)
    assert nearest_classes(features, memory, 3, 0.07, 1).tolist() == labels.tolist()


def test_hand_values() -> None:
    memory = Memory(torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8]]), torch.tensor([4, 1, 1]))
    query = torch.tensor([[[2.0]], [[0.0]]])
    # votes: e^(1 / T) for 4, e^(0.8 / T) + e^(0.6 / T) for 1, which is more from T = 0.416 on
    assert [nearest_classes(query, memory, 3, t, 1).tolist() for t in (0.40, 0.43)] == [[[4]], [[1]]]
    assert nearest_classes(query, memory, 1, 0.43, 1).tolist() == [[4]]
    with pytest.raises(ValueError, match="features of 2 channels, a memory of 3"):
        nearest_classes(query, Memory(torch.eye(3), torch.arange(3)), 1, 0.07)
    with pytest.raises(ValueError, match="no labelled pixel in any image"):
        joined_memory([class_vectors(query, torch.tensor([[-1]]))])


def test_a_split_is_scored_by_what_the_labelled_images_look_like() -> None:
    target, settings, reading = load("shapes-target"), protocol.Settings(neighbours=3), Reading(workers=0)

    def colours(image: Tensor) -> Tensor:
        small = F.adaptive_avg_pool2d(image.float() / 127.5 - 1, (16, 16))
        return torch.cat([small, small * small.roll(1, 0), torch.ones(1, 16, 16)])  # (7, 16, 16)

    train, _ = open_training(target, Path())
    memory = fit(protocol, colours, pool_of([(target, train[:12])]), settings, reading)
    assert len(memory.labels) > 12
    assert torch.allclose(memory.vectors.norm(dim=1), torch.ones(len(memory.labels)))
    pool = pool_of([(target, open_split(target, Path(), "val")[0][:6])])
    counts = tally(protocol, colours, pool, settings, reading, fitted=memory)
    scores = protocol.scores(counts, memory, target.labels, settings)
    assert (scores["matching"], scores["vectors"], scores["images"]) == ("none", len(memory.labels), 6)
    own = fit(protocol, colours, pool, settings, reading)  # the scored images' own regions are found again
    counts = tally(protocol, colours, pool, settings, reading, fitted=own)
    assert protocol.scores(counts, own, target.labels, settings)["miou"] > 2 * scores["miou"] > 0
    with pytest.raises(ValueError, match=r"ratios: expected numbers in \[0, 1\]"):
        protocol.Settings(ratios=(2.0,))
