"""Who sends which rows to whom: every process gets what its images ask for, and nothing is sent besides."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from mdp.core.processes import even_parts, plan_exchange, taken
from tests.laws import pure_call
from tests.tensors import rng_of, seeds


@given(seeds, st.integers(1, 20), st.integers(1, 6))
def test_an_exchange_gives_every_image_the_row_it_asks_for(seed: int, count: int, size: int) -> None:
    images = even_parts(count, size)
    index = torch.randint(count, (count,), generator=rng_of(seed))  # not a permutation: rows may be asked for twice
    rows = torch.arange(count).split(images)  # row i of the whole batch is the number i
    plans = [pure_call(plan_exchange, index, images, rank) for rank in range(size)]
    boxes = [rows[rank][plan.sent].split(plan.sent_to) for rank, plan in enumerate(plans)]  # [from][to]
    for rank, plan in enumerate(plans):
        assert plan.got_from == [len(boxes[sender][rank]) for sender in range(size)]
        found = torch.cat([boxes[sender][rank] for sender in range(size)])
        placed = torch.empty_like(found).index_copy_(0, plan.places, found)
        assert placed.tolist() == index.split(images)[rank].tolist()


def test_an_exchange_by_hand() -> None:
    first, second = (plan_exchange(torch.tensor([2, 0, 1]), (2, 1), rank) for rank in (0, 1))
    assert (first.sent.tolist(), first.sent_to, first.got_from) == ([0, 1], [1, 1], [1, 1])
    assert first.places.tolist() == [1, 0]  # its own row 0 comes first and is for its second image
    assert (second.sent.tolist(), second.sent_to, second.got_from, second.places.tolist()) == ([0], [1, 0], [1, 0], [0])


@given(seeds, st.integers(1, 9))
def test_taken_rows_are_those_that_the_index_names(seed: int, count: int) -> None:
    rows, index = torch.randn(count, 2, generator=rng_of(seed)), torch.randint(count, (5,), generator=rng_of(seed))
    assert torch.equal(pure_call(taken, rows, index), rows[index])
