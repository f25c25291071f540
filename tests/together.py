"""Processes that share a batch, played by threads: what each asks for is added up, or put side by side, for all."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

from mdp.core.processes import Processes

Answer = TypeVar("Answer")


def together(images: tuple[int, ...], work: Callable[[Processes], Answer]) -> list[Answer]:
    """What `work` gives in each of len(images) processes with so many images of a batch."""
    barrier = threading.Barrier(len(images), timeout=20)
    offered: list[Tensor] = [torch.empty(0)] * len(images)

    def exchange(rank: int, tensor: Tensor) -> list[Tensor]:
        offered[rank] = tensor.detach()
        barrier.wait()
        everyone = list(offered)
        barrier.wait()
        return everyone

    def process(rank: int) -> Answer:
        def all_sum(tensor: Tensor) -> Tensor:
            return torch.stack(exchange(rank, tensor)).sum(0)

        def gather(tensor: Tensor) -> Tensor:
            assert len(tensor) == images[rank]
            return torch.cat(exchange(rank, tensor))

        try:
            return work(Processes(images, rank, all_sum, gather))
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(len(images)) as pool:
        return list(pool.map(process, range(len(images))))
