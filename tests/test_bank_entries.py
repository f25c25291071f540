"""What the bank holds of a batch, against a bank of whole tables: the same totals and prototypes to the bit."""

from collections import deque

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mdp.core import bank_entries
from mdp.core.bank_entries import BLOCK, BankEntry, filled
from mdp.core.prototype_bank import (
    ClassSums,
    PrototypeBank,
    empty_bank,
    filled_classes,
    hold_rows,
    pack_bank,
    prototypes,
    push,
    unpack_bank,
)
from tests.laws import pure_call
from tests.tensors import rng_of, seeds

CHANNELS = 3
short_blocks = st.sampled_from([1, 2, 3, BLOCK])


def batches_of(seed: int, count: int, classes: int) -> list[ClassSums]:
    """Class sums of batches with any number of classes, none and all of them included."""
    rng, found = rng_of(seed), []
    for _ in range(count):
        share = float(torch.rand((), generator=rng)) * 1.4 - 0.2
        counts = torch.randint(1, 5, (classes,), generator=rng) * (torch.rand(classes, generator=rng) < share)
        found.append(ClassSums(torch.randn(classes, CHANNELS, generator=rng) * counts[:, None], counts))
    return found


class Tables:
    """The oracle: all tables, and a total to which each is added and from which it is taken, whole."""

    def __init__(self, classes: int, size: int) -> None:
        self.kept: deque[ClassSums] = deque()
        self.sums, self.counts, self.size = torch.zeros(classes, CHANNELS).double(), torch.zeros(classes).long(), size

    def push(self, batch: ClassSums) -> None:
        self.kept.append(batch)
        self.sums, self.counts = self.sums + batch.sums.double(), self.counts + batch.counts
        self.shrink(self.size)

    def shrink(self, size: int) -> None:
        self.size = size
        while len(self.kept) > size:
            gone = self.kept.popleft()
            self.sums, self.counts = self.sums - gone.sums.double(), self.counts - gone.counts

    def packed(self) -> dict[str, Tensor]:
        """As checkpoints had it when banks were tables."""
        return {
            "sums": torch.stack([batch.sums for batch in self.kept]),
            "counts": torch.stack([batch.counts for batch in self.kept]),
            "total_sums": self.sums,
            "total_counts": self.counts,
        }


def table(entry: BankEntry, classes: int) -> ClassSums:
    """The whole table of an entry."""
    if entry.classes is None:
        return ClassSums(entry.sums, entry.counts)
    sums, counts = torch.zeros(classes, CHANNELS), torch.zeros(classes).long()
    for row, label in enumerate(entry.classes.tolist()):
        sums[label], counts[label] = entry.sums[row], entry.counts[row]
    return ClassSums(sums, counts)


def assert_same(bank: PrototypeBank, oracle: Tables) -> None:
    assert torch.equal(bank.total.sums, oracle.sums)
    assert torch.equal(bank.total.counts, oracle.counts)
    assert len(bank.window) == len(oracle.kept)
    for entry, batch in zip(bank.window, oracle.kept, strict=True):
        held = table(entry, len(oracle.counts))
        assert torch.equal(held.sums, batch.sums)
        assert torch.equal(held.counts, batch.counts)


@given(seeds, st.integers(1, 6), st.integers(1, 9), st.integers(1, 24), short_blocks)
def test_a_bank_of_rows_has_the_bits_of_a_bank_of_tables(
    seed: int, classes: int, size: int, count: int, block: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bank_entries, "BLOCK", block)
        bank, oracle = empty_bank(classes, CHANNELS, size), Tables(classes, size)
        for batch in batches_of(seed, count, classes):
            before, bank = bank, push(bank, batch)
            oracle.push(batch)
            assert torch.equal(bank.total.sums, oracle.sums)
        assert_same(pure_call(push, before, batch), oracle)
        assert_same(bank, oracle)
        held = [entry for entry in bank.window if entry.classes is not None]
        assert all(entry.rows == int(filled(*table(entry, classes)).sum()) for entry in held)


