"""Generators from keys."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from mdp.core.chance import beta, coin, generator, uniform, uniforms
from tests.laws import pure_call
from tests.tensors import rng_of, seeds


@given(st.integers(0, 2**40), st.integers(0, 2**40), st.integers(0, 2**40))
def test_a_generator_is_a_function_of_its_key_alone(a: int, b: int, c: int) -> None:
    first = torch.rand(3, generator=generator(a, "views", b, c))
    torch.rand(100)
    assert torch.equal(first, torch.rand(3, generator=generator(a, "views", b, c)))


def test_different_keys_give_different_streams() -> None:
    keys = [
        (seed, name, epoch, index)
        for seed in range(3)
        for name in ("a", "b")
        for epoch in range(5)
        for index in range(20)
    ]
    draws = {float(torch.rand((), generator=generator(*key), dtype=torch.float64)) for key in keys}
    assert len(draws) == len(keys)
    assert generator(0, 2**32).initial_seed() != generator(0, 0).initial_seed()


@given(seeds, st.floats(0.2, 5))
def test_beta_draws_are_shares(seed: int, alpha: float) -> None:
    draws = pure_call(beta, rng_of(seed), alpha, 50)
    assert draws.dtype == torch.float32
    assert ((draws >= 0) & (draws <= 1)).all()


def test_beta_of_one_is_uniform_and_a_large_alpha_is_narrow() -> None:
    wide, narrow = beta(rng_of(0), 1.0, 4000), beta(rng_of(0), 50.0, 4000)
    assert abs(float(wide.mean()) - 0.5) < 0.02
    assert abs(float(wide.var()) - 1 / 12) < 0.005
    assert float(narrow.var()) < 0.004


@given(seeds)
def test_coins_and_uniform_numbers_keep_their_range(seed: int) -> None:
    assert -2 <= pure_call(uniform, rng_of(seed), -2.0, 3.0) <= 3
    assert pure_call(coin, rng_of(seed), 1.0) is True
    assert coin(rng_of(seed), 0.0) is False


@given(seeds, st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=1, max_size=9))
def test_numbers_drawn_at_once_are_those_drawn_one_by_one_and_leave_the_generator_where_they_do(
    seed: int, ranges: list[tuple[float, float]]
) -> None:
    together, apart = rng_of(seed), rng_of(seed)
    assert pure_call(uniforms, together, *ranges) == [uniform(apart, *limits) for limits in ranges]
    assert torch.equal(together.get_state(), apart.get_state())
