"""Pixels without a label: which are mined, what they count, and that hidden labels reach nothing but a metric."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mdp.core.batches import Batch
from mdp.core.class_relations import Relation
from mdp.core.geometry import Grid, downsample_labels
from mdp.core.labels import IGNORE
from mdp.core.methods import Progress, multi_dataset
from mdp.core.methods import step as one_step
from mdp.core.mixing import MixSettings
from mdp.core.pixel_mining import MiningSettings, clear_classes, either, mining_counts, over_pixels, weighed, withheld
from mdp.core.pixel_mining import given as given_labels
from mdp.core.processes import alone
from mdp.core.prototype_bank import Prototypes
from mdp.core.targets import Targets, hard_targets, mixed_targets
from tests.laws import pure_call
from tests.tensors import Scene, rng_of, scenes, seeds
from tests.test_methods import DATA, frozen, small, views_of
from tests.together import together

few = settings(max_examples=10)
cosines, leads = st.floats(-1, 1), st.floats(0, 2)


# Which pixels


@few
@given(scenes(), cosines, cosines, leads, leads, st.booleans())
def test_a_higher_threshold_or_margin_mines_some_of_the_same_pixels(
    scene: Scene, low: float, high: float, narrow: float, wide: float, equal: bool
) -> None:
    groups = torch.zeros(len(scene.known.present), dtype=torch.long) if equal else None
    low, high, narrow, wide = *sorted((low, high)), *sorted((narrow, wide))
    more = pure_call(clear_classes, scene.embeddings, scene.known, low, narrow, groups)
    fewer = clear_classes(scene.embeddings, scene.known, high, wide, groups)
    assert torch.equal(fewer, torch.where(fewer == IGNORE, IGNORE, more))


@few
@given(scenes(), cosines, leads)
def test_classes_and_pixels_in_another_order_are_mined_alike(scene: Scene, threshold: float, margin: float) -> None:
    found = clear_classes(scene.embeddings, scene.known, threshold, margin)
    order = torch.randperm(len(scene.known.present), generator=scene.rng)
    pixels = torch.randperm(found.shape[2], generator=scene.rng)
    known = Prototypes(scene.known.vectors[order], scene.known.present[order])
    again = clear_classes(scene.embeddings[..., pixels], known, threshold, margin)
    renamed = torch.where(again == IGNORE, IGNORE, order[again.clamp(min=0)])
    torch.testing.assert_close(renamed, found[..., pixels])


@few
@given(scenes(), cosines, leads)
def test_a_plain_loop_over_pixels_mines_the_same(scene: Scene, threshold: float, margin: float) -> None:
    count = len(scene.known.present)
    groups = torch.randint(0, count, (count,), generator=scene.rng)
    present = torch.rand(count, generator=scene.rng) < 0.7
    long = Prototypes(3 * scene.known.vectors, present)  # their length is no matter
    found = clear_classes(scene.embeddings, long, threshold, margin, groups)
    rows, vectors = scene.embeddings.double().permute(0, 2, 3, 1).numpy(), scene.known.vectors.double().numpy()
    for place in np.ndindex(*found.shape):
        near = sorted(
            ((float(rows[place] @ vectors[c]), c) for c in present.nonzero().flatten().tolist()), reverse=True
        )
        label = IGNORE
        if near:
            others = [cosine for cosine, c in near if groups[c] != groups[near[0][1]]]
            lead = near[0][0] - (others[0] if others else -math.inf)
            if min(abs(near[0][0] - threshold), abs(lead - margin)) < 1e-5:
                continue  # which side float32 falls on is no matter
            label = near[0][1] if near[0][0] >= threshold and lead >= margin else IGNORE
        assert int(found[place]) == label


def test_by_hand_equal_classes_do_not_stand_in_each_others_way() -> None:
    """The pixel (0.8, 0.6) has the cosines 0.8, 0.6 and 0.8 to the three prototypes."""
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    known, pixel = Prototypes(vectors, torch.ones(3, dtype=torch.bool)), torch.tensor([0.8, 0.6]).view(1, 2, 1, 1)
    assert clear_classes(pixel, known, 0.7, 0.1).item() == IGNORE  # the first and the last are as near
    assert clear_classes(pixel, known, 0.7, 0.1, torch.tensor([0, 1, 0])).item() == 0
    assert clear_classes(pixel, known, 0.7, 0.3, torch.tensor([0, 1, 0])).item() == IGNORE
    none = Prototypes(vectors, torch.zeros(3, dtype=torch.bool))
    assert clear_classes(pixel, none, -1, 0).item() == IGNORE


# What travels with labels


@few
@given(seeds, st.integers(1, 16), st.integers(0, 15), st.integers(1, 40), st.integers(1, 40))
def test_each_cell_gets_back_what_it_has(seed: int, stride: int, offset: int, height: int, width: int) -> None:
    grid = Grid(stride, min(offset, stride - 1))
    shape = downsample_labels(torch.zeros(2, height, width), *grid).shape
    cells = torch.randint(-1, 9, shape, generator=rng_of(seed))
    pixels = pure_call(over_pixels, cells, grid, (height, width))
    assert pixels.shape == (2, height, width)
    if (height - 1) % stride >= grid.offset and (width - 1) % stride >= grid.offset:  # no centre is beyond the image
        assert torch.equal(downsample_labels(pixels, *grid), cells)


@few
@given(st.lists(st.integers(-1, 400), min_size=1))
def test_a_label_is_given_or_not_and_never_both(values: list[int]) -> None:
    labels = torch.tensor(values)
    hidden = pure_call(withheld, labels)
    assert torch.equal(withheld(hidden), labels)
    assert torch.equal(either(labels), labels)
    assert torch.equal(either(hidden), labels)
    assert (given_labels(hidden) == IGNORE).all()
    assert torch.equal(given_labels(labels), labels)


@few
@given(scenes(), st.floats(0, 3))
def test_a_weight_counts_mined_labels_as_so_many_pixels(scene: Scene, weight: float) -> None:
    """The oracle: repeating labelled pixels of which each counts 1, for a weight that is a whole number."""
    weight = float(round(weight))
    labels = scene.labels.flatten()
    mined = (torch.rand(labels.shape, generator=scene.rng) < 0.5)[:, None]
    found = pure_call(weighed, hard_targets(labels), mined, weight)
    again = hard_targets(labels.repeat_interleave(torch.where(mined[:, 0], int(weight), 1)))
    torch.testing.assert_close(found.valid.sum(), again.valid.sum())
    counts = torch.zeros(9).index_add_(0, found.classes.flatten(), found.weights.flatten())
    torch.testing.assert_close(counts, torch.zeros(9).index_add_(0, again.classes.flatten(), again.weights.flatten()))


def test_by_hand_a_mixed_pixel_of_a_given_and_a_mined_label() -> None:
    """Shares 0.75 and 0.25, the second mined at weight 0.2: 0.75 and 0.05, so that all of it counts 0.8."""
    targets = mixed_targets(torch.tensor([[[3]]]), torch.tensor([[[1]]]), torch.tensor([0.75]))
    sparse = Targets(
        torch.cat([targets.classes, torch.tensor([[0]])], 1), torch.tensor([[0.75, 0.25, 0.1]]), targets.valid
    )
    found = weighed(sparse, torch.tensor([[False, True]]), 0.2)
    torch.testing.assert_close(found.weights, torch.tensor([[0.75, 0.05, 0.08]]))
    torch.testing.assert_close(found.valid, torch.tensor([0.8]))
    same = weighed(sparse, torch.tensor([[False, False]]), 0.2)
    assert torch.equal(same.weights, sparse.weights)
    assert torch.equal(same.valid, sparse.valid)


def test_by_hand_an_equal_class_is_as_right_as_the_true_one() -> None:
    labels = torch.tensor([[[-3, -4, -5, -2, 1]]])  # 0, 1, 2 and nothing that are not given, and a 1 that is
    mined = torch.tensor([[[0, 2, 1, 0, 0]]])
    assert [int(n) for n in pure_call(mining_counts, mined, labels, labels < IGNORE)] == [4, 4, 3, 1]
    assert int(mining_counts(mined, labels, labels < IGNORE, torch.tensor([0, 1, 1])).right) == 3


# In a step of `multi_dataset`

EAGER = MiningSettings(threshold=-1, margin=0, warmup_epochs=0)
FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "mixed": {"mix": MixSettings(region=True, pixel=True)},
    "sparse": {"sparse": multi_dataset.SparseSettings(variant="csc2"), "mix": MixSettings(region=True)},
    "both, own rivals": {"prototypes": "both", "rivals": "dataset"},
}


def hidden(views: list[Batch], images: Tensor) -> list[Batch]:
    """The views with the labels of some images not given."""
    return [
        view._replace(labels=torch.where(images[:, None, None], withheld(view.labels), view.labels)) for view in views
    ]


def half_hidden(seed: int = 0) -> list[Batch]:
    return hidden(views_of(seed), torch.tensor([False, True, False, True]))


@pytest.mark.parametrize("form", FORMS)
def test_other_hidden_labels_give_the_same_loss_gradient_and_bank(form: str) -> None:
    chosen = small(multi_dataset, mining=EAGER, **FORMS[form])
    pair, state = frozen(multi_dataset, chosen)
    views = half_hidden()
    others = [
        view._replace(labels=torch.where(view.labels < IGNORE, withheld((either(view.labels) + 1) % 5), view.labels))
        for view in views
    ]
    assert not torch.equal(views[0].labels, others[0].labels)
    steps, gradients = [], []
    for some in (views, others):
        step = one_step(multi_dataset, pair, state, some, chosen, rng_of(0))
        gradients.append(torch.autograd.grad(step.loss, list(pair.query.parameters())))
        steps.append(step)
    assert torch.equal(steps[0].loss, steps[1].loss)
    assert all(torch.equal(*pairs) for pairs in zip(*gradients, strict=True))
    packed, again = (multi_dataset.pack(step.state) for step in steps)
    assert all(torch.equal(tensor, again[name]) for name, tensor in packed.items())
    assert steps[0].metrics["mined_share"] == 1
    assert steps[0].metrics["mined_purity"] != steps[1].metrics["mined_purity"]


@pytest.mark.parametrize("form", FORMS)
def test_a_mined_pixel_is_pulled_as_a_labelled_one_of_its_class_and_feeds_no_prototype(form: str) -> None:
    """What is mined, given as labels to a step whose bank has the same prototypes, gives the same loss."""
    chosen = small(multi_dataset, mining=EAGER, **FORMS[form])
    pair, state = frozen(multi_dataset, chosen)
    views = half_hidden()
    plain = replace(chosen, mining=None)
    known = [view._replace(labels=given_labels(view.labels)) for view in views]
    step = one_step(multi_dataset, pair, state, views, chosen, rng_of(0))
    without = one_step(multi_dataset, pair, state, known, plain, rng_of(0))
    packed, again = multi_dataset.pack(step.state), multi_dataset.pack(without.state)
    assert all(torch.equal(tensor, again[name]) for name, tensor in packed.items())
    assert step.loss != without.loss
    ready = multi_dataset.prepare(pair, state, views, chosen, rng_of(0), alone(4), Progress(0, 1, 1))
    parts = tuple(blend._replace(first=either(blend.first), second=either(blend.second)) for blend in ready.parts)
    assert all(not (blend.first == IGNORE)[1::2].any() for blend in parts if "mix" not in FORMS[form])
    labelled = multi_dataset.loss(pair, ready.shared, parts, plain, alone(4)).value
    torch.testing.assert_close(labelled, step.loss)


def test_nothing_is_mined_before_the_warm_up_nor_of_labelled_photos_unless_asked_for() -> None:
    chosen = small(multi_dataset, mining=replace(EAGER, warmup_epochs=2))
    pair, state = frozen(multi_dataset, chosen)
    views = half_hidden()
    known = [view._replace(labels=given_labels(view.labels)) for view in views]
    without = one_step(multi_dataset, pair, state, known, replace(chosen, mining=None), rng_of(0))
    early = one_step(multi_dataset, pair, state, views, chosen, rng_of(0), progress=Progress(5, 9, 3))
    assert torch.equal(early.loss, without.loss)
    assert early.metrics["mined_share"] == 0
    assert early.metrics["mined_purity"].isnan()
    late = one_step(multi_dataset, pair, state, views, chosen, rng_of(0), progress=Progress(6, 9, 3))
    assert late.metrics["mined_share"] == 1
    whole = views_of(0)  # of its pixels some are ignored
    steps = [
        one_step(
            multi_dataset, pair, state, whole, small(multi_dataset, mining=replace(EAGER, ignored=ignored)), rng_of(0)
        )
        for ignored in (False, True)
    ]
    assert [step.metrics["mined_share"].item() for step in steps] == [0, 1]
    assert torch.equal(steps[0].loss, one_step(multi_dataset, pair, state, whole, small(multi_dataset), rng_of(0)).loss)
    assert not torch.equal(steps[1].loss, steps[0].loss)


@pytest.mark.parametrize("form", ["plain", "mixed"])
def test_processes_and_parts_of_a_batch_mine_what_one_process_does(form: str) -> None:
    mining = MiningSettings(threshold=0, margin=0.2, warmup_epochs=0, weight=0.5)
    chosen = small(multi_dataset, mining=mining, **FORMS[form])
    pair, state = frozen(multi_dataset, chosen)
    views = half_hidden()
    whole = one_step(multi_dataset, pair, state, views, chosen, rng_of(0))
    assert 0 < whole.metrics["mined_share"] < 1
    torch.testing.assert_close(
        one_step(multi_dataset, pair, state, views, chosen, rng_of(0), accumulate=3).loss, whole.loss
    )

    def work(processes: Any) -> Any:
        own = [Batch(view.images[processes.own], view.labels[processes.own]) for view in views]
        return one_step(multi_dataset, pair, state, own, chosen, rng_of(0), processes)

    steps = together((1, 3), work)
    torch.testing.assert_close(steps[0].loss + steps[1].loss, whole.loss)
    for name in ("mined_share", "mined_purity"):
        torch.testing.assert_close(steps[0].metrics[name], whole.metrics[name])


def test_classes_that_are_said_to_be_equal_count_as_right() -> None:
    """All five classes in one group: whatever is mined is right."""
    chosen = small(multi_dataset, mining=EAGER)
    data = DATA._replace(relations=tuple(Relation("equal", 0, other) for other in range(1, 5)))
    pair, _ = frozen(multi_dataset, chosen)
    state = multi_dataset.initial_state(chosen, data, rng_of(1), torch.device("cpu"))
    step = one_step(multi_dataset, pair, state, half_hidden(), chosen, rng_of(0))
    assert step.metrics["mined_purity"] == 1


@pytest.mark.parametrize(
    "wrong", [{"threshold": 1.5}, {"margin": -0.1}, {"warmup_epochs": -1.0}, {"weight": math.nan}], ids=str
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}: expected"):
        MiningSettings(**wrong)  # type: ignore[arg-type]
