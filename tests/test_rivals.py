"""Which classes compete for a pixel, and prototypes that are learnt: the kernel, and `multi_dataset` with both."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from mdp.core import contrast_chunked
from mdp.core.contrast import pixel_rows, prototype_nce
from mdp.core.labels import IGNORE, LabelUnion
from mdp.core.methods import multi_dataset
from mdp.core.mixing import MixSettings
from mdp.core.prototype_bank import Prototypes
from mdp.core.rivals import same_dataset
from mdp.core.targets import hard_targets, mixed_targets
from mdp.label_space import LabelSpace
from tests.laws import pure_call
from tests.tensors import rng_of, seeds
from tests.test_methods import CLASSES, CPU, DATA, fresh, one_step, small, views_of

TAU = 0.2
layouts = st.sampled_from([torch.contiguous_format, torch.channels_last])


def union_of(*sizes: int) -> LabelUnion:
    names = [tuple(f"{number}" for number in range(size)) for size in sizes]
    return LabelUnion([LabelSpace(name=f"set{index}", classes=classes) for index, classes in enumerate(names)])


def plain(rows: Tensor, vectors: Tensor, first: Tensor, second: Tensor, share: Tensor, rivals: Tensor) -> Tensor:
    """Each label's cross-entropy among its own rivals, by torch's function, weighted and summed."""
    logits, total = F.normalize(rows, dim=1) @ vectors.T / TAU, rows.new_zeros(())
    for labels, weights in ((first, share), (second, 1 - share)):
        for row, label, weight in zip(logits, labels.flatten().tolist(), weights.tolist(), strict=True):
            if label != IGNORE:
                among = rivals[label].nonzero().flatten()
                total = total + weight * F.cross_entropy(row[among], (among == label).float().argmax())
    return total


@given(seeds, layouts, st.sampled_from([64, 2**21]), st.booleans())
def test_each_target_is_measured_against_its_own_rivals_and_learnt_prototypes_get_their_gradient(
    seed: int, layout: torch.memory_format, size: int, mixed: bool
) -> None:
    rng = rng_of(seed)
    count, channels, height, width, classes = (int(torch.randint(1, 6, (), generator=rng)) for _ in range(5))
    directions = F.normalize(torch.randn(count, channels, height, width, generator=rng), dim=1)
    pixels = (directions * (0.5 + torch.rand(count, 1, height, width, generator=rng))).contiguous(memory_format=layout)
    vectors = F.normalize(torch.randn(classes, channels, generator=rng), dim=1)
    rivals = (torch.rand(classes, classes, generator=rng) < 0.5) | torch.eye(classes, dtype=torch.bool)
    first, second = (torch.randint(-1, classes, (count, height, width), generator=rng) for _ in range(2))
    shares = torch.rand(count, generator=rng) if mixed else torch.ones(count)
    targets = mixed_targets(first, second, shares) if mixed else hard_targets(first)
    single, learnt = pixels.clone().requires_grad_(), vectors.clone().requires_grad_()
    known = Prototypes(learnt, torch.ones(classes, dtype=torch.bool))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contrast_chunked, "_CPU_BYTES", size)
        total = prototype_nce(single, known, targets, TAU, rivals=rivals, learnt=True).total
    double, exact = pixels.double().requires_grad_(), vectors.double().requires_grad_()
    share = shares.double()[:, None, None].expand(first.shape).flatten()
    expected = plain(pixel_rows(double), exact, first, second, share, rivals)
    torch.testing.assert_close(total.detach().double(), expected.detach(), rtol=1e-4, atol=1e-4)
    if not (first != IGNORE).any():
        return
    for value in (total, expected):
        value.backward()
    torch.testing.assert_close(single.grad.double(), double.grad, rtol=1e-3, atol=1e-4)  # type: ignore[union-attr]
    torch.testing.assert_close(learnt.grad.double(), exact.grad, rtol=1e-3, atol=1e-4)  # type: ignore[union-attr]


def test_by_hand_nothing_tells_the_classes_of_two_datasets_apart() -> None:
    known = Prototypes(torch.ones(5, 4) / 2, torch.ones(5, dtype=torch.bool))
    rivals = pure_call(same_dataset, union_of(2, 3))
    for label, own in ((0, 2), (4, 3)):
        targets = hard_targets(torch.full((1, 1, 1), label))
        pixel = torch.ones(1, 4, 1, 1)
        assert math.isclose(
            float(prototype_nce(pixel, known, targets, TAU, rivals=rivals).total), math.log(own), rel_tol=1e-6
        )
        assert math.isclose(float(prototype_nce(pixel, known, targets, TAU).total), math.log(5), rel_tol=1e-6)


@given(seeds)
def test_with_one_dataset_all_classes_are_rivals(seed: int) -> None:
    rng = rng_of(seed)
    known = Prototypes(F.normalize(torch.randn(4, 3, generator=rng), dim=1), torch.ones(4, dtype=torch.bool))
    targets = hard_targets(torch.randint(-1, 4, (2, 3, 3), generator=rng))
    pixels = torch.randn(2, 3, 3, 3, generator=rng)
    own = prototype_nce(pixels, known, targets, TAU, rivals=same_dataset(union_of(4))).total
    torch.testing.assert_close(own, prototype_nce(pixels, known, targets, TAU).total)


FORMS = [
    {"prototypes": "learnt"},
    {"prototypes": "both"},
    {"rivals": "dataset"},
    {"prototypes": "learnt", "rivals": "dataset", "mix": MixSettings(region=True, pixel=True)},
]
ids = ["learnt", "both", "dataset", "learnt, dataset, mixed"]


@pytest.mark.parametrize("form", FORMS, ids=ids)
def test_training_on_one_batch_lowers_its_loss_in_every_form_and_learnt_prototypes_keep_their_length(
    form: dict[str, object],
) -> None:
    settings = small(multi_dataset, **form)
    pair, state = fresh(multi_dataset, settings)
    optimizer = torch.optim.SGD(pair.query.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for number in range(12):
        step = one_step(multi_dataset, pair, state, views_of(0), settings, rng_of(number))
        optimizer.zero_grad()
        step.loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        multi_dataset.settle_(pair, settings)
        losses.append(step.loss.item())
        state = step.state
    assert min(losses[-3:]) < (0.95 if "mix" in form else 0.8) * losses[0]
    if pair.query.class_prototypes is not None:
        torch.testing.assert_close(pair.query.class_prototypes.norm(dim=1), torch.ones(CLASSES))
    back = multi_dataset.unpack(multi_dataset.pack(state), settings, DATA)
    assert (back.rivals is None) == (state.rivals is None) == ("rivals" not in form)
    packed = sum(tensor.numel() * tensor.element_size() for tensor in multi_dataset.pack(state).values())
    assert packed == multi_dataset.state_bytes(settings, DATA)


def test_half_of_each_is_the_mean_of_the_two_losses() -> None:
    both = small(multi_dataset, prototypes="both")
    pair, state = fresh(multi_dataset, both)
    pair.query.eval()
    pair.key.eval()
    losses = {
        which: one_step(multi_dataset, pair, state, views_of(0), replace(both, prototypes=which), rng_of(0)).loss.item()
        for which in ("bank", "learnt", "both")
    }
    assert losses["bank"] != losses["learnt"]
    assert math.isclose(losses["both"], (losses["bank"] + losses["learnt"]) / 2, rel_tol=1e-5)


def test_the_networks_weights_are_those_of_the_papers_form_and_prototypes_are_drawn_after_them() -> None:
    first, second = (
        fresh(multi_dataset, small(multi_dataset, prototypes=which))[0].query for which in ("bank", "both")
    )
    weights = dict(second.named_parameters())
    start = weights.pop("class_prototypes")
    assert all(torch.equal(weights[name], parameter) for name, parameter in first.named_parameters())
    torch.testing.assert_close(start.norm(dim=1), torch.ones(CLASSES))
    assert multi_dataset.initial_state(small(multi_dataset), DATA, rng_of(0), CPU).rivals is None


@pytest.mark.parametrize("wrong", ["prototypes", "rivals"])
def test_a_form_that_is_not_there_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match=f"{wrong}: expected .* got 'none'"):
        small(multi_dataset, **{wrong: "none"})
