"""Processes that share a batch, played by threads: what each asks for is added up, or put side by side, for all."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from mdp.core.processes import Processes, even_parts
from mdp.io.processes.world import World
from tests.patience import LONG

Answer = TypeVar("Answer")
Exchange = Callable[[Tensor], list[Tensor]]  # this process's tensor -> those of all, in order of rank


def together(images: tuple[int, ...], work: Callable[[Processes], Answer]) -> list[Answer]:
    """The answers of `work` in each of len(images) processes with so many images of a batch."""

    return _play(len(images), lambda rank, exchange: work(_processes(images, rank, exchange)))


def _processes(images: tuple[int, ...], rank: int, exchange: Exchange) -> Processes:
    def all_rows(tensor: Tensor, images: tuple[int, ...]) -> Tensor:
        assert len(tensor) == images[rank]
        return torch.cat(exchange(tensor))

    def some_rows(tensor: Tensor, index: Tensor, images: tuple[int, ...]) -> Tensor:
        return all_rows(tensor, images)[index.split(images)[rank]]

    return Processes(images, rank, lambda tensor: torch.stack(exchange(tensor)).sum(0), all_rows, some_rows)


class Played(World):
    """A world whose processes are threads."""

    exchange: Exchange

    def all_sum(self, tensor: Tensor) -> Tensor:
        return torch.stack(self.exchange(tensor)).sum(0)

    def share(self, batch: int) -> Processes:
        return _processes(even_parts(batch, self.size), self.rank, self.exchange)


def worlds(size: int, work: Callable[[World], Answer]) -> list[Answer]:
    """The answers of `work` in each process of a world of that size."""

    def process(rank: int, exchange: Exchange) -> Answer:
        world = Played(rank, size)
        world.exchange = exchange
        return work(world)

    return _play(size, process)


def _play(count: int, process: Callable[[int, Exchange], Answer]) -> list[Answer]:
    barrier = threading.Barrier(count, timeout=LONG)
    offered: list[Tensor] = [torch.empty(0)] * count

    def exchange(rank: int, tensor: Tensor) -> list[Tensor]:
        offered[rank] = tensor.detach()
        barrier.wait()
        everyone = list(offered)
        barrier.wait()
        return everyone

    def run(rank: int) -> Answer:
        try:
            return process(rank, partial(exchange, rank))
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))
