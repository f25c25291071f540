"""The chunked kernel against its plain twin, `contrast.nce` on all logits at once, in float64."""

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from mdp.core import contrast_chunked
from mdp.core.contrast import nce, pixel_rows, prototype_nce
from mdp.core.contrast_chunked import EPS, Candidates, Pull, chunked_total
from mdp.core.labels import IGNORE
from mdp.core.prototype_bank import Prototypes
from mdp.core.targets import Targets, hard_targets, mixed_targets, pixel_similarity, relaxed_targets, sparse_targets
from tests.tensors import rng_of

TAU = 0.07
FORMS = ("hard", "mixed", "sparse", "relaxed", "mostly ignored", "all ignored")
layouts = st.sampled_from([torch.contiguous_format, torch.channels_last])


def targets_of(form: str, rng: torch.Generator, embeddings: Tensor, known: Prototypes) -> Targets:
    shape = (len(embeddings), *embeddings.shape[2:])
    known_classes = known.present.nonzero().flatten()
    first, second = (known_classes[torch.randint(len(known_classes), shape, generator=rng)] for _ in range(2))
    ignored = torch.rand(shape, generator=rng) < {"mostly ignored": 0.9, "all ignored": 1.0}.get(form, 0.1)
    hard = hard_targets(first.masked_fill(ignored, IGNORE))
    if form == "mixed":
        return mixed_targets(first.masked_fill(ignored, IGNORE), second, torch.rand(shape[0], generator=rng))
    similarity = pixel_similarity(pixel_rows(embeddings), known)
    if form == "sparse":
        return sparse_targets(hard, similarity, known, 2, 0.1)
    return relaxed_targets(hard, similarity, known, 2) if form == "relaxed" else hard


def plain(embeddings: Tensor, known: Prototypes, targets: Targets, unit: bool) -> Tensor:
    vectors = embeddings if unit else F.normalize(embeddings, dim=1, eps=EPS)
    logits = pixel_rows(vectors) @ known.vectors.double().T / TAU
    exact = targets._replace(weights=targets.weights.double())
    return nce(logits.masked_fill(~known.present, -torch.inf), exact).total


@example(229, "mixed", torch.contiguous_format, False, 64)  # one class: the loss is 0
@given(st.integers(0, 2**31), st.sampled_from(FORMS), layouts, st.booleans(), st.sampled_from([64, 2**21]))
def test_value_and_gradient_equal_the_plain_losss_in_every_form_layout_and_size_of_chunk(
    seed: int, form: str, layout: torch.memory_format, unit: bool, size: int
) -> None:
    rng = rng_of(seed)
    count, channels, height, width, classes = (int(torch.randint(1, 7, (), generator=rng)) for _ in range(5))
    embeddings = F.normalize(torch.randn(count, channels, height, width, generator=rng), dim=1)
    lengths = 1.0 if unit else 0.5 + torch.rand(count, 1, height, width, generator=rng)
    embeddings = (embeddings * lengths).contiguous(memory_format=layout)
    present = torch.rand(classes, generator=rng) < 0.8
    present[0] = True
    vectors = F.normalize(torch.randn(classes, channels, generator=rng), dim=1) * present[:, None]
    known = Prototypes(vectors, present)
    targets = targets_of(form, rng, embeddings, known)
    single, double = embeddings.clone().requires_grad_(), embeddings.double().requires_grad_()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contrast_chunked, "_CPU_BYTES", size)
        total = prototype_nce(single, known, targets, TAU, unit).total
    expected = plain(double, known, targets, unit)
    # a sum over pixels, of differences of logits as large as 1 / TAU: a rounding each
    rounding = torch.finfo(torch.float32).eps / TAU * count * height * width
    torch.testing.assert_close(total.detach().double(), expected.detach(), rtol=1e-5, atol=max(1e-5, rounding))
    (0.5 * total).backward()
    (0.5 * expected).backward()
    assert single.grad is not None
    assert double.grad is not None
    assert single.grad.stride() == single.stride()
    largest = max(1.0, float(double.grad.abs().max()))
    torch.testing.assert_close(single.grad.double(), double.grad, rtol=1e-5, atol=1e-5 * largest)


