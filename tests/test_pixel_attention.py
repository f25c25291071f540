"""Pixel attention: its equation, its plain form, and a network of which it is all that learns."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from mdp.core.batches import Batch
from mdp.core.methods import Data, pixel_attention, step
from mdp.core.networks import AttentionNetwork, NetworkSettings
from mdp.core.pixel_attention import Attended, attended_directions, attended_mean
from mdp.core.pixel_attention import pixel_attention as attend
from mdp.io.recipe.layers import Layer, merge
from mdp.io.recipe.request import Request
from mdp.io.training.job import run_pretraining
from tests.laws import pure_call
from tests.small_runs import TINY, tensors_of
from tests.tensors import rng_of, seeds

NETWORK = NetworkSettings(backbone="resnet18", width=8)
DATA = Data(None, batch_size=4, epoch_batches=3, channels=64)  # type: ignore[arg-type]  # it knows no classes
SMALL = pixel_attention.Settings(embedding=8, hidden=16, prototypes=6, queue=None)


def network(shared: bool = False, frozen_statistics: bool = True) -> AttentionNetwork:
    chosen = pixel_attention.Settings(
        embedding=8, hidden=16, prototypes=6, shared=shared, frozen_statistics=frozen_statistics
    )
    return pixel_attention.build(chosen, NETWORK, DATA, rng_of(0)).query


def plainly(maps: Tensor, first: nn.Conv2d, rest: nn.Sequential, threshold: Tensor) -> Tensor:
    """As the paper writes it: everything on the finer grid."""
    raised = F.interpolate(maps, scale_factor=4, mode="bilinear", align_corners=False)
    logits = rest(first(F.normalize(raised, dim=1)))
    return torch.sigmoid(logits + threshold.view(1, -1, 1, 1))


@given(seeds, st.integers(1, 4), st.integers(1, 5), st.booleans())
@settings(max_examples=10)
def test_the_first_convolution_may_come_before_the_interpolation(
    seed: int, height: int, width: int, shared: bool
) -> None:
    rng = rng_of(seed)
    maps, threshold = torch.randn(2, 64, height, width, generator=rng), torch.randn(1 if shared else 64, generator=rng)
    first, *others = network(shared).eval().attention_head
    rest = nn.Sequential(*others)
    assert isinstance(first, nn.Conv2d)
    found = pure_call(attend, maps, first, rest, threshold)
    torch.testing.assert_close(found.attention, plainly(maps, first, rest, threshold), rtol=1e-4, atol=1e-5)
    assert found.attention.shape == (2, 1 if shared else 64, 4 * height, 4 * width)


@given(seeds, st.integers(1, 4), st.integers(1, 5), st.booleans())
@settings(max_examples=5)
def test_directions_attended_to_are_the_same_without_raised_features(
    seed: int, height: int, width: int, shared: bool
) -> None:
    rng = rng_of(seed)
    maps, threshold = (
        torch.randn(2, 64, height, width, generator=rng).relu(),
        torch.randn(1 if shared else 64, generator=rng),
    )
    first, *others = network(shared).train().attention_head
    assert isinstance(first, nn.Conv2d)
    weight = first.weight
    found = attended_directions(maps, first, nn.Sequential(*others), threshold)
    expected = attended_mean(attend(maps, first, nn.Sequential(*others), threshold), unit=True)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    one, other = (torch.autograd.grad(vectors.square().sum(), weight)[0] for vectors in (found, expected))
    assert (one - other).norm() < 0.05 * other.norm()  # ReLU may fall on another side of 0 at a point or two


def test_where_a_map_is_zero_there_is_no_direction() -> None:
    first, *others = network().eval().attention_head
    found = attended_directions(torch.zeros(1, 64, 2, 2), first, nn.Sequential(*others), torch.zeros(64))
    assert not found.any()


def test_without_anything_learnt_all_points_count_by_half() -> None:
    built = network().eval()
    nn.init.zeros_(built.attention_head[-1].weight)  # type: ignore[arg-type]
    found = built.attention(torch.randn(2, 3, 64, 96, generator=rng_of(0)))
    assert (found.attention == 0.5).all()
    torch.testing.assert_close(attended_mean(found), found.features.mean((2, 3)) / 2)
    assert not built.threshold.any()


def test_the_mean_of_attended_features_by_hand() -> None:
    features = torch.tensor([[[[3.0, 0.0]], [[4.0, 2.0]]]])  # two channels at two points: lengths 5 and 2
    attention = torch.tensor([[[[1.0, 0.5]], [[0.5, 0.25]]]])  # levels 0.75 and 0.375
    attended = Attended(features, attention)
    assert pure_call(attended_mean, attended).tolist() == [[1.5, 1.25]]
    torch.testing.assert_close(attended_mean(attended, unit=True), torch.tensor([[0.3, (0.4 + 0.25) / 2]]))
    assert attended_mean(attended, threshold=0.5).tolist() == [[1.5, 1.0]]
    assert attended_mean(attended, threshold=0.9).tolist() == [[0, 0]]


# The method


def views() -> list[Batch]:
    rng = rng_of(3)
    return [Batch(torch.randn(4, 3, 64, 64, generator=rng), torch.empty(4, 0, 0)) for _ in range(2)]


def test_only_attention_and_prototypes_learn_and_statistics_of_what_is_frozen_stay() -> None:
    pair = pixel_attention.build(SMALL, NETWORK, DATA, rng_of(0))
    before = {name: tensor.clone() for name, tensor in pair.query.state_dict().items()}
    pair.query.train()
    step(pixel_attention, pair, None, views(), SMALL, rng_of(0)).loss.backward()  # type: ignore[no-untyped-call]
    learning = {name.split(".")[0] for name, p in pair.query.named_parameters() if p.grad is not None and p.grad.any()}
    assert learning == {"attention_head", "threshold", "prototypes"}
    moved = {name.split(".")[0] for name, tensor in pair.query.state_dict().items() if not before[name].equal(tensor)}
    assert "backbone" not in moved
    assert "attention_head" in moved


def test_the_released_codes_statistics_are_a_setting() -> None:
    pair = pixel_attention.build(
        pixel_attention.Settings(embedding=8, hidden=16, prototypes=6, frozen_statistics=False),
        NETWORK,
        DATA,
        rng_of(0),
    )
    assert pair.query.train().backbone.training
    assert not network().train().backbone.training
    assert network().train().attention_head.training
    assert network().train().projection_head.training  # by the batch: what it gets is much shorter than in its run


@pytest.mark.usefixtures("in_an_empty_folder", "bare_runs")
def test_it_starts_from_a_run_whose_backbone_head_and_prototypes_it_takes_over() -> None:
    small = {"embedding": 8, "hidden": 16, "prototypes": 6, "size": 32}
    layer: Layer = merge({**TINY, "method": {**small, "name": "pass_s"}}, {"pretrain": {"steps": 1}})
    first = run_pretraining(Request(layers=(layer,), quiet=True, out=Path("first")))
    changed: Layer = {**layer, "method": {**small, "name": "pixel_attention"}}
    second = run_pretraining(Request(layers=(changed,), quiet=True, out=Path("second"), init=str(first)))
    log = (second / "log.txt").read_text()
    assert "give --init RUN" not in log
    assert "starts at random: attention_head, threshold" in log
    before, after = tensors_of(first), tensors_of(second)
    kept = [name for name in after if name.startswith(("query.backbone.", "query.projection_head."))]
    assert len(kept) > 120
    assert all(torch.equal(after[name], before[name]) for name in kept if not name.startswith("query.projection_head."))
    cosines = F.cosine_similarity(after["query.prototypes.weight"], before["query.prototypes.weight"])
    assert (cosines > 0.9).all()  # one step away
    alone = run_pretraining(Request(layers=(changed,), quiet=True, out=Path("alone")))
    assert "a backbone that stays as it is, and this one is random; give --init RUN" in (alone / "log.txt").read_text()
