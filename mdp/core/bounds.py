"""Bounds of settings, for those of mdp.core; they are plain data, which needs no torch, and stand in `mdp.bounds`."""

from mdp.bounds import (
    Bounds,
    Channels,
    Count,
    Positive,
    Share,
    Side,
    Temperature,
    Weight,
    Words,
    bounds_of,
    check_bounds,
    words_of,
)

__all__ = [
    "Bounds", "Channels", "Count", "Positive", "Share", "Side", "Temperature", "Weight", "Words", "bounds_of",
    "check_bounds", "words_of",
]  # fmt: skip
