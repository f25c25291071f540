"""The loader: lists of items made ahead by worker processes, whatever is wrong with one of them, and on to the device.

An item that cannot be read travels as its error, or in company of the one that stands in for it.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, nullcontext
from itertools import count
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from mdp.io.data.handing_over import Sender, Sent, memory_files
from mdp.io.data.pool import Key
from mdp.io.data.workers import NOBODY, POLL, Watch, Workers, quiet
from mdp.io.errors import DatasetError, MdpError, ResourceError

AHEAD = 2  # batches that each worker makes ahead


# What cannot be read


class Replaced(NamedTuple):
    """A sample that stands in for one that cannot be read."""

    item: Any
    error: MdpError


class TooMany(DatasetError):
    """So many samples in a row cannot be read that the trouble is not with them."""


class NoRoom(ResourceError):
    """A worker that could not hand over what it made."""


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

    def __init__(self, stack: Callable[[list[Any]], Any], sender: Sender | None) -> None:
        self.stack, self.sender = stack, sender

    def __call__(self, items: list[Any]) -> Made | Sent:
        errors = [item.error if isinstance(item, Replaced) else item for item in items]
        errors = [error for error in errors if isinstance(error, MdpError)]
        good = [item.item if isinstance(item, Replaced) else item for item in items if not isinstance(item, MdpError)]
        made = Made(errors, self.stack(good) if good else good)
        if self.sender is None:
            return made
        try:
            return self.sender.send(made)
        except OSError as error:
            reason = f"a loader process has no room to hand over a batch ({error.strerror}); try fewer --workers"
            return Made([NoRoom(reason)], [])


def load(
    dataset: Any,
    batches: Iterator[list[Key]],
    workers: int,
    skipped: Callable[[MdpError], None] | None = None,
    stack: Callable[[list[Any]], Any] = list,
    pin: bool = False,
    watch: Watch = NOBODY,
) -> Generator[Any, None, None]:
    """For each list of keys what `stack` makes of its items, made ahead by `workers` processes.

    `skipped` hears of samples that could not be read, which were replaced or are left out of their list; without it
    the first of them is raised.  With `pin` tensors lie in page-locked memory, from which a GPU copies by itself.
    `watch` hears of a worker that is silent; Preempted is raised when its stop is up and no batch comes.
    Raises ResourceError when a worker died.  Close the iterator when leaving early.
    """
    keep_freed_memory()
    sender = Sender(kept=AHEAD + 1) if workers and memory_files() else None
    crew, asked = Workers(watch), _Batches(batches)
    loader: DataLoader[Made] = DataLoader(
        dataset,
        batch_sampler=asked,
        num_workers=workers,
        collate_fn=Maker(stack, sender),
        pin_memory=pin,
        timeout=POLL if workers else 0,
        prefetch_factor=AHEAD if workers else None,
        worker_init_fn=_quiet_worker if workers else None,
        generator=torch.Generator(),  # an iterator without one would draw from the global generator
    )
    with crew.born() if workers else nullcontext():
        iterator = iter(loader)
    try:
        for number in count():
            made = _next(iterator, crew, number, asked)
            if made is None:
                return
            for problem in made.errors:
                if skipped is None or isinstance(problem, TooMany | NoRoom):
                    raise problem
                skipped(problem)
            yield made.batch
    finally:
        crew.end(iterator)
        del iterator  # now, not whenever it is collected


def _next(iterator: Iterator[Made | Sent], crew: Workers, number: int, asked: "_Batches") -> Made | None:
    """The batch of that number; None after the last."""
    while True:
        try:
            made = next(iterator)
            opened = made.opened() if isinstance(made, Sent) else made
        except StopIteration:
            return None
        except (RuntimeError, OSError) as error:
            if str(error).startswith("DataLoader timed out"):
                crew.look(number, asked.under_way[0] if asked.under_way else [])
                continue
            if crew.dead():
                raise crew.failure() from error
            raise
        crew.answered()
        asked.under_way.popleft()
        return opened


class _Batches:
    """An iterable over batches of keys, which is all that the loader asks of a batch sampler."""

    def __init__(self, batches: Iterator[list[Key]]) -> None:
        self.batches = batches
        self.under_way: deque[list[Key]] = deque()  # whose items are not there yet

    def __iter__(self) -> Iterator[list[Key]]:
        for batch in self.batches:
            self.under_way.append(batch)
            yield batch


def _quiet_worker(_: int) -> None:
    quiet()
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


def to_device(
    batches: Generator[Any, None, None],
    device: torch.device,
    make: Callable[[Any], Any] | None = None,
    finished: Callable[[Any], Any] | None = None,
) -> Generator[Any, None, None]:
    """Batches with their `images` and `labels` on the device; a GPU copies and finishes the next ones during a step.

    That has a stream of its own: on the step's it would wait until that is done.  `pin` the loader.  `make` makes a
    batch of what the loader gives, in that stream, and `finished` does on a GPU what workers do elsewhere.
    """
    if device.type != "cuda":
        return batches if make is None else _made(batches, make)
    beside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def begin(batch: Any) -> tuple[Any, torch.cuda.Event]:
        with torch.cuda.stream(beside):
            batch = batch if make is None else make(batch)
            moved = {name: _moved(getattr(batch, name), device) for name in ("images", "labels")}
            batch = batch._replace(**moved)
            return batch if finished is None else finished(batch), beside.record_event()

    def finish(begun: tuple[Any, torch.cuda.Event]) -> Any:
        batch, copied = begun
        present = torch.cuda.current_stream(device)
        present.wait_event(copied)
        for tensor in _tensors((batch.images, batch.labels)):
            tensor.record_stream(present)  # its memory is not for the next copy before the step has read it
        return batch

    return ahead(batches, begin, finish)


def _made(batches: Generator[Any, None, None], make: Callable[[Any], Any]) -> Generator[Any, None, None]:
    with closing(batches):
        yield from map(make, batches)


def _moved(value: Any, device: torch.device) -> Any:
    """A tensor, or a tuple of them, on the device."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    return tuple(_moved(item, device) for item in value)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    else:
        for item in value:
            yield from _tensors(item)
