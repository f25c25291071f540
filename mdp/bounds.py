"""Bounds of settings: they stand beside a number's type, and are checked in one place.

A dataclass of settings writes `lr: Weight = 0.03`, or `Annotated[float, Bounds(0, 1)]` where no kind below fits, and
calls `check_bounds(self)` first of all in `__post_init__`.  What no number of a kind can mean is outside its bounds;
what needs more memory than there is may be inside them.  A setting that is one of a few words names them in its type
too, as `Annotated[str, Words("off", "memory")]`.  Plain data: nothing here needs NumPy or torch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import fields
from functools import cache
from typing import Annotated, Any, NamedTuple, Self, get_args, get_type_hints


class Bounds(NamedTuple):
    """The least and the largest value that a number may have."""

    low: float
    high: float
    unit: str = ""  # what is counted, where the words need it


class Words(tuple[str, ...]):
    """The words that a text may be."""

    __slots__ = ()

    def __new__(cls, *words: str) -> Self:
        return super().__new__(cls, words)


Count = Annotated[int, Bounds(0, 10**9)]  # of steps, epochs, images
Positive = Annotated[int, Bounds(1, 10**9)]
Side = Annotated[int, Bounds(1, 10**5)]  # pixels
Channels = Annotated[int, Bounds(1, 2**16)]
Share = Annotated[float, Bounds(0, 1)]
Temperature = Annotated[float, Bounds(1e-4, 1e4)]
Weight = Annotated[float, Bounds(0, 1e30)]  # rates, weights and norms: what float32 can hold; runs say if they diverge


def check_bounds(settings: Any) -> None:
    """Raises ValueError, naming the field, for a number outside its bounds or not finite, and for another word.

    None passes.

    >>> from dataclasses import dataclass
    >>> @dataclass
    ... class Example:
    ...     share: Share
    >>> check_bounds(Example(1.5))
    Traceback (most recent call last):
        ...
    ValueError: share: expected a number in [0, 1], got 1.5
    """
    for name, words in words_of(type(settings)).items():
        value = getattr(settings, name)
        for word in value if isinstance(value, tuple) else (value,):
            if word is not None and word not in words:
                raise ValueError(f"{name}: expected {', '.join(words[:-1])} or {words[-1]}, got {word!r}")
    for name, bounds in bounds_of(type(settings)).items():
        value = getattr(settings, name)
        numbers = _numbers(value)
        for bound, number in zip(_each(bounds, len(numbers)), numbers, strict=False):
            if not bound.low <= number <= bound.high:  # nor is nan
                wanted = _range(bound, number, several=isinstance(value, tuple | list | dict))
                raise ValueError(f"{name}: expected {wanted}, got {_plain(value)}")


def bounds_of(kind: type) -> dict[str, tuple[Bounds, ...]]:
    """The bounds of each field of numbers; of a tuple those of its places, one for all where it has any length."""
    found = {name: tuple(part for part in parts if isinstance(part, Bounds)) for name, parts in parts_of(kind).items()}
    return {name: bounds for name, bounds in found.items() if bounds}


def words_of(kind: type) -> dict[str, Words]:
    """The words of each field that may be a few only."""
    return {name: part for name, parts in parts_of(kind).items() for part in parts if isinstance(part, Words)}


@cache
def parts_of(kind: type) -> dict[str, list[Any]]:
    """What the type of each field is made of, at any depth."""
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: list(_within(hints[field.name])) for field in fields(kind)}


def _within(hint: Any) -> Iterator[Any]:
    yield hint
    for part in get_args(hint):
        yield from _within(part)


def _numbers(value: Any) -> Sequence[float]:
    """The numbers of a setting: itself, or those in it; a word in the place of numbers has none."""
    if value is None or isinstance(value, str):
        return ()
    return tuple(value.values()) if isinstance(value, dict) else value if isinstance(value, tuple | list) else (value,)


def _each(bounds: tuple[Bounds, ...], count: int) -> tuple[Bounds, ...]:
    return bounds[:1] * count if len(set(bounds)) == 1 else bounds


def _range(bound: Bounds, number: float, several: bool) -> str:
    noun = ("numbers" if several else "a number") + (f" of {bound.unit}" if bound.unit else "")
    if bound.high <= 1:
        return f"{noun} in [{bound.low}, {bound.high}]"
    limit = f"{bound.high:,} or less" if number > bound.high else f"{bound.low} or more"
    return f"numbers of {limit}" if several else limit


def _plain(value: Any) -> str:
    """A value as people write it; of a giant its size."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_plain(item)}' for key, item in value.items())}}}"
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_plain, value))}]"
    if isinstance(value, int) and value.bit_length() > 100:
        return f"a whole number of {value.bit_length()} bits"
    return str(value)
