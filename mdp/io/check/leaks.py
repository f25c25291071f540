"""Photos that are in training and validation alike, found across all datasets."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

from mdp.io.check.problem import Problem
from mdp.io.check.report import Report
from mdp.io.check.scan import Observation
from mdp.io.datasets._dataset import Sample

NEAR = 2  # bits in which the looks of near duplicates may differ
BANDS = ((0, 21), (21, 21), (42, 22))  # first bit and width: of three bands, two differing bits leave one alike


class Print(NamedTuple):
    """A photo as it is compared between splits."""

    image: str
    pixel_hash: str
    look: int | None


def prints_of(samples: Sequence[Sample], observations: Sequence[Observation]) -> list[Print]:
    return [
        Print(sample.image, image.pixel_hash, image.look)
        for sample, image in zip(samples, observations, strict=True)
        if not image.error
    ]


# In training and validation alike


def leaks(training: Sequence[Print], validation: Sequence[Print]) -> tuple[list[str], list[str]]:
    """The validation images whose very pixels are trained on, and those that only look like one that is."""
    same = {trained.pixel_hash: trained.image for trained in training}
    bands: dict[tuple[int, int], list[Print]] = {}
    for trained in training:
        for band in _bands(trained.look):
            bands.setdefault(band, []).append(trained)
    exact, near = [], []
    for scored in validation:
        if scored.pixel_hash in same:
            twin = same[scored.pixel_hash]
            exact.append(scored.image if twin == scored.image else f"{scored.image} is {twin}")
            continue
        alike = (
            other for band in _bands(scored.look) for other in bands.get(band, []) if _near(other.look, scored.look)
        )
        near += [f"{scored.image} is like {other.image}" for other in islice(alike, 1)]
    return exact, near


def _bands(look: int | None) -> list[tuple[int, int]]:
    """Parts of the 64 bits: what differs in two of them at most has one part in common."""
    if look is None:
        return []
    return [(band, look >> first & ((1 << width) - 1)) for band, (first, width) in enumerate(BANDS)]


def _near(a: int | None, b: int | None) -> bool:
    return a is not None and b is not None and (a ^ b).bit_count() <= NEAR


def with_leaks(reports: Sequence[Report], prints: Sequence[list[Print]], roles: Sequence[str]) -> list[Report]:
    """The reports; those of validation with what is trained on too."""
    training = [photo for some, role in zip(prints, roles, strict=True) if role == "train" for photo in some]
    return [
        report if role == "train" else replace(report, problems=(*report.problems, *_leak_problems(training, some)))
        for report, some, role in zip(reports, prints, roles, strict=True)
    ]


def _leak_problems(training: Sequence[Print], validation: Sequence[Print]) -> list[Problem]:
    exact, near = leaks(training, validation)
    texts = {
        "leak": (exact, "are also trained on; their scores mean little: leave them out by a `list:` file"),
        "near_leak": (near, "look like one that is trained on; see whether they are the same picture"),
    }
    return [
        Problem(kind, False, f"{len(files):,} of {len(validation):,} images {text}", len(files), tuple(files[:10]))
        for kind, (files, text) in texts.items()
        if files
    ]
