"""Chance as an argument: generators made from keys, and the draws that torch offers no generator for.

A generator is made afresh from a key such as (seed, epoch, index), so that a draw depends on nothing but its key:
not on the number of workers, not on what was drawn before, not on where a run was resumed.
"""

import numpy as np
import torch
from torch import Tensor


def generator(*key: int | str) -> torch.Generator:
    """A CPU generator that is a pure function of `key`.

    The key is hashed by NumPy's `SeedSequence`; torch's CPU generator keeps 32 bits of it (a seed and the seed plus
    2^32 give the same stream), which is why keys are hashed and never added up.

    >>> torch.rand(1, generator=generator(0, "crop", 7)) == torch.rand(1, generator=generator(0, "crop", 7))
    tensor([True])
    """
    numbers = [int.from_bytes(part.encode()) if isinstance(part, str) else part for part in key]
    return torch.Generator().manual_seed(int(np.random.SeedSequence(numbers).generate_state(1)[0]))


def uniform(rng: torch.Generator, low: float, high: float) -> float:
    """One number from U(low, high)."""
    return low + (high - low) * float(torch.rand((), generator=rng))


def uniforms(rng: torch.Generator, *ranges: tuple[float, float]) -> list[float]:
    """One number from U(low, high) for each range: what as many calls of `uniform` give, by one call of torch.

    >>> rng, again = generator(7), generator(7)
    >>> uniforms(rng, (0, 1), (2, 5)) == [uniform(again, 0, 1), uniform(again, 2, 5)]
    True
    """
    shares = torch.rand(len(ranges), generator=rng).tolist()
    return [low + (high - low) * share for (low, high), share in zip(ranges, shares, strict=True)]


def coin(rng: torch.Generator, probability: float) -> bool:
    """True with the given probability."""
    return float(torch.rand((), generator=rng)) < probability


def beta(rng: torch.Generator, alpha: float, count: int) -> Tensor:
    """`count` draws from Beta(alpha, alpha), float32.

    torch's Beta distribution takes no generator, so the draw is NumPy's, seeded by one draw from `rng`.
    """
    seed = int(torch.randint(2**62, (), generator=rng))
    return torch.from_numpy(np.random.default_rng(seed).beta(alpha, alpha, count)).float()  # (count,)