@pytest.mark.parametrize("order", [(0, 1, 3, 2), (2, 1, 3, 0), (3, 2, 1, 0), (1, 0, 2, 3)], ids=str)
def test_embeddings_that_lie_in_memory_in_another_order_get_their_own_gradient(order: tuple[int, ...]) -> None:
    rng = rng_of(0)
    whole = F.normalize(torch.randn(3, 8, 4, 6, generator=rng), dim=1)
    back = tuple(order.index(axis) for axis in range(4))
    known = Prototypes(F.normalize(torch.randn(5, 8, generator=rng), dim=1), torch.ones(5, dtype=torch.bool))
    targets = hard_targets(torch.randint(-1, 5, (3, 4, 6), generator=rng))
    other = whole.permute(order).contiguous().permute(back).requires_grad_()
    plain_one = whole.clone().requires_grad_()
    for embeddings in (plain_one, other):
        prototype_nce(embeddings, known, targets, TAU).total.backward()
    assert other.grad is not None
    assert plain_one.grad is not None
    torch.testing.assert_close(other.grad, plain_one.grad)


@given(st.integers(0, 2**31), layouts, st.booleans())
def test_aims_that_are_no_candidates_pull_and_do_not_push(seed: int, layout: torch.memory_format, unit: bool) -> None:
    rng = rng_of(seed)
    pixels = F.normalize(torch.randn(2, 3, 4, 5, generator=rng), dim=1).contiguous(memory_format=layout)
    vectors, aims = torch.randn(2, 7, 3, generator=rng), torch.randn(2, 2, 3, generator=rng)
    competes = torch.tensor([[True] * 6 + [False], [True] * 7])
    classes = torch.randint(0, 2, (40, 1), generator=rng)
    mass = torch.rand(40, 1, generator=rng)
    single, double = pixels.clone().requires_grad_(), pixels.double().requires_grad_()
    total = chunked_total(single, Candidates(vectors, competes, aims), Pull(classes, mass, mass), 0.5, unit)
    rows = (double if unit else F.normalize(double, dim=1, eps=EPS)).flatten(2).mT  # (2, 20, 3)
    logits = (rows @ vectors.double().mT / 0.5).masked_fill(~competes[:, None], -torch.inf)
    pulled = (rows * aims.double()[torch.arange(2)[:, None], classes.view(2, 20)]).sum(2) / 0.5
    expected = (mass.view(2, 20) * (logits.logsumexp(2) - pulled)).sum()
    torch.testing.assert_close(total.detach().double(), expected.detach(), rtol=1e-5, atol=1e-5)
    for value in (total, expected):
        value.backward()
    torch.testing.assert_close(single.grad.double(), double.grad, rtol=1e-4, atol=1e-4)  # type: ignore[union-attr]


@pytest.mark.parametrize("length", [1.0, 2.79, 2.81, 500.0], ids="{:g} long".format)
def test_candidates_of_any_length_have_the_loss_of_float64(length: float) -> None:
    """2.8 is where logits at a temperature of 0.07 may reach what is taken as it is."""
    rng = rng_of(0)
    vectors = length * F.normalize(torch.randn(6, 4, generator=rng), dim=1)
    pixels = torch.cat([vectors[:3], -vectors[:3], torch.randn(3, 4, generator=rng)]).mT.reshape(1, 4, 3, 3)
    classes, mass = torch.randint(0, 6, (9, 1), generator=rng), torch.ones(9, 1)
    single, double = pixels.clone().requires_grad_(), pixels.double().requires_grad_()
    total = chunked_total(
        single, Candidates(vectors, torch.ones(6, dtype=torch.bool)), Pull(classes, mass, mass), TAU, False
    )
    expected = F.cross_entropy(
        F.normalize(double, dim=1).flatten(2)[0].mT @ vectors.double().mT / TAU, classes[:, 0], reduction="sum"
    )
    for value in (total, expected):
        value.backward()
    torch.testing.assert_close(total.detach().double(), expected.detach(), rtol=1e-6, atol=1e-6)
    largest = float(double.grad.abs().max())  # type: ignore[union-attr]
    torch.testing.assert_close(single.grad.double(), double.grad, rtol=1e-5, atol=1e-6 * largest)  # type: ignore[union-attr]


def test_by_hand_one_pixel_between_two_candidates() -> None:
    pixel = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1).requires_grad_()
    candidates = Candidates(torch.eye(2), torch.tensor([True, True]))
    one = torch.ones(1, 1)
    total = chunked_total(pixel, candidates, Pull(torch.tensor([[0]]), one, one), 0.1, unit=False)
    assert abs(total.item() - 2.1269280) < 1e-5  # log(e^6 + e^8) - 6
    total.backward()
    # d loss / d v = 10 (p_0 - 1, p_1) with p_1 = 0.8807971; of it the part across v, divided by the length 5
    expected = 0.8807971 * 10 * torch.tensor([-1.0, 1.0])
    v = torch.tensor([0.6, 0.8])
    expected = (expected - (expected * v).sum() * v) / 5
    torch.testing.assert_close(pixel.grad.flatten(), expected)  # type: ignore[union-attr]


