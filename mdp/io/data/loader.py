"""The loader: lists of items made ahead by worker processes, whatever is wrong with one of them, and on to the device.

An item that cannot be read travels as its error, or in company of the one that stands in for it.
"""

import signal
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader

from mdp.io.data.pool import Key
from mdp.io.errors import DatasetError, MdpError, ResourceError

# What cannot be read


class Replaced(NamedTuple):
    """A sample that stands in for one that cannot be read."""

    item: Any
    error: MdpError


class TooMany(DatasetError):
    """So many samples in a row cannot be read that the trouble is not with them."""


class Forgiving:
    """Items of which one that cannot be read is replaced by the next that can, the same on every try."""

    def __init__(self, items: Any, count: int, tries: int = 10) -> None:
        self.items, self.count, self.tries = items, count, tries

    def __getitem__(self, key: Key) -> Any:
        first = self.items[key]
        if not isinstance(first, MdpError):
            return first
        for offset in range(1, self.tries):
            item = self.items[key[0], (key[1] + offset) % self.count]
            if not isinstance(item, MdpError):
                return Replaced(item, first)
        return TooMany(f"{self.tries} samples in a row cannot be read, the first: {first}")


# The loader


def own_parts(batches: Iterator[list[Key]], own: slice) -> Iterator[list[Key]]:
    """Of each batch of keys, this process's."""
    return (keys[own] for keys in batches)


class Made(NamedTuple):
    """A batch from a worker, and the samples that are missing from it."""

    errors: list[MdpError]  # of samples that cannot be read
    batch: Any  # what `stack` made of the others


class Maker:
    """List of items -> what a worker hands over; the main process raises the errors, for a worker would wrap them."""

    def __init__(self, stack: Callable[[list[Any]], Any]) -> None:
        self.stack = stack

    def __call__(self, items: list[Any]) -> Made:
        errors = [item.error if isinstance(item, Replaced) else item for item in items]
        errors = [error for error in errors if isinstance(error, MdpError)]
        good = [item.item if isinstance(item, Replaced) else item for item in items if not isinstance(item, MdpError)]
        return Made(errors, self.stack(good) if good else good)


def load(
    dataset: Any,
    batches: Iterator[list[Key]],
    workers: int,
    skipped: Callable[[MdpError], None] | None = None,
    stack: Callable[[list[Any]], Any] = list,
    pin: bool = False,
) -> Generator[Any, None, None]:
    """For each list of keys what `stack` makes of its items, made ahead by `workers` processes.

    `skipped` hears of samples that could not be read, which were replaced or are left out of their list; without it
    the first of them is raised.  With `pin` tensors lie in page-locked memory, from which a GPU copies by itself.
    Raises ResourceError when a worker died.  Close the iterator when leaving early: workers that ignore signals would
    otherwise hold up the exit.
    """
    keep_freed_memory()
    loader: DataLoader[Made] = DataLoader(
        dataset,
        batch_sampler=_Batches(batches),
        num_workers=workers,
        collate_fn=Maker(stack),
        pin_memory=pin,
        worker_init_fn=_quiet_worker if workers else None,
        generator=torch.Generator(),  # an iterator without one would draw from the global generator
    )
    iterator = iter(loader)
    try:
        while True:
            try:
                made = next(iterator)
            except StopIteration:
                return
            except RuntimeError as error:
                if "worker" not in str(error):
                    raise
                raise ResourceError(
                    f"a loader process died ({str(error).splitlines()[0]}); the machine may be out of memory or "
                    "shared memory: try --workers 0 or a smaller --batch-size"
                ) from error
            for problem in made.errors:
                if skipped is None or isinstance(problem, TooMany):
                    raise problem
                skipped(problem)
            yield made.batch
    finally:
        del iterator  # ends the workers now, not whenever it is collected


class _Batches:
    """An iterable over batches of keys, which is all that the loader asks of a batch sampler."""

    def __init__(self, batches: Iterator[list[Key]]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[list[Key]]:
        return self.batches


def _quiet_worker(_: int) -> None:
    """Workers leave signals to the main process, which closes them after its checkpoint, and use one thread."""
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(name, signal.SIG_IGN)
    torch.set_num_threads(1)
    keep_freed_memory()


def keep_freed_memory() -> None:
    """Lets glibc keep up to 64 MB that were freed; elsewhere it does nothing.

    It would hand back every photo's megabytes to the system, which clears them, page by page, for the next one: half
    of the time that reading takes.  Its limits rise with the largest block that was freed, 32 MB at most; the pages of
    this one are never touched.
    """
    torch.empty(2**25 - 2**13, dtype=torch.uint8)


# To the device


def ahead(
    batches: Generator[Any, None, None], begin: Callable[[Any], Any], finish: Callable[[Any], Any]
) -> Generator[Any, None, None]:
    """Each batch begun and finished, in order; the next one is begun before one is finished and handed out.

    `batches` is closed with it.
    """
    with closing(batches):
        begun: list[Any] = []
        for batch in batches:
            begun.append(begin(batch))
            if len(begun) > 1:
                yield finish(begun.pop(0))
        for last in begun:
            yield finish(last)


def to_device(batches: Generator[Any, None, None], device: torch.device) -> Generator[Any, None, None]:
    """Batches with their `images` and `labels` on the device; a GPU copies the next ones during a step.

    The copies have a stream of their own: on that of the step they would wait until it is done.  `pin` the loader.
    """
    if device.type != "cuda":
        return batches
    beside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def begin(batch: Any) -> tuple[Any, torch.cuda.Event]:
        with torch.cuda.stream(beside):
            moved = {name: getattr(batch, name).to(device, non_blocking=True) for name in ("images", "labels")}
            return batch._replace(**moved), beside.record_event()

    def finish(begun: tuple[Any, torch.cuda.Event]) -> Any:
        batch, copied = begun
        present = torch.cuda.current_stream(device)
        present.wait_event(copied)
        for tensor in (batch.images, batch.labels):
            tensor.record_stream(present)  # its memory is not for the next copy before the step has read it
        return batch

    return ahead(batches, begin, finish)
