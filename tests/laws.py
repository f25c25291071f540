"""Laws of every pure function: same answer twice, nothing written, no global generator touched."""

import random
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


def tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in nested tuples, lists, dicts, dataclasses and modules."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, torch.nn.Module):
        yield from value.state_dict(keep_vars=True).values()
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors(item)
    elif is_dataclass(value) and not isinstance(value, type):
        yield from tensors(list(vars(value).values()))


def generators(arguments: Any) -> list[torch.Generator]:
    return [value for value in arguments if isinstance(value, torch.Generator)]


def global_states() -> tuple[Any, ...]:
    numpys = np.random.get_state(legacy=False)  # noqa: NPY002
    drawn = {**numpys, "state": {**numpys["state"], "key": numpys["state"]["key"].tobytes()}}  # printing it takes long
    return random.getstate(), drawn, torch.get_rng_state().numpy().tobytes()


def same(first: Any, second: Any) -> bool:
    pairs = list(zip(tensors(first), tensors(second), strict=True))
    return all(a.shape == b.shape and torch.equal(a.isnan(), b.isnan()) for a, b in pairs) and all(
        torch.equal(torch.nan_to_num(a), torch.nan_to_num(b)) for a, b in pairs
    )


def pure_call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call `function` twice and return its answer, failing unless the call was pure.

    `torch.Generator` arguments are the one thing that may advance: both calls start from the same state.
    """
    rngs = generators([*args, *kwargs.values()])
    rng_states = [rng.get_state() for rng in rngs]
    versions = [tensor._version for tensor in tensors([args, kwargs])]
    arrays = [value.copy() for value in args if isinstance(value, np.ndarray)]
    before = global_states()
    first = function(*args, **kwargs)
    for rng, state in zip(rngs, rng_states, strict=True):
        rng.set_state(state)
    second = function(*args, **kwargs)
    assert global_states() == before, f"{function.__name__} touched a global generator"
    after = [tensor._version for tensor in tensors([args, kwargs])]
    assert after == versions, f"{function.__name__} wrote to an argument"
    for value, copy in zip([v for v in args if isinstance(v, np.ndarray)], arrays, strict=True):
        assert np.array_equal(value, copy), f"{function.__name__} wrote to an array"
    assert same(first, second), f"{function.__name__} gave two answers to the same arguments"
    if not list(tensors(first)):
        assert repr(first) == repr(second)
    return first
