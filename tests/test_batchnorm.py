"""BatchNorm over processes is that of the whole batch, and over groups that of each group; nothing waits for a GPU."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mdp.core.chance import generator
from mdp.core.networks import NetworkSettings, build_instance_network
from mdp.core.networks.batchnorm import Grouped, by_groups_, in_groups, over_processes_, synchronised
from mdp.core.processes import Processes
from tests.elsewhere import Elsewhere, moved_, pretended
from tests.laws import pure_call
from tests.tensors import rng_of, seeds
from tests.together import together

CHANNELS = 5


def layers() -> nn.Sequential:
    """A convolution, a norm with strange weights, and another one after something that is not linear."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, CHANNELS, 3, bias=False),
        nn.BatchNorm2d(CHANNELS),
        nn.Tanh(),
        nn.BatchNorm2d(CHANNELS, affine=False),
    ).double()
    with torch.no_grad():
        for parameter in network[1].parameters():
            parameter.uniform_(-2, 2)
    return network


def learnt(network: nn.Module, images: Tensor, weights: Tensor) -> list[Tensor]:
    """Outputs, gradient of the images, running statistics, gradients of the weights."""
    leaf = images.clone().requires_grad_()
    found = network(leaf)
    (found * weights).sum().backward()
    assert leaf.grad is not None
    statistics = [buffer.double() for buffer in network.buffers()]
    return [found.detach(), leaf.grad, *statistics, *(p.grad for p in network.parameters() if p.grad is not None)]


@settings(max_examples=12)
@given(seeds, st.sampled_from([(1,), (4,), (2, 3), (3, 0, 1), (1, 1, 1, 2)]), st.booleans())
def test_values_and_gradients_are_those_of_batchnorm_over_all_images(
    seed: int, images: tuple[int, ...], last: bool
) -> None:
    rng = rng_of(seed)
    form = torch.channels_last if last else torch.contiguous_format
    batch = (3 + 7 * torch.randn(sum(images), 3, 6, 5, generator=rng, dtype=torch.float64)).contiguous(
        memory_format=form
    )
    weights = torch.randn(sum(images), CHANNELS, 4, 3, generator=rng, dtype=torch.float64)
    expected = learnt(layers(), batch, weights)

    def work(processes: Processes) -> list[Tensor]:
        network = networks[processes.rank]
        over_processes_(network, processes.all_sum)
        return learnt(network, batch[processes.own], weights[processes.own])

    networks = [layers() for _ in images]  # here, since threads share the generator that makes them
    found = together(images, work)
    for number, whole in enumerate(expected):
        own = [answer[number] for answer in found]
        if number < 2:
            torch.testing.assert_close(torch.cat(own), whole, rtol=1e-9, atol=1e-9)
        elif number < 8:  # three numbers of two norms
            for each in own:
                torch.testing.assert_close(each, whole, rtol=1e-9, atol=1e-9)
        else:
            torch.testing.assert_close(torch.stack(own).sum(0), whole, rtol=1e-9, atol=1e-9)


@given(seeds)
def test_a_process_alone_gives_what_batchnorm_gives_without_weights_too(seed: int) -> None:
    images = torch.randn(4, CHANNELS, generator=rng_of(seed), dtype=torch.float64)
    found = pure_call(synchronised, images, None, None, 1e-5, torch.clone)
    torch.testing.assert_close(found[0], nn.functional.batch_norm(images, None, None, training=True))
    torch.testing.assert_close(found[2], images.var(0, unbiased=False))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_reduced_precision_is_as_near_to_float64_as_torchs_own(dtype: torch.dtype) -> None:
    exact = (5 + torch.randn(6, CHANNELS, 4, 4, generator=rng_of(0), dtype=torch.float64)).to(dtype)
    weights = torch.randn(exact.shape, generator=rng_of(1), dtype=torch.float64).to(dtype)

    def both(norm: nn.Module, images: Tensor) -> Tensor:
        return torch.cat([t.double().flatten() for t in learnt(norm, images, weights.to(images.dtype))[:2]])

    ours, theirs, reference = (
        nn.Sequential(nn.BatchNorm2d(CHANNELS)),
        nn.BatchNorm2d(CHANNELS),
        nn.BatchNorm2d(CHANNELS),
    )
    over_processes_(ours, torch.clone)
    expected = both(reference.double(), exact.double())
    gaps = [float((both(norm, exact) - expected).norm()) for norm in (ours, theirs)]
    assert gaps[0] <= 1.5 * gaps[1] + 1e-6 * float(expected.norm())


def test_names_evaluation_and_copies_stay_what_they_were() -> None:
    plain, changed = layers(), layers()
    over_processes_(changed, torch.clone)
    copied = copy.deepcopy(changed)  # as of weights that are averaged; those of processes cannot be copied
    for network in (changed, copied):
        assert {name: t.shape for name, t in network.state_dict().items()} == {
            name: t.shape for name, t in plain.state_dict().items()
        }
        network.load_state_dict(plain.state_dict())
        images = torch.randn(2, 3, 6, 5, generator=rng_of(0), dtype=torch.float64)
        assert torch.equal(network.eval()(images), plain.eval()(images))


def test_a_running_mean_without_momentum_is_that_of_all_batches() -> None:
    network = nn.Sequential(nn.BatchNorm1d(2, momentum=None))
    over_processes_(network, torch.clone)
    batches = torch.randn(3, 8, 2, generator=rng_of(0))
    for batch in batches:
        network(batch)
    torch.testing.assert_close(network[0].running_mean, batches.mean((0, 1)))


def test_nothing_in_it_waits_for_the_device() -> None:
    network, images = layers(), torch.randn(2, 3, 6, 5, generator=rng_of(0), dtype=torch.float64)
    weights = torch.randn(2, CHANNELS, 4, 3, generator=rng_of(1), dtype=torch.float64)
    expected = learnt(layers(), images, weights)
    with pretended() as waits:
        moved_(network)
        over_processes_(network, torch.clone)
        leaf = Elsewhere(images).requires_grad_()
        (network(leaf) * Elsewhere(weights)).sum().backward()
        assert waits == []
        assert isinstance(leaf.grad, Elsewhere)
    torch.testing.assert_close(leaf.grad.inner, expected[1])


@pytest.mark.parametrize("count", [1, 2, 3])
def test_groups_taken_at_once_on_a_device_are_those_that_a_cpu_takes_one_by_one(count: int) -> None:
    model = NetworkSettings(backbone="resnet18", width=8, channels=8, output_stride=32)
    network = build_instance_network(model, 8, generator(0))
    by_groups_(network)
    plain = copy.deepcopy(network)
    images = torch.randn(7, 3, 32, 32, generator=rng_of(0))

    def gradients(network: nn.Module, images: Tensor) -> list[Tensor]:
        (found,) = in_groups(network, lambda part: (network(part),), images, count)
        found.pow(3).sum().backward()
        inner = [
            t.inner if isinstance(t, Elsewhere) else t
            for t in (found, *(p.grad for p in network.parameters()), *network.buffers())
        ]
        return [t.detach() for t in inner]

    expected = gradients(plain, images)
    with pretended() as waits:
        moved_(network)
        found = gradients(network, Elsewhere(images))
        assert waits == []
    for own, other in zip(found, expected, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-3, atol=1e-5)
    assert {part.groups for part in network.modules() if isinstance(part, Grouped)} == {1}
