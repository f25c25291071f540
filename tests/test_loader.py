"""The loader: what of a batch cannot be read, what is begun ahead, and who hears of waiting."""

import weakref
from collections.abc import Generator
from pathlib import Path

import pytest
import torch

from mdp.io import datasets
from mdp.io.data import loader
from mdp.io.data.loader import Forgiving, TooMany, ahead, load, to_device
from mdp.io.data.pool import Pool
from mdp.io.data.selection import pool_of
from mdp.io.datasets._dataset import Sample
from mdp.io.errors import DatasetError, MdpError
from mdp.io.files import jpeg
from mdp.io.journal.journal import Journal
from mdp.io.processes.world import ALONE
from mdp.io.training.context import RunContext
from mdp.io.training.loop import DataWait

CPU = torch.device("cpu")


class Numbers:
    """Items that are their index; some cannot be read."""

    def __init__(self, *broken: int) -> None:
        self.broken = broken

    def __getitem__(self, key: tuple[int, int]) -> int | MdpError:
        return DatasetError(f"{key[1]} is broken") if key[1] in self.broken else key[1]


def keys(*batches: list[int]) -> list[list[tuple[int, int]]]:
    return [[(0, index) for index in batch] for batch in batches]


@pytest.mark.parametrize("workers", [0, 1])
def test_items_are_stacked_where_they_are_made_and_the_unreadable_are_reported(workers: int) -> None:
    told: list[str] = []
    batches = load(Numbers(3), iter(keys([1, 2], [3, 4], [3])), workers, lambda e: told.append(str(e)), torch.tensor)
    found = list(batches)
    assert [list(batch) for batch in found] == [[1, 2], [4], []]
    assert told == ["3 is broken"] * 2


def test_a_stand_in_takes_the_place_of_what_cannot_be_read_and_is_reported_once() -> None:
    told: list[str] = []
    items = Forgiving(Numbers(3, 4), 6)
    assert list(load(items, iter(keys([2, 3, 5])), 0, lambda e: told.append(str(e)), tuple)) == [(2, 5, 5)]
    assert told == ["3 is broken"]


def test_the_first_unreadable_item_stops_a_loader_that_may_not_skip_and_too_many_stop_any() -> None:
    with pytest.raises(DatasetError, match=r"^3 is broken"):
        list(load(Numbers(3, 4), iter(keys([1, 3, 4])), 0))
    with pytest.raises(TooMany, match="3 samples in a row"):
        list(load(Forgiving(Numbers(*range(9)), 9, tries=3), iter(keys([1])), 0, lambda _: None))


# Ahead of the step


def test_the_next_batch_is_begun_before_one_is_handed_out_and_none_is_lost() -> None:
    told: list[str] = []

    def begin(batch: int) -> int:
        told.append(f"begin {batch}")
        return 10 * batch

    def finish(batch: int) -> int:
        told.append(f"finish {batch}")
        return batch + 1

    source = (batch for batch in (1, 2, 3))
    assert list(ahead(source, begin, finish)) == [11, 21, 31]
    assert told == ["begin 1", "begin 2", "finish 10", "begin 3", "finish 20", "finish 30"]
    assert list(ahead((batch for batch in (7,)), begin, finish)) == [71]


def test_closing_what_runs_ahead_closes_the_loader() -> None:
    closed: list[bool] = []

    def source() -> Generator[int, None, None]:
        try:
            yield from range(9)
        finally:
            closed.append(True)

    running = ahead(source(), int, int)
    assert next(running) == 0
    running.close()
    assert closed == [True]


def test_a_cpu_gets_its_batches_as_they_are() -> None:
    source = (batch for batch in (1, 2))
    assert to_device(source, torch.device("cpu")) is source


def test_the_block_that_raises_glibcs_limits_is_large_enough_and_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[torch.Tensor]] = []
    empty = torch.empty

    def counted(size: int, dtype: torch.dtype) -> torch.Tensor:
        block = empty(size, dtype=dtype)
        assert 2**25 - 2**16 < block.nbytes < 2**25  # glibc's limits follow blocks of up to 32 MB, header included
        made.append(weakref.ref(block))
        return block

    monkeypatch.setattr(loader.torch, "empty", counted)
    loader.keep_freed_memory()
    assert len(made) == 1
    assert made[0]() is None


# Waiting


def said(tmp_path: Path, *steps: tuple[float, float], advice: str = "do this") -> str:
    """What the log has after steps that waited and took so many seconds."""
    data_wait = DataWait(Journal(tmp_path, 9, 1.0, quiet=True), advice)
    for waited, took in steps:
        data_wait.note(waited, took)
    log = tmp_path / "log.txt"
    return log.read_text() if log.exists() else ""


def test_a_run_that_waits_for_data_is_told_once_what_may_help(tmp_path: Path) -> None:
    text = said(tmp_path, *[(15.0, 30.0)] * 9)
    assert "50% of the last 60 s went into waiting for data: do this\n" in text
    assert text.count("\n") == 1


def test_where_hints_are_not_wanted_none_is_given(tmp_path: Path) -> None:
    assert said(tmp_path, *[(15.0, 30.0)] * 9, advice="") == ""
    pool = pool_with("a.jpg")
    context = RunContext(folder=tmp_path, journal=Journal(tmp_path, 1, 1.0), device=CPU, world=ALONE, hints=False)
    assert context.advice(pool, 0) == ""


KEEP = ", or --set run.cache=memory"


def pool_with(*photos: str) -> Pool:
    """A pool of photos of these names."""
    dataset = datasets.load("shapes-coarse")
    samples = [Sample(image=photo, labels="x.png", dataset=dataset.name) for photo in photos]
    return pool_of([(dataset, samples)])


@pytest.mark.parametrize(
    ("photos", "workers", "extra", "expected"),
    [
        (("a.png", "b.JPG"), 2, False, f"more --workers may help{KEEP}, or {jpeg.INSTALL}"),
        (("a.png", "b.jpg"), 2, True, f"more --workers may help{KEEP}"),
        (("a.png",), 2, False, "more --workers may help"),
        (("shapes-coarse train 3",), 0, False, "--workers 0 loads between the steps; raise it"),
        (("a.jpeg",), 0, False, f"--workers 0 loads between the steps; raise it{KEEP}, or {jpeg.INSTALL}"),
    ],
)
def test_the_decoder_is_recommended_where_jpeg_photos_are_read_without_it_and_workers_fit_what_there_are(
    photos: tuple[str, ...],
    workers: int,
    extra: bool,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jpeg, "simplejpeg", lambda: jpeg if extra else None)
    context = RunContext(folder=tmp_path, journal=Journal(tmp_path, 1, 1.0), device=CPU, world=ALONE)
    assert context.advice(pool_with(*photos), workers) == expected


def test_a_slow_start_or_a_fifth_of_the_time_is_not_worth_a_line(tmp_path: Path) -> None:
    assert said(tmp_path, (5.0, 6.0), (2.0, 40.0), (1.0, 14.0), (11.9, 60.0), (30.0, 59.0)) == ""