@given(seeds, st.integers(1, 6), st.integers(1, 9), st.integers(1, 9), short_blocks)
def test_a_packed_bank_goes_on_with_the_same_bits_in_as_much_or_less_room(
    seed: int, classes: int, size: int, room: int, block: int
) -> None:
    batches = batches_of(seed, 15, classes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bank_entries, "BLOCK", block)
        bank, oracle = empty_bank(classes, CHANNELS, size), Tables(classes, size)
        for batch in batches[:10]:
            bank = push(bank, batch)
            oracle.push(batch)
        once = unpack_bank(oracle.packed(), room)  # of a checkpoint of tables
        back = unpack_bank(pure_call(pack_bank, bank), room)
        oracle.shrink(room)
        assert_same(once, oracle)
        assert_same(back, oracle)
        for batch in batches[10:]:
            back, once = push(back, batch), push(once, batch)
            oracle.push(batch)
        assert_same(back, oracle)
        for first, second in zip(pack_bank(back).values(), pack_bank(once).values(), strict=True):
            assert torch.equal(first, second)


def test_by_hand_two_of_three_classes() -> None:
    sums = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0], [4.0, 5.0, 6.0]])
    bank = empty_bank(3, CHANNELS, BLOCK)
    for _ in range(BLOCK):
        bank = push(bank, ClassSums(sums, torch.tensor([1, 0, 2])))
    for entry in bank.window:
        assert entry.sums.tolist() == [[1, 2, 3], [4, 5, 6]]
        assert entry.counts.tolist() == [1, 2]
        assert entry.classes is not None
        assert entry.classes.tolist() == [0, 2]
    bank = push(bank, ClassSums(torch.ones(3, CHANNELS), torch.tensor([1, 1, 1])))
    assert bank.total.sums.tolist() == [[16, 31, 46], [1, 1, 1], [61, 76, 91]]
    assert bank.total.counts.tolist() == [16, 1, 31]
    assert prototypes(bank, normalise=False).vectors[2].tolist() == pytest.approx([61 / 31, 76 / 31, 91 / 31])


def test_a_full_bank_takes_the_memory_of_the_rows_that_are_there() -> None:
    classes, size = 60, 8 * BLOCK
    counts = torch.zeros(classes).long()
    counts[::20] = 1  # three of sixty
    bank = empty_bank(classes, CHANNELS, size)
    for _ in range(size + BLOCK - 1):
        bank = push(bank, ClassSums(torch.rand(classes, CHANNELS) * counts[:, None], counts.clone()))
    pieces = {part.untyped_storage().data_ptr(): part.untyped_storage().nbytes()
              for entry in bank.window for part in entry[:3] if isinstance(part, Tensor)}  # fmt: skip
    rows = size * 3 * (4 * CHANNELS + 8)
    tables = BLOCK * classes * (4 * CHANNELS + 8)
    assert sum(pieces.values()) <= rows + tables
    packed = pack_bank(bank)
    assert sum(part.nbytes for part in packed.values()) == rows + 4 * size + classes * (8 * CHANNELS + 8)


def test_sums_of_a_class_without_images_are_no_less_kept() -> None:
    odd = ClassSums(torch.tensor([[1.0, 0.0, -1.0], [0.0, 0.0, 0.0]]), torch.tensor([0, 0]))
    assert pure_call(filled_classes, odd).tolist() == [True, False]
    bank = empty_bank(2, CHANNELS, BLOCK)
    for _ in range(2 * BLOCK):
        bank = push(bank, odd)
    assert bank.total.sums.tolist() == [[BLOCK, 0, -BLOCK], [0, 0, 0]]


def test_numbers_that_no_batch_can_have_are_refused() -> None:
    bank = empty_bank(2, CHANNELS, 3)
    with pytest.raises(ValueError, match="newest of 0 batches"):
        hold_rows(bank, 1)
    bank = push(bank, ClassSums(torch.ones(2, CHANNELS), torch.tensor([1, 1])))
    for wrong in (-1, 3):
        with pytest.raises(ValueError, match=f"{wrong} rows of the newest .* expected 0 to 2"):
            hold_rows(bank, wrong)
