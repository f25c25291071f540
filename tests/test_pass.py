"""Alignment of points, and the laws of PASS on SwAV."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from mdp.core.alignment import alignment_loss, matched_features, point_contrast
from mdp.core.batches import Batch
from mdp.core.geometry import Box, View, cut_image
from mdp.core.methods import Data, Step, pass_s, step, swav
from mdp.core.networks import NetworkSettings
from mdp.core.photometry import PhotometrySettings
from mdp.core.views import draw_views, frames_of, matched_grids, two_views
from tests.laws import pure_call
from tests.tensors import rng_of, seeds

NETWORK = NetworkSettings(backbone="resnet18", width=8)
DATA = Data(None, batch_size=4, epoch_batches=3, channels=64)  # type: ignore[arg-type]  # it knows no classes
SMALL = pass_s.Settings(embedding=8, hidden=16, prototypes=6, frozen_steps=0, queue=None)
FAR = View(Box(32, 32, 8, 8), False)


def frames(*views: View) -> Tensor:
    return torch.cat([frames_of([view]) for view in views])


# Alignment


@given(seeds)
@settings(max_examples=15)
def test_at_matched_points_two_crops_show_the_same_place_of_the_image_mirrored_or_not(seed: int) -> None:
    """Of an image whose channels are its own rows and columns."""
    rows, columns = torch.meshgrid(torch.arange(60.0), torch.arange(80.0), indexing="ij")
    image = torch.stack([rows, columns, rows + columns])
    pair = draw_views(rng_of(seed), 60, 80, two_views(32, (0.3, 1.0), PhotometrySettings()))
    grids = matched_grids(*(frames(view) for view in pair), 5)
    found = [
        pure_call(matched_features, cut_image(image, view, (32, 32))[None], grid)[0, :, 1:-1, 1:-1]
        for view, grid in zip(pair, grids, strict=True)
    ]
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1.5)  # a pixel and a half: crops are resampled


def test_points_of_the_same_view_that_are_predicted_exactly_give_minus_one() -> None:
    maps, whole = torch.randn(3, 8, 4, 4, generator=rng_of(0)), frames(*[View(Box(2, 3, 20, 20), False)] * 3)
    first, second = (matched_features(maps, grid) for grid in matched_grids(whole, whole, 7))
    assert torch.equal(first, second)
    projected = torch.stack([first, second]).requires_grad_()
    predicted = projected.detach().clone().requires_grad_()
    losses = pure_call(alignment_loss, predicted, projected)
    torch.testing.assert_close(losses, -torch.ones(3))
    losses.sum().backward()
    assert projected.grad is None
    assert predicted.grad is not None


def test_views_that_share_nothing_have_no_points_and_no_loss() -> None:
    near, far = frames(View(Box(0, 0, 8, 8), False)), frames(FAR)
    points = torch.stack([matched_features(torch.ones(1, 8, 4, 4), grid) for grid in matched_grids(near, far, 7)])
    assert not points.any()
    predicted = torch.randn(2, 1, 8, 7, 7, generator=rng_of(0))  # a predictor has biases
    assert alignment_loss(predicted, points).tolist() == [0]
    assert point_contrast(predicted, points, 0.2).tolist() == [0]


def test_alignment_by_hand() -> None:
    """p_0 against z_1: cosines 1 and 0; p_1 against z_0: -1 and 0.6."""
    predicted = torch.tensor([[[[1.0, 2.0]], [[0.0, 0.0]]], [[[0.0, 3.0]], [[1.0, 4.0]]]])[:, None]  # (2, 1, 2, 1, 2)
    projected = torch.tensor([[[[0.0, 5.0]], [[-2.0, 0.0]]], [[[3.0, 0.0]], [[0.0, 1.0]]]])[:, None]
    torch.testing.assert_close(alignment_loss(predicted, projected), torch.tensor([-(1 + 0 - 1 + 0.6) / 4]))


def test_points_all_alike_cost_the_log_of_their_number_and_distinct_ones_less() -> None:
    alike = torch.ones(2, 1, 9, 3, 3)
    torch.testing.assert_close(pure_call(point_contrast, alike, alike, 0.2), torch.tensor([math.log(9)]))
    distinct = torch.eye(9).view(1, 1, 9, 3, 3).expand(2, -1, -1, -1, -1)
    expected = math.log(1 + 8 * math.exp(-1 / 0.2))
    torch.testing.assert_close(point_contrast(distinct, distinct, 0.2), torch.tensor([expected]))


# The method


def views(apart: bool = False) -> list[Batch]:
    rng, there = rng_of(3), [View(Box(0, 0, 16, 16), False), FAR if apart else View(Box(4, 4, 16, 16), True)]
    return [Batch(torch.randn(4, 3, 64, 64, generator=rng), torch.empty(4, 0, 0), frames(*[v] * 4)) for v in there]


def one(apart: bool = False, **changes: Any) -> tuple[Step, Any]:
    chosen = replace(SMALL, **changes)
    pair = pass_s.build(chosen, NETWORK, DATA, rng_of(0))
    return step(pass_s, pair, None, views(apart), chosen, rng_of(0)), pair.query


def test_stages_and_points_are_compared_with_prototypes_that_get_no_gradient_from_them() -> None:
    network = pass_s.build(replace(SMALL, p2p="clusters"), NETWORK, DATA, rng_of(0)).query
    grids = torch.zeros(8, 3, 3, 2)
    found = network((torch.randn(8, 3, 64, 64, generator=rng_of(1)),), grids=grids)
    assert found.predicted is not None
    weight = network.prototypes.weight
    for scores, touched in ((found.stages[0], False), (found.predicted, False), (found.scores, True)):
        (gradient,) = torch.autograd.grad(scores.square().sum(), weight, retain_graph=True, allow_unused=True)
        assert (gradient is not None and bool(gradient.any())) == touched


@pytest.mark.parametrize("stages", [(3,), (1, 2, 3)], ids=str)
def test_the_loss_is_the_mean_of_swavs_and_the_stages_and_the_alignment(stages: tuple[int, ...]) -> None:
    done, _ = one(stages=stages)
    terms = [done.metrics["swapped_loss"], *(done.metrics[f"stage{stage}_loss"] for stage in stages)]
    torch.testing.assert_close(done.loss.detach(), torch.stack(terms).mean() + done.metrics["p2p_loss"])
    assert -1 <= done.metrics["p2p_loss"] <= 1


def test_without_what_pass_adds_it_is_swav_bit_for_bit() -> None:
    done, _ = one(p2p="off", stages=())
    chosen = swav.Settings(embedding=8, hidden=16, prototypes=6, frozen_steps=0, queue=None)
    pair = swav.build(chosen, NETWORK, DATA, rng_of(0))
    assert torch.equal(done.loss, step(swav, pair, None, views(), chosen, rng_of(0)).loss)


@pytest.mark.parametrize("p2p", ["cosine", "contrast", "clusters"])
def test_points_of_views_that_do_not_overlap_add_nothing(p2p: str) -> None:
    assert one(apart=True, p2p=p2p)[0].metrics["p2p_loss"] == 0
    assert one(p2p=p2p)[0].metrics["p2p_loss"] != 0


@pytest.mark.parametrize(
    "changes", [{"d2s_from": "same"}, {"d2s_view": "same"}, {"p2p_projector": False}], ids=lambda changes: str(*changes)
)
def test_a_variant_of_table_nine_is_another_loss_of_the_same_image_embeddings(changes: dict[str, Any]) -> None:
    (usual, _), (other, network) = one(), one(**changes)
    assert not torch.equal(usual.loss, other.loss)
    if changes.get("p2p_projector", True):
        assert torch.equal(usual.metrics["swapped_loss"], other.metrics["swapped_loss"])
    else:
        assert network.predictor[0].in_channels == 64  # of the last map


def test_views_that_do_not_say_what_they_show_and_words_that_mean_nothing_are_refused() -> None:
    pair = pass_s.build(SMALL, NETWORK, DATA, rng_of(0))
    with pytest.raises(ValueError, match="frames"):
        step(pass_s, pair, None, [view._replace(frames=None) for view in views()], SMALL, rng_of(0))
    for wrong in ({"p2p": "on"}, {"d2s_from": "first"}, {"d2s_view": "other"}, {"stages": (3, 2)}, {"stages": (4,)}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            replace(SMALL, **wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="p2p_projector"):
        replace(SMALL, p2p="clusters", p2p_projector=False)
