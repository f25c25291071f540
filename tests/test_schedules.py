"""Schedules."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdp.core.schedules import cosine, polynomial, warm_up
from tests.laws import pure_call


@given(st.floats(0, 1), st.floats(0, 1))
def test_schedules_only_fall(a: float, b: float) -> None:
    early, late = sorted((a, b))
    assert pure_call(cosine, early) >= pure_call(cosine, late)
    assert pure_call(polynomial, early, 0.01, 1e-4) >= polynomial(late, 0.01, 1e-4)


@pytest.mark.parametrize(("step", "rate"), [(0, 0.01), (20000, 0.0054052786), (39999, 0.000100714)])
def test_the_polynomial_gives_the_published_rates(step: int, rate: float) -> None:
    assert polynomial(step / 40000, 0.01, 1e-4) == pytest.approx(rate, rel=1e-5)


@given(st.integers(0, 100), st.integers(0, 50))
def test_warm_up_reaches_one_and_stays(step: int, steps: int) -> None:
    assert 0 < warm_up(step, steps) <= 1
    assert warm_up(steps, steps) == 1
