"""The object that holds bank and prototypes for other people's loops: it is the pure functions, in a row."""

import io

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mdp.core import (
    LabelSpace,
    PrototypeLearner,
    UnknownLabels,
    class_sums,
    empty_bank,
    hard_targets,
    prototype_nce,
    prototypes,
    push,
)
from tests.tensors import rng_of

SPACES = [LabelSpace(name="a", classes=("x", "y")), LabelSpace(name="b", classes=("x", "y", "z"))]


def learner(**more: int) -> PrototypeLearner:
    return PrototypeLearner(SPACES, 8, **more)


def batch(seed: int) -> tuple[Tensor, Tensor]:
    rng = rng_of(seed)
    return 3 * torch.randn(4, 8, 5, 6, generator=rng), torch.randint(-1, 5, (4, 5, 6), generator=rng)


def test_a_step_is_the_papers_functions_in_a_row() -> None:
    mine, bank = learner(bank_batches=2), empty_bank(5, 8, 2)
    for seed in range(3):
        embeddings, labels = batch(seed)
        keys = batch(seed + 10)[0]
        leaf, own = embeddings.clone().requires_grad_(), embeddings.clone().requires_grad_()
        loss = mine.loss_(leaf, labels, keys)
        bank = push(bank, class_sums(F.normalize(keys, dim=1), labels, 5, unit=True))
        rows = F.normalize(own, dim=1)
        expected = prototype_nce(rows, prototypes(bank), hard_targets(labels), 0.07, unit=True).mean()
        torch.testing.assert_close(loss, expected)
        (gradient,), (wanted,) = torch.autograd.grad(loss, leaf), torch.autograd.grad(expected, own)
        torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(mine.prototypes.vectors, prototypes(bank).vectors)
    assert mine.steps == 3


def test_finer_labels_are_taken_at_the_centres_of_cells_and_coarser_ones_refused() -> None:
    embeddings, labels = batch(0)
    fine = torch.full((4, 20, 18), -1)
    fine[:, 2::4, 1::3] = labels  # the centres of cells of 4 x 3 pixels, counted from the corner
    torch.testing.assert_close(learner().loss_(embeddings, fine), learner().loss_(embeddings, labels))
    torch.testing.assert_close(
        learner().loss_(embeddings, labels.repeat_interleave(7, 1).repeat_interleave(7, 2)),
        learner().loss_(embeddings, labels),
    )
    for wrong in (labels[:, :3], labels[:2], labels[:, None]):
        with pytest.raises(ValueError, match="differ in grid"):
            learner().loss_(embeddings, wrong)
    with pytest.raises(ValueError, match=r"labels: values -?\d+\.\.255, expected -1 or 0\.\.4"):
        learner().loss_(embeddings, labels.index_fill(2, torch.tensor(0), 255))


def test_maps_of_several_datasets_become_classes_of_their_own() -> None:
    maps = torch.tensor([[[0, 1, 255]], [[2, 255, 0]], [[1, 1, 1]]])
    assert learner().labels(maps, ["a", "b", "a"]).tolist() == [[[0, 1, -1]], [[4, -1, 2]], [[1, 1, 1]]]
    assert learner().labels(maps.to(torch.uint8), ["a", "b", "a"]).dtype == torch.int64
    with pytest.raises(UnknownLabels, match="2"):
        learner().labels(maps, ["a", "a", "a"])
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        learner().labels(maps, ["a"])


def test_a_state_goes_on_with_the_same_loss_and_one_of_other_classes_is_refused() -> None:
    whole = learner(bank_batches=2)
    for seed in range(3):
        whole.loss_(*batch(seed))
    file = io.BytesIO()
    torch.save(whole.state_dict(), file)
    file.seek(0)
    resumed = learner(bank_batches=2)
    resumed.load_state_dict(torch.load(file))  # by torch's default, which reads nothing but data
    assert float(resumed.loss_(*batch(3))) == float(whole.loss_(*batch(3)))
    assert resumed.steps == 4
    with pytest.raises(ValueError, match="a state of classes"):
        PrototypeLearner(SPACES[::-1], 8).load_state_dict(whole.state_dict())
    with pytest.raises(ValueError, match="a state of 8 channels, expected 9"):
        PrototypeLearner(SPACES, 9).load_state_dict(whole.state_dict())


def test_processes_that_add_up_their_sums_have_the_bank_of_one() -> None:
    embeddings, labels = batch(0)
    one, halves = learner(), [class_sums(embeddings[part], labels[part], 5) for part in (slice(2), slice(2, None))]
    one.loss_(embeddings, labels)
    others = {(5, 8): halves[1].sums, (5,): halves[1].counts}
    two = PrototypeLearner(SPACES, 8, all_sum=lambda own: own + others[tuple(own.shape)])
    two.loss_(embeddings[:2], labels[:2])
    torch.testing.assert_close(two.prototypes.vectors, one.prototypes.vectors)
    assert torch.equal(two.bank.total.counts, one.bank.total.counts)