def test_reduced_precision_embeddings_are_compared_in_float32_and_get_a_gradient_of_their_own_kind() -> None:
    rng = rng_of(0)
    embeddings = torch.randn(2, 8, 3, 3, generator=rng).bfloat16().requires_grad_()
    known = Prototypes(F.normalize(torch.randn(5, 8, generator=rng), dim=1), torch.ones(5, dtype=torch.bool))
    targets = hard_targets(torch.randint(0, 5, (2, 3, 3), generator=rng))
    with torch.autocast("cpu", torch.bfloat16):
        total = prototype_nce(embeddings, known, targets, TAU, unit=False).total
    expected = plain(embeddings.detach().double(), known, targets, unit=False)
    torch.testing.assert_close(total.detach().double(), expected, rtol=1e-5, atol=1e-5)
    total.backward()
    assert embeddings.grad is not None
    assert embeddings.grad.dtype == torch.bfloat16


def test_a_vector_of_length_zero_has_a_finite_gradient() -> None:
    embeddings = torch.zeros(1, 4, 2, 2, requires_grad=True)
    known = Prototypes(torch.eye(4), torch.ones(4, dtype=torch.bool))
    prototype_nce(embeddings, known, hard_targets(torch.zeros(1, 2, 2)), TAU, unit=False).total.backward()
    assert embeddings.grad is not None
    assert embeddings.grad.isfinite().all()


def test_a_second_backward_pass_is_refused_instead_of_given_a_wrong_gradient() -> None:
    embeddings = torch.ones(1, 2, 2, 2, requires_grad=True)
    known = Prototypes(torch.eye(2), torch.ones(2, dtype=torch.bool))
    total = prototype_nce(embeddings, known, hard_targets(torch.zeros(1, 2, 2)), TAU).total
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="asked for twice"):
        total.backward()


@pytest.mark.filterwarnings("ignore")  # Dynamo's own
def test_it_works_inside_gradient_checkpointing_and_a_compiled_function() -> None:
    rng = rng_of(1)
    embeddings = torch.randn(2, 4, 3, 3, generator=rng)
    known = Prototypes(torch.eye(4), torch.ones(4, dtype=torch.bool))
    targets = hard_targets(torch.randint(0, 4, (2, 3, 3), generator=rng))

    def loss(x: Tensor) -> Tensor:
        return prototype_nce(x * 2, known, targets, TAU, unit=False).total

    def gradient(value: Tensor, leaf: Tensor) -> Tensor:
        return torch.autograd.grad(value, leaf)[0]

    leaf = embeddings.clone().requires_grad_()
    expected = gradient(loss(leaf), leaf)
    kept = torch.utils.checkpoint.checkpoint(loss, leaf, use_reentrant=False)
    torch.testing.assert_close(gradient(kept, leaf), expected)  # type: ignore[arg-type]
    compiled = torch.compile(loss, backend="eager")
    torch.testing.assert_close(gradient(compiled(leaf), leaf), expected)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("labelled", [0, 1, 15, 16, 17, 64])
def test_leaving_out_what_weighs_nothing_changes_no_number(layout: torch.memory_format, labelled: int) -> None:
    rng = rng_of(labelled)
    embeddings = torch.randn(2, 5, 8, 8, generator=rng).contiguous(memory_format=layout)
    known = Prototypes(F.normalize(torch.randn(7, 5, generator=rng), dim=1), torch.arange(7) != 4)
    chosen = torch.rand(2, 64, generator=rng).argsort(1).argsort(1) < labelled  # so many of each image
    labels = torch.where(chosen, torch.randint(4, (2, 64), generator=rng), IGNORE)
    targets = hard_targets(labels)
    single, double = embeddings.clone().requires_grad_(), embeddings.double().requires_grad_()
    total, expected = prototype_nce(single, known, targets, TAU, unit=False).total, plain(double, known, targets, False)
    torch.testing.assert_close(total.double(), expected, rtol=1e-5, atol=1e-5)
    total.backward()
    expected.backward()
    assert single.grad is not None
    assert double.grad is not None
    torch.testing.assert_close(single.grad.double(), double.grad, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("count", "size"), [(784, 668), (784, 1533), (3136, 167), (25088, 1533), (1, 1)])
def test_pieces_are_even_and_whole_cache_lines(count: int, size: int) -> None:
    length = contrast_chunked._even(count, size)
    pieces = -(-count // length)
    assert length % 16 == 0
    assert pieces <= -(-count // size)
    assert pieces * length - count < 16 * pieces  # the last is hardly shorter than the others
